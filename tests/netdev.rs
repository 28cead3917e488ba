//! Network devices of the host that become the container's (`linux.netDevices`, runtime-spec 1.3).

use serde_json::json;

use crate::harness::{Bundle, host_command, known_difference};

/// A bundle on whose host there are a device `mv0` and its peer `far`; none for a runtime that does not know the field.
fn with_device() -> Option<Bundle> {
    if known_difference("runc", "moves network devices from 1.4 on") {
        return None;
    }
    let bundle = Bundle::new();
    host_command(&["ip", "link", "add", "mv0", "type", "veth", "peer", "name", "far"]);
    Some(bundle)
}

fn is_on_host(name: &str) -> bool {
    std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default().contains(&format!("{name}:"))
}

#[test]
fn a_device_is_moved_with_its_addresses_and_is_up() {
    let Some(bundle) = with_device() else { return };
    let bundle = bundle.set("/linux/netDevices", json!({"mv0": {}}));
    host_command(&["ip", "addr", "add", "192.0.2.7/24", "dev", "mv0"]);
    host_command(&["ip", "addr", "add", "2001:db8::7/64", "dev", "mv0"]);
    host_command(&["ip", "addr", "add", "169.254.3.3/16", "scope", "link", "dev", "mv0"]);
    let seen = bundle.sh("ip addr show dev mv0").run();
    seen.ok().shows("192.0.2.7/24").shows("2001:db8::7/64").shows("UP").hides("169.254.3.3");
    assert!(!is_on_host("mv0"));
}

#[test]
fn a_device_gets_the_name_asked_for() {
    let Some(bundle) = with_device() else { return };
    let bundle = bundle.set("/linux/netDevices", json!({"mv0": {"name": "in0"}}));
    host_command(&["ip", "addr", "add", "192.0.2.7/24", "dev", "mv0"]);
    host_command(&["ip", "link", "set", "mv0", "up"]);
    bundle.sh("ip addr show dev in0; ip link show dev mv0").run().shows("192.0.2.7/24").hides("mv0:");
}

#[test]
fn a_template_leaves_the_number_to_the_kernel() {
    let Some(bundle) = with_device() else { return };
    let bundle = bundle.set("/linux/netDevices", json!({"mv0": {"name": "t%d"}, "far": {"name": "t%d"}}));
    host_command(&["ip", "addr", "add", "192.0.2.7/24", "dev", "mv0"]);
    if known_difference("crun", "looks for a device that is called so") {
        return;
    }
    bundle.sh("ip addr show dev t0; ip addr show dev t1").run().ok().shows("192.0.2.7/24").shows("t1");
}

#[test]
fn a_device_of_a_joined_network_and_of_a_user_namespace() {
    let Some(pod) = with_device() else { return };
    let pod = pod.args(["sleep", "60"]);
    pod.run_detached().ok();
    let other = Bundle::inside(pod.sandbox().clone()).join("network", format!("/proc/{}/ns/net", pod.pid()));
    let other = other.set("/linux/netDevices", json!({"mv0": {}}));
    other.args(["ip", "link", "show", "dev", "mv0"]).run().ok().shows("UP");
    let own = Bundle::inside(pod.sandbox().clone()).userns().set("/linux/netDevices", json!({"far": {}}));
    // Its parameters are there, too.
    let own = own.set("/linux/sysctl", json!({"net.ipv4.conf.far.rp_filter": "2"}));
    own.sh("ip link show dev far; cat /proc/sys/net/ipv4/conf/far/rp_filter").run().ok().shows("UP").shows("\n2\n");
    pod.delete_force().ok();
}

#[test]
fn a_device_that_is_not_there_or_a_name_that_is_taken_is_an_error_and_nothing_is_moved() {
    let Some(bundle) = with_device() else { return };
    let bundle = bundle.args(["true"]);
    let bundle = bundle.set("/linux/netDevices", json!({"mv0": {"name": "lo"}}));
    bundle.run().fails();
    let bundle = bundle.set("/linux/netDevices", json!({"nosuch0": {}}));
    bundle.run().fails();
    if known_difference("crun", "moves first") {
        return;
    }
    assert!(is_on_host("mv0"));
    let bundle = bundle.set("/linux/netDevices", json!({"mv0": {}, "nosuch0": {}}));
    bundle.run().fails_with("nosuch0");
    assert!(is_on_host("mv0"));
}

#[test]
fn a_joined_network_that_is_the_hosts_gets_no_device() {
    let Some(bundle) = with_device() else { return };
    let own = format!("/proc/{}/task/{}/ns/net", std::process::id(), nix::unistd::gettid());
    let bundle = bundle.join("network", own).set("/linux/netDevices", json!({"mv0": {}})).args(["true"]);
    if known_difference("crun", "does not mind") {
        return;
    }
    bundle.run().fails_with("netDevices");
    assert!(is_on_host("mv0"));
}
