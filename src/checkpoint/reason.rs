//! Why CRIU did not do what it was asked for, as an error that one can act upon.

use std::fs;
use std::path::Path;

use super::criu::Failure;
use super::rpc::RequestType;
use crate::error::Error;
use crate::sys::Errno;

/// Words of CRIU, and what helps.
const HINTS: [(&str, &str); 16] = [
    ("Network is unreachable", "set the loopback device up where the runtime runs: criu tries a connection over it"),
    (
        "Locking network failed",
        "install iptables, which criu locks the network with, or give --network-lock nftables or skip",
    ),
    ("iptables", "install iptables, which criu locks the network with, or give --network-lock nftables or skip"),
    ("--tcp-established", "give --tcp-established, to checkpoint and to restore"),
    ("onnected TCP socket", "give --tcp-established, to checkpoint and to restore"),
    ("--shell-job", "give --shell-job, to checkpoint and to restore"),
    ("tty", "a container that has been given its caller's terminal needs --shell-job"),
    ("--ext-unix-sk", "give --ext-unix-sk: a unix socket is connected to a process outside of the container"),
    ("xternal socket", "give --ext-unix-sk: a unix socket is connected to a process outside of the container"),
    ("file locks", "give --file-locks, to checkpoint and to restore"),
    ("link-remap", "give --link-remap: a file is open that was deleted under the name by which it was opened"),
    (
        "Can't lookup mount=",
        "a file is open that lies outside of the container's mounts, such as a standard stream redirected to a file of \
         the host: a pipe or /dev/null can be checkpointed",
    ),
    ("soft-dirty", "the kernel cannot track changes of memory (CONFIG_MEM_SOFT_DIRTY)"),
    ("Dirty tracking", "the kernel cannot track changes of memory (CONFIG_MEM_SOFT_DIRTY)"),
    ("CPU", "the checkpoint was made on another kind of processor"),
    ("No mapping for", "the container has a mount that config.json does not have"),
];

/// The error for a request, with the first line of the log that tells of one, and where the log is. `log` is its path.
pub fn explain(kind: RequestType, failure: Failure, log: &Path) -> Error {
    let place = format!("the log is {}", log.display());
    if let Some(error) = failure.cause {
        // What we have refused ourselves is the reason, with its own remedy.
        return error;
    }
    let message = failure.message.filter(|line| !is_harmless(line));
    let line = message.or_else(|| first_error(log)).unwrap_or_else(|| match failure.errno {
        0 => "it does not say why".to_owned(),
        errno => crate::error::words(Errno::from_raw(errno)),
    });
    let line = strip(&line).to_owned();
    let hint = HINTS.iter().find(|(words, _)| line.contains(words)).map(|&(_, hint)| hint);
    let step = failure.step.map_or_else(String::new, |step| format!(" after {step}"));
    Error::new(format!("criu {} failed{step}: {line}", kind.word()))
        .hint(hint.map_or(place.clone(), |hint| format!("{hint}; {place}")))
        .phase("criu")
}

/// The first line of a log that tells of an error.
fn first_error(log: &Path) -> Option<String> {
    let text = String::from_utf8_lossy(&fs::read(log).ok()?).into_owned();
    text.lines().find(|line| line.contains("Error (") && !is_harmless(line)).map(str::to_owned)
}

/// Whether CRIU goes on after this error: it has fewer descriptors then.
fn is_harmless(line: &str) -> bool {
    line.contains("rlimit: Can't setup RLIMIT_NOFILE for self")
}

/// Without time, file and line: `(00.016) Error (criu/x.c:1): pie: …`.
fn strip(line: &str) -> &str {
    let line = line.trim();
    match line.split_once("Error (").and_then(|(_, rest)| rest.split_once("): ")) {
        Some((_, sentence)) => sentence.trim(),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(message: &str) -> Failure {
        Failure { step: Some("network-unlock".into()), message: Some(message.into()), cause: None, errno: 0 }
    }

    #[test]
    fn the_first_error_of_criu_is_the_sentence_with_step_log_and_remedy() {
        let message =
            "Error (criu/sk-inet.c:191): inet: Connected TCP socket, consider using --tcp-established option.\n";
        let error = explain(RequestType::Dump, failure(message), Path::new("/w/dump.log"));
        assert_eq!(
            error.to_string(),
            "criu dump failed after network-unlock: inet: Connected TCP socket, consider using --tcp-established option. \
             (give --tcp-established, to checkpoint and to restore; the log is /w/dump.log)"
        );
        assert_eq!(error.phase_name(), Some("criu"));
    }

    #[test]
    fn an_error_after_which_criu_goes_on_is_not_the_reason() {
        let log = std::env::temp_dir().join(format!("corten-reason-{}", std::process::id()));
        let harmless = "Error (criu/rlimit.c:1): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted";
        fs::write(&log, format!("(00.1) {harmless}\n(00.2) pie: 1\n(00.3) Error (criu/x.c:2): real\n")).unwrap();
        let error = explain(RequestType::Dump, failure(harmless), &log);
        fs::remove_file(&log).unwrap();
        assert!(error.to_string().starts_with("criu dump failed after network-unlock: real ("), "{error}");
    }

    #[test]
    fn without_a_line_of_its_own_the_errno_speaks_and_our_own_reason_comes_first() {
        let silent = Failure { step: None, message: None, cause: None, errno: libc::ENOENT };
        let error = explain(RequestType::Restore, silent, Path::new("/no/such.log"));
        assert_eq!(error.to_string(), "criu restore failed: no such file or directory (the log is /no/such.log)");
        let ours = Failure { cause: Some(Error::new("uid 0 is not 7")), ..failure("pre-resume failed") };
        assert_eq!(explain(RequestType::Restore, ours, Path::new("/w")).to_string(), "uid 0 is not 7");
    }
}
