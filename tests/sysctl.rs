//! `linux.sysctl`: only what a namespace of the container holds, in both spellings.

use serde_json::json;

use crate::harness::{Bundle, host_command, known_difference, skip};

fn with(key: &str, value: &str) -> Bundle {
    Bundle::new().set("/linux/sysctl", json!({key: value}))
}

#[test]
fn b90_sysctls_of_the_containers_own_namespaces_are_set() {
    with("net.ipv4.ip_forward", "1").args(["cat", "/proc/sys/net/ipv4/ip_forward"]).run().prints("1");
    with("net/ipv4/ip_forward", "1").args(["cat", "/proc/sys/net/ipv4/ip_forward"]).run().prints("1");
    with("kernel.msgmax", "4096").args(["cat", "/proc/sys/kernel/msgmax"]).run().prints("4096");
    with("kernel.shm_rmid_forced", "1").args(["cat", "/proc/sys/kernel/shm_rmid_forced"]).run().prints("1");
    with("fs.mqueue.msg_max", "11").args(["cat", "/proc/sys/fs/mqueue/msg_max"]).run().prints("11");
}

#[test]
fn b90_sysctls_of_a_shared_namespace_are_refused() {
    with("net.ipv4.ip_forward", "1")
        .without_ns("network")
        .without_mount("/sys")
        .without_mount("/sys/fs/cgroup")
        .args(["true"])
        .run()
        .fails_with("net.ipv4.ip_forward");
    with("kernel.msgmax", "4096")
        .without_ns("ipc")
        .without_mount("/dev/mqueue")
        .args(["true"])
        .run()
        .fails_with("kernel.msgmax");
    with("vm.swappiness", "60").args(["true"]).run().fails_with("vm.swappiness");
    with("kernel.sysrq", "0").args(["true"]).run().fails_with("kernel.sysrq");
    with("fs.file-max", "1000").args(["true"]).run().fails_with("fs.file-max");
}

#[test]
fn b90_a_network_joined_by_path_that_is_the_hosts_is_the_hosts() {
    if known_difference("crun", "a path is enough") {
        return;
    }
    let own = format!("/proc/{}/ns/net", std::process::id());
    // The main thread's network is not the test's; the runtime's own is.
    drop(own);
    let container = with("net.ipv4.ip_forward", "1").join("network", "/proc/self/ns/net");
    container
        .without_mount("/sys")
        .without_mount("/sys/fs/cgroup")
        .args(["true"])
        .run()
        .fails_with("net.ipv4.ip_forward");
}

#[test]
fn b90_the_host_name_has_a_field_of_its_own() {
    if known_difference("crun", "allows it in a UTS namespace") {
        return;
    }
    with("kernel.hostname", "x").args(["true"]).run().fails_with("kernel.hostname");
}

#[test]
fn b90_the_domain_name_may_be_set_in_a_uts_namespace() {
    with("kernel.domainname", "x.org").args(["cat", "/proc/sys/kernel/domainname"]).run().prints("x.org");
    with("kernel.domainname", "x.org")
        .without_ns("uts")
        .unset("/hostname")
        .args(["true"])
        .run()
        .fails_with("kernel.domainname");
}

#[test]
fn b90_a_key_that_climbs_is_refused() {
    for key in ["net/../kernel/sysrq", "net/ipv4/../../kernel/sysrq", "net.", "", "/net/x"] {
        with(key, "1").args(["true"]).run().fails();
    }
    // Whatever a broken runtime writes here does no harm.
    let file = "/proc/sys/kernel/printk_ratelimit_burst";
    let before = std::fs::read_to_string(file).expect("a sysctl of the host");
    with("net/../kernel/printk_ratelimit_burst", "433").args(["true"]).run().fails();
    assert_eq!(std::fs::read_to_string(file).expect("a sysctl of the host"), before);
}

#[test]
fn b90_a_value_or_key_that_the_kernel_does_not_take_is_named() {
    with("net.ipv4.ip_forward", "no number").args(["true"]).run().fails_with("ip_forward");
    with("net.no.such.key", "1").args(["true"]).run().fails_with_one_of(&["net.no.such.key", "net/no/such/key"]);
}

#[test]
fn b90_an_interface_with_a_dot_in_its_name_has_two_spellings() {
    let pause = Bundle::new().args(["sleep", "60"]);
    pause.run_detached().ok();
    let (pid, sandbox) = (pause.pid().to_string(), pause.sandbox().clone());
    let made = std::panic::catch_unwind(|| {
        host_command(&["nsenter", "-t", &pid, "-n", "ip", "link", "add", "e.9", "type", "veth", "peer", "name", "x9"]);
    });
    if made.is_err() {
        return skip("no veth interfaces here");
    }
    for key in ["net/ipv4/conf/e.9/rp_filter", "net.ipv4.conf.e/9.rp_filter"] {
        if known_difference("crun", "every dot is a slash") || known_difference("runc", "every dot is a slash") {
            return;
        }
        let container = Bundle::inside(sandbox.clone()).join("network", format!("/proc/{pid}/ns/net"));
        let container = container.set("/linux/sysctl", json!({key: "2"}));
        container.args(["cat", "/proc/sys/net/ipv4/conf/e.9/rp_filter"]).run().prints("2");
        Bundle::inside(sandbox.clone())
            .join("network", format!("/proc/{pid}/ns/net"))
            .set("/linux/sysctl", json!({"net.ipv4.conf.x9.rp_filter": "0"}))
            .args(["true"])
            .run()
            .ok();
    }
}

#[test]
fn b90_limits_of_a_user_namespace_may_be_set_in_it() {
    if known_difference("crun", "knows no user sysctls") || known_difference("runc", "knows no user sysctls") {
        return;
    }
    let container = with("user.max_user_namespaces", "7").userns();
    container.args(["cat", "/proc/sys/user/max_user_namespaces"]).run().prints("7");
    with("user.max_user_namespaces", "7").args(["true"]).run().fails_with("user.max_user_namespaces");
}
