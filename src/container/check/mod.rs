//! `check`: what `create` would refuse or warn of, and what `start` would, with nothing created.
//!
//! There are no rules here. What is wrong with a configuration is what the plan says; it is then mended ([`Document`]), and
//! the plan is asked again, until nothing is left to say. What only the kernel knows is asked of it by a process that ends
//! at once ([`dry_run`]); what is only seen on the host's files is looked at by the rooms, which have the sentences.

mod program;

use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use crate::error::{Context, Error, Result};
use crate::hooks::{Hooks, Stage};
use crate::host;
use crate::launch::dry_run;
use crate::log;
use crate::namespaces::Origin;
use crate::plan::mend::{Document, MAPS};
use crate::plan::{self, Plan, config, names};
use crate::process::console;
use crate::resctrl;
use crate::rootfs::{Lookup, OpenIn, Preview};
use crate::seccomp;
use crate::selfexe::Protected;
use crate::sys::{Errno, ns};

use super::agent::CALLING;
use super::create::Console;
use super::id::Id;
use super::store::Store;
use program::PreviewFiles;

/// How often a configuration is mended; each time takes less than a call of `create`.
const ROUNDS: usize = 200;

/// What a process can be made without, and nothing else of it is another.
const ALONE: [&str; 4] = ["/process/", "/linux/sysctl/", "/linux/memoryPolicy", "/linux/personality"];

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// `create` would fail.
    Create,
    /// `create` would succeed, and `start` fail.
    Start,
    /// It would be told, and go on.
    Warning,
}

/// Something that would be said.
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What is at fault in the configuration.
    pub pointer: Option<String>,
    /// What would be said.
    pub error: Error,
}

/// What was found.
#[derive(Default)]
pub struct Report {
    /// In the order in which it was found.
    pub findings: Vec<Finding>,
    /// There may be more, which can only be seen once this is mended.
    pub cut_short: bool,
}

/// What is to be checked.
pub struct CheckRequest<'a> {
    /// The id that the container would have.
    pub id: &'a Id,
    /// Whether that was named; then it must be free.
    pub named: bool,
    /// The configuration.
    pub config: &'a Path,
    /// Whose that is.
    pub source: config::ConfigSource,
    /// `--console-socket`, absolute.
    pub console_socket: Option<PathBuf>,
    /// It would be a `run` that waits for the end.
    pub foreground: bool,
    /// What the command line adds.
    pub options: plan::PlanOptions<'a>,
}

/// Checks.
pub fn check(request: &CheckRequest<'_>, store: &Store, _: Protected) -> Report {
    log::collect_warnings();
    let mut report = Report::default();
    if let Err(error) = preflight(request, store, &mut report) {
        report.add(error, None);
        report.cut_short = true;
    }
    report.warn(None);
    report
}

fn preflight(request: &CheckRequest<'_>, store: &Store, report: &mut Report) -> Result<()> {
    let text = config::load(request.config, request.source)?;
    let mut document = match config::value(&text) {
        Ok(value) => {
            for error in names::unknown(&value) {
                report.put(Severity::Warning, None, error, None);
            }
            Document::new(value)
        }
        // It is the reader who says what is wrong.
        Err(_) => return config::interpret(&text, request.config).map(drop),
    };
    let (plan, terminal) = report.plan(request, text, &mut document);
    match Console::choose(terminal, !request.foreground, request.console_socket.clone()) {
        Ok(Console::Socket(path)) => report.note(console::preflight(&path, console::TO_CONSOLE).phase("terminal")),
        other => report.note(other.map(drop)),
    }
    if request.named {
        report.note(store.ensure_free(request.id));
    }
    report.note(store.preflight(request.id));
    let Some(plan) = plan else {
        report.cut_short = true;
        return Ok(());
    };
    report.host(&plan, &document);
    report.files(&plan, &document);
    if MAPS.iter().any(|map| document.follows_from_mending(map)) {
        // Whose users would not be those of the container.
        report.cut_short = true;
    } else {
        report.trials(request, plan, document);
    }
    Ok(())
}

impl Report {
    /// That nothing could be looked at.
    pub fn of(error: Error) -> Report {
        let mut report = Report { cut_short: true, ..Report::default() };
        report.add(error, None);
        report
    }

    /// Whether `create` would go through.
    pub fn creates(&self) -> bool {
        !self.has(Severity::Create)
    }

    /// Whether `start` would, too.
    pub fn starts(&self) -> bool {
        self.creates() && !self.has(Severity::Start)
    }

    fn has(&self, severity: Severity) -> bool {
        self.count(severity) > 0
    }

    /// How many there are of a kind.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    fn note(&mut self, outcome: Result<()>) {
        outcome.unwrap_or_else(|error| self.add(error, None));
    }

    /// Takes an error, unless it is there already or only comes of what was mended.
    fn add(&mut self, error: Error, document: Option<&Document>) {
        self.add_at(None, error, document);
    }

    /// The same for an error that does not name its field itself.
    fn add_at(&mut self, pointer: Option<&str>, error: Error, document: Option<&Document>) {
        let severity = match error.phase_name() {
            Some("start" | "startContainer" | "poststart") => Severity::Start,
            Some("poststop") => Severity::Warning,
            _ => Severity::Create,
        };
        self.put(severity, pointer, error, document);
    }

    fn put(&mut self, severity: Severity, pointer: Option<&str>, mut error: Error, document: Option<&Document>) {
        if let Some(document) = document {
            error = error.field_renamed(|pointer| document.original(pointer));
            let pointer = error.field_name().unwrap_or_default();
            let lacks = error.is_missing() && document.lacks_a_part(pointer);
            if !pointer.is_empty() && (lacks || document.follows_from_mending(pointer)) {
                return;
            }
        }
        let pointer = error.field_name().or(pointer).map(str::to_owned);
        let sentence = error.to_string();
        let known =
            self.findings.iter().any(|finding| finding.pointer == pointer && finding.error.to_string() == sentence);
        if !known {
            self.findings.push(Finding { severity, pointer, error });
        }
    }

    /// Takes the warnings that were given since.
    fn warn(&mut self, document: Option<&Document>) {
        for warning in log::take_collected() {
            self.put(Severity::Warning, None, warning, document);
        }
    }

    /// Works the container out, mending what is at fault; whether the first configuration that could be read asks for a
    /// terminal. There is no plan when there is something that cannot be mended.
    fn plan(&mut self, request: &CheckRequest<'_>, mut text: Vec<u8>, document: &mut Document) -> (Option<Plan>, bool) {
        let mut terminal = None;
        let mut linted = false;
        for _ in 0..ROUNDS {
            let mut lints = Vec::new();
            let plan = config::interpret(&text, request.config).and_then(|spec| {
                terminal.get_or_insert(spec.process().as_ref().and_then(|process| process.terminal()).unwrap_or(false));
                if !linted {
                    let profile = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
                    // What cannot be compiled the plan tells; it is linted once that is mended.
                    let found = profile.map_or(Ok(Vec::new()), seccomp::lint);
                    linted = found.is_ok();
                    lints = found.unwrap_or_default();
                }
                plan::compile(spec, &request.options)
            });
            lints.into_iter().for_each(|error| self.put(Severity::Warning, None, error, Some(document)));
            self.warn(Some(document));
            let error = match plan {
                Ok(plan) => return (Some(plan), terminal == Some(true)),
                Err(error) => error,
            };
            let pointer = error.field_name().map(str::to_owned);
            self.add(error, Some(document));
            if !pointer.is_some_and(|pointer| document.mend(&pointer)) {
                break;
            }
            text = document.text().into_bytes();
        }
        (None, terminal == Some(true))
    }

    /// What there has to be on the host beside files of the container.
    fn host(&mut self, plan: &Plan, document: &Document) {
        if let Some(cgroup) = &plan.cgroup {
            cgroup.preflight(&mut |error| self.add(error.phase("cgroup"), Some(document)));
        }
        self.note(
            plan.resctrl.as_ref().map(resctrl::Request::place).map_or(Ok(()), |group| group.map(drop)).phase("cgroup"),
        );
        if let Some(agent) = &plan.seccomp_agent {
            let there = console::preflight(&agent.path, CALLING);
            self.note(there.field(|| "/linux/seccomp/listenerPath").phase("seccomp"));
        }
        let executable = |path: &Path| {
            access(path, AccessFlags::X_OK)?;
            if path.is_file() { Ok(()) } else { Err(Errno::EACCES) }
        };
        let (hooks, kept) = (&plan.hooks, &plan.kept);
        for (stage, hooks) in [
            (Stage::Prestart, &hooks.prestart),
            (Stage::CreateRuntime, &hooks.create_runtime),
            (Stage::CreateContainer, &hooks.create_container),
            (Stage::Poststart, &kept.poststart),
            (Stage::Poststop, &kept.poststop),
        ] {
            self.hooks(stage, hooks, &executable, document);
        }
        self.warn(Some(document));
    }

    fn hooks(
        &mut self,
        stage: Stage,
        hooks: &Hooks,
        executable: &dyn Fn(&Path) -> Result<(), Errno>,
        document: &Document,
    ) {
        hooks.preflight(stage, executable, &mut |error| self.add(error.phase(stage.word()), Some(document)));
    }

    /// What the container would see: its root, its mounts, its program.
    fn files(&mut self, plan: &Plan, document: &Document) {
        if document.follows_from_mending("/root/path") {
            self.cut_short = true;
            return;
        }
        let origin = |flag| plan.namespaces.origin(flag);
        let own = origin(ns::Flags::USER) != Origin::Host && origin(ns::Flags::MOUNT) == Origin::New;
        let opened = if own && host::cannot_mount() { OpenIn::Child } else { OpenIn::Host };
        let mut tell = |error: Error| self.add(error.phase("mounts"), Some(document));
        let preview = plan.rootfs.as_ref().and_then(|rootfs| rootfs.preflight(opened, &mut tell));
        let Some(mut preview) = preview else {
            self.cut_short = true;
            return;
        };
        document.uncovered().for_each(|path| preview.obscure(path));
        let seen = PreviewFiles::new(&preview, plan);
        let mut tell = |outcome: Result<()>| outcome.unwrap_or_else(|error| self.add(error, Some(document)));
        tell(working_directory(plan, &preview));
        if plan.process.terminal().is_some()
            && let Lookup::Missing { errno, .. } = preview.find(Path::new("/dev/pts"), None)
        {
            tell(console::no_devpts(errno).phase("terminal"));
        }
        let is_there = |path: &Path| !matches!(preview.find(path, None), Lookup::Missing { .. });
        tell(plan.process.preflight_landlock(&is_there).phase("process"));
        if !document.follows_from_mending("/process/args/0") && !document.follows_from_mending("/process/env") {
            let found = plan.process.find_program(&seen).phase("process");
            let outcome = found.and_then(|found| plan.process.preflight_program(&found, &seen).phase("start"));
            if let Err(error) = outcome {
                // Engines know these sentences by heart, so there is no field in them.
                self.add_at(Some("/process/args/0"), error, Some(document));
            }
        }
        self.hooks(Stage::StartContainer, &plan.hooks.start_container, &|path| seen.executable(path), document);
        self.warn(Some(document));
    }

    /// What the kernel says. Of a list it refuses the first that it does not like, so what it has refused is taken out, and
    /// it is asked once more.
    fn trials(&mut self, request: &CheckRequest<'_>, mut plan: Plan, mut document: Document) {
        if document.lacks_a_part("/linux/seccomp") && document.mend("/linux/seccomp") {
            // What is left of a filter may kill where the whole one does not.
            match again(request, &document) {
                Ok(better) => plan = better,
                Err(_) => return,
            }
        }
        for _ in 0..ROUNDS {
            let mut refused: Vec<Error> = Vec::new();
            dry_run::run(&plan, !request.foreground, &mut |error| refused.push(error));
            self.warn(Some(&document));
            let mut mended = false;
            for error in refused {
                let pointer = error.field_name().map(str::to_owned);
                let before = self.findings.len();
                self.add(error, Some(&document));
                let new = self.findings.len() > before;
                let alone = |pointer: &String| ALONE.iter().any(|above| pointer.starts_with(above));
                mended |= new && pointer.filter(alone).is_some_and(|pointer| document.mend(&pointer));
            }
            if !mended {
                return;
            }
            match again(request, &document) {
                Ok(better) => plan = better,
                Err(_) => return,
            }
        }
    }
}

/// The plan of what is left of a configuration; what is said of it is no news.
fn again(request: &CheckRequest<'_>, document: &Document) -> Result<Plan> {
    let spec = config::interpret(document.text().as_bytes(), request.config);
    let plan = spec.and_then(|spec| plan::compile(spec, &request.options));
    log::take_collected();
    plan
}

/// Whether it can be made, or is there, and is a directory.
fn working_directory(plan: &Plan, preview: &Preview) -> Result<()> {
    let path = plan.process.cwd();
    let what = || format!("make the working directory {}", path.display());
    preview.check_dir(path).with_context(what).field(|| "/process/cwd").phase("mounts")?;
    match preview.find(path, None) {
        Lookup::There(found) if !found.is_directory() => plan.process.refuse_cwd(Errno::ENOTDIR).phase("process"),
        _ => Ok(()),
    }
}
