//! Tests of groups, on plain directories that look like resctrl.

use super::*;

/// A plain directory that looks like the root of resctrl.
struct Tree(PathBuf);

impl Tree {
    fn new(name: &str) -> Tree {
        let root = std::env::temp_dir().join(format!("corten-rdt-{}-{name}", std::process::id()));
        for sub in ["info", "mon_groups", "there/mon_groups"] {
            fs::create_dir_all(root.join(sub)).unwrap();
        }
        fs::write(root.join("schemata"), "    L3:0=7ff;1=7ff\n    MB:0=100;1=100\n").unwrap();
        fs::write(root.join("there/schemata"), "    L3:0=00f;1=0ff\n    MB:0=20;1=70\n").unwrap();
        Tree(root)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path)).unwrap_or_default()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn plan(json: &str) -> Result<Request> {
    let linux: Linux = serde_json::from_str(&format!(r#"{{"intelRdt":{json}}}"#)).unwrap();
    Request::plan(Some(&linux), "web").map(Option::unwrap)
}

/// The group of this request in the tree, made.
fn made(tree: &Tree, json: &str) -> Result<Group> {
    let request = plan(json)?;
    let group = request.place_in(&tree.0)?;
    request.make(&group)?;
    Ok(group)
}

#[test]
fn a_group_of_the_containers_own_is_made_and_removed() {
    let tree = Tree::new("own");
    let group = made(&tree, r#"{"l3CacheSchema":"L3:0=f\nMB:0=1","memBwSchema":"MB:0=20","schemata":["L2:0=3"]}"#);
    let group = group.unwrap();
    assert_eq!(tree.read("web/schemata"), "L3:0=f\nMB:0=20\nL2:0=3\n");
    group.add(Pid::from_raw(42)).unwrap();
    assert_eq!(tree.read("web/tasks"), "42");
    group.remove().unwrap();
    assert!(!tree.0.join("web").exists());
    group.remove().unwrap();
}

#[test]
fn a_group_that_is_there_is_joined_if_it_is_the_same_and_never_removed() {
    let tree = Tree::new("there");
    for same in ["{}", r#"{"l3CacheSchema":"L3:0=f;1=ff"}"#, r#"{"memBwSchema":"MB:1=70"}"#] {
        let json = same.replacen('{', r#"{"closID":"there","#, 1).replace(",}", "}");
        let group = made(&tree, &json).unwrap();
        assert!(!group.made);
        group.remove().unwrap();
    }
    assert!(!tree.read("there/schemata").is_empty());
    let error = made(&tree, r#"{"closID":"there","l3CacheSchema":"L3:0=ff"}"#).unwrap_err();
    assert!(error.to_string().contains("differs in L3:0"), "{error}");
    assert_eq!(made(&tree, r#"{"closID":"/"}"#).unwrap().directory, tree.0);
    assert!(made(&tree, r#"{"closID":"absent"}"#).is_err());
    assert!(made(&tree, r#"{"closID":"absent","memBwSchema":"MB:0=20"}"#).unwrap().made);
}

#[test]
fn a_group_gets_other_limits() {
    let tree = Tree::new("change");
    let group = made(&tree, r#"{"l3CacheSchema":"L3:0=f"}"#).unwrap();
    let wanted = |json: &str| serde_json::from_str::<LinuxIntelRdt>(json).unwrap();
    group.change(&wanted(r#"{"l3CacheSchema":"L3:0=3","memBwSchema":"MB:0=20"}"#)).unwrap();
    assert_eq!(tree.read("web/schemata"), "L3:0=f\nL3:0=3\nMB:0=20\n");
    let error = group.change(&wanted(r#"{"memBwSchema":"L3:0=1"}"#)).unwrap_err();
    assert_eq!(error.field_name(), Some("/linux/intelRdt/memBwSchema"));
}

#[test]
fn a_group_tells_what_it_limits_and_what_was_counted() {
    let tree = Tree::new("stats");
    for (file, value) in [
        ("info/L3/cbm_mask", "7ff\n"),
        ("info/L3/min_cbm_bits", "1\n"),
        ("info/MB/min_bandwidth", "10\n"),
        ("there/mon_data/mon_L3_00/mbm_total_bytes", "9\n"),
        ("there/mon_data/mon_L3_00/mbm_local_bytes", "8\n"),
        ("there/mon_data/mon_L3_00/llc_occupancy", "7\n"),
    ] {
        let path = tree.0.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, value).unwrap();
    }
    let request = plan(r#"{"closID":"there"}"#).unwrap();
    let stats = serde_json::to_value(request.place_in(&tree.0).unwrap().stats_in(&tree.0)).unwrap();
    assert_eq!(
        (&stats["l3_cache_schema"], &stats["mem_bw_schema_root"]),
        (&"L3:0=00f;1=0ff".into(), &"MB:0=100;1=100".into())
    );
    assert_eq!(
        (&stats["l3_cache_info"]["cbm_mask"], &stats["l3_cache_info"]["min_cbm_bits"]),
        (&"7ff".into(), &1.into())
    );
    assert_eq!(stats["mem_bw_info"]["min_bandwidth"], 10);
    assert_eq!(stats["mbm_stats"][0], serde_json::json!({"mbm_total_bytes": 9, "mbm_local_bytes": 8}));
    assert_eq!(stats["cmt_stats"], serde_json::json!([{"llc_occupancy": 7}]));
}

#[test]
fn counters_have_a_group_of_their_own() {
    let tree = Tree::new("counters");
    let group = made(&tree, r#"{"closID":"there","enableMBM":true}"#).unwrap();
    group.remove().unwrap();
    let group = made(&tree, r#"{"closID":"there","enableCMT":false,"enableMonitoring":true}"#).unwrap();
    group.add(Pid::from_raw(7)).unwrap();
    assert_eq!((tree.read("there/tasks"), tree.read("there/mon_groups/web/tasks")), ("7".into(), "7".into()));
    group.remove().unwrap();
    assert!(!tree.0.join("there/mon_groups/web").exists() && tree.0.join("there").exists());
}

#[test]
fn names_and_lines_that_lead_elsewhere_are_refused_with_their_field() {
    for class in ["..", ".", "a/b", "/a", "info", "mon_groups", "a\\n"] {
        let error = plan(&format!(r#"{{"closID":"{class}"}}"#)).unwrap_err();
        assert_eq!(error.field_name(), Some("/linux/intelRdt/closID"), "{class}");
    }
    for line in ["L3:0=1", "MB:0=1\\nL3:0=1"] {
        let error = plan(&format!(r#"{{"memBwSchema":"{line}"}}"#)).unwrap_err();
        assert_eq!(error.field_name(), Some("/linux/intelRdt/memBwSchema"), "{line}");
    }
}
