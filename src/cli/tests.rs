//! The command line as callers write it.

use super::*;

fn quick(arguments: &[OsString]) -> Option<Cli> {
    Cli::take(&mut quick::read(Cli::ARGS, &arguments[1..])?)
}

fn words(line: &str) -> Vec<OsString> {
    std::iter::once("corten").chain(line.split(' ')).map(OsString::from).collect()
}

#[test]
fn the_definition_is_sound() {
    description().debug_assert();
}

#[test]
fn what_engines_write_is_understood() {
    for line in [
        "--root /r --log /l --log-format json create --bundle /b --pid-file /b/init.pid c",
        "--log-format=json --log /l --systemd-cgroup create c --bundle /b --console-socket /s",
        "--cgroup-manager disabled create --bundle /b --pid-file /p --preserve-fds 3 c",
        "--root /r --rootless=true start c",
        "--allow-annotation a --allow-annotation=b.* run -b /b c",
        "kill --all c 9",
        "kill c SIGTERM",
        "kill -9 c",
        "kill -a -KILL c",
        "kill c -SIGRTMIN+3",
        "kill -s 9 c",
        "kill --signal TERM c",
        "kill -- -9 -9",
        "exec -it c sh",
        "exec -tid c sh -it",
        "exec --interactive --tty c sh",
        "delete --force c",
        "delete -f a b",
        "list --format=json",
        "list -q -f table",
        "run -d -b /b -no-subreaper --no-new-keyring --keep c",
        "exec --process /p --detach --pid-file /q c",
        "exec -t -e A=b --cwd / c sh -c true --detach",
        "ps --format json c",
        "ps --sessions --format json c",
        "kill --session 4711-5j3kz c KILL",
        "spec --bundle /b",
        "features",
        "check -b /b -f /c --console-socket /s --format=json --host c",
        "check --foreground",
        "update --resources - c",
        "update --resources=/tmp/r c",
        "update --cpu-quota -1 --memory -1 --pids-limit -1 c",
        "update c --blkio-weight 10 --cpu-share 2 --cpuset-cpus 0 --kernel-memory 1 --l3-cache-schema L3:0=f",
        "events --stats c",
        "events --interval=5s c",
        "mounts add c mounts.json",
        "mounts remove c -",
    ] {
        assert!(quick(&words(line)).is_some(), "{line}");
    }
}

#[test]
fn what_is_right_needs_no_clap() {
    for line in [
        "--root /r create --bundle /b c",
        "state c",
        "kill c 9",
        "--debug run c",
        "delete -f a b",
        "--root create kill c",
    ] {
        assert!(quick(&words(line)).is_some(), "{line}");
    }
    for line in ["state", "state --help", "create --wrong c", "nosuch c"] {
        assert!(quick(&words(line)).is_none(), "{line}");
    }
}

#[test]
fn the_command_of_an_exec_keeps_its_own_options() {
    let Ok(Cli { command: Command::Exec(exec), .. }) = parse(&words("exec c sh -c -t --detach")) else { panic!() };
    assert_eq!(exec.args, ["sh", "-c", "-t", "--detach"]);
    assert!(!exec.tty && !exec.detach);
}

#[test]
fn a_signal_may_be_given_as_to_kill() {
    for (line, expected) in [
        ("kill -9 c", "kill --signal=9 c"),
        ("--root kill --debug kill -a c -KILL", "--root kill --debug kill -a c --signal=KILL"),
        ("kill -ar c", "kill -ar c"),
        ("kill -- -9 9", "kill -- -9 9"),
        ("exec kill -9", "exec kill -9"),
        ("--root /r", "--root /r"),
        ("run -no-subreaper c", "run --no-subreaper c"),
        ("exec c -no-subreaper", "exec c -no-subreaper"),
    ] {
        assert_eq!(quick::spell_out(Cli::ARGS, &words(line)[1..]), words(expected)[1..]);
    }
    for line in ["kill -9 c 9", "kill -9 -KILL", "kill -z c"] {
        assert!(parse(&words(line)).is_err(), "{line}");
    }
}

#[test]
fn the_version_is_asked_for_before_a_command_only() {
    for line in [
        "--version",
        "--debug -v",
        "--allow-annotation create -v",
        "--root /r --version",
        "-v state --wrong c",
        "--nosuch -v",
        "--log=/l --log-format json -V",
    ] {
        assert!(matches!(parse(&words(line)), Err(Answer::Version)), "{line}");
    }
    assert!(parse(&words("exec c prog --version")).is_ok());
}

/// Numbers that look random, and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// The options of a command, as clap knows them.
fn options(command: &clap::Command) -> Vec<String> {
    let spellings = |arg: &clap::Arg| {
        let long = arg.get_long().map(|word| format!("--{word}"));
        long.into_iter().chain(arg.get_short().map(|letter| format!("-{letter}"))).collect::<Vec<_>>()
    };
    command.get_arguments().flat_map(spellings).collect()
}

/// Fewer than `most` words or pairs of them.
fn some(dice: &mut Dice, options: &[String], values: &[&str], most: usize) -> Vec<String> {
    let mut words = Vec::new();
    for _ in 0..dice.below(most) {
        words.push(match dice.below(4) {
            0 => format!("{}={}", dice.one(options), dice.one(values)),
            1 => (*dice.one(values)).to_owned(),
            _ => dice.one(options).clone(),
        });
        if dice.below(2) == 0 {
            words.push((*dice.one(values)).to_owned());
        }
    }
    words
}

#[test]
fn both_parsers_understand_the_same() {
    const VALUES: &[&str] = &[
        "c",
        "c",
        "c",
        "1",
        "0x1",
        "-1",
        "-",
        "--",
        "",
        "json",
        "JSON",
        "text",
        "table",
        "debug",
        "Debug",
        "soft",
        "a=b",
        "=",
        "-9",
        "-KILL",
        "-it",
        "-b/b",
        "-b=/b",
        "-fd",
        "-no-subreaper",
        "--nosuch",
        "--no",
        "--log=/l",
        "--log=",
        "--debug=1",
        "state",
        "add",
        "dump",
        "explain",
        "network",
    ];
    let mut clap = description();
    let mut dice = Dice(1);
    let leading = options(&clap);
    let commands: Vec<(String, Vec<String>)> =
        clap.get_subcommands().map(|command| (command.get_name().to_owned(), options(command))).collect();
    let (mut both, mut clap_alone) = (0, 0);
    for _ in 0..20_000 {
        let (name, own) = dice.one(&commands);
        let own = if own.is_empty() { &leading } else { own };
        let mut line = vec!["corten".to_owned()];
        line.extend(some(&mut dice, &leading, VALUES, 2));
        line.push(name.clone());
        line.extend(some(&mut dice, own, VALUES, 6));
        let line: Vec<OsString> = line.into_iter().map(OsString::from).collect();
        let fully = full::read(&mut clap, Cli::ARGS, &line);
        let fully =
            fully.map(|matches| Cli::take(&mut full::words(Cli::ARGS, &matches)).expect("clap's are right values"));
        match (quick(&line), fully) {
            (Some(quick), Ok(fully)) => {
                assert_eq!(format!("{quick:?}"), format!("{fully:?}"), "{line:?}");
                both += 1;
            }
            (Some(_), Err(error)) => panic!("{line:?}: {error}"),
            (None, Ok(_)) => clap_alone += 1,
            (None, Err(_)) => {}
        }
    }
    // Else the dice are no good.
    assert!(both > 1000 && clap_alone > 20, "{both} lines were understood by both, {clap_alone} by clap alone");
}
