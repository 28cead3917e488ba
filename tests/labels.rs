//! AppArmor for real, where the machine has it (`integration/lab`): profiles of init and of exec, and their absence.

use serde_json::{Value, json};

use crate::harness::{Bundle, Kind, host_command, kind, skip};

/// A profile in the kernel for as long as the test runs.
struct Profile(String);

impl Profile {
    /// One that allows everything but what these rules deny; none where there is no AppArmor.
    fn load(name: &str, rules: &str) -> Option<Profile> {
        let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
        if !enabled.starts_with('Y') {
            skip("this kernel has no AppArmor");
            return None;
        }
        let name = format!("corten-test-{name}-{}", std::process::id());
        let rights = "file, capability, network, unix, signal, ptrace, mount, umount, pivot_root, userns,";
        let text = format!("profile {name} flags=(attach_disconnected) {{ {rights} {rules} }}\n");
        let profile = Profile(name);
        profile.parse("--replace", &text);
        Some(profile)
    }

    fn parse(&self, option: &str, text: &str) {
        let file = std::env::temp_dir().join(&self.0);
        std::fs::write(&file, text).expect("write the profile");
        host_command(&["apparmor_parser", option, "--skip-cache", file.to_str().expect("a plain path")]);
        std::fs::remove_file(&file).expect("remove the profile");
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        self.parse("--remove", &format!("profile {} {{ }}\n", self.0));
    }
}

const LOOK: &str = "cat /proc/self/attr/apparmor/current; echo x > /secret || echo denied";

impl Profile {
    fn seen(&self) -> String {
        format!("{} (enforce)\ndenied\n", self.0)
    }
}

#[test]
fn a_profile_holds_for_init() {
    let Some(profile) = Profile::load("init", "deny /secret w,") else { return };
    for no_new_privs in [true, false] {
        for bundle in [Bundle::new(), Bundle::new().userns()] {
            bundle
                .sh(LOOK)
                .set("/process/apparmorProfile", &*profile.0)
                .set("/process/noNewPrivileges", no_new_privs)
                .run()
                .ok()
                .prints(&profile.seen());
        }
    }
}

#[test]
fn a_profile_holds_for_an_exec() {
    let (Some(profile), Some(other)) =
        (Profile::load("exec", "deny /secret w,"), Profile::load("other", "deny /secret w,"))
    else {
        return;
    };
    let bundle = Bundle::new().args(["sleep", "60"]).set("/process/apparmorProfile", &*profile.0);
    bundle.run_detached().ok();
    bundle.exec(&["sh", "-c", LOOK]).ok().prints(&profile.seen());
    bundle.exec_cmd(&["--apparmor", &other.0], &["sh", "-c", LOOK]).run().ok().prints(&other.seen());
    let process = |profile: Value| {
        json!({"args": ["cat", "/proc/self/attr/apparmor/current"], "cwd": "/", "env": ["PATH=/bin"],
               "user": {"uid": 0, "gid": 0}, "apparmorProfile": profile})
    };
    bundle.exec_process(&process(json!(other.0))).ok().prints(&format!("{} (enforce)\n", other.0));
    bundle.exec_process(&process(Value::Null)).ok().prints("unconfined\n");
    bundle.delete_force().ok();
}

#[test]
fn a_profile_that_is_not_loaded_is_an_error() {
    let Some(profile) = Profile::load("none", "") else { return };
    let name = "corten-test-never-loaded";
    let outcome = Bundle::new().args(["true"]).set("/process/apparmorProfile", name).create();
    outcome.fails_with("/attr/").fails_with(name);
    if kind() == Kind::Corten {
        outcome.fails_with("/process/apparmorProfile").fails_with("apparmor_parser");
    }
    let bundle = Bundle::new().args(["sleep", "60"]).set("/process/apparmorProfile", &*profile.0);
    bundle.run_detached().ok();
    bundle.exec_cmd(&["--apparmor", name], &["true"]).run().fails_with("/attr/");
    bundle.delete_force().ok();
}

#[test]
fn no_file_of_the_image_takes_a_label_in() {
    let Some(profile) = Profile::load("procfs", "deny /secret w,") else { return };
    // CVE-2019-16884: files of the image where the container's procfs would be.
    let bundle = Bundle::new().without_mount("/proc").unset("/linux/maskedPaths").unset("/linux/readonlyPaths");
    for dir in ["self", "thread-self"] {
        std::fs::create_dir_all(bundle.rootfs().join("proc").join(dir).join("attr/apparmor")).expect("a false procfs");
    }
    let file = "/proc/self/attr/apparmor/exec";
    let bundle = bundle.file(file, "", 0o666).sh("echo x > /secret || echo denied");
    let outcome = bundle.set("/process/apparmorProfile", &*profile.0).run();
    if kind() == Kind::Corten || outcome.succeeded() {
        outcome.ok().prints("denied\n");
    }
}

#[test]
fn a_profile_goes_with_landlock_and_seccomp() {
    let Some(profile) = Profile::load("all", "deny /secret w,") else { return };
    let landlock = json!({"version": 1, "ruleset": {"handledAccessFS": ["make_dir", "write_file"]}, "rules": {
        "pathBeneath": [{"allowedAccess": ["write_file"], "paths": ["/secret", "/dev", "/proc"]}]}});
    let seccomp = json!({"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99}]});
    for no_new_privs in [true, false] {
        Bundle::new()
            .file("/secret", "", 0o666)
            .sh(LOOK)
            .set("/annotations", json!({"run.corten.landlock": landlock.to_string()}))
            .set("/linux/seccomp", seccomp.clone())
            .set("/process/apparmorProfile", &*profile.0)
            .set("/process/noNewPrivileges", no_new_privs)
            .run()
            .ok()
            .prints(&profile.seen());
    }
}
