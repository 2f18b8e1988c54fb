//! `POST /containers/{id}/update`.

use engine::update::Update;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::host;
use crate::error::Failure;
use crate::fields::Fields;

/// Of cpu.max, as the engine has it.
const CPU_PERIOD_US: i64 = 100_000;

/// What is to change. What is 0, empty or not there does not.
pub fn update(body: &[u8]) -> Result<Update, Failure> {
    let mut fields = Fields::parse(body)?;
    let (mut memory, mut cpu, mut resources) = (Map::new(), Map::new(), Map::new());
    let mut number = |name: &str| -> Result<Option<i64>, Failure> {
        Ok(fields.take::<i64>(name)?.filter(|number| *number != 0))
    };
    if let Some(bytes) = number("Memory")? {
        let size = u64::try_from(bytes).map_err(|_| Failure::invalid("invalid Memory"))?;
        super::read(engine::size::check_memory(size))?;
        memory.insert("limit".into(), json!(bytes));
        // As at creation: without a word about it there is no swap.
        memory.insert("swap".into(), json!(bytes));
    }
    for (name, member) in [("MemorySwap", "swap"), ("MemoryReservation", "reservation")] {
        if let Some(bytes) = number(name)? {
            memory.insert(member.into(), json!(bytes));
        }
    }
    if let Some(nano) = number("NanoCpus")? {
        cpu.insert("period".into(), json!(CPU_PERIOD_US));
        cpu.insert(
            "quota".into(),
            json!(nano / (1_000_000_000 / CPU_PERIOD_US)),
        );
    }
    for (name, member) in [
        ("CpuShares", "shares"),
        ("CpuPeriod", "period"),
        ("CpuQuota", "quota"),
    ] {
        if let Some(value) = number(name)? {
            cpu.insert(member.into(), json!(value));
        }
    }
    if let Some(limit) = number("PidsLimit")? {
        resources.insert("pids".into(), json!({"limit": limit.max(-1)}));
    }
    for (name, member) in [("CpusetCpus", "cpus"), ("CpusetMems", "mems")] {
        if let Some(text) = fields.text(name)? {
            let set: engine::options::CpuSet = super::read(text.parse())?;
            cpu.insert(member.into(), json!(set.to_string()));
        }
    }
    let restart = fields.object("RestartPolicy")?;
    let restart = host::restart_if_any(restart)?;
    fields.end()?;
    for (name, members) in [("memory", memory), ("cpu", cpu)] {
        if !members.is_empty() {
            resources.insert(name.into(), Value::Object(members));
        }
    }
    let resources = (!resources.is_empty()).then(|| Value::Object(resources).to_string());
    Ok(Update {
        resources: super::read(resources.map(RawValue::from_string).transpose())?,
        restart,
    })
}
