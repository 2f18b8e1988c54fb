//! `logs`: what a container has written.

use std::io::{self, ErrorKind, Write};

use clap::Args;
use engine::Engine;
use engine::logs::{LogOptions, LogReader, OutputStream};
use engine::time;

use values::moments;

/// Show what a container has written
#[derive(Debug, Args)]
#[command(
    after_help = "Times: 2026-11-28T22:19:28Z (UTC without a zone), seconds since 1970, or how long ago: 10m, 1h30m

Examples:
  hull logs -f --tail 20 web
  hull logs --since 10m -t web"
)]
pub(crate) struct LogsArgs {
    /// Show further attributes of the log (a blank: hull's logs keep none)
    #[arg(long)]
    details: bool,
    /// Go on until the container has ended
    #[arg(short, long)]
    follow: bool,
    /// Show what was written since then
    #[arg(long, value_name = "TIME", value_parser = moments::moment)]
    since: Option<u64>,
    /// Show what was written until then
    #[arg(long, value_name = "TIME", value_parser = moments::moment)]
    until: Option<u64>,
    /// Show so many of the last lines, or all
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        default_value = "all",
        allow_hyphen_values = true
    )]
    tail: String,
    /// Show when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// The container
    container: String,
}

/// `hull logs`.
pub(crate) fn logs(args: LogsArgs) -> anyhow::Result<u8> {
    let options = LogOptions {
        since_ns: args.since,
        until_ns: args.until,
        // As Docker has it: what is no number is all.
        tail: args.tail.parse().ok(),
        follow: args.follow,
        ..LogOptions::default()
    };
    let engine = Engine::find()?;
    let reader = engine.logs(&args.container, options)?;
    match copy(reader, &args) {
        Ok(()) => Ok(0),
        Err(error) if is_closed(&error) => Ok(0),
        Err(error) => Err(error),
    }
}

/// Whether the reader of a pipe has gone: `hull logs web | head -1` is no failure.
pub(crate) fn is_closed(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

fn copy(mut reader: LogReader<'_>, args: &LogsArgs) -> anyhow::Result<()> {
    let mut stdout = io::BufWriter::new(io::stdout().lock());
    let mut stderr = io::stderr().lock();
    loop {
        let line = match reader.next_now()? {
            Some(line) => line,
            None => {
                // The next line may be long in coming.
                stdout.flush()?;
                match reader.next()? {
                    Some(line) => line,
                    None => return Ok(()),
                }
            }
        };
        let text = shown(&line.text, line.time_ns, args.timestamps, args.details);
        match line.stream {
            OutputStream::Stdout => stdout.write_all(text.as_bytes())?,
            OutputStream::Stderr => {
                stdout.flush()?;
                stderr.write_all(text.as_bytes())?;
            }
        }
    }
}

fn shown(text: &str, time_ns: u64, timestamps: bool, details: bool) -> String {
    let details = if details { " " } else { "" };
    match timestamps {
        true => format!("{} {details}{text}", time::format_nano(time_ns)),
        false => format!("{details}{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_shown_with_its_time_in_nine_digits() {
        assert_eq!(shown("a\n", 0, false, false), "a\n");
        assert_eq!(
            shown("a\n", 1_795_904_368_500_000_000, true, false),
            "2026-11-28T22:19:28.500000000Z a\n"
        );
        assert_eq!(
            shown("a\n", 1_795_904_368_000_000_000, true, true),
            "2026-11-28T22:19:28.000000000Z  a\n"
        );
    }
}
