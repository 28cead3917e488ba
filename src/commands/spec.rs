//! `spec`.

use std::io::Write;
use std::path::PathBuf;

use nix::unistd::{getegid, geteuid};

use crate::argv::{arguments, option};
use crate::error::{Context, Error, Result};

/// What runc writes, tabs and all: tests and scripts edit it.
const TEMPLATE: &str = include_str!("spec.json");

arguments! {
    /// Write a configuration to start from
    pub struct Spec {
        /// Directory to write to
        bundle: PathBuf = option().short('b').value("DIR").default("."),
        /// Write it for a user other than root
        rootless: bool = option(),
    }
}

impl Spec {
    pub(super) fn run(self) -> Result<u8> {
        let path = self.bundle.join("config.json");
        let text = if self.rootless { rootless(geteuid().as_raw(), getegid().as_raw()) } else { TEMPLATE.to_owned() };
        let write = || std::fs::OpenOptions::new().write(true).create_new(true).open(&path)?.write_all(text.as_bytes());
        match write() {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(Error::new(format!("file {} exists", path.display()))
                    .hint("remove it first, or give another --bundle"))
            }
            done => done.with_context(|| format!("write {}", path.display())).map(|()| 0),
        }
    }
}

/// The same for a user: a user namespace that maps only the caller, the host's network, and nothing that needs rights
/// over it.
fn rootless(user: u32, group: u32) -> String {
    let map = |name: &str, id: u32| {
        format!(
            "\t\t\"{name}\": [\n\t\t\t{{\n\t\t\t\t\"containerID\": 0,\n\t\t\t\t\"hostID\": {id},\n\t\t\t\t\"size\": 1\n\t\t\t}}\n\t\t],\n"
        )
    };
    let (before, rest) = TEMPLATE.split_once("\t\t\"resources\": {").expect("the template has resources");
    let (_, after) = rest.split_once("\t\t\"namespaces\"").expect("the template has namespaces");
    let text = format!("{before}{}{}\t\t\"namespaces\"{after}", map("uidMappings", user), map("gidMappings", group));
    text.replace("\t\t\t{\n\t\t\t\t\"type\": \"network\"\n\t\t\t},\n", "")
        .replace(
            "\"type\": \"cgroup\"\n\t\t\t}\n",
            "\"type\": \"cgroup\"\n\t\t\t},\n\t\t\t{\n\t\t\t\t\"type\": \"user\"\n\t\t\t}\n",
        )
        .replace("\"mode=0620\",\n\t\t\t\t\"gid=5\"", "\"mode=0620\"")
        .replace(
            "\"type\": \"sysfs\",\n\t\t\t\"source\": \"sysfs\",\n\t\t\t\"options\": [\n",
            "\"type\": \"none\",\n\t\t\t\"source\": \"/sys\",\n\t\t\t\"options\": [\n\t\t\t\t\"rbind\",\n",
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> serde_json::Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_template_is_a_configuration() {
        let _: oci_spec::runtime::Spec = serde_json::from_str(TEMPLATE).unwrap();
        assert_eq!(parse(TEMPLATE)["process"]["terminal"], true);
    }

    #[test]
    fn the_rootless_one_differs_where_it_must() {
        let spec = parse(&rootless(1000, 100));
        assert_eq!(spec["linux"]["uidMappings"][0]["hostID"], 1000);
        assert_eq!(spec["linux"]["gidMappings"][0]["hostID"], 100);
        assert!(spec["linux"].get("resources").is_none());
        let kinds: Vec<_> =
            spec["linux"]["namespaces"].as_array().unwrap().iter().map(|one| one["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["pid", "ipc", "uts", "mount", "cgroup", "user"]);
        assert_eq!(spec["mounts"][5]["options"][0], "rbind");
        assert_eq!(spec["mounts"][2]["options"].as_array().unwrap().len(), 5);
    }
}
