//! What CRIU is asked for by `checkpoint`: worked out from the options and facts, without a side effect.

use std::os::fd::RawFd;
use std::path::PathBuf;

use super::rpc::{CgroupMode, NetworkLock, RequestType, RpcOptions};
use crate::error::{Error, Result};
use crate::sys::ns;

/// The name of the log in the work directory.
pub const LOG: &str = "dump.log";

/// The options of `checkpoint` that CRIU carries out.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// Images of an earlier pre-dump, relative to the images directory.
    pub parent_path: Option<PathBuf>,
    /// The container runs on.
    pub leave_running: bool,
    /// The memory alone is written, and the container runs on.
    pub pre_dump: bool,
    /// TCP connections are kept.
    pub tcp_established: bool,
    /// TCP connections that are being made are left out.
    pub tcp_skip_in_flight: bool,
    /// Deleted files that have another name are linked.
    pub link_remap: bool,
    /// External unix sockets are allowed.
    pub ext_unix_sk: bool,
    /// The caller's terminal is allowed.
    pub shell_job: bool,
    /// Memory is served to whoever restores.
    pub lazy_pages: bool,
    /// File locks are kept.
    pub file_locks: bool,
    /// Pages of earlier images that are written again are taken out of those.
    pub auto_dedup: bool,
    /// Where memory is sent.
    pub page_server: Option<(String, u16)>,
    /// What is done about cgroups.
    pub cgroup_mode: CgroupMode,
    /// How the network is locked.
    pub network_lock: Option<NetworkLock>,
    /// The content of the network namespace is left out.
    pub empty_network: bool,
}

/// What is known of the container.
#[derive(Clone, Debug, Default)]
pub struct DumpFacts {
    /// Its first process.
    pub pid: i32,
    /// Its root on the host.
    pub rootfs: PathBuf,
    /// The directory of its cgroup.
    pub cgroup: Option<String>,
    /// The mount points of mounts from outside.
    pub mounts: Vec<String>,
    /// Namespaces that it has joined, by their names below `/proc/PID/ns`, with their inodes.
    pub joined: Vec<(String, u64)>,
    /// Whether its network namespace has devices beside the loopback device, which CRIU could not make again.
    pub has_devices: bool,
    /// CRIU's own options for it.
    pub config_file: Option<PathBuf>,
}

/// Namespaces from outside that CRIU can be given when it restores, with their keys (runc's).
pub const EXTERNAL_NAMESPACES: [(&str, &str); 2] = [("net", "extRootNetNS"), ("pid", "extRootPidNS")];

/// The request. `images` and `work` are the directories, open.
pub fn request(flags: &Flags, facts: DumpFacts, images: RawFd, work: RawFd) -> (RequestType, RpcOptions) {
    let mut external: Vec<String> = facts.mounts.iter().map(|point| format!("mnt[{point}]:{point}")).collect();
    for (file, inode) in &facts.joined {
        let known = EXTERNAL_NAMESPACES.iter().find(|(name, _)| name == file);
        external.extend(known.map(|(name, key)| format!("{name}[{inode}]:{key}")));
    }
    let joins_network = facts.joined.iter().any(|(file, _)| file == "net");
    let empty = flags.empty_network || (facts.has_devices && !joins_network);
    let options = RpcOptions {
        images_dir_fd: images,
        work_dir_fd: work,
        log_file: LOG,
        pid: facts.pid,
        root: facts.rootfs,
        leave_running: flags.leave_running && !flags.pre_dump,
        ext_unix_sk: flags.ext_unix_sk,
        tcp_established: flags.tcp_established,
        tcp_skip_in_flight: flags.tcp_skip_in_flight,
        shell_job: flags.shell_job,
        file_locks: flags.file_locks,
        link_remap: flags.link_remap,
        auto_dedup: flags.auto_dedup,
        lazy_pages: flags.lazy_pages,
        orphan_pts_master: true,
        notify_scripts: true,
        track_mem: flags.pre_dump || flags.parent_path.is_some(),
        parent_img: flags.parent_path.clone(),
        page_server: flags.page_server.clone(),
        cgroup_mode: flags.cgroup_mode,
        freeze_cgroup: facts.cgroup,
        empty_ns: if empty { ns::Flags::NETWORK } else { ns::Flags::empty() },
        external,
        network_lock: flags.network_lock,
        config_file: facts.config_file,
        ..RpcOptions::default()
    };
    (if flags.pre_dump { RequestType::SinglePreDump } else { RequestType::Dump }, options)
}

/// Reads `ADDRESS:PORT`.
pub fn page_server(text: &str) -> Result<(String, u16)> {
    let parse = || {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|&port| port > 0)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        (!host.is_empty()).then(|| (host.to_owned(), port))
    };
    parse().ok_or_else(|| Error::new(format!("{text:?} is not ADDRESS:PORT")).field("--page-server"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> DumpFacts {
        DumpFacts {
            pid: 7,
            rootfs: "/b/rootfs".into(),
            cgroup: Some("/sys/fs/cgroup/c".into()),
            ..DumpFacts::default()
        }
    }

    #[test]
    fn a_dump_ends_the_container_and_a_pre_dump_does_not() {
        let (kind, options) = request(&Flags::default(), facts(), 4, 5);
        assert_eq!((kind, options.leave_running, options.track_mem), (RequestType::Dump, false, false));
        assert_eq!((options.pid, options.images_dir_fd, options.work_dir_fd, options.log_file), (7, 4, 5, "dump.log"));
        let flags = Flags { pre_dump: true, leave_running: true, ..Flags::default() };
        let (kind, options) = request(&flags, facts(), 4, 5);
        assert_eq!((kind, options.leave_running, options.track_mem), (RequestType::SinglePreDump, false, true));
    }

    #[test]
    fn mounts_and_joined_namespaces_are_external_by_the_names_that_runc_has_for_them() {
        let joined = vec![("net".to_owned(), 42), ("ipc".to_owned(), 43)];
        let facts = DumpFacts { mounts: vec!["/data".into()], joined, has_devices: true, ..facts() };
        let (_, options) = request(&Flags::default(), facts, 4, 5);
        assert_eq!(options.external, ["mnt[/data]:/data", "net[42]:extRootNetNS"]);
        assert_eq!(options.empty_ns, ns::Flags::empty());
    }

    #[test]
    fn a_network_with_devices_is_left_to_whoever_made_it() {
        let (_, options) = request(&Flags::default(), DumpFacts { has_devices: true, ..facts() }, 4, 5);
        assert_eq!(options.empty_ns, ns::Flags::NETWORK);
        let (_, options) = request(&Flags { empty_network: true, ..Flags::default() }, facts(), 4, 5);
        assert_eq!(options.empty_ns, ns::Flags::NETWORK);
    }

    #[test]
    fn a_page_server_has_a_host_and_a_port() {
        assert_eq!(page_server("10.0.0.1:27").unwrap(), ("10.0.0.1".to_owned(), 27));
        assert_eq!(page_server("[::1]:27").unwrap(), ("::1".to_owned(), 27));
        for wrong in ["", "host", "host:", ":27", "host:0", "host:65536", "host:x"] {
            assert!(page_server(wrong).is_err(), "{wrong}");
        }
    }
}
