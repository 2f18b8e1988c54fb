//! hull-monitor: started by hull, with a listening socket as descriptor 3 and the sandbox's lock as 4.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    // HULL_LOG is set only where somebody wants to read it: standard error is /dev/null otherwise.
    if std::env::var_os("HULL_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_writer(std::io::stderr)
            .init();
    }
    // Executed from a descriptor, it would be called by that one's number.
    if let Err(error) = rustix::thread::set_name(c"hull-monitor") {
        tracing::debug!(%error, "the process keeps the name that it has");
    }
    let mut arguments = std::env::args_os().skip(1);
    let (Some(folder), None) = (arguments.next(), arguments.next()) else {
        eprintln!("hull-monitor is started by hull, not by hand");
        return ExitCode::from(2);
    };
    match monitor::run(Path::new(&folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hull-monitor: {}", monitor::chain(&error));
            ExitCode::FAILURE
        }
    }
}
