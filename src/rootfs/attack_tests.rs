//! What hostile images and volumes try, each named after the report of it (as root, in namespaces of its own).

use std::os::unix::fs::symlink;
use std::sync::atomic::Ordering;

use serde_json::json;

use super::native_tests::{Trial, host_mounts, is_root};

#[test]
fn cve_2019_19921_cve_2023_28642_proc_and_sys_of_the_image_must_be_no_links() {
    if !is_root() {
        return;
    }
    for (name, target) in [("proc", "/x"), ("sys", "/x"), ("proc", "x"), ("sys", "../../../sys")] {
        let trial = Trial::new();
        std::fs::create_dir(trial.root().join("x")).unwrap();
        symlink(target, trial.root().join(name)).unwrap();
        let error = trial.run("true").unwrap_err();
        assert!(error.contains("symbolic link"), "{error}");
    }
}

#[test]
fn cve_2026_41579_a_dev_that_leads_outside_is_made_inside() {
    if !is_root() {
        return;
    }
    for target in ["OUT", "../../../../OUT"] {
        let mut trial = Trial::new();
        trial.config["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        let out = trial.base.join("out");
        std::fs::create_dir(&out).unwrap();
        let target = target.replace("OUT", out.to_str().unwrap());
        symlink(&target, trial.root().join("dev")).unwrap();
        trial.config["linux"]["maskedPaths"] = json!(["/proc/kcore"]);
        trial.run("true").unwrap();
        assert_eq!(std::fs::read_dir(&out).unwrap().count(), 0, "{target}");
        let inside = trial.root().join(trial.base.strip_prefix("/").unwrap()).join("out/null");
        assert!(inside.exists(), "{target}");
    }
}

#[test]
fn cve_2025_31133_a_false_null_device_masks_nothing_and_fails() {
    if !is_root() {
        return;
    }
    let mut trial = Trial::new();
    trial.config["mounts"][1] =
        json!({"destination": "/dev", "type": "bind", "source": trial.base, "options": ["bind"]});
    trial.config["mounts"].as_array_mut().unwrap().truncate(2);
    symlink("/proc/version", trial.base.join("null")).unwrap();
    let error = trial.run("true").unwrap_err();
    assert!(error.contains("not the null device"), "{error}");
    std::fs::remove_file(trial.base.join("null")).unwrap();
    assert!(trial.run("true").unwrap_err().contains("/dev/null"));
}

#[test]
fn cve_2026_88264_a_console_that_is_a_link_is_refused() {
    if !is_root() {
        return;
    }
    let mut trial = Trial::new();
    let dev = trial.base.join("dev");
    std::fs::create_dir(&dev).unwrap();
    symlink(trial.base.join("evil"), dev.join("console")).unwrap();
    trial.config["mounts"][1] = json!({"destination": "/dev", "type": "bind", "source": dev, "options": ["bind"]});
    trial.config["linux"]["maskedPaths"] = json!([]);
    trial.terminal = true;
    let error = trial.run("true").unwrap_err();
    assert!(error.contains("/dev/console"), "{error}");
    assert!(!trial.base.join("evil").exists());
}

#[test]
fn cve_2021_30465_cve_2024_45310_a_destination_swapped_for_a_link_stays_inside() {
    if !is_root() {
        return;
    }
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    let volume = Trial::new();
    let (shared, outside) = (volume.base.join("shared"), volume.base.join("outside"));
    std::fs::create_dir_all(shared.join("x")).unwrap();
    std::fs::create_dir(&outside).unwrap();
    symlink(format!("../../../../../..{}", outside.display()), shared.join("y")).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let outcomes = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let (x, y) = (shared.join("x"), shared.join("y"));
                renameat2(AT_FDCWD, &x, AT_FDCWD, &y, RenameFlags::RENAME_EXCHANGE).unwrap();
            }
        });
        let devices = json!([{"path": "/vol/x/node", "type": "c", "major": 1, "minor": 3}]);
        let trial = Trial::new()
            .linux("devices", devices)
            .mount("/vol", "bind", &shared, &["rbind"])
            .mount("/vol/x/deep/er", "tmpfs", "tmpfs", &[])
            .mount("/vol/x/file", "bind", "/etc/hostname", &["bind"]);
        // Without a panic in between, or the racer would never end.
        let outcomes: Vec<_> =
            (0..100).map(|_| trial.run("/bin/busybox awk '$5~\"vol\"' /proc/self/mountinfo")).collect();
        stop.store(true, Ordering::Relaxed);
        outcomes
    });
    let started = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert!(started > 0, "{:?}", outcomes[0]);
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "something was made outside");
    assert_eq!(host_mounts(), 0);
}
