//! Dockerfile instructions that change an image's configuration, as `docker commit --change` and `docker import --change`
//! take them. Source: the Dockerfile reference.
//!
//! Deliberately absent: instructions that run something or bring files (RUN, COPY, FROM, …), which are a builder's.

use serde_json::{Map, Value, json};

mod health;
mod words;

/// Why an instruction cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// It is none, or one that changes more than the configuration.
    #[error(
        "{0} is not a valid change command: known are CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, \
         STOPSIGNAL, USER, VOLUME and WORKDIR"
    )]
    Unknown(String),
    /// It lacks its arguments, or has more than it takes.
    #[error("{instruction} {expected}: {text:?}")]
    Arguments {
        /// Its name.
        instruction: String,
        /// What it needs.
        expected: &'static str,
        /// What it has.
        text: String,
    },
}

/// Applies instructions in their order to a `config` object of an image.
pub fn apply(config: &mut Value, instructions: &[String]) -> Result<(), ChangeError> {
    if !config.is_object() {
        *config = Value::Object(Map::new());
    }
    let mut change = Change {
        config,
        command_set: false,
    };
    instructions
        .iter()
        .try_for_each(|instruction| change.apply(instruction))
}

struct Change<'a> {
    config: &'a mut Value,
    /// One of the instructions was CMD: an ENTRYPOINT leaves it then.
    command_set: bool,
}

impl Change<'_> {
    fn apply(&mut self, instruction: &str) -> Result<(), ChangeError> {
        let text = instruction.trim();
        let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let (name, rest) = (name.to_ascii_uppercase(), rest.trim());
        let wrong = |expected| ChangeError::Arguments {
            instruction: name.clone(),
            expected,
            text: rest.to_owned(),
        };
        let known = [
            "CMD",
            "ENTRYPOINT",
            "ENV",
            "EXPOSE",
            "HEALTHCHECK",
            "LABEL",
            "ONBUILD",
            "STOPSIGNAL",
            "USER",
            "VOLUME",
            "WORKDIR",
        ];
        if !known.contains(&name.as_str()) {
            return Err(ChangeError::Unknown(name));
        }
        if rest.is_empty() && !matches!(name.as_str(), "CMD" | "ENTRYPOINT") {
            return Err(wrong("requires an argument"));
        }
        match name.as_str() {
            "CMD" => {
                self.config["Cmd"] = self.command(rest);
                self.command_set = true;
            }
            "ENTRYPOINT" => {
                self.config["Entrypoint"] = self.command(rest);
                if !self.command_set {
                    self.config["Cmd"] = Value::Null;
                }
            }
            "ENV" => {
                let pairs = self
                    .pairs(rest)
                    .ok_or_else(|| wrong("requires NAME=VALUE"))?;
                pairs
                    .into_iter()
                    .for_each(|(name, value)| self.set_env(&name, &value));
            }
            "LABEL" => {
                let pairs = self
                    .pairs(rest)
                    .ok_or_else(|| wrong("requires NAME=VALUE"))?;
                pairs
                    .into_iter()
                    .for_each(|(name, value)| self.insert("Labels", &name, value.into()));
            }
            "EXPOSE" => {
                for word in self.words(rest) {
                    let port = port(&word).ok_or_else(|| wrong("requires PORT[/tcp|udp|sctp]"))?;
                    self.insert("ExposedPorts", &port, json!({}));
                }
            }
            "VOLUME" => {
                let paths = exec_form(rest).unwrap_or_else(|| self.words(rest));
                if paths.is_empty() || paths.iter().any(String::is_empty) {
                    return Err(wrong("requires paths"));
                }
                paths
                    .iter()
                    .for_each(|path| self.insert("Volumes", path, json!({})));
            }
            "WORKDIR" => {
                let path = self.expand(rest);
                let before = self.config["WorkingDir"].as_str().unwrap_or("/");
                self.config["WorkingDir"] = joined(before, &path).into();
            }
            "USER" => self.config["User"] = self.expand(rest).into(),
            "STOPSIGNAL" => self.config["StopSignal"] = self.expand(rest).into(),
            "ONBUILD" => self.push("OnBuild", rest.into()),
            _ => {
                self.config["Healthcheck"] = health::parse(rest)
                    .ok_or_else(|| wrong("requires NONE, or options and CMD with a command"))?;
            }
        }
        Ok(())
    }

    /// The words of the exec form, or a shell with the command line.
    fn command(&self, text: &str) -> Value {
        match exec_form(text) {
            Some(words) => json!(words),
            None if text.is_empty() => Value::Null,
            None => {
                let mut words = match &self.config["Shell"] {
                    Value::Array(shell) if !shell.is_empty() => shell.clone(),
                    _ => vec![json!("/bin/sh"), json!("-c")],
                };
                words.push(text.into());
                Value::Array(words)
            }
        }
    }

    /// `NAME=VALUE …`, or the old form: a name, white space and the value.
    fn pairs(&self, text: &str) -> Option<Vec<(String, String)>> {
        let first = text.split(char::is_whitespace).next()?;
        if !first.contains('=') {
            let (name, value) = text.split_once(char::is_whitespace)?;
            return Some(vec![(name.to_owned(), self.expand(value.trim()))]);
        }
        self.words(text)
            .into_iter()
            .map(|word| {
                let (name, value) = word.split_once('=')?;
                (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
            })
            .collect()
    }

    /// Words without their quotes, with variables of the image's environment replaced.
    fn words(&self, text: &str) -> Vec<String> {
        words::split(text, &|name| self.variable(name))
    }

    /// The same of a text that is one word, white space included.
    fn expand(&self, text: &str) -> String {
        words::expand(text, &|name| self.variable(name))
    }

    fn variable(&self, name: &str) -> Option<String> {
        let env = self.config["Env"].as_array()?;
        let mut entries = env.iter().filter_map(Value::as_str);
        let of_name = |entry: &str| Some(entry.strip_prefix(name)?.strip_prefix('=')?.to_owned());
        entries.find_map(of_name)
    }

    fn set_env(&mut self, name: &str, value: &str) {
        let entry = Value::from(format!("{name}={value}"));
        let env = self.config["Env"].as_array_mut();
        let known = env.and_then(|env| {
            env.iter_mut().find(|known| {
                let known = known.as_str().unwrap_or_default();
                known.split('=').next() == Some(name)
            })
        });
        match known {
            Some(known) => *known = entry,
            None => self.push("Env", entry),
        }
    }

    fn push(&mut self, list: &str, value: Value) {
        match &mut self.config[list] {
            Value::Array(list) => list.push(value),
            absent => *absent = json!([value]),
        }
    }

    fn insert(&mut self, set: &str, name: &str, value: Value) {
        match &mut self.config[set] {
            Value::Object(set) => {
                set.insert(name.to_owned(), value);
            }
            absent => *absent = Value::Object(Map::from_iter([(name.to_owned(), value)])),
        }
    }
}

/// A JSON array of words; anything else is a command line.
fn exec_form(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text).ok()
}

/// `80` and `80/UDP` as `80/tcp` and `80/udp`; ranges as they are.
fn port(text: &str) -> Option<String> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (low, high): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    let fits = low > 0 && low <= high && matches!(&*protocol, "tcp" | "udp" | "sctp");
    fits.then(|| format!("{ports}/{protocol}"))
}

/// A path as seen from a directory, without `.`, `..` and empty components.
fn joined(from: &str, path: &str) -> String {
    let whole = match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("{from}/{path}"),
    };
    let mut parts = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests;
