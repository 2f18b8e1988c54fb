//! Processes as `ps` shows them: what `top` prints.

use engine::protocol::agent::ProcessEntry;
use engine::time;

/// Why there are no such columns.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Options that would need a `ps` in the container.
    #[error("hull top knows of ps only -ef and -o COLUMN,COLUMN,...: {0:?}")]
    Options(String),
    /// A column that there is not.
    #[error("hull top has no column {0:?}; `hull top --help` lists them")]
    Column(String),
}

/// A column of `top`: its heading, and what it shows of a process at a moment in seconds since the epoch.
pub type Column = (&'static str, fn(&ProcessEntry, u64) -> String);

/// Those of `ps -ef`.
const DEFAULT: [&str; 8] = ["uid", "pid", "ppid", "c", "stime", "tty", "time", "cmd"];

/// The columns that options of ps ask for.
pub fn columns(options: &[String]) -> Result<Vec<Column>, Error> {
    let words: Vec<&str> = options.iter().map(String::as_str).collect();
    let names: Vec<&str> = match words[..] {
        [] | ["-ef"] | ["ef"] => DEFAULT.to_vec(),
        ["-o", names] | ["-eo", names] | ["-e", "-o", names] => names.split(',').collect(),
        [word] if word.starts_with("-o") => word.trim_start_matches("-o").split(',').collect(),
        _ => return Err(Error::Options(words.join(" "))),
    };
    names.into_iter().map(column).collect()
}

fn column(name: &str) -> Result<Column, Error> {
    Ok(match name {
        "uid" | "user" => ("UID", |process, _| match process.uid {
            0 => "root".into(),
            uid => uid.to_string(),
        }),
        "pid" => ("PID", |process, _| process.pid.to_string()),
        "ppid" => ("PPID", |process, _| process.ppid.to_string()),
        "c" => ("C", usage),
        "stime" | "start" => ("STIME", start),
        "tty" | "tt" => ("TTY", |process, _| terminal(process.tty)),
        "time" | "cputime" => ("TIME", |process, _| {
            let seconds = process.cpu_ms / 1000;
            format!(
                "{:02}:{:02}:{:02}",
                seconds / 3600,
                seconds / 60 % 60,
                seconds % 60
            )
        }),
        "nlwp" => ("NLWP", |process, _| process.threads.to_string()),
        "rss" => ("RSS", |process, _| (process.rss_bytes / 1024).to_string()),
        "vsz" => ("VSZ", |process, _| {
            (process.virtual_bytes / 1024).to_string()
        }),
        "stat" | "s" => ("STAT", |process, _| process.state.to_string()),
        "comm" => ("COMMAND", |process, _| {
            let program = process.command.split(' ').next().unwrap_or_default();
            program.rsplit('/').next().unwrap_or_default().to_owned()
        }),
        "cmd" => ("CMD", |process, _| process.command.clone()),
        "args" | "command" => ("COMMAND", |process, _| process.command.clone()),
        other => return Err(Error::Column(other.to_owned())),
    })
}

/// Processor time as a percentage of the process's life.
fn usage(process: &ProcessEntry, now_s: u64) -> String {
    let life_ms = now_s.saturating_sub(process.started_s).saturating_mul(1000);
    process
        .cpu_ms
        .saturating_mul(100)
        .checked_div(life_ms)
        .unwrap_or(0)
        .to_string()
}

/// The time of today, or the day, in UTC.
fn start(process: &ProcessEntry, now_s: u64) -> String {
    const DAY_S: u64 = 86_400;
    let text = time::format_nano(process.started_s.saturating_mul(1_000_000_000));
    let is_today = process.started_s / DAY_S == now_s / DAY_S;
    let part = if is_today {
        text.get(11..16)
    } else {
        text.get(5..10)
    };
    part.unwrap_or("?").to_owned()
}

/// A terminal device's name, as Linux numbers them (new_encode_dev of the kernel).
fn terminal(device: i32) -> String {
    let device = device as u32;
    let (major, minor) = (
        (device >> 8) & 0xfff,
        (device & 0xff) | ((device >> 12) & 0xf_ff00),
    );
    match major {
        // UNIX98_PTY_SLAVE_MAJOR and the seven behind it, 256 each.
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        4 => format!("tty{minor}"),
        5 if minor == 1 => "console".into(),
        _ => "?".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_have_their_names() {
        assert_eq!(terminal(0), "?");
        assert_eq!(terminal((137 << 8) | 1), "pts/257");
        assert_eq!(terminal((4 << 8) | 1), "tty1");
        assert_eq!(terminal(-1), "?");
    }
}
