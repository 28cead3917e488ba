//! Kernel parameters of the container's own namespaces, `linux.sysctl`.
//!
//! Only parameters that the kernel keeps per namespace are written, and only if the container has its own such namespace:
//! others would change the host. A key is one file below `/proc/sys`, a value one write (CVE-2022-0811 smuggled a second key
//! through a value).

use std::collections::HashMap;

use crate::error::{Context, Error, Result, escape};
use crate::sys::Errno;
use crate::sys::procfs::Procfs;

/// The namespace to which a key belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// An IPC namespace.
    Ipc,
    /// A network namespace.
    Network,
    /// A UTS namespace.
    Uts,
    /// A user namespace.
    User,
}

/// Keys below `kernel/` that belong to the IPC namespace, ipc_namespaces(7).
const IPC: [&str; 8] = ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"];

/// The parameters of a container, as files below `/proc` with their values.
#[derive(Debug, Default)]
pub struct Sysctls(Vec<Sysctl>);

#[derive(Clone, Debug)]
struct Sysctl {
    key: String,
    file: String,
    value: String,
}

impl Sysctls {
    /// Checks every key. `owned` says whether the container has a namespace of its own that owns such keys.
    pub fn plan(
        list: Option<&HashMap<String, String>>,
        domain_name_field: bool,
        mut owned: impl FnMut(Owner) -> Result<bool>,
    ) -> Result<Sysctls> {
        let mut planned = Vec::new();
        for (key, value) in list.into_iter().flatten() {
            let sysctl = Sysctl::plan(key, value, domain_name_field, &mut owned)
                .field(|| format!("/linux/sysctl/{}", escape(key)))?;
            planned.push(sysctl);
        }
        // Sorted, so that failures are reproducible.
        planned.sort_by(|one, other| one.file.cmp(&other.file));
        if let Some(twin) = planned.windows(2).find(|pair| pair[0].file == pair[1].file) {
            let sentence = format!("sysctls {} and {} are the same parameter", twin[0].key, twin[1].key);
            return Err(Error::new(sentence).field("/linux/sysctl"));
        }
        Ok(Sysctls(planned))
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Without those of network interfaces other than loopback, for a dry run.
    pub fn without_interfaces(&self) -> Sysctls {
        let early = |sysctl: &&Sysctl| {
            let mut names = sysctl.file.split('/').skip_while(|name| !matches!(*name, "conf" | "neigh")).skip(1);
            names.next().is_none_or(|name| matches!(name, "all" | "default" | "lo"))
        };
        Sysctls(self.0.iter().filter(early).cloned().collect())
    }

    /// Writes all of them through a private procfs, which no container can have mounted over.
    pub fn write(&self, procfs: &Procfs) -> Result<()> {
        for sysctl in &self.0 {
            procfs
                .write(&sysctl.file, sysctl.value.as_bytes())
                .map_err(|errno| match errno {
                    // Without the words of ENOENT: engines take these for a missing program.
                    Errno::ENOENT => Error::new(format!("this kernel has no sysctl {}", sysctl.key))
                        .hint("check the spelling, and that the kernel has the feature it belongs to"),
                    Errno::EINVAL => refused(sysctl, errno).hint("the value is not one that this parameter takes"),
                    _ => refused(sysctl, errno),
                })
                .field(|| format!("/linux/sysctl/{}", escape(&sysctl.key)))?;
        }
        Ok(())
    }
}

fn refused(sysctl: &Sysctl, errno: Errno) -> Error {
    Error::from(errno).context(format!("set the sysctl {} to {:?}", sysctl.key, sysctl.value))
}

impl Sysctl {
    fn plan(
        key: &str,
        value: &str,
        domain_name_field: bool,
        owned: &mut impl FnMut(Owner) -> Result<bool>,
    ) -> Result<Sysctl> {
        let path = path(key)?;
        let owner = match owner(&path) {
            Some(owner) => owner,
            None if path == "kernel/hostname" => {
                return Err(Error::new(format!("the sysctl {key} is not allowed")).hint("use the field hostname"));
            }
            None => {
                return Err(Error::new(format!(
                    "the sysctl {key} is not kept per namespace and would change the host"
                )));
            }
        };
        if path == "kernel/domainname" && domain_name_field {
            return Err(Error::new(format!("the sysctl {key} contradicts the field domainname")));
        }
        if !owned(owner)? {
            let kind = owner.word();
            return Err(Error::new(format!("the sysctl {key} needs a {kind} namespace of the container's own"))
                .hint(format!("add {{\"type\": \"{kind}\"}} to linux.namespaces")));
        }
        Ok(Sysctl { key: key.to_owned(), file: format!("sys/{path}"), value: value.to_owned() })
    }
}

impl Owner {
    fn word(self) -> &'static str {
        match self {
            Owner::Ipc => "ipc",
            Owner::Network => "network",
            Owner::Uts => "uts",
            Owner::User => "user",
        }
    }
}

/// Which namespace owns a parameter, given as a path below `/proc/sys`.
fn owner(path: &str) -> Option<Owner> {
    match path.split_once('/')? {
        ("kernel", name) if IPC.contains(&name) => Some(Owner::Ipc),
        ("kernel", "domainname") => Some(Owner::Uts),
        ("fs", name) if name.starts_with("mqueue/") => Some(Owner::Ipc),
        ("net", _) => Some(Owner::Network),
        ("user", _) => Some(Owner::User),
        _ => None,
    }
}

/// The path below `/proc/sys` for a key in either spelling of sysctl(8): the first separator decides, and the other
/// character is then part of a name (`net.ipv4.conf.eth0/100.rp_filter` is the interface `eth0.100`).
fn path(key: &str) -> Result<String> {
    let dotted = key.find(['.', '/']).is_some_and(|at| key.as_bytes()[at] == b'.');
    let swap = |letter: char| match letter {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let path: String = if dotted { key.chars().map(swap).collect() } else { key.to_owned() };
    let sound = path.split('/').all(|name| !name.is_empty() && name != "." && name != ".." && !name.contains('\0'));
    if !sound {
        return Err(Error::new(format!("{key:?} is not the name of a sysctl")));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(key: &str) -> Result<Sysctls> {
        Sysctls::plan(Some(&HashMap::from([(key.to_owned(), "1".to_owned())])), true, |owner| Ok(owner != Owner::User))
    }

    #[test]
    fn both_spellings_reach_the_same_file() {
        for key in ["net/ipv4/conf/e.9/rp_filter", "net.ipv4.conf.e/9.rp_filter"] {
            assert_eq!(plan(key).unwrap().0[0].file, "sys/net/ipv4/conf/e.9/rp_filter");
        }
    }

    #[test]
    fn those_of_interfaces_to_come_are_told_apart() {
        for (key, early) in [
            ("net.ipv4.ip_forward", true),
            ("net.ipv4.conf.all.rp_filter", true),
            ("net.ipv6.neigh.default.gc_stale_time", true),
            ("net.ipv4.conf.eth0.rp_filter", false),
            ("net.ipv6.neigh.eth0.mcast_solicit", false),
        ] {
            assert_eq!(!plan(key).unwrap().without_interfaces().is_empty(), early, "{key}");
        }
    }

    #[test]
    fn what_would_change_the_host_is_refused() {
        for key in ["vm.swappiness", "kernel.hostname", "kernel.sysrq", "fs.file-max", "kernel.core_pattern", "x"] {
            assert!(plan(key).is_err(), "{key}");
        }
    }

    #[test]
    fn no_spelling_leaves_the_directory_of_its_namespace() {
        for key in ["net/../kernel/sysrq", "net//x", "/net/x", "net.ipv4..x", "net/./x", "../x", "", "net/"] {
            assert!(plan(key).is_err(), "{key}");
        }
    }

    #[test]
    fn a_key_needs_the_namespace_that_owns_it() {
        let error = plan("user.max_user_namespaces").unwrap_err();
        assert!(error.to_string().contains("needs a user namespace"), "{error}");
    }

    #[test]
    fn the_domain_name_is_set_in_one_place() {
        assert!(plan("kernel.domainname").unwrap_err().to_string().contains("contradicts"));
    }

    #[test]
    fn two_spellings_of_one_parameter_contradict_each_other() {
        let both = HashMap::from([("net.a.b".to_owned(), "1".to_owned()), ("net/a/b".to_owned(), "2".to_owned())]);
        assert!(Sysctls::plan(Some(&both), false, |_| Ok(true)).is_err());
    }
}
