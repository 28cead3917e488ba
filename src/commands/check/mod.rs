//! `check`: what `create` would say of a bundle, and what this host lacks, with nothing created.

mod host;

use std::path::PathBuf;

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::argv::{arguments, choice, operand, option};
use crate::cli::Global;
use crate::container::check::{self, Finding, Report, Severity};
use crate::container::id::Id;
use crate::error::{Result, printable};
use crate::plan;
use crate::selfexe::{Protected, Protection};

arguments! {
    /// Check a configuration without creating a container
    pub struct Check {
        /// Bundle of the container [default: .]
        bundle: Option<PathBuf> = option().short('b').value("DIR"),
        /// Configuration [default: config.json in the bundle]
        config: Option<PathBuf> = option().short('f').value("FILE"),
        /// Unix socket to send the terminal to
        console_socket: Option<PathBuf> = option().value("SOCKET"),
        /// Check for a run without --detach
        foreground: bool = option(),
        /// Show what the host supports
        host: bool = option(),
        /// Output format
        format: Form = option().value("FORMAT").default("text"),
        /// ID of the container
        id: Option<String> = operand(),
    }
}

/// `--format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A line for each finding, and a summary
    Text,
    /// A JSON object
    Json,
}

choice!(Form);

/// The id where none is named: it is in the path of a cgroup that the configuration does not name.
const NOBODY: &str = "check";

impl Check {
    pub(super) fn run(self, global: &Global, protection: Protection) -> Result<u8> {
        let facts = self.host.then(host::survey);
        let wanted = self.wants_report();
        let report = if wanted { Some(self.report(global, protection.ensure()?)?) } else { None };
        let sound = report.as_ref().is_none_or(Report::starts) && facts.as_deref().is_none_or(host::suffices);
        let text = match self.format {
            Form::Text => {
                let gap = if wanted && facts.is_some() { "\n" } else { "" };
                let facts = facts.as_deref().map(host::text).unwrap_or_default();
                format!("{facts}{gap}{}", report.as_ref().map(lines).unwrap_or_default())
            }
            Form::Json => {
                let mut whole = report.as_ref().map_or_else(|| json!({}), document);
                if let Some(facts) = &facts {
                    whole["host"] = host::document(facts);
                }
                format!("{whole:#}\n")
            }
        };
        super::print(&text)?;
        Ok((!sound).into())
    }

    /// Whether it is about a bundle, too.
    pub(super) fn wants_report(&self) -> bool {
        !self.host || self.bundle.is_some() || self.config.is_some() || self.id.is_some()
    }

    fn report(&self, global: &Global, protected: Protected) -> Result<Report> {
        let id = match Id::new(self.id.as_deref().unwrap_or(NOBODY)) {
            Ok(id) => id,
            Err(error) => return Ok(Report::of(error)),
        };
        let bundle = self.bundle.clone().unwrap_or_else(|| ".".into());
        let bundle = match super::create::open_bundle(&bundle) {
            Ok(bundle) => bundle,
            Err(error) => return Ok(Report::of(error)),
        };
        let (config, source) = super::create::config(self.config.clone(), &bundle)?;
        let request = check::CheckRequest {
            id: &id,
            named: self.id.is_some(),
            config: &config,
            source,
            console_socket: self.console_socket.clone().map(super::absolute).transpose()?,
            foreground: self.foreground,
            options: plan::PlanOptions {
                id: id.as_str(),
                bundle: &bundle,
                manager: super::create::manager(global),
                no_pivot: false,
                new_keyring: true,
                listen_fds: 0,
                preserve_fds: &[],
                notify: None,
                allowed_annotations: &global.allow_annotation,
            },
        };
        Ok(check::check(&request, &super::store(global)?, protected))
    }
}

/// What comes of it.
fn verdict(report: &Report) -> &'static str {
    match (report.creates(), report.starts()) {
        (true, true) => "create would succeed",
        (true, false) => "create would succeed, and start would fail",
        (false, _) => "create would fail",
    }
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Create | Severity::Start => "error",
        Severity::Warning => "warning",
    }
}

/// A line for each finding, its remedy below it, and the verdict.
fn lines(report: &Report) -> String {
    let mut text = String::new();
    for Finding { severity, pointer, error } in &report.findings {
        let pointer = pointer.as_ref().map(|pointer| format!("{}: ", printable(pointer))).unwrap_or_default();
        text.push_str(&format!("{}: {pointer}{}\n", word(*severity), error.sentence()));
        if let Some(remedy) = error.remedy() {
            text.push_str(&format!("  hint: {}\n", printable(remedy)));
        }
    }
    let (errors, warnings) = counts(report);
    let count = |number: usize, what: &str| match number {
        0 => None,
        1 => Some(format!("1 {what}")),
        _ => Some(format!("{number} {what}s")),
    };
    let counted: Vec<String> = [count(errors, "error"), count(warnings, "warning")].into_iter().flatten().collect();
    text.push_str(verdict(report));
    if !counted.is_empty() {
        text.push_str(&format!(": {}", counted.join(", ")));
    }
    text.push_str(if report.cut_short {
        "; later checks were skipped: correct these errors and check again\n"
    } else {
        "\n"
    });
    text
}

fn counts(report: &Report) -> (usize, usize) {
    let warnings = report.count(Severity::Warning);
    (report.findings.len() - warnings, warnings)
}

/// The same as JSON; a finding has the keys of a record in the log.
fn document(report: &Report) -> Value {
    let (errors, warnings) = counts(report);
    json!({
        "verdict": verdict(report),
        "create": report.creates(),
        "start": report.starts(),
        "complete": !report.cut_short,
        "errors": errors,
        "warnings": warnings,
        "findings": report.findings.iter().map(record).collect::<Vec<_>>(),
    })
}

fn record(Finding { severity, pointer, error }: &Finding) -> Value {
    let stops = match severity {
        Severity::Create => Some("create"),
        Severity::Start => Some("start"),
        Severity::Warning => None,
    };
    let errno = error.errno().map(|errno| format!("{errno:?}"));
    let hint = error.remedy().map(printable);
    let mut record = json!({ "level": word(*severity), "msg": error.to_string() });
    for (key, value) in [
        ("field", pointer.as_deref()),
        ("hint", hint.as_deref()),
        ("errno", errno.as_deref()),
        ("phase", error.phase_name()),
        ("stops", stops),
    ] {
        if let Some(value) = value {
            record[key] = value.into();
        }
    }
    record
}
