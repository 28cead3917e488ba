//! Which points are tried when not all are.

/// A call, counted from 0, and what is done there.
pub type Point = (usize, &'static str);

/// Every action at every call.
pub fn all(calls: &[String], actions: &[&'static str]) -> Vec<Point> {
    actions.iter().flat_map(|&action| (0..calls.len()).map(move |call| (call, action))).collect()
}

/// As many points as asked for, always the same ones. Kinds of calls take turns, and so do actions; who starts where
/// another has stopped goes on with other calls.
pub fn some(calls: &[String], actions: &[&'static str], start: usize, count: usize) -> Vec<Point> {
    let order = dealt(calls);
    (start..start + count).map(|turn| (order[turn % order.len()], actions[turn % actions.len()])).collect()
}

/// All calls: one of each kind, then another of each kind, and so on. Of one kind not the first come first, but those
/// that lie far from one another.
fn dealt(calls: &[String]) -> Vec<usize> {
    let mut kinds: Vec<(&str, Vec<usize>)> = Vec::new();
    for (at, call) in calls.iter().enumerate() {
        match kinds.iter_mut().find(|(kind, _)| kind == call) {
            Some((_, places)) => places.push(at),
            None => kinds.push((call, vec![at])),
        }
    }
    for (_, places) in &mut kinds {
        // Multiples of the golden ratio fill a circle evenly.
        let mut keyed: Vec<(f64, usize)> =
            places.iter().enumerate().map(|(nth, &at)| ((nth as f64 * 0.618_034).fract(), at)).collect();
        keyed.sort_by(|left, right| left.0.total_cmp(&right.0));
        *places = keyed.into_iter().map(|(_, at)| at).collect();
    }
    let rounds = kinds.iter().map(|(_, places)| places.len()).max().unwrap_or_default();
    (0..rounds).flat_map(|round| kinds.iter().filter_map(move |(_, places)| places.get(round).copied())).collect()
}

#[test]
fn a_sample_takes_every_kind_of_call_before_any_twice_and_all_in_the_end() {
    let calls: Vec<String> = "open read read read close open mount read".split(' ').map(str::to_owned).collect();
    let mut kinds: Vec<&str> = some(&calls, &["kill", "fail"], 0, 4).iter().map(|&(at, _)| &calls[at][..]).collect();
    kinds.sort();
    assert_eq!(kinds, ["close", "mount", "open", "read"]);
    let mut places: Vec<usize> = some(&calls, &["kill", "fail"], 3, 8).iter().map(|&(at, _)| at).collect();
    places.sort();
    assert_eq!(places, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(some(&calls, &["kill", "fail"], 5, 8), some(&calls, &["kill", "fail"], 5, 8));
}
