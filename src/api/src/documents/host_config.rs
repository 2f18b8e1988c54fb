//! `HostConfig` of a container's document: what was asked for beside its process.

use engine::asked::Asked;
use engine::container::network_name;
use engine::options::{Isolation, Options, Seccomp, Swap};
use engine::protocol::agent::PidNamespace;
use engine::protocol::record::{ContainerConfig, LogConfig, RestartPolicy};
use serde_json::{Map, Value, json};

use super::{mounts, ports};

/// Of a configuration, what was asked for, and the OCI document, which has the limits that `update` changed.
pub(crate) fn of(config: &ContainerConfig, asked: &Asked, spec: &Value) -> Value {
    let options = &asked.options;
    let mut document = json!({
        "Binds": mounts::binds(&options.mounts),
        "ContainerIDFile": "",
        "LogConfig": log(config.log),
        "NetworkMode": network_name(config),
        "PortBindings": ports::bindings(&options.place.publish),
        "RestartPolicy": restart(config.restart),
        "AutoRemove": config.auto_remove,
        "VolumeDriver": "",
        "VolumesFrom": volumes_from(options),
        "ConsoleSize": options.console_size.map_or([0, 0], |size| [size.rows, size.columns]),
        "CapAdd": list(&options.cap_add),
        "CapDrop": list(&options.cap_drop),
        "CgroupnsMode": "private",
        "Dns": options.dns.servers.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "DnsOptions": options.dns.options,
        "DnsSearch": options.dns.search,
        "ExtraHosts": extra_hosts(options),
        "GroupAdd": list(&options.groups),
        "IpcMode": "private",
        "Cgroup": "",
        "Links": null,
        "OomScoreAdj": options.oom_score_adj.unwrap_or(0),
        "PidMode": match config.run.pid { PidNamespace::Own => "", PidNamespace::Sandbox => "pod" },
        "Privileged": options.privileged,
        "PublishAllPorts": options.publish_all,
        "ReadonlyRootfs": config.run.read_only,
        "SecurityOpt": security(options),
        "UTSMode": "",
        "UsernsMode": "",
        "ShmSize": options.shm_size_bytes.unwrap_or(64 << 20),
        "Runtime": "hull",
        "Isolation": isolation(&options.isolation),
        "Init": config.run.init,
        "Annotations": config.annotations,
    });
    let limits = limits(options, &spec["linux"]["resources"]);
    if let (Value::Object(document), Value::Object(limits)) = (&mut document, limits) {
        document.extend(limits);
        if let Some(bytes) = options.storage_bytes {
            document.insert("StorageOpt".into(), json!({"size": bytes.to_string()}));
        }
        if !options.tmpfs.is_empty() {
            let tmpfs = options.tmpfs.iter();
            let tmpfs: Map<String, Value> = tmpfs
                .map(|tmpfs| (tmpfs.path.clone(), json!(tmpfs.options.join(","))))
                .collect();
            document.insert("Tmpfs".into(), Value::Object(tmpfs));
        }
        if let Some(mounts) = mounts::mounts(&options.mounts) {
            document.insert("Mounts".into(), mounts);
        }
        if !options.sysctls.is_empty() {
            document.insert("Sysctls".into(), json!(options.sysctls));
        }
    }
    document
}

fn limits(options: &Options, resources: &Value) -> Value {
    let (memory, cpu) = (&resources["memory"], &resources["cpu"]);
    let number = |value: &Value| value.as_i64();
    let swap = match options.memory_swap {
        Some(Swap::Unlimited) => -1,
        _ => number(&memory["swap"]).unwrap_or(0),
    };
    let (quota, period) = (number(&cpu["quota"]), number(&cpu["period"]));
    // --cpus is kept as a quota; what is no multiple of the default period was asked for as one.
    const CPU_PERIOD_US: i64 = 100_000;
    let is_cpus = options.cpu_quota_us.is_none() && options.cpu_period_us.is_none();
    let nano_cpus = match (is_cpus, quota, period) {
        (true, Some(quota), Some(CPU_PERIOD_US)) => quota.saturating_mul(10_000),
        _ => 0,
    };
    let quota_shown = if nano_cpus == 0 {
        quota.unwrap_or(0)
    } else {
        0
    };
    let period_shown = if nano_cpus == 0 {
        period.unwrap_or(0)
    } else {
        0
    };
    let devices = options.devices.iter().map(|device| {
        let access = device.access;
        let letters = [(access.read, 'r'), (access.write, 'w'), (access.mknod, 'm')];
        let letters: String = letters
            .iter()
            .filter(|(has, _)| *has)
            .map(|(_, letter)| letter)
            .collect();
        json!({
            "PathOnHost": device.machine_path,
            "PathInContainer": device.container_path,
            "CgroupPermissions": letters,
        })
    });
    let ulimits = options.ulimits.iter().map(|limit| {
        // Docker's word for no limit is -1.
        let signed = |value: u64| i64::try_from(value).unwrap_or(-1);
        json!({"Name": limit.name, "Soft": signed(limit.soft), "Hard": signed(limit.hard)})
    });
    json!({
        "CpuShares": number(&cpu["shares"]).unwrap_or(0),
        "Memory": number(&memory["limit"]).unwrap_or(0),
        "NanoCpus": nano_cpus,
        "CgroupParent": "",
        "CpuPeriod": period_shown,
        "CpuQuota": quota_shown,
        "CpusetCpus": cpu["cpus"].as_str().unwrap_or_default(),
        "CpusetMems": cpu["mems"].as_str().unwrap_or_default(),
        "Devices": devices.collect::<Vec<_>>(),
        "MemoryReservation": number(&memory["reservation"]).unwrap_or(0),
        "MemorySwap": swap,
        "MemorySwappiness": null,
        "OomKillDisable": false,
        "PidsLimit": number(&resources["pids"]["limit"]),
        "Ulimits": ulimits.collect::<Vec<_>>(),
    })
}

fn log(log: LogConfig) -> Value {
    match log {
        LogConfig::None => json!({"Type": "none", "Config": {}}),
        LogConfig::JsonFile {
            max_size_bytes,
            max_files,
        } => {
            let mut config = Map::new();
            if let Some(bytes) = max_size_bytes {
                config.insert("max-size".into(), json!(bytes.to_string()));
            }
            if max_files > 1 {
                config.insert("max-file".into(), json!(max_files.to_string()));
            }
            json!({"Type": "json-file", "Config": config})
        }
    }
}

fn restart(policy: RestartPolicy) -> Value {
    let (name, retries) = match policy {
        RestartPolicy::No => ("no", 0),
        RestartPolicy::OnFailure { max_retries } => ("on-failure", max_retries),
        RestartPolicy::Always => ("always", 0),
        RestartPolicy::UnlessStopped => ("unless-stopped", 0),
    };
    json!({"Name": name, "MaximumRetryCount": retries})
}

fn isolation(isolation: &Isolation) -> String {
    match isolation {
        Isolation::Vm => "vm".into(),
        Isolation::Native => "native".into(),
        Isolation::Pod(name) => format!("pod:{name}"),
    }
}

fn security(options: &Options) -> Value {
    let mut words = Vec::new();
    if options.no_new_privileges {
        words.push("no-new-privileges".to_owned());
    }
    match &options.seccomp {
        Seccomp::Default => {}
        Seccomp::Unconfined => words.push("seccomp=unconfined".into()),
        Seccomp::File(path) => words.push(format!("seccomp={}", path.display())),
    }
    if options.unmasked {
        words.push("systempaths=unconfined".into());
    }
    list(&words)
}

fn extra_hosts(options: &Options) -> Value {
    use engine::options::HostAddress;
    let hosts = options.extra_hosts.iter().map(|host| match &host.address {
        HostAddress::Ip(address) => format!("{}:{address}", host.name),
        HostAddress::Gateway => format!("{}:host-gateway", host.name),
    });
    list(&hosts.collect::<Vec<_>>())
}

fn volumes_from(options: &Options) -> Value {
    let from = options
        .volumes_from
        .iter()
        .map(|from| match from.mode.as_str() {
            "" => from.container.clone(),
            mode => format!("{}:{mode}", from.container),
        });
    list(&from.collect::<Vec<_>>())
}

pub(crate) fn list(words: &[String]) -> Value {
    match words.is_empty() {
        true => Value::Null,
        false => json!(words),
    }
}
