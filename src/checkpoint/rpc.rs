//! The messages of CRIU's rpc.proto: requests to write, responses to read.

use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use std::os::unix::ffi::OsStrExt;

use super::protobuf::{Encoder, Value, fields};
use crate::error::{Error, Result};
use crate::sys::ns;

/// `criu_req_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestType {
    /// Write the processes into images, and end them.
    Dump = 1,
    /// Make processes from images.
    Restore = 2,
    /// An answer to a notification.
    Notify = 6,
    /// Which of some features there are.
    FeatureCheck = 9,
    /// Write the memory alone, once; the processes run on.
    SinglePreDump = 13,
}

impl RequestType {
    /// The word that CRIU has for it.
    pub fn word(self) -> &'static str {
        match self {
            RequestType::Dump => "dump",
            RequestType::Restore => "restore",
            RequestType::Notify => "notify",
            RequestType::FeatureCheck => "feature check",
            RequestType::SinglePreDump => "pre-dump",
        }
    }
}

/// `criu_cg_mode`: what is done about cgroups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupMode {
    /// Nothing.
    Ignore = 0,
    /// Restore the properties of cgroups that CRIU has made.
    #[default]
    Soft = 3,
    /// Restore those of all.
    Full = 4,
    /// Restore all, and fail if one is there already.
    Strict = 5,
}

/// `criu_network_lock_method`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkLock {
    /// By iptables-restore(8), a program.
    Iptables = 1,
    /// By CRIU itself.
    Nftables = 2,
    /// Not at all.
    Skip = 3,
}

/// `criu_opts`, of which each field is written where it says something.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RpcOptions {
    /// Where images are, in criu.
    pub images_dir_fd: RawFd,
    /// Where the log is.
    pub work_dir_fd: RawFd,
    /// The name of the log in the work directory.
    pub log_file: &'static str,
    /// The first process of a dump.
    pub pid: i32,
    /// The container's root on the host.
    pub root: PathBuf,
    /// The processes run on.
    pub leave_running: bool,
    /// External unix sockets are allowed.
    pub ext_unix_sk: bool,
    /// TCP connections are kept.
    pub tcp_established: bool,
    /// TCP connections are closed.
    pub tcp_close: bool,
    /// TCP connections that are being made are left out.
    pub tcp_skip_in_flight: bool,
    /// A terminal and a session from outside are allowed.
    pub shell_job: bool,
    /// File locks are kept.
    pub file_locks: bool,
    /// Deleted files that have another name are linked.
    pub link_remap: bool,
    /// Pages that the parent's images have, too, are taken out of those.
    pub auto_dedup: bool,
    /// Memory is brought when it is used.
    pub lazy_pages: bool,
    /// A path that is a device is restored though it differs.
    pub evasive_devices: bool,
    /// The restored process is a child of CRIU's parent.
    pub rst_sibling: bool,
    /// The master of a terminal is sent in a notification.
    pub orphan_pts_master: bool,
    /// Notifications are sent.
    pub notify_scripts: bool,
    /// Changes of memory are tracked.
    pub track_mem: bool,
    /// Images of before, relative to the images directory.
    pub parent_img: Option<PathBuf>,
    /// Host and port of a page server.
    pub page_server: Option<(String, u16)>,
    /// What is done about cgroups.
    pub cgroup_mode: CgroupMode,
    /// The cgroup of the restored processes; empty for where they were.
    pub cgroup_root: String,
    /// The directory of the cgroup that is frozen for the dump.
    pub freeze_cgroup: Option<String>,
    /// Namespaces whose content is left out.
    pub empty_ns: ns::Flags,
    /// `--external` of criu(8).
    pub external: Vec<String>,
    /// Files that processes find in the place of others, by their keys.
    pub inherit_fd: Vec<(String, RawFd)>,
    /// Namespaces that are joined: their names in criu(8) and their files.
    pub join_ns: Vec<(&'static str, PathBuf)>,
    /// How the network is locked.
    pub network_lock: Option<NetworkLock>,
    /// A file of options that go before these.
    pub config_file: Option<PathBuf>,
    /// An LSM profile in place of the one in the images, `TYPE:NAME`.
    pub lsm_profile: Option<String>,
    /// A context of LSM mounts in place of the one in the images.
    pub lsm_mount_context: Option<String>,
}

/// All that a log can say.
const LOG_LEVEL: i32 = 4;

impl RpcOptions {
    fn encode(&self, to: &mut Encoder) {
        let path = |path: &Path| path.as_os_str().as_bytes().to_vec();
        to.signed(1, self.images_dir_fd);
        if self.pid != 0 {
            to.signed(2, self.pid);
        }
        self.encode_flags(to);
        to.signed(9, LOG_LEVEL);
        to.bytes(10, self.log_file.as_bytes());
        if let Some((host, port)) = &self.page_server {
            to.message(11, |server| {
                server.bytes(1, host.as_bytes());
                server.signed(2, i32::from(*port));
            });
        }
        to.bytes(13, &path(&self.root));
        if let Some(parent) = &self.parent_img {
            to.bytes(14, &path(parent));
        }
        to.signed(17, self.work_dir_fd);
        if !self.cgroup_root.is_empty() {
            // The controller without a name is cgroup2; without that field it would go for version 1, too.
            to.message(25, |root| {
                root.bytes(1, b"");
                root.bytes(2, self.cgroup_root.as_bytes());
            });
        }
        for (key, fd) in &self.inherit_fd {
            to.message(27, |inherit| {
                inherit.bytes(1, key.as_bytes());
                inherit.signed(2, *fd);
            });
        }
        to.flag(24, true);
        to.number(34, self.cgroup_mode as u64);
        self.external.iter().for_each(|external| to.bytes(37, external.as_bytes()));
        if !self.empty_ns.is_empty() {
            to.number(38, self.empty_ns.bits() as u64);
        }
        for (name, file) in &self.join_ns {
            to.message(39, |join| {
                join.bytes(1, name.as_bytes());
                join.bytes(2, &path(file));
            });
        }
        let texts = [(44, &self.freeze_cgroup), (53, &self.lsm_profile), (63, &self.lsm_mount_context)];
        texts.iter().for_each(|(field, text)| text.iter().for_each(|text| to.bytes(*field, text.as_bytes())));
        if let Some(file) = &self.config_file {
            to.bytes(51, &path(file));
        }
        if let Some(lock) = self.network_lock {
            to.number(64, lock as u64);
        }
    }

    fn encode_flags(&self, to: &mut Encoder) {
        let flags = [
            (3, self.leave_running),
            (4, self.ext_unix_sk),
            (5, self.tcp_established),
            (6, self.evasive_devices),
            (7, self.shell_job),
            (8, self.file_locks),
            (12, self.notify_scripts),
            (15, self.track_mem),
            (16, self.auto_dedup),
            (18, self.link_remap),
            (26, self.rst_sibling),
            (46, self.tcp_skip_in_flight),
            (48, self.lazy_pages),
            (50, self.orphan_pts_master),
            (52, self.tcp_close),
        ];
        flags.iter().for_each(|&(field, value)| to.flag(field, value));
    }
}

/// `criu_features`, and which of them are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Changes of memory can be tracked (`CONFIG_MEM_SOFT_DIRTY`).
    pub mem_track: bool,
    /// Memory can be brought when it is used (userfaultfd(2)).
    pub lazy_pages: bool,
}

/// `criu_req` with options.
pub fn request(kind: RequestType, options: &RpcOptions) -> Vec<u8> {
    let mut request = Encoder::default();
    request.number(1, kind as u64);
    request.message(2, |to| options.encode(to));
    request.into_bytes()
}

/// A question for features; CRIU waits for another request after it.
pub fn ask_features(wanted: Features) -> Vec<u8> {
    let mut request = Encoder::default();
    request.number(1, RequestType::FeatureCheck as u64);
    request.flag(4, true);
    request.message(5, |features| {
        features.flag(1, wanted.mem_track);
        features.flag(2, wanted.lazy_pages);
    });
    request.into_bytes()
}

/// The answer to a notification.
pub fn answer(success: bool) -> Vec<u8> {
    let mut request = Encoder::default();
    request.number(1, RequestType::Notify as u64);
    request.number(3, u64::from(success));
    request.into_bytes()
}

/// `criu_resp`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// A number of [`RequestType`].
    pub kind: u64,
    /// Whether it was done.
    pub success: bool,
    /// The restored first process.
    pub restored: Option<i32>,
    /// What a notification is about.
    pub script: Option<String>,
    /// The process that it is about.
    pub pid: Option<i32>,
    /// An errno.
    pub errno: i32,
    /// The first line of the log that tells of an error.
    pub message: Option<String>,
    /// Those of the features asked for that there are.
    pub features: Features,
}

impl Response {
    /// Reads one packet.
    pub fn decode(packet: &[u8]) -> Result<Response> {
        let mut response = Response::default();
        let mut has_kind = false;
        for (field, value) in fields(packet)? {
            has_kind |= field == 1;
            response.take(field, value)?;
        }
        if has_kind { Ok(response) } else { Err(Error::new("a message of criu has no type")) }
    }

    fn take(&mut self, field: u32, value: Value<'_>) -> Result<()> {
        match (field, value) {
            (1, Value::Number(kind)) => self.kind = kind,
            (2, value) => self.success = value.flag().unwrap_or_default(),
            (4, Value::Bytes(restore)) => self.restored = field_of(restore, 1)?.and_then(Value::signed),
            (5, Value::Bytes(notify)) => {
                self.script = field_of(notify, 1)?.and_then(Value::text);
                self.pid = field_of(notify, 2)?.and_then(Value::signed);
            }
            (7, value) => self.errno = value.signed().unwrap_or_default(),
            (8, Value::Bytes(features)) => {
                let has =
                    |number| -> Result<bool> { Ok(field_of(features, number)?.and_then(Value::flag) == Some(true)) };
                self.features = Features { mem_track: has(1)?, lazy_pages: has(2)? };
            }
            (9, value) => self.message = value.text(),
            _ => {}
        }
        Ok(())
    }
}

fn field_of(message: &[u8], wanted: u32) -> Result<Option<Value<'_>>> {
    Ok(fields(message)?.into_iter().rev().find_map(|(field, value)| (field == wanted).then_some(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options_of(request: &[u8]) -> Vec<u8> {
        let Some(Value::Bytes(options)) = field_of(request, 2).unwrap() else { panic!() };
        options.to_vec()
    }

    #[test]
    fn a_request_has_its_type_and_what_was_asked_for_and_no_more() {
        let options =
            RpcOptions { images_dir_fd: 4, work_dir_fd: 5, log_file: "dump.log", pid: 7, ..RpcOptions::default() };
        let request = request(RequestType::Dump, &options);
        assert_eq!(request[..2], [0x08, 1]);
        let options = options_of(&request);
        let fields: Vec<u32> = fields(&options).unwrap().into_iter().map(|(field, _)| field).collect();
        assert_eq!(fields, [1, 2, 9, 10, 13, 17, 24, 34]);
    }

    #[test]
    fn lists_are_written_entry_by_entry() {
        let external = vec!["mnt[/a]:/a".to_owned(), "mnt[/b]:/b".to_owned()];
        let inherit_fd = vec![("pipe:[7]".to_owned(), 1)];
        let options = RpcOptions { external, inherit_fd, ..RpcOptions::default() };
        let options = options_of(&request(RequestType::Restore, &options));
        let texts: Vec<_> = fields(&options)
            .unwrap()
            .into_iter()
            .filter(|(field, _)| *field == 37)
            .filter_map(|(_, v)| v.text())
            .collect();
        assert_eq!(texts, ["mnt[/a]:/a", "mnt[/b]:/b"]);
        let inherit = field_of(&options, 27).unwrap().unwrap();
        assert_eq!(inherit, Value::Bytes(b"\x0a\x08pipe:[7]\x10\x01"));
    }

    #[test]
    fn an_answer_that_refuses_says_so() {
        // An absent field would be taken for yes by nobody, but the field is there in both.
        assert_eq!(answer(true), [0x08, 6, 0x18, 1]);
        assert_eq!(answer(false), [0x08, 6, 0x18, 0]);
    }

    #[test]
    fn a_notification_and_a_failure_are_read() {
        let notify = Response::decode(b"\x08\x06\x10\x01\x2a\x10\x0a\x0cpost-restore\x10\x2a").unwrap();
        assert_eq!((notify.kind, notify.script.as_deref(), notify.pid), (6, Some("post-restore"), Some(42)));
        let failure = Response::decode(b"\x08\x01\x10\x00\x38\x10\x4a\x03why").unwrap();
        assert_eq!((failure.success, failure.errno, failure.message.as_deref()), (false, 16, Some("why")));
        assert!(Response::decode(b"").is_err());
    }
}
