//! hull-fs: started by the monitor's warden in a jail, with a socket as descriptor 3, a pipe for last words as 4 and the links
//! of its descriptors as 5.

use std::process::ExitCode;

use fs::{Links, confine, control};
use protocol::fs::{CONTROL_FD, LINKS_FD, WORDS_FD};
use sys::spawn::inherited;

fn main() -> ExitCode {
    if std::env::args_os().len() > 1 {
        eprintln!("hull-fs is started by hull, without arguments");
        return ExitCode::from(2);
    }
    let socket = match inherited(CONTROL_FD) {
        Ok(socket) => socket,
        Err(error) => return not_given("control socket", CONTROL_FD, &error),
    };
    if let Err(error) = inherited(WORDS_FD).and_then(confine::prepare) {
        return not_given("pipe for last words", WORDS_FD, &error);
    }
    let links = match inherited(LINKS_FD).and_then(Links::enter) {
        Ok(links) => links,
        Err(error) => return not_given("directory of links", LINKS_FD, &error),
    };
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .without_time()
        .init();
    let code = match control::run(&socket, links) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("hull-fs: {}", protocol::chain(&error));
            1
        }
    };
    // At once: what a runtime does at a program's end needs calls that no thread has.
    sys::fork::exit(code)
}

fn not_given(what: &str, number: i32, error: &std::io::Error) -> ExitCode {
    eprintln!("hull-fs: no {what} as descriptor {number}: {error}; hull starts it with one");
    ExitCode::from(2)
}
