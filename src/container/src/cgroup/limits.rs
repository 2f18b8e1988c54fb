//! The document's limits as files of cgroup v2 (Linux's Documentation/admin-guide/cgroup-v2.rst) and what to write.

use crate::error::{Attempt, Error, Refusal, Step};
use crate::spec::{BlockIo, Cpu, Memory, Resources, Throttle};

/// cpu.max's period when the document gives none, in microseconds.
const DEFAULT_PERIOD_US: u64 = 100_000;

type Files = Vec<(String, String)>;

/// Files and their contents, in the order in which they are to be written. `limit` is the limit of memory that holds
/// where the document has none, in bytes.
pub(super) fn files(resources: &Resources, limit: Option<u64>) -> Result<Files, Error> {
    let mut files = Files::new();
    memory(&resources.memory, limit, &mut files)?;
    cpu(&resources.cpu, &mut files)?;
    if let Some(pids) = &resources.pids {
        files.push((
            "pids.max".into(),
            amount(if pids.limit == 0 { -1 } else { pids.limit }),
        ));
    }
    block_io(&resources.block_io, &mut files)?;
    for limit in &resources.hugepage_limits {
        files.push((
            format!("hugetlb.{}.max", limit.page_size),
            amount(limit.limit),
        ));
    }
    for (file, value) in &resources.unified {
        if !file.contains('.') {
            return Err(Refusal::UnknownName).at(Step::Limit, file);
        }
        files.push((file.clone(), value.clone()));
    }
    // Some names are a document's own, or end in words of it: none is a path.
    match files.iter().find(|(file, _)| file.contains('/')) {
        Some((path, _)) => Err(Refusal::UnknownName).at(Step::Limit, path),
        None => Ok(files),
    }
}

fn amount(value: i64) -> String {
    if value < 0 {
        "max".into()
    } else {
        value.to_string()
    }
}

/// As with runc, zero is "not given".
fn memory(memory: &Memory, present: Option<u64>, files: &mut Files) -> Result<(), Error> {
    if memory.disable_oom_killer {
        return Err(Refusal::NotBuilt).at(Step::Limit, "memory.disableOOMKiller");
    }
    let given = |value: Option<i64>| value.filter(|&value| value != 0);
    let limit = given(memory.limit);
    if let Some(limit) = limit {
        files.push(("memory.max".into(), amount(limit)));
    }
    if let Some(reservation) = given(memory.reservation) {
        files.push(("memory.low".into(), amount(reservation)));
    }
    if let Some(both) = given(memory.swap) {
        let present = present.and_then(|limit| i64::try_from(limit).ok());
        let swap = match limit.or(present) {
            _ if both < 0 => -1,
            Some(limit) if limit >= 0 && both >= limit => both - limit,
            _ => return Err(Refusal::OutOfRange).at(Step::Limit, "memory.swap"),
        };
        files.push(("memory.swap.max".into(), amount(swap)));
    }
    Ok(())
}

fn cpu(cpu: &Cpu, files: &mut Files) -> Result<(), Error> {
    if let Some(shares) = cpu.shares.filter(|&shares| shares != 0) {
        let shares = shares.clamp(2, 262_144);
        files.push((
            "cpu.weight".into(),
            (1 + (shares - 2) * 9999 / 262_142).to_string(),
        ));
    }
    if let Some(idle) = cpu.idle {
        files.push(("cpu.idle".into(), idle.to_string()));
    }
    if cpu.quota.is_some() || cpu.period.is_some() {
        let quota = amount(cpu.quota.filter(|&quota| quota > 0).unwrap_or(-1));
        let period = cpu
            .period
            .filter(|&period| period != 0)
            .unwrap_or(DEFAULT_PERIOD_US);
        files.push(("cpu.max".into(), format!("{quota} {period}")));
    }
    if let Some(burst) = cpu.burst {
        files.push(("cpu.max.burst".into(), burst.to_string()));
    }
    for (file, list) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
        if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
            files.push((file.into(), list.clone()));
        }
    }
    Ok(())
}

fn block_io(io: &BlockIo, files: &mut Files) -> Result<(), Error> {
    if let Some(weight) = io.weight.filter(|&weight| weight != 0) {
        if !(10..=1000).contains(&weight) {
            return Err(Refusal::OutOfRange).at(Step::Limit, "blockIO.weight");
        }
        files.push((
            "io.weight".into(),
            (1 + (u32::from(weight) - 10) * 9999 / 990).to_string(),
        ));
    }
    let rates: [(&str, &[Throttle]); 4] = [
        ("rbps", &io.throttle_read_bps_device),
        ("wbps", &io.throttle_write_bps_device),
        ("riops", &io.throttle_read_iops_device),
        ("wiops", &io.throttle_write_iops_device),
    ];
    for (key, devices) in rates {
        for Throttle { major, minor, rate } in devices {
            files.push(("io.max".into(), format!("{major}:{minor} {key}={rate}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(document: &str) -> Result<Files, Error> {
        files(&serde_json::from_str(document).unwrap(), None)
    }

    fn one(document: &str) -> Vec<String> {
        of(document)
            .unwrap()
            .into_iter()
            .map(|(file, value)| format!("{file}={value}"))
            .collect()
    }

    #[test]
    fn memory_and_swap_are_told_apart() {
        assert_eq!(
            one(r#"{"memory":{"limit":67108864,"swap":67108864}}"#),
            ["memory.max=67108864", "memory.swap.max=0"]
        );
        assert_eq!(
            one(r#"{"memory":{"limit":100,"swap":-1,"reservation":50}}"#),
            ["memory.max=100", "memory.low=50", "memory.swap.max=max"]
        );
        assert!(of(r#"{"memory":{"limit":100,"swap":50}}"#).is_err());
        assert!(of(r#"{"memory":{"swap":50}}"#).is_err());
    }

    #[test]
    fn cpu_limits_are_on_the_scale_of_version_2() {
        assert_eq!(
            one(r#"{"cpu":{"shares":1024,"quota":150000,"period":100000,"cpus":"0-1"}}"#),
            ["cpu.weight=39", "cpu.max=150000 100000", "cpuset.cpus=0-1"]
        );
        assert_eq!(one(r#"{"cpu":{"quota":50000}}"#), ["cpu.max=50000 100000"]);
        assert_eq!(
            one(r#"{"cpu":{"shares":262144,"quota":-1}}"#),
            ["cpu.weight=10000", "cpu.max=max 100000"]
        );
    }

    #[test]
    fn names_from_a_document_cannot_leave_the_cgroup() {
        assert!(of(r#"{"hugepageLimits":[{"pageSize":"2MB/../x","limit":1}]}"#).is_err());
        assert!(of(r#"{"unified":{"../memory.max":"1"}}"#).is_err());
        assert!(of(r#"{"unified":{"passwd":"1"}}"#).is_err());
        assert_eq!(
            one(r#"{"unified":{"memory.high":"5"}, "pids":{"limit":7}}"#),
            ["pids.max=7", "memory.high=5"]
        );
    }
}
