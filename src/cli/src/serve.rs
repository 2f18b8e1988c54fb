//! `serve`: Docker's API for Docker's clients.

use api::listen::{self, Listener};
use clap::Args;
use engine::Engine;
use engine::options::Isolation;

use crate::run_args::default_isolation;
use crate::say;

/// Serve Docker's API at a socket, for Docker's clients
#[derive(Debug, Args)]
#[command(
    after_help = "Until SIGTERM or ctrl-c, which end no container. Without -H, and unless systemd hands sockets over, it is /run/hull.sock
for root (group docker, where there is one), and hull.sock in XDG_RUNTIME_DIR for others.

Examples:
  hull serve &
  docker -H unix:///run/hull.sock run --rm -it debian bash"
)]
pub(crate) struct ServeArgs {
    /// Listen at this socket: unix:///PATH
    #[arg(short = 'H', long = "host", value_name = "ADDRESS")]
    hosts: Vec<String>,
    /// Isolation of containers that ask for none: vm, pod:NAME or native [default: vm, or HULL_ISOLATION]
    #[arg(long, value_name = "KIND", value_parser = values::machine::isolation)]
    isolation: Option<Isolation>,
}

/// `hull serve`.
pub(crate) fn serve(args: ServeArgs) -> anyhow::Result<u8> {
    // Before any thread is made.
    let mut listeners = listen::handed_over()?;
    for address in &args.hosts {
        listeners.push(listen::bind(&listen::path(address)?)?);
    }
    if listeners.is_empty() {
        listeners.push(listen::bind(&listen::default_path()?)?);
    }
    let isolation = match args.isolation {
        Some(isolation) => isolation,
        None => default_isolation(values::environment::of_host)?,
    };
    let engine = Engine::find()?;
    for line in listeners.iter().map(Listener::address) {
        say(&format!("serving Docker's API at {line}"));
    }
    api::serve(engine, listeners, api::Settings { isolation })?;
    Ok(0)
}
