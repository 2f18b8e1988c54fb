//! Handlers, a file for each group.

pub(crate) mod containers;
pub(crate) mod copy;
pub(crate) mod exec;
pub(crate) mod images;
pub(crate) mod networks;
mod progress;
pub(crate) mod refused;
pub(crate) mod stats;
pub(crate) mod streams;
pub(crate) mod system;
pub(crate) mod transfer;
pub(crate) mod volumes;

use engine::protocol::agent::TerminalSize;

use crate::error::Failure;
use crate::query::Query;

/// `h` and `w` of a resize.
fn terminal_size(query: &Query) -> Result<TerminalSize, Failure> {
    let number = |name: &str| -> Result<u16, Failure> {
        let number = query
            .integer(name)?
            .and_then(|number| u16::try_from(number).ok());
        number.ok_or_else(|| {
            Failure::invalid(format!("invalid {name}: a number of characters is wanted"))
        })
    };
    Ok(TerminalSize {
        rows: number("h")?,
        columns: number("w")?,
    })
}

/// Labels of filters: `label` and `label!`. `None` for another key.
fn label(key: &str, value: &str) -> Option<(bool, (String, Option<String>))> {
    match key {
        "label" => Some((true, values::moments::label(value))),
        "label!" => Some((false, values::moments::label(value))),
        _ => None,
    }
}

/// As `--isolation` takes it.
fn isolation_word(isolation: &engine::options::Isolation) -> String {
    use engine::options::Isolation;
    match isolation {
        Isolation::Vm => "vm".into(),
        Isolation::Native => "native".into(),
        Isolation::Pod(name) => format!("pod:{name}"),
    }
}
