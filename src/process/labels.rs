//! Security labels of the program: AppArmor profile and SELinux label.
//!
//! A label that cannot be set is an error, never ignored. It is written to a private procfs, since the container can mount
//! anything over its own (CVE-2019-16884, CVE-2025-52881).

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};

use nix::fcntl::OFlag;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use crate::error::{Context, Error, Result, ensure};
use crate::sys::Errno;
use crate::sys::path::open_beneath;

/// `process.apparmorProfile` and `process.selinuxLabel`; both take effect with execve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Labels {
    apparmor: Option<String>,
    selinux: Option<String>,
}

impl Labels {
    pub(super) fn plan(profile: Option<&str>, label: Option<&str>, apparmor: bool, selinux: bool) -> Result<Labels> {
        let profile = profile.filter(|profile| !profile.is_empty());
        let label = label.filter(|label| !label.is_empty());
        // Without AppArmor every process is unconfined.
        let profile = profile.filter(|&profile| apparmor || profile != "unconfined");
        if let Some(profile) = profile {
            one_line(profile).field(|| "/process/apparmorProfile")?;
            ensure_lsm(apparmor, "AppArmor", "profile", profile).field(|| "/process/apparmorProfile")?;
        }
        if let Some(label) = label {
            one_line(label).field(|| "/process/selinuxLabel")?;
            ensure_lsm(selinux, "SELinux", "label", label).field(|| "/process/selinuxLabel")?;
        }
        Ok(Labels { apparmor: profile.map(str::to_owned), selinux: label.map(str::to_owned) })
    }

    /// The label that a process has, with the field that says so.
    pub(super) fn wanted(&self) -> Option<(&str, &'static str)> {
        let (apparmor, selinux) = (self.apparmor.as_deref(), self.selinux.as_deref());
        let selinux = selinux.map(|label| (label, "/process/selinuxLabel"));
        selinux.or(apparmor.map(|profile| (profile, "/process/apparmorProfile")))
    }

    /// Whether a procfs is needed.
    pub(super) fn any(&self) -> bool {
        self.apparmor.is_some() || self.selinux.is_some()
    }

    /// Sets the label that takes effect at execve; until then the process keeps its own.
    pub(super) fn apply(&self, proc: Option<BorrowedFd<'_>>) -> Result<()> {
        if let Some(profile) = &self.apparmor {
            let text = format!("exec {profile}");
            // The second file is shared by all security modules and belongs to the first of them.
            let files = ["self/attr/apparmor/exec", "self/attr/exec"];
            write(proc, &files, &text).field(|| "/process/apparmorProfile")?;
        }
        if let Some(label) = &self.selinux {
            write(proc, &["self/attr/exec"], label).field(|| "/process/selinuxLabel")?;
        }
        Ok(())
    }

    /// Makes new keys get the label of the program, or with `on` false that of their maker again.
    pub(super) fn label_keys(&self, proc: Option<BorrowedFd<'_>>, on: bool) -> Result<()> {
        let Some(label) = &self.selinux else { return Ok(()) };
        write(proc, &["self/attr/keycreate"], if on { label } else { "" }).field(|| "/process/selinuxLabel")
    }
}

fn one_line(text: &str) -> Result<()> {
    ensure!(!text.contains(['\n', '\0']), "{text:?} is not one line");
    Ok(())
}

fn ensure_lsm(enabled: bool, module: &str, kind: &str, name: &str) -> Result<()> {
    ensure!(enabled, "the {kind} {name:?} is requested, but {module} is not supported or not enabled on this host");
    Ok(())
}

/// Writes to the first of the files that exists.
fn write(proc: Option<BorrowedFd<'_>>, files: &[&str], text: &str) -> Result<()> {
    let proc = proc.ok_or_else(|| Error::new("a label needs a procfs to be written to"))?;
    let mut missing = None;
    // Podman looks for the path between back quotes.
    let what = |file: &str| format!("write {text:?} to `/proc/{file}`");
    for file in files {
        let label = match open_one(proc, file) {
            Err(errno @ Errno::ENOENT) => {
                missing = Some((file, errno));
                continue;
            }
            label => label.with_context(|| what(file))?,
        };
        // One write: the kernel takes each as a whole label.
        let written = (&label).write(text.as_bytes());
        let written = written.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)));
        return written.map(drop).map_err(|errno| {
            let error = Error::from(errno).context(what(file));
            // Both modules: it is a name that they do not know.
            let unknown = matches!(errno, Errno::ENOENT | Errno::EINVAL);
            if unknown { error.hint("load it on the host (apparmor_parser --replace, semodule)") } else { error }
        });
    }
    let (file, errno) = missing.unwrap_or((&"self/attr", Errno::ENOENT));
    Err(errno).with_context(|| what(file))
}

fn open_one(proc: BorrowedFd<'_>, file: &str) -> Result<File, Errno> {
    let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW;
    let fd = open_beneath(proc, file, flags)?;
    if fstatfs(fd.as_fd())?.filesystem_type() != PROC_SUPER_MAGIC {
        return Err(Errno::EXDEV);
    }
    Ok(File::from(fd))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_without_its_security_module_is_refused() {
        let error = Labels::plan(Some("x"), None, false, false).unwrap_err().to_string();
        let text = "/process/apparmorProfile: the profile \"x\" is requested, but AppArmor is not supported or not \
            enabled on this host";
        assert_eq!(error, text);
        let error = Labels::plan(None, Some("a_u:b_r:c_t:s0"), true, false).unwrap_err();
        assert_eq!(error.field_name(), Some("/process/selinuxLabel"));
    }

    #[test]
    fn unconfined_and_empty_ask_for_nothing_where_there_is_nothing() {
        assert!(!Labels::plan(Some("unconfined"), Some(""), false, false).unwrap().any());
        assert!(!Labels::plan(Some(""), None, true, true).unwrap().any());
        assert!(Labels::plan(Some("unconfined"), None, true, false).unwrap().any());
    }

    #[test]
    fn an_error_names_the_file_between_back_quotes() {
        let proc = File::open("/proc").unwrap();
        let labels = Labels { apparmor: Some("no-such-profile".into()), selinux: None };
        let text = labels.apply(Some(proc.as_fd())).unwrap_err().to_string();
        assert!(text.contains("to `/proc/self/attr/"), "{text}");
    }

    #[test]
    fn a_tree_that_is_no_procfs_is_not_written_to() {
        let dir = std::env::temp_dir().join(format!("corten-labels-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("self/attr")).unwrap();
        std::fs::write(dir.join("self/attr/exec"), "").unwrap();
        let fake = File::open(&dir).unwrap();
        assert_eq!(open_one(fake.as_fd(), "self/attr/exec").unwrap_err(), Errno::EXDEV);
        assert_eq!(std::fs::read(dir.join("self/attr/exec")).unwrap(), b"");
        std::fs::remove_dir_all(dir).unwrap();
    }
}
