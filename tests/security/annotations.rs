//! Annotations of an image, which engines copy into `config.json`: what they ask of the host is the caller's to allow.

use std::os::unix::fs::symlink;

use serde_json::json;

use crate::attack::Outside;
use crate::harness::{Bundle, peers_lack_it};

/// A program of root's with the set-user-id bit, as an image has it or makes it.
const SETUID: &str = "cp /bin/busybox /su && chmod 4755 /su && stat -c %a /su";

#[test]
fn ghsa_2cgq_h8xw_2v5j_no_property_of_the_unit_reaches_the_host() {
    if peers_lack_it() {
        return;
    }
    for (property, value) in [
        ("SuccessAction", "'none'"),
        ("Conflicts", "['corten-no-such.service']"),
        ("OnFailure", "['corten-no-such.service']"),
        ("MemoryMax", "uint64 18446744073709551615"),
    ] {
        let name = format!("org.systemd.property.{property}");
        let bundle = Bundle::new().set("/linux/cgroupsPath", "corten.slice:corten:never").args(["true"]);
        let bundle = bundle.set("/annotations", json!({&name: value})).global("--cgroup-manager=systemd");
        bundle.run().fails_with(&format!("/annotations/{name}: sets {property} of the container's systemd unit"));
    }
}

#[test]
fn runtime_spec_1202_the_root_leaves_no_program_on_the_host() {
    for form in ["dir=/OUT", "dir=/OUT/new", "dir=RELATIVE", "idmap,dir=/OUT", "dir=./../host/outside", "dir=link/new"]
    {
        let bundle = Bundle::new().caps(&["CAP_FSETID", "CAP_CHOWN", "CAP_FOWNER"]).sh(SETUID);
        let outside = Outside::of(&bundle);
        symlink(outside.dir(), bundle.path().join("link")).expect("make a link");
        let form = form.replace("/OUT", &outside.absolute()).replace("RELATIVE", &outside.relative());
        let bundle = if form.starts_with("idmap") { bundle.userns() } else { bundle };
        let seen = bundle.set("/annotations", json!({"run.corten.rootfs.overlay": form})).run();
        if !peers_lack_it() {
            seen.fails_with("/annotations/run.corten.rootfs.overlay: ");
        }
        outside.is_untouched();
    }
}
