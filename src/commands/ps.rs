//! `ps`.

use clap::Args;

use crate::cli::Global;
use crate::container::members;
use crate::container::sessions::{self, Session};
use crate::error::{Context, Error, Result, ensure, printable};
use crate::host;

use super::list::Format;

/// List a container's processes
#[derive(Args, Debug)]
pub struct Ps {
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Of exec'd programs only: each with a name for `kill --session`
    #[arg(long, conflicts_with = "options")]
    sessions: bool,
    /// The container's id
    id: String,
    /// Options of ps(1) for the table
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

impl Ps {
    pub(super) fn run(self, global: &Global) -> Result<u8> {
        let what = || format!("ps {}", self.id);
        let container = super::store(global)?.open(&self.id).with_context(what)?;
        if self.sessions {
            let sessions = sessions::list(&container).with_context(what)?;
            return super::print(&show(&sessions, self.format)?).map(|()| 0);
        }
        let pids: Vec<i32> = members::pids(&container).with_context(what)?.iter().map(|pid| pid.as_raw()).collect();
        let text = match self.format {
            Format::Json if pids.is_empty() => "null\n".to_owned(),
            Format::Json => serde_json::to_string(&pids).map_err(|error| Error::new(error.to_string()))? + "\n",
            Format::Table => table(&pids, &self.options).with_context(what)?,
        };
        super::print(&text)?;
        Ok(0)
    }
}

/// A line each.
fn show(sessions: &[Session], format: Format) -> Result<String> {
    if matches!(format, Format::Json) {
        return serde_json::to_string(sessions).map(|text| text + "\n").map_err(|error| Error::new(error.to_string()));
    }
    let line = |session: &Session| {
        [session.id.clone(), session.pid.to_string(), session.since.clone(), session.args.join(" ")]
    };
    let head = ["SESSION", "PID", "SINCE", "ARGS"].map(str::to_owned);
    let rows: Vec<[String; 4]> = std::iter::once(head).chain(sessions.iter().map(line)).collect();
    Ok(super::table::lay_out(&rows))
}

/// The rows of ps(1) for these processes.
fn table(pids: &[i32], options: &[String]) -> Result<String> {
    let default = ["-ef".to_owned()];
    let options = if options.is_empty() { &default[..] } else { options };
    let ps = host::program("ps").ok_or_else(|| Error::new("there is no ps in PATH").hint("install procps"))?;
    let output = host::command(&ps).args(options).output().with_context(|| format!("run {}", ps.display()))?;
    ensure!(output.status.success(), "ps: {}", String::from_utf8_lossy(&output.stderr).trim());
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let column = head.split_whitespace().position(|title| title == "PID");
    let column =
        column.ok_or_else(|| Error::new("the output of ps has no column PID").hint("add -o pid to its options"))?;
    let ours = |line: &&str| {
        line.split_whitespace().nth(column).and_then(|pid| pid.parse().ok()).is_some_and(|pid: i32| pids.contains(&pid))
    };
    Ok(std::iter::once(head).chain(lines.filter(ours)).map(|line| format!("{}\n", printable(line))).collect())
}
