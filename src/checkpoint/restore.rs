//! What CRIU is asked for by `restore`: worked out from the options and facts, without a side effect.

use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use super::dump::EXTERNAL_NAMESPACES;
use super::mounts::ensure_nameable;
use super::rpc::{CgroupMode, NetworkLock, RpcOptions};
use crate::error::{Error, Result};
use crate::sys::ns;

/// The name of the log in the work directory.
pub const LOG: &str = "restore.log";

/// What covers a masked file: runc's name for it, and its source.
const NULL: &str = "/dev/null";

/// The options of `restore` that CRIU carries out.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// TCP connections are kept.
    pub tcp_established: bool,
    /// TCP connections are closed.
    pub tcp_close: bool,
    /// External unix sockets are allowed.
    pub ext_unix_sk: bool,
    /// The caller's terminal is taken.
    pub shell_job: bool,
    /// Memory is brought when it is used.
    pub lazy_pages: bool,
    /// File locks are taken again.
    pub file_locks: bool,
    /// Pages are taken out of the images when they are restored.
    pub auto_dedup: bool,
    /// What is done about cgroups.
    pub cgroup_mode: CgroupMode,
    /// How the network is locked.
    pub network_lock: Option<NetworkLock>,
    /// The content of the network namespace was left out.
    pub empty_network: bool,
    /// An LSM profile in place of the one in the images.
    pub lsm_profile: Option<String>,
    /// A context of LSM mounts in place of the one in the images.
    pub lsm_mount_context: Option<String>,
}

/// What is known of the container.
#[derive(Clone, Debug, Default)]
pub struct RestoreFacts {
    /// Where its root is mounted for CRIU.
    pub root: PathBuf,
    /// The path of its cgroup below the mount of cgroup2.
    pub cgroup: Option<String>,
    /// Mounts from outside: names and sources.
    pub mounts: Vec<(String, PathBuf)>,
    /// Masked files.
    pub masked_files: Vec<String>,
    /// Masked directories, and an empty one that covers them.
    pub masked_directories: Vec<String>,
    /// That directory.
    pub empty: PathBuf,
    /// Namespaces that are joined, by their names below `/proc/PID/ns`: paths, and descriptors in CRIU.
    pub joined: Vec<(&'static str, PathBuf, RawFd)>,
    /// What the standard streams were.
    pub streams: Vec<String>,
    /// The images have nothing of network devices.
    pub has_no_network: bool,
    /// CRIU's own options for it.
    pub config_file: Option<PathBuf>,
}

/// The request. `images` and `work` are the directories, open.
pub fn request(flags: &Flags, facts: RestoreFacts, images: RawFd, work: RawFd) -> Result<RpcOptions> {
    let (inherited, joined) = namespaces(&facts.joined)?;
    let streams = facts.streams.iter().zip(0..).filter(|(stream, _)| stream.starts_with("pipe:["));
    let streams = streams.map(|(stream, number)| (stream.clone(), number));
    let mut external = Vec::new();
    for (name, source) in &facts.mounts {
        ensure_nameable(name)?;
        external.push(mapping(name, source));
    }
    // runc has one name for all masked files, crun the path of each, and of each directory, too.
    external.push(mapping(NULL, Path::new(NULL)));
    external.extend(facts.masked_files.iter().map(|path| mapping(path, Path::new(NULL))));
    external.extend(facts.masked_directories.iter().map(|path| mapping(path, &facts.empty)));
    let manages = flags.cgroup_mode != CgroupMode::Ignore;
    Ok(RpcOptions {
        images_dir_fd: images,
        work_dir_fd: work,
        log_file: LOG,
        root: facts.root,
        ext_unix_sk: flags.ext_unix_sk,
        tcp_established: flags.tcp_established,
        tcp_close: flags.tcp_close,
        shell_job: flags.shell_job,
        file_locks: flags.file_locks,
        auto_dedup: flags.auto_dedup,
        lazy_pages: flags.lazy_pages,
        evasive_devices: true,
        rst_sibling: true,
        orphan_pts_master: true,
        notify_scripts: true,
        cgroup_mode: flags.cgroup_mode,
        cgroup_root: facts.cgroup.filter(|_| manages).unwrap_or_default(),
        empty_ns: if flags.empty_network || facts.has_no_network { ns::Flags::NETWORK } else { ns::Flags::empty() },
        external,
        inherit_fd: streams.chain(inherited).collect(),
        join_ns: joined,
        network_lock: flags.network_lock,
        config_file: facts.config_file,
        lsm_profile: flags.lsm_profile.clone(),
        lsm_mount_context: flags.lsm_mount_context.clone(),
        ..RpcOptions::default()
    })
}

fn mapping(name: &str, source: &Path) -> String {
    format!("mnt[{name}]:{}", source.display())
}

/// Descriptors by key.
type Inherited = Vec<(String, RawFd)>;
/// Files by name.
type Joined = Vec<(&'static str, PathBuf)>;

/// Namespaces that were external to the dump are inherited; others are joined.
fn namespaces(joined: &[(&'static str, PathBuf, RawFd)]) -> Result<(Inherited, Joined)> {
    let (mut inherited, mut others) = (Vec::new(), Vec::new());
    for (name, path, fd) in joined {
        match EXTERNAL_NAMESPACES.iter().find(|(known, _)| known == name) {
            Some((_, key)) => inherited.push(((*key).to_owned(), *fd)),
            None if matches!(*name, "ipc" | "uts" | "user") => others.push((*name, path.clone())),
            None => {
                return Err(Error::new(format!("a container that joins a {name} namespace cannot be restored"))
                    .field("/linux/namespaces"));
            }
        }
    }
    Ok((inherited, others))
}

/// Reads `descriptors.json`: what the three standard streams were.
pub fn streams(text: &[u8]) -> Result<Vec<String>> {
    let list: Vec<String> =
        serde_json::from_slice(text).map_err(|error| Error::new(format!("descriptors.json: {error}")))?;
    Ok(list.into_iter().take(3).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> RestoreFacts {
        RestoreFacts {
            root: "/s/criu-root".into(),
            cgroup: Some("/c".into()),
            empty: "/s/empty".into(),
            ..RestoreFacts::default()
        }
    }

    #[test]
    fn pipes_and_namespaces_are_inherited() {
        let joined = vec![("net", "/n".into(), 7), ("ipc", "/i".into(), 8)];
        let streams = ["/dev/null", "pipe:[12]", "pipe:[13]"].map(str::to_owned).to_vec();
        let options = request(&Flags::default(), RestoreFacts { joined, streams, ..facts() }, 4, 5).unwrap();
        let inherited = [("pipe:[12]", 1), ("pipe:[13]", 2), ("extRootNetNS", 7)];
        assert_eq!(options.inherit_fd, inherited.map(|(key, fd)| (key.to_owned(), fd)));
        assert_eq!(options.join_ns, [("ipc", PathBuf::from("/i"))]);
        let joined = vec![("cgroup", "/n".into(), 7)];
        assert!(request(&Flags::default(), RestoreFacts { joined, ..facts() }, 4, 5).is_err());
    }

    #[test]
    fn mounts_have_the_names_of_all_three_runtimes() {
        let facts = RestoreFacts {
            mounts: vec![("/data".into(), "/host/data".into())],
            masked_files: vec!["/proc/kcore".into()],
            masked_directories: vec!["/proc/acpi".into()],
            ..facts()
        };
        let options = request(&Flags::default(), facts, 4, 5).unwrap();
        assert_eq!(
            options.external,
            [
                "mnt[/data]:/host/data",
                "mnt[/dev/null]:/dev/null",
                "mnt[/proc/kcore]:/dev/null",
                "mnt[/proc/acpi]:/s/empty"
            ]
        );
    }

    #[test]
    fn a_name_that_would_end_early_is_refused() {
        let mounts = vec![("/a]:/etc".into(), "/host/data".into())];
        assert!(request(&Flags::default(), RestoreFacts { mounts, ..facts() }, 4, 5).is_err());
    }

    #[test]
    fn cgroups_that_are_left_alone_have_no_root() {
        let flags = Flags { cgroup_mode: CgroupMode::Ignore, ..Flags::default() };
        assert_eq!(request(&flags, facts(), 4, 5).unwrap().cgroup_root, "");
        assert_eq!(request(&Flags::default(), facts(), 4, 5).unwrap().cgroup_root, "/c");
    }

    #[test]
    fn three_streams_are_read() {
        assert_eq!(streams(br#"["/dev/null","pipe:[1]","pipe:[2]"]"#).unwrap(), ["/dev/null", "pipe:[1]", "pipe:[2]"]);
        assert!(streams(b"{").is_err());
    }
}
