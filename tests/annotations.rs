//! Annotations that reach beyond the container and its bundle: an image may have put them into `config.json`, so that the
//! caller has to allow them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

use crate::harness::{Bundle, Outcome, peers_lack_it};

const OVERLAY: &str = "run.corten.rootfs.overlay";

/// Where the host says what is allowed.
const FILE: &str = "/etc/corten/allowed-annotations";

/// A bundle with an overlay above its root.
fn keeping(form: &str) -> Bundle {
    Bundle::new().set("/annotations", json!({OVERLAY: form})).sh("touch /written")
}

/// A directory of the host, and a bundle that keeps there what the container writes.
fn outside() -> (PathBuf, Bundle) {
    let bundle = keeping("tmpfs");
    let place = bundle.host_dir("place");
    let form = format!("dir={}", place.display());
    (place, bundle.set("/annotations", json!({OVERLAY: form})))
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).expect("read the directory").next().is_none()
}

/// The last record in the log, which is the error.
#[track_caller]
fn record(outcome: &Outcome) -> Value {
    let log = outcome.fails().log();
    serde_json::from_str(log.lines().last().unwrap_or_default()).unwrap_or_else(|e| outcome.fail(&e.to_string()))
}

/// Gives this test an `/etc` of its own, in which the file may be written.
fn own_etc(bundle: &Bundle) {
    let [upper, work] = ["etc/upper", "etc/work"].map(|name| bundle.host_dir(name));
    let options = format!("lowerdir=/etc,upperdir={},workdir={}", upper.display(), work.display());
    mount(Some("overlay"), "/etc", Some("overlay"), MsFlags::empty(), Some(&*options)).expect("mount an /etc");
    fs::create_dir_all("/etc/corten").expect("make the directory of the configuration");
}

#[test]
fn what_an_image_may_not_ask_for_is_refused_with_field_and_remedy() {
    if peers_lack_it() {
        return;
    }
    let (place, bundle) = outside();
    for (form, shown) in [
        (format!("dir={}", place.display()), place.display().to_string()),
        (format!("dir={}/new", place.display()), format!("{}/new", place.display())),
        ("dir=../place".to_owned(), "../place".to_owned()),
        ("dir=rootfs/../../place".to_owned(), "rootfs/../../place".to_owned()),
    ] {
        let bundle = Bundle::inside(bundle.sandbox().clone()).set("/annotations", json!({OVERLAY: form}));
        let error = record(&bundle.create());
        assert_eq!(error["field"], format!("/annotations/{OVERLAY}"));
        let hint =
            format!("`--allow-annotation {OVERLAY}` before the command allows it, or a line with that name in {FILE}");
        assert_eq!(error["hint"], hint);
        let sentence = format!(
            "create {}: /annotations/{OVERLAY}: keeps what the container writes in {shown}, outside of the bundle: an image \
             may have asked for it, so the caller has to allow it ({hint})",
            bundle.name()
        );
        assert_eq!(error["msg"], sentence);
        bundle.state().fails_with("does not exist");
        assert!(is_empty(&place), "{form}");
        // `check` says the same.
        let dir = bundle.path().to_str().expect("a plain path");
        let said = bundle.cmd(["check", "--format", "json", "--bundle", dir]).run();
        let findings = serde_json::from_str::<Value>(&said.code(1).stdout()).expect("JSON")["findings"].clone();
        assert_eq!(findings[0]["field"], error["field"], "{findings}");
        assert_eq!(format!("create {}: {}", bundle.name(), findings[0]["msg"].as_str().unwrap()), sentence);
    }
}

#[test]
fn the_caller_allows_it_by_an_option() {
    if peers_lack_it() {
        return;
    }
    let (place, bundle) = outside();
    for (options, enough) in [
        (&["--allow-annotation", OVERLAY][..], true),
        (&["--allow-annotation=run.corten.*"], true),
        (&["--allow-annotation", "*"], true),
        (&["--allow-annotation", OVERLAY, "--allow-annotation", "a.b"], true),
        (&["--allow-annotation", "a.b", "--allow-annotation", OVERLAY], true),
        (&["--allow-annotation", "run.corten."], false),
        (&["--allow-annotation", "run.corten.rootfs"], false),
        (&["--allow-annotation", "run.oci.*"], false),
    ] {
        let outcome = bundle.run_cmd().global(options).run();
        let dir = bundle.path().to_str().expect("a plain path");
        let said = bundle.cmd(["check", "--bundle", dir]).global(options).run();
        if enough {
            outcome.ok();
            said.code(0);
            assert!(place.join("upper/written").exists(), "{options:?}");
            fs::remove_dir_all(place.join("upper")).expect("remove the upper layer");
        } else {
            outcome.fails_with("the caller has to allow it");
            said.code(1).shows("the caller has to allow it");
            assert!(is_empty(&place), "{options:?}");
        }
    }
}

#[test]
fn the_host_allows_it_by_a_file_of_roots() {
    if peers_lack_it() {
        return;
    }
    let (place, bundle) = outside();
    own_etc(&bundle);
    let write = |text: &str| {
        fs::write(FILE, text).expect("write the file");
        fs::set_permissions(FILE, fs::Permissions::from_mode(0o644)).expect("set its mode");
        chown(FILE, Some(0), Some(0)).expect("give it to root");
    };
    for text in ["", "# run.corten.rootfs.overlay\n", "run.corten\nrun.oci.*\n", "x run.corten.rootfs.overlay\n"] {
        write(text);
        bundle.run().fails_with("the caller has to allow it");
        assert!(is_empty(&place), "{text:?}");
    }
    for text in ["run.corten.rootfs.overlay", "# by us\n\n  run.corten.* # all of them\n"] {
        write(text);
        bundle.run().ok();
        assert!(place.join("upper/written").exists(), "{text:?}");
        fs::remove_dir_all(place.join("upper")).expect("remove the upper layer");
    }
    // Who else may write to it could have allowed it.
    let harmless = keeping("tmpfs");
    fs::set_permissions(FILE, fs::Permissions::from_mode(0o664)).expect("set its mode");
    let error = record(&bundle.create());
    assert_eq!(error["field"], format!("/annotations/{OVERLAY}"));
    assert_eq!(error["hint"], "chown 0 and chmod go-w the file");
    let says = error["msg"].as_str().expect("a sentence").to_owned();
    let written =
        format!("create {}: read {FILE}: /annotations/{OVERLAY}: others than its owner may write to it", bundle.name());
    assert_eq!(says, written + " (chown 0 and chmod go-w the file)");
    harmless.run().ok();
    write("*");
    chown(FILE, Some(1000), Some(0)).expect("give it away");
    bundle.create().fails_with("it belongs to user 1000, not to 0");
    assert!(is_empty(&place));
    harmless.run().ok();
    // And the option does without the file.
    bundle.run_cmd().global(["--allow-annotation", OVERLAY]).run().ok();
}

#[test]
fn a_directory_in_the_bundle_needs_nobodys_word_and_no_link_or_mount_leads_out() {
    if peers_lack_it() {
        return;
    }
    let (place, bundle) = outside();
    let own = bundle.path().to_owned();
    fs::create_dir_all(own.join("a/b")).expect("make directories");
    symlink("a", own.join("inner")).expect("make a link");
    symlink(&place, own.join("outer")).expect("make a link");
    symlink("/proc/self/cwd", own.join("magic")).expect("make a link");
    fs::create_dir(own.join("mounted")).expect("make a directory");
    mount(Some(&place), &own.join("mounted"), None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("bind");
    let mut bundle = bundle;
    for (form, upper) in [
        ("dir=state", "state/upper"),
        ("dir=./a/b/c/", "a/b/c/upper"),
        ("dir=inner/d", "a/d/upper"),
        ("dir=.", "upper"),
    ] {
        bundle = bundle.set("/annotations", json!({OVERLAY: form}));
        bundle.run().ok();
        assert!(own.join(upper).join("written").exists(), "{form}");
    }
    for form in ["dir=outer", "dir=outer/new", "dir=mounted", "dir=mounted/new"] {
        bundle = bundle.set("/annotations", json!({OVERLAY: form}));
        for options in [&[][..], &["--allow-annotation", "*"]] {
            let outcome = bundle.run_cmd().global(options).run();
            let error = record(&outcome);
            assert_eq!(error["field"], format!("/annotations/{OVERLAY}"));
            assert_eq!(error["hint"], "write the absolute path of the directory, which the caller has to allow");
            outcome.fails_with("a link or a mount on the way leads out of the bundle").never_says("stays:");
        }
        let dir = own.to_str().expect("a plain path");
        bundle.cmd(["check", "--bundle", dir]).run().code(1).shows("leads out of the bundle");
    }
    bundle = bundle.set("/annotations", json!({OVERLAY: "dir=magic/new"}));
    bundle.run().fails_with(OVERLAY);
    assert!(is_empty(&place));
    assert_eq!(fs::metadata(own.join("state")).expect("the directory").mode() & 0o7777, 0o700);
}

#[test]
fn what_takes_rights_away_or_stays_in_the_container_needs_nobodys_word() {
    if peers_lack_it() {
        return;
    }
    let landlock = json!({"version": 1, "ruleset": {"handledAccessFS": ["make_sock"]}}).to_string();
    for (name, value) in [
        (OVERLAY, "tmpfs"),
        (OVERLAY, "readonly"),
        ("run.corten.landlock", landlock.as_str()),
        ("run.oci.seccomp_fail_unknown_syscall", "1"),
        ("run.oci.keep_original_groups", "1"),
        ("run.oci.delegate-cgroup", "init"),
        // Nobody obeys these.
        ("run.corten.rootfs.overlay.x", "dir=/tmp"),
        ("run.oci.hooks.stdout", "/tmp/x"),
        // No file of options at all.
        ("org.criu.config", ""),
        ("org.opencontainers.image.stopSignal", "15"),
    ] {
        Bundle::new().set("/annotations", json!({name: value})).args(["true"]).run().ok();
    }
}

#[test]
fn features_lists_all_that_are_obeyed() {
    if peers_lack_it() {
        return;
    }
    let told = Bundle::new().cmd(["features"]).run().json()["potentiallyUnsafeConfigAnnotations"].clone();
    let all = [
        "run.corten.landlock",
        OVERLAY,
        "org.systemd.property.",
        "run.oci.delegate-cgroup",
        "run.oci.keep_original_groups",
        "run.oci.seccomp_fail_unknown_syscall",
        "org.criu.config",
    ];
    assert_eq!(told, json!(all));
}

#[test]
fn options_of_criu_have_to_be_allowed() {
    if peers_lack_it() {
        return;
    }
    let bundle = Bundle::new().set("/annotations", json!({"org.criu.config": "/tmp/x"})).args(["true"]);
    let error = record(&bundle.run());
    assert_eq!(error["field"], "/annotations/org.criu.config");
    bundle.run_cmd().global(["--allow-annotation", "org.criu.config"]).run().ok();
}
