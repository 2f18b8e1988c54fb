//! `HostConfig`.

use std::collections::BTreeMap;

use engine::options::{CpuSet, Options, Swap, Ulimit};
use engine::protocol::agent::TerminalSize;
use engine::protocol::record::RestartPolicy;
use engine::size::MilliCpus;
use values::SecurityOption;

use super::{mounts, read};
use crate::error::Failure;
use crate::fields::Fields;

/// Reads it into the options. Returns the isolation that it asks for.
pub(super) fn host_config(
    mut fields: Fields,
    options: &mut Options,
) -> Result<Option<String>, Failure> {
    mounts::mounts(&mut fields, options)?;
    limits(&mut fields, options)?;
    names(&mut fields, options)?;
    namespaces(&mut fields, options)?;
    rights(&mut fields, options)?;
    ports(&mut fields, options)?;
    options.auto_remove = fields.get("AutoRemove")?;
    options.restart = restart(fields.object("RestartPolicy")?)?;
    options.init = fields.get("Init")?;
    options.annotations = fields.get("Annotations")?;
    let mut log = fields.object("LogConfig")?;
    let driver = log.text("Type")?;
    let words: BTreeMap<String, String> = log.get("Config")?;
    let words: Vec<String> = words
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    options.log = read(values::lifecycle::log(driver.as_deref(), &words))?;
    let [rows, columns] = fields.get::<[u16; 2]>("ConsoleSize")?;
    options.console_size = (rows > 0 && columns > 0).then_some(TerminalSize { rows, columns });
    // The client's own file.
    fields.text("ContainerIDFile")?;
    match fields.text("Runtime")?.as_deref() {
        None | Some("hull") => {}
        Some(other) => {
            return Err(Failure::invalid(format!(
                "unknown or invalid runtime name: {other}"
            )));
        }
    }
    let isolation = fields.text("Isolation")?.filter(|word| word != "default");
    fields.end()?;
    Ok(isolation)
}

fn restart(fields: Fields) -> Result<RestartPolicy, Failure> {
    Ok(restart_if_any(fields)?.unwrap_or_default())
}

/// A restart policy; without a name it is none.
pub(super) fn restart_if_any(mut fields: Fields) -> Result<Option<RestartPolicy>, Failure> {
    let name = fields.text("Name")?.unwrap_or_default();
    let retries: u32 = fields.get("MaximumRetryCount")?;
    fields.end()?;
    if name.is_empty() && retries == 0 {
        return Ok(None);
    }
    let policy = match (name.as_str(), retries) {
        ("on-failure", max_retries) => Ok(RestartPolicy::OnFailure { max_retries }),
        (_, 0) => read(values::lifecycle::restart(&name)),
        _ => Err(Failure::invalid(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        )),
    };
    policy.map(Some)
}

/// A number whose 0 means the default.
fn count(fields: &mut Fields, name: &str) -> Result<Option<u64>, Failure> {
    let number: i64 = fields.get(name)?;
    match u64::try_from(number) {
        Ok(0) => Ok(None),
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(Failure::invalid(format!(
            "invalid {name}: {number} is negative"
        ))),
    }
}

/// A number of which 0 and what is less is no limit.
fn limit(fields: &mut Fields, name: &str) -> Result<Option<u64>, Failure> {
    let number: i64 = fields.get(name)?;
    Ok(u64::try_from(number).ok().filter(|number| *number > 0))
}

fn set(fields: &mut Fields, name: &str) -> Result<Option<CpuSet>, Failure> {
    let text = fields.text(name)?;
    read(text.map(|text| text.parse()).transpose())
}

fn limits(fields: &mut Fields, options: &mut Options) -> Result<(), Failure> {
    const NANO_PER_MILLI: u64 = 1_000_000;
    options.memory_bytes = count(fields, "Memory")?;
    options.memory_reservation_bytes = count(fields, "MemoryReservation")?;
    options.memory_swap = match fields.get::<i64>("MemorySwap")? {
        0 => None,
        -1 => Some(Swap::Unlimited),
        bytes => Some(Swap::Total(
            u64::try_from(bytes).map_err(|_| Failure::invalid("invalid MemorySwap"))?,
        )),
    };
    // -1 and null are Docker's default.
    if let Some(percent) = fields
        .take::<i64>("MemorySwappiness")?
        .filter(|percent| *percent != -1)
    {
        return Err(Failure::new(
            501,
            format!("HostConfig.MemorySwappiness {percent} is not something that hull can do"),
        ));
    }
    if let Some(nano) = count(fields, "NanoCpus")? {
        options.cpus = Some(MilliCpus(nano.div_ceil(NANO_PER_MILLI)));
    }
    options.cpu_quota_us = limit(fields, "CpuQuota")?;
    options.cpu_period_us = count(fields, "CpuPeriod")?;
    options.cpu_shares = count(fields, "CpuShares")?;
    options.cpuset_cpus = set(fields, "CpusetCpus")?;
    options.cpuset_mems = set(fields, "CpusetMems")?;
    options.pids_limit = limit(fields, "PidsLimit")?;
    options.shm_size_bytes = count(fields, "ShmSize")?;
    options.oom_score_adj = fields
        .take::<i32>("OomScoreAdj")?
        .filter(|score| *score != 0);
    for mut ulimit in fields.objects("Ulimits")? {
        let bound = |number: i64| u64::try_from(number).unwrap_or(u64::MAX);
        options.ulimits.push(Ulimit {
            name: ulimit.get("Name")?,
            soft: bound(ulimit.get("Soft")?),
            hard: bound(ulimit.get("Hard")?),
        });
        ulimit.end()?;
    }
    for (key, value) in fields.get::<BTreeMap<String, String>>("StorageOpt")? {
        options.storage_bytes = Some(read(values::machine::storage(&format!("{key}={value}")))?);
    }
    Ok(())
}

fn names(fields: &mut Fields, options: &mut Options) -> Result<(), Failure> {
    for text in fields.get::<Vec<String>>("ExtraHosts")? {
        options
            .extra_hosts
            .push(read(values::names::extra_host(&text))?);
    }
    for text in fields.get::<Vec<String>>("Links")? {
        options.place.links.push(read(values::names::link(&text))?);
    }
    for text in fields.get::<Vec<String>>("Dns")? {
        options.dns.servers.push(read(values::names::ip(&text))?);
    }
    for text in fields.get::<Vec<String>>("DnsSearch")? {
        options.dns.search.push(read(values::names::search(&text))?);
    }
    for text in fields.get::<Vec<String>>("DnsOptions")? {
        options
            .dns
            .options
            .push(read(values::names::dns_option(&text))?);
    }
    Ok(())
}

fn namespaces(fields: &mut Fields, options: &mut Options) -> Result<(), Failure> {
    if let Some(mode) = fields.text("NetworkMode")? {
        let network = read(values::machine::network(&mode))?;
        options.network = options.network.take().or(network);
    }
    options.ipc = read(values::machine::ipc(
        &fields.text("IpcMode")?.unwrap_or_default(),
    ))?;
    for (name, check) in [
        (
            "PidMode",
            values::machine::pid as fn(&str) -> Result<(), values::machine::Error>,
        ),
        ("UTSMode", values::machine::uts),
        ("UsernsMode", values::machine::userns),
        ("CgroupnsMode", values::machine::cgroupns),
    ] {
        read(check(&fields.text(name)?.unwrap_or_default()))?;
    }
    Ok(())
}

fn rights(fields: &mut Fields, options: &mut Options) -> Result<(), Failure> {
    options.privileged = fields.get("Privileged")?;
    options.cap_add = fields.get("CapAdd")?;
    options.cap_drop = fields.get("CapDrop")?;
    options.groups = fields.get("GroupAdd")?;
    options.read_only = fields.get("ReadonlyRootfs")?;
    options.sysctls = fields.get("Sysctls")?;
    for text in fields.get::<Vec<String>>("SecurityOpt")? {
        // Docker's command line sends the file's content.
        if text.starts_with("seccomp={") || text.starts_with("seccomp:{") {
            return Err(Failure::not_built("a seccomp profile over the API"));
        }
        match read(values::security_option(&text))? {
            SecurityOption::NoNewPrivileges(on) => options.no_new_privileges = on,
            SecurityOption::Seccomp(choice) => options.seccomp = choice,
            SecurityOption::Unmasked => options.unmasked = true,
            SecurityOption::Nothing => {}
        }
    }
    // Docker's command line writes systempaths=unconfined as empty lists.
    let masked = fields.take::<Vec<String>>("MaskedPaths")?;
    let read_only = fields.take::<Vec<String>>("ReadonlyPaths")?;
    match (masked.as_deref(), read_only.as_deref()) {
        (None, None) => {}
        (Some([]), Some([])) => options.unmasked = true,
        _ => {
            return Err(Failure::not_built(
                "a choice of HostConfig.MaskedPaths and ReadonlyPaths",
            ));
        }
    }
    for mut device in fields.objects("Devices")? {
        let path: String = device.get("PathOnHost")?;
        let inside = device
            .text("PathInContainer")?
            .unwrap_or_else(|| path.clone());
        let rights = device
            .text("CgroupPermissions")?
            .unwrap_or_else(|| "rwm".into());
        device.end()?;
        options.devices.push(read(values::machine::device(&format!(
            "{path}:{inside}:{rights}"
        )))?);
    }
    Ok(())
}

fn ports(fields: &mut Fields, options: &mut Options) -> Result<(), Failure> {
    options.publish_all = fields.get("PublishAllPorts")?;
    for (port, bindings) in fields
        .get::<BTreeMap<String, Option<Vec<BTreeMap<String, Option<String>>>>>>("PortBindings")?
    {
        let mut bindings = bindings.unwrap_or_default();
        if bindings.is_empty() {
            bindings.push(BTreeMap::new());
        }
        for binding in bindings {
            let word = |name: &str| binding.get(name).cloned().flatten().unwrap_or_default();
            let (address, mut host) = (word("HostIp"), word("HostPort"));
            // As an empty one, it is Docker's word for any.
            if host == "0" {
                host.clear();
            }
            let address = match address.contains(':') {
                true => format!("[{address}]"),
                false => address,
            };
            let text = format!("{address}:{host}:{port}");
            options
                .place
                .publish
                .extend(read(values::ports::publish(&text))?.0);
        }
    }
    Ok(())
}
