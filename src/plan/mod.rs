//! The configuration, the options and facts of the host become a [`Plan`]: every name resolved, every rule between
//! fields checked, before the first side effect. The configuration is not seen after that.

pub(crate) mod annotations;
pub mod config;
pub mod mend;
pub mod names;
pub mod notify;
mod shape;
#[cfg(test)]
mod tests;
mod validate;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nix::unistd::Uid;
use oci_spec::runtime::{LinuxMemoryPolicy, LinuxPersonality, LinuxSeccomp, Mount, Process as SpecProcess, Spec};

use crate::cgroup;
use crate::error::{Context, Error, Result};
use crate::hooks::{Hooks, Stage};
use crate::host;
use crate::namespaces::sysctl::{Owner, Sysctls};
use crate::namespaces::{Namespaces, Origin};
use crate::process::{LANDLOCK, Process, ProcessFacts};
use crate::resctrl;
use crate::rootfs::{self, Rootfs};
use crate::seccomp::{Agent, Program};
use crate::sys::ns;

/// What the command line adds to the configuration.
pub struct PlanOptions<'a> {
    /// The container's id.
    pub id: &'a str,
    /// Absolute.
    pub bundle: &'a Path,
    /// Who makes the cgroup.
    pub manager: cgroup::Manager,
    /// Move the root instead of pivot_root.
    pub no_pivot: bool,
    /// Give the container a session keyring of its own.
    pub new_keyring: bool,
    /// Descriptors from 3 on that the caller passes by socket activation.
    pub listen_fds: u32,
    /// Numbers of descriptors after those that the program gets.
    pub preserve_fds: &'a [u32],
    /// The directory of the host with the socket on which the container says that it is ready.
    pub notify: Option<&'a Path>,
    /// Annotations that are obeyed though an image may not say them, by name or `PREFIX*`.
    pub allowed_annotations: &'a [String],
}

/// A container, worked out.
pub struct Plan {
    /// What to create and join.
    pub namespaces: Namespaces,
    /// The root filesystem.
    pub rootfs: Option<Rootfs>,
    /// Its path on the host.
    pub root_path: PathBuf,
    /// What the program is.
    pub process: Process,
    /// The filter of system calls.
    pub seccomp: Option<Program>,
    /// Who decides on the calls of which it notifies.
    pub seccomp_agent: Option<Agent>,
    /// The cgroup and its limits; `None` when it stays in the caller's.
    pub cgroup: Option<cgroup::Request>,
    /// Its share of caches and memory bandwidth.
    pub resctrl: Option<resctrl::Request>,
    /// Whether the container is to make cgroups below its own.
    pub delegates_cgroup: bool,
    /// The host's user who may make cgroups below it.
    pub delegate_to: Option<Uid>,
    /// The cgroup below the container's own that its first process goes to.
    pub inner_cgroup: Option<cgroup::Inner>,
    /// Kernel parameters.
    pub sysctls: Sysctls,
    /// Empty for none.
    pub host_name: String,
    /// Empty for none.
    pub domain_name: String,
    /// Hooks of creation and start.
    pub hooks: PlannedHooks,
    /// What outlives the creation.
    pub kept: RecordedConfig,
}

/// Hooks by stage.
#[derive(Default)]
pub struct PlannedHooks {
    /// On the host, deprecated.
    pub prestart: Hooks,
    /// On the host.
    pub create_runtime: Hooks,
    /// In the container's namespaces, before pivot_root.
    pub create_container: Hooks,
    /// In the container, before the program.
    pub start_container: Hooks,
}

/// Parts of the configuration that go on record.
pub struct RecordedConfig {
    /// `ociVersion`.
    pub oci_version: String,
    /// Labels.
    pub annotations: BTreeMap<String, String>,
    /// The base of an exec.
    pub process: SpecProcess,
    /// An exec has it, too.
    pub personality: Option<LinuxPersonality>,
    /// An exec has it, too.
    pub memory_policy: Option<LinuxMemoryPolicy>,
    /// Hooks of later stages.
    pub poststart: Hooks,
    /// Hooks of later stages.
    pub poststop: Hooks,
}

/// Compiles a configuration.
pub fn compile(mut spec: Spec, options: &PlanOptions<'_>) -> Result<Plan> {
    if let Some(directory) = options.notify {
        notify::add_mount(&mut spec, directory);
    }
    annotations::check(spec.annotations().as_ref(), options.manager, options.allowed_annotations)?;
    let namespaces = Namespaces::plan(spec.linux().as_ref())?;
    validate::validate(&spec, &namespaces)?;
    let process = spec.process_mut().take();
    let process =
        process.ok_or_else(|| Error::new("is missing").field("/process").hint("a container needs a process"))?;
    let user_namespace = namespaces.origin(ns::Flags::USER) != Origin::Host;
    let isolation = |flag| match namespaces.origin(flag) {
        Origin::Host => rootfs::Isolation::None,
        Origin::New => rootfs::Isolation::New,
        Origin::Joined => rootfs::Isolation::Joined,
    };
    let linux = spec.linux().as_ref();
    let rootfs = Rootfs::plan(&rootfs::Request {
        spec: &spec,
        bundle: options.bundle,
        id: options.id,
        namespaces: rootfs::Namespaces {
            mount: isolation(ns::Flags::MOUNT),
            user: isolation(ns::Flags::USER),
            cgroup: isolation(ns::Flags::CGROUP),
            owns_network: namespaces.origin(ns::Flags::NETWORK) == Origin::New,
        },
        no_pivot: options.no_pivot,
        selinux: linux.is_some_and(|linux| linux.mount_label().is_some()) && host::has_selinux(),
    })?;
    let domain_name = spec.domainname().clone().unwrap_or_default();
    let sysctls = Sysctls::plan(linux.and_then(|linux| linux.sysctl().as_ref()), !domain_name.is_empty(), |owner| {
        let flag = match owner {
            Owner::Ipc => ns::Flags::IPC,
            Owner::Network => ns::Flags::NETWORK,
            Owner::Uts => ns::Flags::UTS,
            Owner::User => ns::Flags::USER,
        };
        namespaces.is_hosts_own(flag).map(|host| !host)
    })?;
    let seccomp = linux.and_then(|linux| linux.seccomp().as_ref());
    let delegates_cgroup = delegates_cgroup(&spec, &namespaces);
    let seccomp = seccomp.map(|profile| compile_seccomp(profile, &spec, options.bundle)).transpose()?;
    let (seccomp, seccomp_agent) = seccomp.map_or((None, None), |(program, agent)| (Some(program), agent));
    Ok(Plan {
        process: Process::plan(&process, &facts(&spec, &process, options, user_namespace))?,
        seccomp,
        seccomp_agent,
        cgroup: cgroup::Request::plan(linux, options.id, options.manager, spec.annotations().as_ref())?,
        resctrl: resctrl::Request::plan(linux, options.id)?,
        delegates_cgroup,
        delegate_to: delegates_cgroup.then(|| delegate_to(&namespaces, &process)).flatten(),
        inner_cgroup: inner_cgroup(&spec)?,
        hooks: planned_hooks(&spec)?,
        sysctls,
        host_name: spec.hostname().clone().unwrap_or_default(),
        domain_name,
        root_path: rootfs.path().components().collect(),
        kept: RecordedConfig {
            oci_version: spec.version().clone(),
            annotations: spec.annotations().clone().into_iter().flatten().collect(),
            process,
            personality: linux.and_then(|linux| linux.personality().clone()),
            memory_policy: linux.and_then(|linux| linux.memory_policy().clone()),
            poststart: hooks_of(&spec, Stage::Poststart)?,
            poststop: hooks_of(&spec, Stage::Poststop)?,
        },
        namespaces,
        rootfs: Some(rootfs),
    })
}

/// crun's annotation: a name of an unknown system call is an error. Any value but `0`.
const FAIL_UNKNOWN: &str = "run.oci.seccomp_fail_unknown_syscall";

fn compile_seccomp(profile: &LinuxSeccomp, spec: &Spec, bundle: &Path) -> Result<(Program, Option<Agent>)> {
    let program = Program::compile(profile)?;
    let annotation = spec.annotations().as_ref().and_then(|labels| labels.get(FAIL_UNKNOWN));
    if annotation.is_some_and(|value| value != "0") {
        program.refuse_unknown()?;
    }
    if program.forbids_programs() {
        return Err(Error::new("no program can be started: the filter forbids execve")
            .field("/linux/seccomp")
            .hint("allow execve"));
    }
    program.warnings().for_each(crate::log::warn);
    let agent = Agent::plan(profile, &program, bundle)?;
    Ok((program, agent))
}

fn facts<'a>(
    spec: &'a Spec,
    process: &SpecProcess,
    options: &PlanOptions<'a>,
    user_namespace: bool,
) -> ProcessFacts<'a> {
    let linux = spec.linux().as_ref();
    let keep_groups = spec.annotations().as_ref().and_then(|labels| labels.get(KEEP_GROUPS));
    ProcessFacts {
        listen_fds: options.listen_fds,
        preserve_fds: options.preserve_fds,
        env: options.notify.map(|_| notify::variable()).into_iter().collect(),
        personality: linux.and_then(|linux| linux.personality().as_ref()),
        memory_policy: linux.and_then(|linux| linux.memory_policy().as_ref()),
        keyring: options.new_keyring.then_some(options.id),
        keep_groups: keep_groups.is_some_and(|value| value == "1"),
        landlock: spec.annotations().as_ref().and_then(|labels| labels.get(LANDLOCK)).map(String::as_str),
        ..host_facts(process, user_namespace)
    }
}

/// What is known of a container that a program is to join.
pub struct ExecTarget<'a> {
    /// The container's id.
    pub id: &'a str,
    /// Its labels.
    pub annotations: &'a BTreeMap<String, String>,
    /// The execution domain of its programs.
    pub personality: Option<&'a LinuxPersonality>,
    /// On which nodes their memory lies.
    pub memory_policy: Option<&'a LinuxMemoryPolicy>,
    /// Whether it has a user namespace of its own.
    pub user_namespace: bool,
    /// Descriptors from 3 on that the caller passes by socket activation.
    pub listen_fds: u32,
    /// Numbers of descriptors after those that the program gets.
    pub preserve_fds: &'a [u32],
}

/// Compiles the program of an exec.
pub fn compile_exec(process: &SpecProcess, container: &ExecTarget<'_>) -> Result<Process> {
    let facts = ProcessFacts {
        exec: true,
        listen_fds: container.listen_fds,
        preserve_fds: container.preserve_fds,
        personality: container.personality,
        memory_policy: container.memory_policy,
        keyring: Some(container.id),
        keep_groups: container.annotations.get(KEEP_GROUPS).is_some_and(|value| value == "1"),
        landlock: container.annotations.get(LANDLOCK).map(String::as_str),
        ..host_facts(process, container.user_namespace)
    };
    Process::plan(process, &facts)
}

/// The annotation by which Podman asks for the caller's groups, `--group-add keep-groups`.
pub(crate) const KEEP_GROUPS: &str = "run.oci.keep_original_groups";

/// Facts of the host, looked up only for a process that they matter to.
fn host_facts(process: &SpecProcess, user_namespace: bool) -> ProcessFacts<'static> {
    ProcessFacts {
        user_namespace,
        rootless: Some(host::is_unprivileged),
        apparmor: process.apparmor_profile().is_some() && host::has_apparmor(),
        selinux: process.selinux_label().is_some() && host::has_selinux(),
        ..ProcessFacts::default()
    }
}

/// To whom a cgroup is given that the container steers: the host's id of its user (runtime-spec, "Cgroup ownership").
fn delegate_to(namespaces: &Namespaces, process: &SpecProcess) -> Option<Uid> {
    let user = process.user().uid();
    let owner = match namespaces.origin(ns::Flags::USER) {
        Origin::Host => user,
        _ => namespaces.maps()?.host_user(user)?,
    };
    (owner != 0).then(|| Uid::from_raw(owner))
}

/// Whether the container has its own view of cgroups and may write it.
fn delegates_cgroup(spec: &Spec, namespaces: &Namespaces) -> bool {
    let writable = |mount: &Mount| {
        let read_only = mount.options().iter().flatten().any(|option| option.split(',').any(|word| word == "ro"));
        mount.destination() == Path::new("/sys/fs/cgroup") && mount.typ().as_deref() == Some("cgroup") && !read_only
    };
    namespaces.origin(ns::Flags::CGROUP) == Origin::New && spec.mounts().iter().flatten().any(writable)
}

/// crun's annotation for containers that steer the cgroups below their own.
pub(crate) const INNER_CGROUP: &str = "run.oci.delegate-cgroup";

fn inner_cgroup(spec: &Spec) -> Result<Option<cgroup::Inner>> {
    let name = spec.annotations().as_ref().and_then(|labels| labels.get(INNER_CGROUP));
    name.map_or(Ok(None), |name| cgroup::Inner::plan(name)).field(|| format!("/annotations/{INNER_CGROUP}"))
}

fn planned_hooks(spec: &Spec) -> Result<PlannedHooks> {
    Ok(PlannedHooks {
        prestart: hooks_of(spec, Stage::Prestart)?,
        create_runtime: hooks_of(spec, Stage::CreateRuntime)?,
        create_container: hooks_of(spec, Stage::CreateContainer)?,
        start_container: hooks_of(spec, Stage::StartContainer)?,
    })
}

fn hooks_of(spec: &Spec, stage: Stage) -> Result<Hooks> {
    let Some(hooks) = spec.hooks() else { return Ok(Hooks::default()) };
    let list = match stage {
        Stage::Prestart => hooks.prestart(),
        Stage::CreateRuntime => hooks.create_runtime(),
        Stage::CreateContainer => hooks.create_container(),
        Stage::StartContainer => hooks.start_container(),
        Stage::Poststart => hooks.poststart(),
        Stage::Poststop => hooks.poststop(),
    };
    Hooks::plan(stage, list.as_deref())
}
