//! A captured configuration fitted to the test's place, and what of it this machine cannot do.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit};
use serde_json::{Value, json};

use super::host::{Host, file_of, may_exceed_limits};
use crate::harness::{Kind, config, kind, skip};

/// Something that a document asks for and this machine or this version has not: a runtime has to refuse it by name.
pub struct Refusal {
    /// One of its kind is enough: without the kind the document is asked for again.
    pub kind: String,
    /// JSON pointers of the fields, one of which the error must name; empty if it is not the document that asks.
    pub fields: Vec<String>,
    /// What the error must say.
    pub words: Vec<String>,
}

/// A configuration that fits.
pub struct Fitted {
    pub config: Value,
    pub rootfs: PathBuf,
    pub refusals: Vec<Refusal>,
    /// Where hooks of the host leave the state that they were given.
    pub hook_states: Option<PathBuf>,
    /// Its program sleeps until it is killed.
    pub sleeps: bool,
}

/// Fits a configuration to the host. A second container of the same configuration has another `number`.
pub fn configuration(host: &Host, mut config: Value, bundle: &Path, number: usize) -> Fitted {
    let rootfs = root(host, &mut config, bundle, number);
    mounts(host, &mut config);
    namespaces(host, &mut config);
    cgroup(host, &mut config, number);
    let hook_states = hooks(host, &mut config, bundle);
    process(&mut config["process"]);
    masked_programs(host, &config, &rootfs);
    if kind() != Kind::Corten {
        without_what_peers_lack(&mut config);
    }
    let args = config["process"]["args"].as_array().expect("process.args");
    let sleeps = host.program(&rootfs, args[0].as_str().expect("a word"));
    let mut refusals = limits(&config);
    refusals.extend(labels(&config["process"], "/process"));
    refusals.extend(host_renamed(&config));
    Fitted { config, rootfs, refusals, hook_states, sleeps }
}

/// Peers write what asks for nothing, too; and one of them fails for capabilities that the machine's root has not.
pub fn without_what_peers_lack(config: &mut Value) {
    for part in ["pids", "memory", "cpu", "blockIO"] {
        config::unset(config, &format!("/linux/resources/{part}"));
    }
    config::unset(config, "/process/apparmorProfile");
    if may_exceed_limits() {
        return;
    }
    let sets = config.pointer_mut("/process/capabilities").and_then(Value::as_object_mut);
    for set in sets.into_iter().flat_map(|sets| sets.values_mut()).filter_map(Value::as_array_mut) {
        set.retain(|name| name != "CAP_SYS_RESOURCE");
    }
}

/// The host's id of the container's root.
fn owner(config: &Value) -> u32 {
    let lines = config.pointer("/linux/uidMappings").and_then(Value::as_array);
    let line = lines.into_iter().flatten().find(|line| line["containerID"] == 0);
    line.and_then(|line| line["hostID"].as_u64()).unwrap_or(0) as u32
}

fn root(host: &Host, config: &mut Value, bundle: &Path, number: usize) -> PathBuf {
    let path = config["root"]["path"].as_str().expect("root.path").to_owned();
    let rootfs = if path.starts_with('/') {
        let path = if number == 0 { path } else { format!("{path}-{number}") };
        config["root"]["path"] = host.word(&path).into();
        host.path(path)
    } else {
        bundle.join(path)
    };
    host.rootfs(&rootfs, owner(config));
    rootfs
}

/// All programs are links to one here: that one must not be masked with another.
fn masked_programs(host: &Host, config: &Value, rootfs: &Path) {
    let paths = config.pointer("/linux/maskedPaths").and_then(Value::as_array);
    for path in paths.into_iter().flatten().filter_map(Value::as_str).filter(|path| path.starts_with("/bin/")) {
        let file = rootfs.join(&path[1..]);
        let _ = fs::remove_file(&file);
        fs::hard_link(host.sandbox.dir().join("bin/busybox"), &file).expect("link a program that is to be masked");
    }
}

fn is_bind(mount: &Value) -> bool {
    let options = mount["options"].as_array();
    mount["type"] == "bind" || options.into_iter().flatten().any(|option| option == "bind" || option == "rbind")
}

fn mounts(host: &Host, config: &mut Value) {
    for mount in config::list(config, "/mounts").iter_mut().filter(|mount| is_bind(mount)) {
        let source = mount["source"].as_str().expect("the source of a bind mount");
        mount["source"] = host.source(source).display().to_string().into();
    }
}

/// Namespaces that the engine had made are made by a process of the test.
fn namespaces(host: &Host, config: &mut Value) {
    let joined: Vec<String> = config::list(config, "/linux/namespaces")
        .iter()
        .filter(|ns| ns.get("path").is_some())
        .map(|ns| ns["type"].as_str().expect("a kind of namespace").to_owned())
        .collect();
    if joined.is_empty() {
        return;
    }
    let kinds: Vec<&str> = joined.iter().map(String::as_str).collect();
    let pid = host.holder(&kinds, &config["linux"]["uidMappings"], &config["linux"]["gidMappings"]);
    for ns in config::list(config, "/linux/namespaces").iter_mut().filter(|ns| ns.get("path").is_some()) {
        ns["path"] = format!("/proc/{pid}/ns/{}", file_of(ns["type"].as_str().unwrap_or_default())).into();
    }
}

/// Below the test's cgroup. None asked for is none asked for; a path for systemd stays as it is.
fn cgroup(host: &Host, config: &mut Value, number: usize) {
    let Some(path) = config.pointer_mut("/linux/cgroupsPath") else { return };
    let text = path.as_str().expect("linux.cgroupsPath").to_owned();
    if text.starts_with('/') {
        let apart = if number == 0 { String::new() } else { format!("-{number}") };
        *path = format!("{}{text}{apart}", host.sandbox.cgroup_name()).into();
    }
}

/// A path for systemd as one for the cgroupfs driver.
pub fn without_systemd(host: &Host, config: &mut Value) {
    let Some(path) = config.pointer_mut("/linux/cgroupsPath") else { return };
    let text = path.as_str().expect("linux.cgroupsPath").replace(':', "/");
    *path = format!("{}/{text}", host.sandbox.cgroup_name()).into();
}

/// Programs of engines that are not here leave the state that they are given; so do the scenarios' own, elsewhere.
fn hooks(host: &Host, config: &mut Value, bundle: &Path) -> Option<PathBuf> {
    const SCENARIOS: &str = "/tmp/hook.state";
    let mut states = None;
    for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        let Some(list) = config.pointer_mut(&format!("/hooks/{kind}")).and_then(Value::as_array_mut) else { continue };
        for hook in list {
            let path = hook["path"].as_str().expect("the path of a hook");
            let file = if path.starts_with("/proc/") { bundle.join("hook.state") } else { host.path(SCENARIOS) };
            fs::create_dir_all(file.parent().expect("a parent")).expect("make the directory of the states");
            if path.starts_with("/proc/") {
                hook["path"] = "/bin/busybox".into();
                hook["args"] = json!(["sh", "-c", format!("cat >>{}", file.display())]);
            } else {
                let args = hook["args"].to_string().replace(SCENARIOS, &file.display().to_string());
                hook["args"] = serde_json::from_str(&args).expect("still JSON");
            }
            if matches!(kind, "prestart" | "createRuntime" | "createContainer") {
                states = Some(file);
            }
        }
    }
    states
}

/// What the test's process may not do, it cannot pass on.
pub fn process(process: &mut Value) {
    if may_exceed_limits() {
        return;
    }
    // The runtime warns of it, as it should.
    let sets = process.get_mut("capabilities").and_then(Value::as_object_mut);
    for set in sets.into_iter().flat_map(|sets| sets.values_mut()).filter_map(Value::as_array_mut) {
        if set.iter().any(|name| name == "CAP_SYS_RESOURCE") {
            skip("CAP_SYS_RESOURCE of the container: it is not there");
            set.retain(|name| name != "CAP_SYS_RESOURCE");
        }
    }
    for limit in process.get_mut("rlimits").and_then(Value::as_array_mut).into_iter().flatten() {
        let resource = match limit["type"].as_str() {
            Some("RLIMIT_NOFILE") => Resource::RLIMIT_NOFILE,
            Some("RLIMIT_NPROC") => Resource::RLIMIT_NPROC,
            _ => continue,
        };
        let (_, most) = getrlimit(resource).expect("ask for a limit");
        for key in ["soft", "hard"] {
            if limit[key].as_u64().is_some_and(|number| number > most) {
                skip(&format!("{} {key} {} → {most}: CAP_SYS_RESOURCE is not there", limit["type"], limit[key]));
                limit[key] = most.into();
            }
        }
    }
    let least: i64 = fs::read_to_string("/proc/self/oom_score_adj")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .expect("our own oom_score_adj");
    if process["oomScoreAdj"].as_i64().is_some_and(|adj| adj < least) {
        skip(&format!("oomScoreAdj {} → {least}: CAP_SYS_RESOURCE is not there", process["oomScoreAdj"]));
        process["oomScoreAdj"] = least.into();
    }
}

/// Limits whose controller is not there. Values that mean "unset" ask for nothing.
pub fn limits(config: &Value) -> Vec<Refusal> {
    let resources = &config["linux"]["resources"];
    let number = |pointer: &str| resources.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let list = |pointer: &str| resources.pointer(pointer).and_then(Value::as_array).map_or(0, Vec::len);
    let text = |pointer: &str| resources.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let asked = [
        ("pids", "/pids/limit", number("/pids/limit") > 0),
        ("memory", "/memory/limit", number("/memory/limit") > 0),
        ("memory", "/memory/swap", number("/memory/swap") > number("/memory/limit").max(0)),
        ("memory", "/memory/reservation", number("/memory/reservation") > 0),
        ("cpu", "/cpu/shares", number("/cpu/shares") > 0),
        ("cpu", "/cpu/quota", number("/cpu/quota") > 0),
        ("cpuset", "/cpu/cpus", !text("/cpu/cpus").is_empty()),
        ("cpuset", "/cpu/mems", !text("/cpu/mems").is_empty()),
        ("io", "/blockIO/weight", number("/blockIO/weight") > 0),
        ("io", "/blockIO/throttleReadBpsDevice", list("/blockIO/throttleReadBpsDevice") > 0),
    ];
    let available = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").expect("read the controllers");
    let lacks = |controller: &str| !available.split_whitespace().any(|have| have == controller);
    let mut refusals: Vec<Refusal> = Vec::new();
    for (controller, field, _) in asked.into_iter().filter(|(controller, _, asked)| *asked && lacks(controller)) {
        let field = format!("/linux/resources{field}");
        match refusals.iter_mut().find(|refusal| refusal.kind == controller) {
            Some(refusal) => refusal.fields.push(field),
            None => {
                let words = vec![format!("{controller} controller")];
                refusals.push(Refusal { kind: controller.into(), fields: vec![field], words });
            }
        }
    }
    refusals
}

/// A profile of a security module that the kernel has not.
pub fn labels(process: &Value, at: &str) -> Option<Refusal> {
    let profile = process.get("apparmorProfile")?.as_str()?;
    if Path::new("/sys/kernel/security/apparmor").exists() || profile.is_empty() || profile == "unconfined" {
        return None;
    }
    let fields = vec![format!("{at}/apparmorProfile")];
    Some(Refusal { kind: "AppArmor".into(), fields, words: vec!["AppArmor".into()] })
}

/// A host name for a container without a UTS namespace of its own: no runtime renames the host.
fn host_renamed(config: &Value) -> Option<Refusal> {
    let namespaces = config["linux"]["namespaces"].as_array();
    let own = namespaces.into_iter().flatten().any(|ns| ns["type"] == "uts");
    let renamed = !own && config["hostname"].as_str().is_some_and(|name| !name.is_empty());
    let (fields, words) = (vec!["/hostname".into()], vec!["uts namespace".into()]);
    renamed.then(|| Refusal { kind: "a host name".into(), fields, words })
}

/// Takes out of a document what was refused.
pub fn without(document: &mut Value, refusal: &Refusal) {
    for field in &refusal.fields {
        config::unset(document, field);
    }
    let part = match refusal.kind.as_str() {
        "memory" => "memory",
        "io" => "blockIO",
        _ => return,
    };
    config::unset(document, &format!("/linux/resources/{part}"));
}
