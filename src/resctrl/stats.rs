//! What a group limits and counts, `intel_rdt` of `events`.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Group, PLACE};

/// What a group tells, in the form in which `runc events` tells it; empty without one.
#[derive(Debug, Default, Serialize)]
pub struct Stats {
    #[serde(skip_serializing_if = "Option::is_none")]
    l3_cache_info: Option<CacheInfo>,
    #[serde(skip_serializing_if = "String::is_empty")]
    l3_cache_schema_root: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    l3_cache_schema: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mem_bw_info: Option<BandwidthInfo>,
    #[serde(skip_serializing_if = "String::is_empty")]
    mem_bw_schema_root: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    mem_bw_schema: String,
    /// By memory node.
    #[serde(skip_serializing_if = "Option::is_none")]
    mbm_stats: Option<Vec<Bandwidth>>,
    /// By memory node.
    #[serde(skip_serializing_if = "Option::is_none")]
    cmt_stats: Option<Vec<Occupancy>>,
}

#[derive(Debug, Serialize)]
struct CacheInfo {
    cbm_mask: String,
    min_cbm_bits: u64,
    num_closids: u64,
}

#[derive(Debug, Serialize)]
struct BandwidthInfo {
    bandwidth_gran: u64,
    delay_linear: u64,
    min_bandwidth: u64,
    num_closids: u64,
}

#[derive(Debug, Serialize)]
struct Bandwidth {
    mbm_total_bytes: u64,
    mbm_local_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Occupancy {
    llc_occupancy: u64,
}

impl Group {
    /// What it limits and, where it has counters of its own, what was counted.
    pub fn stats(&self) -> Stats {
        self.stats_in(Path::new(PLACE))
    }

    pub(super) fn stats_in(&self, root: &Path) -> Stats {
        let text = |path: PathBuf| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let line = |directory: &Path, resource: &str| {
            let schemata = text(directory.join("schemata"));
            let line = schemata.lines().map(str::trim).find(|line| line.starts_with(resource));
            line.unwrap_or_default().to_owned()
        };
        let info = |resource: &str, name: &str| text(root.join("info").join(resource).join(name));
        let number = |resource: &str, name: &str| info(resource, name).parse().unwrap_or(0);
        let has = |resource: &str| root.join("info").join(resource).is_dir();
        let counted = self.counters.as_deref().unwrap_or(&self.directory).join("mon_data");
        let mut nodes: Vec<PathBuf> =
            fs::read_dir(&counted).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        nodes.sort();
        let count = |node: &PathBuf, name: &str| text(node.join(name)).parse().ok();
        let bandwidth = |node: &PathBuf| {
            let (total, local) = (count(node, "mbm_total_bytes")?, count(node, "mbm_local_bytes")?);
            Some(Bandwidth { mbm_total_bytes: total, mbm_local_bytes: local })
        };
        let occupancy = |node: &PathBuf| Some(Occupancy { llc_occupancy: count(node, "llc_occupancy")? });
        let bandwidths: Vec<Bandwidth> = nodes.iter().filter_map(bandwidth).collect();
        let occupancies: Vec<Occupancy> = nodes.iter().filter_map(occupancy).collect();
        Stats {
            l3_cache_info: has("L3").then(|| CacheInfo {
                cbm_mask: info("L3", "cbm_mask"),
                min_cbm_bits: number("L3", "min_cbm_bits"),
                num_closids: number("L3", "num_closids"),
            }),
            l3_cache_schema_root: line(root, "L3"),
            l3_cache_schema: line(&self.directory, "L3"),
            mem_bw_info: has("MB").then(|| BandwidthInfo {
                bandwidth_gran: number("MB", "bandwidth_gran"),
                delay_linear: number("MB", "delay_linear"),
                min_bandwidth: number("MB", "min_bandwidth"),
                num_closids: number("MB", "num_closids"),
            }),
            mem_bw_schema_root: line(root, "MB:"),
            mem_bw_schema: line(&self.directory, "MB:"),
            mbm_stats: (!bandwidths.is_empty()).then_some(bandwidths),
            cmt_stats: (!occupancies.is_empty()).then_some(occupancies),
        }
    }
}
