//! From a user's options to the OCI document of a process that is executed in a container.

use protocol::monitor::ExecConfig;
use protocol::record::{ContainerConfig, Stdio};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::capabilities;
use crate::options::Variable;

/// What `hull exec` can ask for.
#[derive(Debug, Clone, Default)]
pub struct ExecOptions {
    /// The command and its arguments.
    pub command: Vec<String>,
    /// Environment, besides the container's.
    pub env: Vec<Variable>,
    /// Instead of the container's user.
    pub user: Option<String>,
    /// Instead of the container's working directory; absolute.
    pub workdir: Option<String>,
    /// Every capability, and no seccomp profile.
    pub privileged: bool,
    /// A terminal of its own.
    pub terminal: Option<protocol::agent::TerminalSize>,
    /// Standard input is open.
    pub stdin: bool,
    /// Which of its streams the client is attached to: stdin, stdout, stderr.
    pub attach: [bool; 3],
}

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// Nothing to execute.
    #[error("an exec needs a command")]
    NoCommand,
    /// A working directory that depends on where one is.
    #[error("the working directory {0:?} is not absolute")]
    RelativeWorkdir(String),
    /// The container's own document.
    #[error("the container's document cannot be read")]
    Document(#[from] serde_json::Error),
}

/// The configuration of an exec in this container: its process's, with what is asked for in the place of what differs.
pub fn prepare(
    container: &ContainerConfig,
    options: &ExecOptions,
) -> Result<ExecConfig, ExecError> {
    if options.command.is_empty() {
        return Err(ExecError::NoCommand);
    }
    let spec: Value = serde_json::from_str(container.run.spec.get())?;
    let mut process = spec.get("process").cloned().unwrap_or_else(|| json!({}));
    process["args"] = json!(options.command);
    process["terminal"] = json!(options.terminal.is_some());
    process["env"] = json!(environment(&process["env"], options));
    if let Some(dir) = &options.workdir {
        if !dir.starts_with('/') {
            return Err(ExecError::RelativeWorkdir(dir.clone()));
        }
        process["cwd"] = json!(dir);
    }
    let mut seccomp = container.run.seccomp.clone();
    if options.privileged {
        let all = capabilities::all();
        for set in ["bounding", "effective", "permitted"] {
            process["capabilities"][set] = json!(all);
        }
        process["noNewPrivileges"] = json!(false);
        seccomp = None;
    }
    let stdio = match options.terminal {
        Some(size) => Stdio::Terminal { size },
        None => Stdio::Pipes {
            stdin: options.stdin,
            stdin_once: true,
        },
    };
    Ok(ExecConfig {
        document: RawValue::from_string(serde_json::to_string(&process)?)?,
        user: options.user.clone().or_else(|| container.run.user.clone()),
        seccomp,
        stdio,
        attach: options.attach,
    })
}

/// The container's environment, with TERM for a terminal, then the user's.
fn environment(of_container: &Value, options: &ExecOptions) -> Vec<String> {
    let mut env: Vec<(String, Option<String>)> = Vec::new();
    let mut set = |name: &str, value: Option<&str>| {
        let value = value.map(str::to_owned);
        match env.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => env.push((name.to_owned(), value)),
        }
    };
    for entry in of_container.as_array().into_iter().flatten() {
        let entry = entry.as_str().unwrap_or_default();
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        set(name, Some(value));
    }
    if options.terminal.is_some() {
        set("TERM", Some("xterm"));
    }
    for variable in &options.env {
        match variable {
            Variable::Set(name, value) => set(name, Some(value)),
            Variable::Unset(name) => set(name, None),
        }
    }
    env.into_iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", value?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn an_exec_has_the_container_s_surroundings_but_for_what_is_asked() {
        let mut container = testing::config("box");
        let document = r#"{"process":{"args":["sh"],"env":["A=1","B=2"],"cwd":"/srv",
            "capabilities":{"bounding":["CAP_CHOWN"]}}}"#;
        container.run.spec = RawValue::from_string(document.into()).unwrap();
        container.run.seccomp = Some(vec![1]);
        container.run.user = Some("www".into());
        let mut options = ExecOptions {
            command: vec!["id".into()],
            env: vec![
                Variable::Set("B".into(), "3".into()),
                Variable::Unset("A".into()),
            ],
            ..ExecOptions::default()
        };
        let exec = prepare(&container, &options).unwrap();
        let process: Value = serde_json::from_str(exec.document.get()).unwrap();
        assert_eq!(process["args"], json!(["id"]));
        assert_eq!(process["env"], json!(["B=3"]));
        assert_eq!(process["cwd"], "/srv");
        assert_eq!(
            (exec.user.as_deref(), exec.seccomp),
            (Some("www"), Some(vec![1]))
        );
        options.privileged = true;
        options.workdir = Some("tmp".into());
        assert!(prepare(&container, &options).is_err());
        options.workdir = None;
        let exec = prepare(&container, &options).unwrap();
        let process: Value = serde_json::from_str(exec.document.get()).unwrap();
        let bounding = process["capabilities"]["bounding"].as_array().unwrap();
        assert!(bounding.len() > 30 && exec.seccomp.is_none());
        assert!(bounding.contains(&json!("CAP_SYS_ADMIN")));
    }
}
