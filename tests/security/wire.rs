//! Whoever may trace a process of its container may take a copy of the socket by which that talks with the runtime, and
//! speak in its place: the runtime neither waits for it nor repeats what it says as it is.

use std::time::Duration;

use crate::attack::{alone, starts};
use crate::attacker::{Attacker, all, peers_finish_later};
use crate::harness::Bundle;

fn tapping(way: &str) -> Attacker {
    Attacker::new(Bundle::new().caps(&all()), &["probe", "tap", way, "600"].map(str::to_owned))
}

#[test]
fn a_process_that_has_ended_is_not_waited_for_whoever_holds_its_end_of_the_wire() {
    if peers_finish_later() {
        return;
    }
    let _alone = alone();
    let attacker = tapping("end");
    for _ in 0..starts() / 4 {
        let outcome = attacker.bundle.exec_cmd(&[], &["true"]).limit(Duration::from_secs(10)).run();
        // It is killed, unless it was too fast.
        if !outcome.succeeded() {
            outcome.code(137);
        }
    }
    assert!(attacker.ends().contains("tapped"), "no process was tapped");
}

#[test]
fn a_warning_that_a_process_says_is_one_line_and_no_sequence_for_a_terminal() {
    if peers_finish_later() {
        return;
    }
    let _alone = alone();
    let attacker = tapping("say");
    let mut said = Vec::new();
    let is_tapped = |told: &str| told.contains("tapped");
    attacker.provoke(starts() / 4, is_tapped, |_| {
        let outcome = attacker.bundle.exec_cmd(&[], &["true"]).global(["--debug"]).run();
        said.push(outcome.stderr() + &outcome.log());
        outcome
    });
    attacker.ends();
    for line in said.iter().flat_map(|text| text.lines()) {
        let record: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no record: {line:?}"));
        assert!(record["level"] == "warning" || record["level"] == "debug", "{line:?}");
    }
}
