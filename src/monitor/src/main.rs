//! hull-monitor: started by hull, with a listening socket as descriptor 3 and the sandbox's lock as 4.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Without HULL_LOG there is no log: standard error is /dev/null then.
    if std::env::var_os("HULL_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_writer(std::io::stderr)
            .init();
    }
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let arguments: Vec<&Path> = arguments.iter().map(Path::new).collect();
    let outcome = match arguments[..] {
        [word] if word == Path::new("doctor") => {
            println!("{}", monitor::doctor());
            Ok(())
        }
        [word, root] if word == Path::new("sweep") => {
            monitor::sweep(root, None);
            Ok(())
        }
        [word, root, sandbox] if word == Path::new("sweep") => {
            monitor::sweep(root, sandbox.to_str());
            Ok(())
        }
        [folder] => {
            // Executed from a descriptor, it would be called by that one's number.
            if let Err(error) = rustix::thread::set_name(c"hull-monitor") {
                tracing::debug!(%error, "the process keeps the name that it has");
            }
            monitor::run(folder)
        }
        _ => {
            eprintln!("hull-monitor is started by hull, not by hand");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %monitor::chain(&error), "the monitor ends");
            eprintln!("hull-monitor: {}", monitor::chain(&error));
            ExitCode::FAILURE
        }
    }
}
