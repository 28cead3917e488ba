//! `ps`.

use std::process::Output;

use crate::argv::{arguments, operand, option};
use crate::cli::Global;
use crate::container::sessions::{self, Session};
use crate::container::{members, processes};
use crate::error::{Context, Error, Result, ensure, printable};
use crate::host;

use super::list::Format;

arguments! {
    /// List the processes of a container
    pub struct Ps {
        /// Output format
        format: Format = option().short('f').default("table"),
        /// List only programs started by exec
        sessions: bool = option().conflicts(&["options"]),
        /// ID of the container
        id: String = operand(),
        /// Options of ps(1) for the table
        options: Vec<String> = operand().value("PS-OPTION").trailing().hyphens(),
    }
}

impl Ps {
    pub(super) fn run(self, global: &Global) -> Result<u8> {
        let what = || format!("ps {}", self.id);
        let container = super::store(global)?.open(&self.id).with_context(what)?;
        if self.sessions {
            let sessions = sessions::list(&container).with_context(what)?;
            return super::print(&show(&sessions, self.format)?).map(|()| 0);
        }
        let list = || -> Result<Vec<i32>> {
            Ok(members::pids(&container).with_context(what)?.iter().map(|pid| pid.as_raw()).collect())
        };
        let text = match self.format {
            Format::Json => match &list()?[..] {
                [] => "null\n".to_owned(),
                pids => serde_json::to_string(pids).map_err(|error| Error::new(error.to_string()))? + "\n",
            },
            Format::Table if host::program("ps").is_none() => {
                ensure_default(&self.options).with_context(what)?;
                let lines = processes::table(&list()?).with_context(what)?;
                lines.iter().map(|line| format!("{}\n", printable(line))).collect()
            }
            Format::Table => {
                // Before and after: who ends meanwhile may leave its pid to another process.
                let before = list()?;
                let table = table(&self.options).with_context(what)?;
                let after = list()?;
                table.of(&before.into_iter().filter(|pid| after.contains(pid)).collect::<Vec<_>>())
            }
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

/// Without ps(1) nobody here understands its options.
fn ensure_default(options: &[String]) -> Result<()> {
    let default = options.is_empty() || options == ["-ef"];
    let refusal = || Error::new("there is no ps in PATH, whose options these are").hint("install procps");
    if default { Ok(()) } else { Err(refusal()) }
}

/// The title of the column that we ask for.
const OURS: &str = "CORTEN-PID";

/// What ps(1) prints with these options.
fn table(options: &[String]) -> Result<Table> {
    let default = ["-ef".to_owned()];
    let options = if options.is_empty() { &default[..] } else { options };
    let ps = host::program("ps").ok_or_else(|| Error::new("there is no ps in PATH").hint("install procps"))?;
    let run =
        |options: &[String]| host::command(&ps).args(options).output().with_context(|| format!("run {}", ps.display()));
    // No column that the options name is sure to be a word, or to be there. Ours comes before them; what makes no columns of
    // its own choice (`-f`, `u`) cannot be combined with that, and has nothing with spaces before the pid.
    // Where it selects nobody ps ends with 1 and says nothing.
    let is_well = |output: &Output| output.status.success() || output.stderr.is_empty();
    if options != default {
        let output = run(&[&["-o".to_owned(), format!("pid={OURS}")], options].concat())?;
        let table = Table::with_ours(&String::from_utf8_lossy(&output.stdout));
        if let Some(table) = table.filter(|_| is_well(&output)) {
            return Ok(table);
        }
    }
    let output = run(options)?;
    ensure!(is_well(&output), "ps: {}", String::from_utf8_lossy(&output.stderr).trim());
    Table::with_theirs(&String::from_utf8_lossy(&output.stdout))
        .ok_or_else(|| Error::new("the output of ps has no column PID").hint("add -o pid to its options"))
}

/// What ps prints.
struct Table {
    head: String,
    rows: Vec<(i32, String)>,
}

impl Table {
    /// What has our column, which is taken off. `None`: it has no other.
    fn with_ours(text: &str) -> Option<Table> {
        let mut lines = text.lines();
        let head = lines.next()?.trim_start().strip_prefix(OURS)?;
        let row = |line: &str| {
            let line = line.trim_start();
            let (pid, rest) = line.split_once(' ').unwrap_or((line, ""));
            Some((pid.parse().ok()?, rest.to_owned()))
        };
        let rows: Vec<(i32, String)> = lines.filter_map(row).collect();
        let head = head.strip_prefix(' ').unwrap_or(head).to_owned();
        let others = !head.trim().is_empty() || rows.iter().any(|(_, rest)| !rest.is_empty());
        others.then_some(Table { head, rows })
    }

    /// What has a column PID.
    fn with_theirs(text: &str) -> Option<Table> {
        let mut lines = text.lines();
        let head = lines.next()?;
        let column = head.split_whitespace().position(|title| title == "PID")?;
        // A label of AppArmor has its mode behind it: `docker-default (enforce)`.
        let labelled = head.starts_with("LABEL ");
        let pid = |line: &str| {
            let mut words = line.split_whitespace().filter(|word| !labelled || !word.starts_with('('));
            words.nth(column)?.parse().ok()
        };
        let rows = lines.filter_map(|line| Some((pid(line)?, line.to_owned()))).collect();
        Some(Table { head: head.to_owned(), rows })
    }

    /// The rows of these processes. ps prints no head where no column has a title.
    fn of(&self, pids: &[i32]) -> String {
        let rows = self.rows.iter().filter(|(pid, _)| pids.contains(pid)).map(|(_, row)| row);
        let head = Some(&self.head).filter(|head| !head.trim().is_empty());
        head.into_iter().chain(rows).map(|line| format!("{}\n", printable(line))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_column_is_taken_off_and_nothing_else() {
        let text = "CORTEN-PID CMD                  PPID\n        17 /bin/a 17 18              1\n     99999  b\n";
        let table = Table::with_ours(text).unwrap();
        assert_eq!(table.of(&[17]), "CMD                  PPID\n/bin/a 17 18              1\n");
        assert_eq!(table.of(&[99999]), "CMD                  PPID\n b\n");
        assert_eq!(Table::with_ours("CORTEN-PID      \n        17 a\n").unwrap().of(&[17]), "a\n");
        for text in ["", "CORTEN-PID\n        17\n", "  PID CMD\n   17 a\n"] {
            assert!(Table::with_ours(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_label_with_its_mode_moves_no_column() {
        let text = "LABEL      UID   PID CMD\nx (enforce) root   17 (sd-pam)\nunconfined root    1 a 17\n";
        assert_eq!(
            Table::with_theirs(text).unwrap().of(&[17]),
            "LABEL      UID   PID CMD\nx (enforce) root   17 (sd-pam)\n"
        );
        assert!(Table::with_theirs("CMD\na\n").is_none());
    }
}
