//! A container's document, in the shape of Docker's API.

use engine::asked::Asked;
use engine::container::network_names;
use engine::list::{Filter, Filters, ListOptions};
use engine::protocol::agent::Interface;
use engine::protocol::record::{
    Attachment, ContainerConfig, Endpoint, Health, HealthStatus, State, Status, Stdio,
};
use engine::{Container, Engine, signals, time};
use serde_json::{Map, Value, json};

use super::{host_config, mounts, ports};

/// The document. `size`: with how much it takes of the disk.
pub fn document(
    engine: &Engine,
    container: &Container,
    size: bool,
) -> Result<Value, engine::Error> {
    let layout = engine.layout();
    let config = &container.config;
    let mut document = of(container, &engine.endpoints(&config.sandbox)?)?;
    document["LogPath"] = match config.log {
        engine::protocol::record::LogConfig::JsonFile { .. } => {
            json!(layout.log(&config.id).display().to_string())
        }
        engine::protocol::record::LogConfig::None => json!(""),
    };
    document["ExecIDs"] = Value::Null;
    name_networks(engine, &mut document)?;
    if size {
        let options = ListOptions {
            all: true,
            sizes: true,
            filters: Filters(vec![Filter::Id(config.id.clone())]),
            ..ListOptions::default()
        };
        let own = engine
            .list(&options)?
            .into_iter()
            .find_map(|one| one.size_bytes)
            .unwrap_or(0);
        let layers: u64 = config.run.layers.iter().map(|layer| layer.len_bytes).sum();
        document["SizeRw"] = json!(own);
        document["SizeRootFs"] = json!(own + layers);
    }
    Ok(document)
}

/// Its networks by their identifiers, which only the engine knows.
fn name_networks(engine: &Engine, document: &mut Value) -> Result<(), engine::Error> {
    let Some(networks) = document["NetworkSettings"]["Networks"].as_object_mut() else {
        return Ok(());
    };
    for (name, endpoint) in networks {
        let id = match engine.any_network(name) {
            Ok(network) => network.id,
            // It was removed, as it may be while the container does not run.
            Err(error) if error.kind() == engine::Kind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        endpoint["NetworkID"] = json!(id);
    }
    Ok(())
}

/// Docker's word for a state.
pub fn state_word(status: Status) -> &'static str {
    match status {
        Status::Created => "created",
        Status::Running => "running",
        Status::Paused => "paused",
        Status::Restarting => "restarting",
        Status::Exited => "exited",
        Status::Dead => "dead",
    }
}

/// What the container's records say.
pub(crate) fn of(container: &Container, endpoints: &[Endpoint]) -> Result<Value, engine::Error> {
    let Container {
        config,
        state,
        health,
    } = container;
    let asked: Asked = serde_json::from_str(config.asked.get())?;
    let spec: Value = serde_json::from_str(config.run.spec.get())?;
    let words: Vec<Value> = match &spec["process"]["args"] {
        Value::Array(words) => words.clone(),
        _ => Vec::new(),
    };
    let (path, arguments) = match words.split_first() {
        Some((path, arguments)) => (path.clone(), arguments.to_vec()),
        None => (json!(""), Vec::new()),
    };
    // As Docker has it, the data of a driver are texts.
    let layers = config.run.layers.iter();
    let layers: Vec<String> = layers
        .map(|layer| layer.path.display().to_string())
        .collect();
    Ok(json!({
        "Id": config.id,
        "Created": time::format(config.created_ns),
        "Path": path,
        "Args": arguments,
        "State": state_document(state, health.as_ref()),
        "Image": config.image_id,
        "ResolvConfPath": "",
        "HostnamePath": "",
        "HostsPath": "",
        "Name": format!("/{}", config.name),
        "RestartCount": state.restarts,
        "Driver": "erofs",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "HostConfig": host_config::of(config, &asked, &spec),
        "GraphDriver": {
            "Name": "erofs",
            "Data": {"Layers": layers.join(":")},
        },
        "Mounts": mounts::of(config, &asked),
        "Config": config_document(config, &asked),
        "NetworkSettings": network(config, state, &asked, endpoints),
        "Sandbox": config.sandbox,
    }))
}

fn state_document(state: &State, health: Option<&Health>) -> Value {
    let is = |status| state.status == status;
    let mut document = json!({
        "Status": state_word(state.status),
        // As Docker has it, what is paused or is about to be started again counts as running.
        "Running": state.status.is_alive(),
        "Paused": is(Status::Paused),
        "Restarting": is(Status::Restarting),
        "OOMKilled": state.oom_killed,
        "Dead": is(Status::Dead),
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": time::format(state.started_ns),
        "FinishedAt": time::format(state.finished_ns),
    });
    if let Some(health) = health {
        document["Health"] = health_document(health);
    }
    document
}

fn health_document(health: &Health) -> Value {
    let status = match health.status {
        HealthStatus::Starting => "starting",
        HealthStatus::Healthy => "healthy",
        HealthStatus::Unhealthy => "unhealthy",
    };
    let log = health.log.iter().map(|check| {
        json!({
            "Start": time::format(check.start_ns),
            "End": time::format(check.end_ns),
            "ExitCode": check.exit_code,
            "Output": check.output,
        })
    });
    json!({
        "Status": status,
        "FailingStreak": health.failing_streak,
        "Log": log.collect::<Vec<_>>(),
    })
}

fn config_document(config: &ContainerConfig, asked: &Asked) -> Value {
    let options = &asked.options;
    let (tty, open_stdin, stdin_once) = match config.run.stdio {
        Stdio::Terminal { .. } => (true, options.interactive, false),
        Stdio::Pipes { stdin, stdin_once } => (false, stdin, stdin_once),
    };
    let set = |names: &[String]| match names.is_empty() {
        true => Value::Null,
        false => Value::Object(names.iter().map(|name| (name.clone(), json!({}))).collect()),
    };
    let mut document = json!({
        "Hostname": asked.hostname,
        "Domainname": options.domainname.clone().unwrap_or_default(),
        "User": asked.user,
        "AttachStdin": options.attach.stdin,
        "AttachStdout": options.attach.stdout,
        "AttachStderr": options.attach.stderr,
        "Tty": tty,
        "OpenStdin": open_stdin,
        "StdinOnce": stdin_once,
        "Env": asked.env,
        "Cmd": list_or_null(&asked.command),
        "Image": config.image,
        "Volumes": set(&asked.volumes),
        "WorkingDir": asked.workdir,
        "Entrypoint": list_or_null(&asked.entrypoint),
        "OnBuild": null,
        "Labels": config.labels,
    });
    let mut add = |name: &str, value: Value| {
        document[name] = value;
    };
    if !asked.exposed_ports.is_empty() {
        add("ExposedPorts", set(&asked.exposed_ports));
    }
    if let Some(signal) = asked.stop_signal {
        add("StopSignal", json!(signals::name(signal)));
    }
    if let Some(seconds) = options.stop_timeout_s {
        add("StopTimeout", json!(seconds));
    }
    if let Some(shell) = &asked.shell {
        add("Shell", json!(shell));
    }
    if let Some(check) = &asked.healthcheck {
        add(
            "Healthcheck",
            serde_json::to_value(check).unwrap_or_default(),
        );
    }
    document
}

fn list_or_null(words: &[String]) -> Value {
    match words.is_empty() {
        true => Value::Null,
        false => json!(words),
    }
}

/// Its places on networks, with addresses while it runs.
fn network(
    config: &ContainerConfig,
    state: &State,
    asked: &Asked,
    endpoints: &[Endpoint],
) -> Value {
    let is_alive = state.status.is_alive();
    let ports = match is_alive {
        true => ports::settings(&asked.exposed_ports, &state.ports),
        false => json!({}),
    };
    let interfaces = state.interfaces.iter().filter(|_| is_alive);
    let interfaces: Vec<&Attachment> = interfaces.collect();
    let names = network_names(config);
    let mut networks = Map::new();
    for name in &names {
        // An earlier version did not say which network an interface is on: it was the only one.
        let is_there = |it: &&&Attachment| it.network == *name || it.network.is_empty();
        let interface = interfaces.iter().find(is_there).map(|it| &it.interface);
        let endpoint = endpoints.iter().find(|it| it.network == *name);
        networks.insert(
            (*name).to_owned(),
            endpoint_document(name, endpoint, interface),
        );
    }
    let mut document = json!({
        "Bridge": "",
        "SandboxID": config.sandbox,
        "SandboxKey": "",
        "Ports": ports,
        "Networks": networks,
    });
    // Docker's older members: of the first network.
    add_address(&mut document, interfaces.first().map(|it| &it.interface));
    document
}

fn endpoint_document(
    network: &str,
    endpoint: Option<&Endpoint>,
    interface: Option<&Interface>,
) -> Value {
    let empty = Endpoint::on(network);
    let endpoint = endpoint.unwrap_or(&empty);
    let links: Vec<String> = endpoint
        .links
        .iter()
        .map(|link| format!("{}:{}", link.name, link.alias))
        .collect();
    let mut document = json!({
        "IPAMConfig": endpoint.address.map(|address| json!({"IPv4Address": address.to_string()})),
        "Links": host_config::list(&links),
        "Aliases": host_config::list(&endpoint.aliases),
        "DriverOpts": null,
        "GwPriority": endpoint.gw_priority,
        "NetworkID": network,
        "EndpointID": "",
    });
    add_address(&mut document, interface);
    document
}

/// An interface's addresses, in Docker's members; empty ones without it.
pub(crate) fn add_address(document: &mut Value, interface: Option<&Interface>) {
    let gateway = interface.and_then(|it| it.gateway);
    let mac = interface.map(|it| it.mac.map(|byte| format!("{byte:02x}")).join(":"));
    document["Gateway"] = json!(gateway.map(|it| it.to_string()).unwrap_or_default());
    document["IPAddress"] = json!(
        interface
            .map(|it| it.address.to_string())
            .unwrap_or_default()
    );
    document["IPPrefixLen"] = json!(interface.map_or(0, |it| it.prefix_len));
    document["MacAddress"] = json!(mac.unwrap_or_default());
}
