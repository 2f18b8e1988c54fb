//! Processes that are executed in running containers.

use engine::Streams;
use engine::exec::{self, ExecOptions};
use engine::protocol::agent::{Failure as Refused, TerminalSize};
use engine::protocol::record::{Status, Stdio};
use engine::session::Event;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use crate::call::{Answer, Call, Reply, empty, json};
use crate::convert::{Words, read};
use crate::error::{Failure, start_code};
use crate::fields::Fields;
use crate::frames;
use crate::router::Version;
use crate::stream::{Attachment, carry};

/// What inspect shows of what was asked for.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Asked {
    command: Vec<String>,
    terminal: bool,
    privileged: bool,
    user: String,
    attach: [bool; 3],
    detach_keys: String,
}

pub(crate) fn create(call: Call) -> Answer {
    let container = call.engine.container(&call.target)?;
    if container.state.status == Status::Paused {
        let name = &call.target;
        return Err(Failure::new(
            409,
            format!("container {name} is paused, unpause the container before exec"),
        ));
    }
    let mut fields = Fields::parse(&call.body)?;
    let size = fields.take::<[u16; 2]>("ConsoleSize")?.unwrap_or_default();
    let size = match size {
        [rows, columns] if rows > 0 && columns > 0 => TerminalSize { rows, columns },
        _ => TerminalSize::default(),
    };
    let asked = Asked {
        command: fields
            .take::<Words>("Cmd")?
            .map(Words::all)
            .unwrap_or_default(),
        terminal: fields.get("Tty")?,
        privileged: fields.get("Privileged")?,
        user: fields.get("User")?,
        attach: [
            fields.get("AttachStdin")?,
            fields.get("AttachStdout")?,
            fields.get("AttachStderr")?,
        ],
        detach_keys: fields.get("DetachKeys")?,
    };
    if asked.command.is_empty() {
        return Err(Failure::invalid("No exec command specified"));
    }
    let mut options = ExecOptions {
        command: asked.command.clone(),
        user: Some(asked.user.clone()).filter(|user| !user.is_empty()),
        workdir: fields.text("WorkingDir")?,
        privileged: asked.privileged,
        terminal: asked.terminal.then_some(size),
        stdin: asked.attach[0],
        attach: asked.attach,
        ..ExecOptions::default()
    };
    for text in fields.get::<Vec<String>>("Env")? {
        options
            .env
            .push(read(values::environment::variable(&text, |_| Ok(None)))?);
    }
    // Some clients name the container again.
    fields.text("Container")?;
    fields.get::<bool>("Detach")?;
    fields.end()?;
    let config = read(exec::prepare(&container.config, &options))?;
    let asked = read(serde_json::to_string(&asked))?;
    let id = call
        .engine
        .exec_create(&call.target, config, read(RawValue::from_string(asked))?)?;
    json(201, &json!({"Id": id}))
}

pub(crate) fn start(call: Call) -> Answer {
    let mut fields = Fields::parse(&call.body)?;
    let detach: bool = fields.get("Detach")?;
    let inspected = call.engine.exec_inspect(&call.target)?;
    if inspected.state.is_some() || inspected.created.failed.is_some() {
        return Err(Failure::new(
            409,
            format!("Error: Exec command {} has already run", call.target),
        ));
    }
    let asked: Asked = read(serde_json::from_str(inspected.created.asked.get()))?;
    let terminal = matches!(inspected.created.config.stdio, Stdio::Terminal { .. });
    let attach = match (detach, terminal) {
        (true, _) => [false; 3],
        (false, true) => [asked.attach[0], true, false],
        (false, false) => asked.attach,
    };
    let mut session = call.engine.exec_start(&call.target, attach)?;
    let mut streams = Streams::default();
    loop {
        match session.next()? {
            Event::Attached(all) => streams = all,
            Event::Started { .. } => break,
            Event::Failed(failure) => return failed(&call, failure, detach, terminal),
            _ => {}
        }
    }
    if detach {
        session.leave();
        return empty(200);
    }
    let keys = read(values::lifecycle::detach_keys(&asked.detach_keys))?;
    let attachment = Attachment {
        session,
        streams,
        keys,
        earlier: Vec::new(),
    };
    Ok(Reply::TakeOver {
        kind: kind(call.version, terminal),
        speak: Box::new(move |client, early| carry(attachment, client, early)),
    })
}

/// The content type of a process's streams.
pub(crate) fn kind(version: Version, terminal: bool) -> &'static str {
    match terminal || version < Version(42) {
        true => "application/vnd.docker.raw-stream",
        false => "application/vnd.docker.multiplexed-stream",
    }
}

/// A process that could not be executed: as Docker has it, the stream says why, and inspect has the code.
fn failed(call: &Call, failure: Refused, detach: bool, terminal: bool) -> Answer {
    let error = engine::Error::Failure(failure);
    call.engine
        .exec_failed(&call.target, start_code(error.kind()))?;
    if detach {
        return Err(error.into());
    }
    let message = format!("{error}\r\n");
    let bytes = match terminal {
        true => message.into_bytes(),
        false => frames::frame(frames::STDERR, message.as_bytes()),
    };
    Ok(Reply::TakeOver {
        kind: kind(call.version, terminal),
        speak: Box::new(move |mut client, _| {
            // A client that has gone does not want to know.
            let _ = std::io::Write::write_all(&mut client, &bytes);
            let _ = client.shutdown(std::net::Shutdown::Both);
        }),
    })
}

pub(crate) fn resize(call: Call) -> Answer {
    call.engine
        .exec_resize(&call.target, super::terminal_size(&call.query)?)?;
    empty(200)
}

pub(crate) fn inspect(call: Call) -> Answer {
    let inspected = call.engine.exec_inspect(&call.target)?;
    let created = &inspected.created;
    let asked: Asked = read(serde_json::from_str(created.asked.get()))?;
    let (entrypoint, arguments) = match asked.command.split_first() {
        Some((program, arguments)) => (program.clone(), arguments.to_vec()),
        None => (String::new(), Vec::new()),
    };
    let state = inspected.state;
    let code = state
        .and_then(|state| state.status)
        .map(|status| status.code());
    json(
        200,
        &json!({
            "ID": created.id,
            "Running": state.is_some_and(|state| state.running),
            "ExitCode": created.failed.or(code),
            "ProcessConfig": {
                "tty": asked.terminal,
                "entrypoint": entrypoint,
                "arguments": arguments,
                "privileged": asked.privileged,
                "user": asked.user,
            },
            "OpenStdin": asked.attach[0],
            "OpenStdout": asked.attach[1],
            "OpenStderr": asked.attach[2],
            "CanRemove": false,
            "ContainerID": created.container,
            "DetachKeys": asked.detach_keys,
            "Pid": state.map_or(0, |state| state.pid),
        }),
    )
}
