//! hull-net: started by a sandbox's warden in a jail, with a socket as descriptor 3 and a pipe for last words as 4.

use std::io;
use std::process::ExitCode;

use protocol::net::{CONTROL_FD, WORDS_FD};
use sys::spawn::inherited;
use usernet::{confine, control};

fn main() -> ExitCode {
    if std::env::args_os().len() > 1 {
        eprintln!("hull-net is started by hull, without arguments");
        return ExitCode::from(2);
    }
    let socket = match inherited(CONTROL_FD) {
        Ok(socket) => socket,
        Err(error) => return not_given("control socket", CONTROL_FD, &error),
    };
    if let Err(error) = inherited(WORDS_FD).and_then(confine::prepare) {
        return not_given("pipe for last words", WORDS_FD, &error);
    }
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer(io::stderr)
        .with_ansi(false)
        .without_time()
        .init();
    let Err(error) = control::run(socket);
    eprintln!("hull-net: {}", protocol::chain(&error));
    // At once: what a runtime does at a program's end needs calls that the filter does not have.
    sys::fork::exit(1)
}

fn not_given(what: &str, number: i32, error: &io::Error) -> ExitCode {
    eprintln!("hull-net: no {what} as descriptor {number}: {error}; hull starts it with one");
    ExitCode::from(2)
}
