//! The service itself.

use engine::time;
use rustix::system::{sysinfo, uname};
use serde_json::{Value, json};

use super::images;
use crate::call::{Answer, Call, Reply, json};
use crate::documents::{container, volume};
use crate::error::Failure;
use crate::{API_VERSION, MIN_API_VERSION};

/// hull's version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(crate) fn ping(_: Call) -> Answer {
    Ok(Reply::Whole {
        status: 200,
        kind: "text/plain; charset=utf-8",
        headers: vec![
            // The classic builder, which is told that it is not built.
            ("builder-version", "1".into()),
            ("swarm", "inactive".into()),
            (
                "cache-control",
                "no-cache, no-store, must-revalidate".into(),
            ),
            ("pragma", "no-cache".into()),
        ],
        body: b"OK".to_vec(),
    })
}

fn kernel() -> String {
    uname().release().to_string_lossy().into_owned()
}

pub(crate) fn version(_: Call) -> Answer {
    json(
        200,
        &json!({
            "Platform": {"Name": "hull"},
            "Components": [{
                "Name": "Engine",
                "Version": VERSION,
                "Details": {
                    "ApiVersion": API_VERSION,
                    "MinAPIVersion": MIN_API_VERSION,
                    "Arch": "amd64",
                    "Os": "linux",
                    "Experimental": "false",
                    "KernelVersion": kernel(),
                    "BuildTime": "",
                    "GitCommit": "",
                    "GoVersion": "",
                },
            }],
            "Version": VERSION,
            "ApiVersion": API_VERSION,
            "MinAPIVersion": MIN_API_VERSION,
            "GitCommit": "",
            "GoVersion": "",
            "Os": "linux",
            "Arch": "amd64",
            "KernelVersion": kernel(),
            "BuildTime": "",
        }),
    )
}

pub(crate) fn info(call: Call) -> Answer {
    let info = call.engine.info()?;
    let found = sysinfo();
    let memory = found.totalram.saturating_mul(u64::from(found.mem_unit));
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let mut security = vec!["name=seccomp,profile=builtin"];
    if !rustix::process::geteuid().is_root() {
        security.push("name=rootless");
    }
    let mut document = json!({
            "ID": "hull",
            "Name": uname().nodename().to_string_lossy(),
            "ServerVersion": VERSION,
            "Containers": info.containers,
            "ContainersRunning": info.running,
            "ContainersPaused": info.paused,
            "ContainersStopped": info.stopped,
            "Images": info.images,
            "Driver": "erofs",
            "DriverStatus": [["Isolation", super::isolation_word(&call.isolation)]],
            "DockerRootDir": call.engine.root().display().to_string(),
            "Plugins": {"Volume": ["local"], "Network": ["bridge", "null"], "Authorization": null, "Log": ["json-file", "none"]},
            "MemoryLimit": true,
            "SwapLimit": true,
            "CpuCfsPeriod": true,
            "CpuCfsQuota": true,
            "CPUShares": true,
            "CPUSet": true,
            "PidsLimit": true,
            "OomKillDisable": false,
            "IPv4Forwarding": true,
            "Debug": false,
            "NFd": 0,
            "NGoroutines": 0,
            "NEventsListener": 0
    });
    let machine = json!({
            "SystemTime": time::format_nano(time::now_ns()),
            "LoggingDriver": "json-file",
            "CgroupDriver": "cgroupfs",
            "CgroupVersion": "2",
            "KernelVersion": kernel(),
            "OperatingSystem": system.unwrap_or("Linux").trim_matches('"'),
            "OSVersion": "",
            "OSType": "linux",
            "Architecture": "x86_64",
            "NCPU": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            "MemTotal": memory,
            "IndexServerAddress": "https://index.docker.io/v1/",
            "RegistryConfig": {"IndexConfigs": {}, "InsecureRegistryCIDRs": [], "Mirrors": []},
            "GenericResources": null,
            "HttpProxy": "",
            "HttpsProxy": "",
            "NoProxy": "",
            "Labels": [],
            "ExperimentalBuild": false,
            "Runtimes": {"hull": {"path": "hull"}},
            "DefaultRuntime": "hull",
            "Swarm": {"NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "", "RemoteManagers": null},
            "LiveRestoreEnabled": true,
            "Isolation": "",
            "InitBinary": "",
            "ContainerdCommit": {"ID": ""},
            "RuncCommit": {"ID": ""},
            "InitCommit": {"ID": ""},
            "SecurityOptions": security,
            "Warnings": null,
    });
    if let (Value::Object(document), Value::Object(machine)) = (&mut document, machine) {
        document.extend(machine);
    }
    json(200, &document)
}

pub(crate) fn disk_usage(call: Call) -> Answer {
    let wanted: Vec<&str> = call
        .query
        .all("type")
        .filter(|kind| !kind.is_empty())
        .collect();
    if let Some(other) = wanted
        .iter()
        .find(|kind| !["container", "image", "volume", "build-cache"].contains(*kind))
    {
        return Err(Failure::invalid(format!("unknown object type: {other}")));
    }
    let wants = |kind: &str| wanted.is_empty() || wanted.contains(&kind);
    let usage = call.engine.disk_usage()?;
    let images = usage.images.iter().map(|(image, users)| {
        let mut row = images::row(image);
        row["Containers"] = json!(users);
        row["SharedSize"] = json!(0);
        row
    });
    let containers = usage.containers.iter().map(|one| {
        let image = usage
            .images
            .iter()
            .find(|(image, _)| image.id.to_string() == one.summary.image_id);
        let own = one.size_bytes.unwrap_or(0);
        json!({
            "Id": one.summary.id,
            "Names": [format!("/{}", one.summary.name)],
            "Image": one.summary.image,
            "ImageID": one.summary.image_id,
            "Command": one.summary.command,
            "Created": one.summary.created_ns / 1_000_000_000,
            "State": container::state_word(one.state.status),
            "Status": one.status_text(time::now_ns()),
            "Labels": one.summary.labels,
            "Mounts": [],
            "SizeRw": own,
            "SizeRootFs": own + image.map_or(0, |(image, _)| image.size_bytes),
        })
    });
    let volumes = usage.volumes.iter().map(|one| {
        let mut document = volume::document(call.engine, &one.volume);
        document["UsageData"] = json!({"RefCount": one.users, "Size": one.size_bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(-1))});
        document
    });
    let mut document = json!({"BuildCache": []});
    if wants("image") {
        document["LayersSize"] = json!(usage.layers_bytes);
        document["Images"] = json!(images.collect::<Vec<_>>());
    }
    if wants("container") {
        document["Containers"] = json!(containers.collect::<Vec<_>>());
    }
    if wants("volume") {
        document["Volumes"] = json!(volumes.collect::<Vec<_>>());
    }
    json(200, &document)
}

pub(crate) fn auth(_: Call) -> Answer {
    Err(Failure::not_built(
        "logging in over the API: use `hull login` on this machine; it",
    ))
}
