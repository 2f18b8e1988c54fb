//! `push`, `login` and `logout`.

use std::io::{self, BufRead, IsTerminal, Read};

use anyhow::Context;
use clap::Args;
use engine::image::login::{self, DEFAULT_REGISTRY, StoredIn};
use engine::image::{self, PullOptions, PushOptions};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::{explained, reference, store};
use crate::progress::Reporter;
use crate::{out, say};

/// Send an image to the registry that its name says
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// Send every tag of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Speak plain HTTP with this registry (this machine's own need no permission)
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure_registry: Vec<String>,
    /// Print nothing but the image's name
    #[arg(short, long)]
    quiet: bool,
    /// The image
    #[arg(value_name = "NAME[:TAG]")]
    image: String,
}

/// Keep a user's name and password for a registry, as docker login does
#[derive(Debug, Args)]
#[command(
    after_help = "They are kept in Docker's config.json (DOCKER_CONFIG or ~/.docker), or by the credential helper that it names."
)]
pub(crate) struct LoginArgs {
    /// The password (others see it in the list of processes: --password-stdin hides it)
    #[arg(
        short,
        long,
        value_name = "PASSWORD",
        conflicts_with = "password_stdin"
    )]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
    /// The user
    #[arg(short, long, value_name = "USER")]
    username: Option<String>,
    /// Speak plain HTTP with this registry
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure_registry: Vec<String>,
    /// The registry; Docker Hub if none is named
    #[arg(value_name = "SERVER", default_value = DEFAULT_REGISTRY)]
    server: String,
}

/// Forget what login kept for a registry
#[derive(Debug, Args)]
pub(crate) struct LogoutArgs {
    /// The registry; Docker Hub if none is named
    #[arg(value_name = "SERVER", default_value = DEFAULT_REGISTRY)]
    server: String,
}

/// `hull push`
pub(crate) fn push(args: PushArgs) -> anyhow::Result<u8> {
    let name = reference(&args.image)?;
    let options = PushOptions {
        connection: PullOptions {
            insecure_registries: args.insecure_registry,
            ..PullOptions::default()
        },
        ..PushOptions::default()
    };
    let reporter = Reporter::new();
    let progress: &dyn image::Progress = if args.quiet { &() } else { &reporter };
    if !args.quiet {
        let repository = format!("{}/{}", name.domain(), name.repository());
        out(&format!("The push refers to repository [{repository}]\n"))?;
    }
    let store = store()?;
    let pushed = match args.all_tags {
        true => store.push_all(&name, &options, progress),
        false => store
            .push(&name, &options, progress)
            .map(|pushed| vec![pushed]),
    };
    for one in pushed.map_err(explained)? {
        match args.quiet {
            true => out(&format!(
                "{}/{}:{}\n",
                one.name.domain(),
                one.name.repository(),
                one.name.tag().unwrap_or("latest")
            ))?,
            false => out(&format!(
                "{}: digest: {} size: {}\n",
                one.name.tag().unwrap_or("latest"),
                one.digest,
                one.size_bytes
            ))?,
        }
    }
    Ok(0)
}

/// `hull login`
pub(crate) fn login(args: LoginArgs) -> anyhow::Result<u8> {
    let user = match args.username {
        Some(user) => user,
        None => ask("Username: ", true)?,
    };
    let password = match (args.password, args.password_stdin) {
        (Some(password), _) => password,
        (None, true) => {
            let mut text = String::new();
            io::stdin()
                .read_to_string(&mut text)
                .context("cannot read the password")?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        (None, false) => ask("Password: ", false)?,
    };
    let options = PullOptions {
        insecure_registries: args.insecure_registry,
        ..PullOptions::default()
    };
    let stored = login::login(&args.server, &user, &password, &options).map_err(advised)?;
    if let StoredIn::File(path) = stored {
        say(&format!(
            "WARNING! Your credentials are stored unencrypted in '{}'.\nConfigure a credential helper to remove this warning.",
            path.display()
        ));
    }
    out("Login Succeeded\n")?;
    Ok(0)
}

fn advised(error: login::Error) -> anyhow::Error {
    match error.help() {
        Some(help) => anyhow::anyhow!("{:#}; {help}", anyhow::Error::from(error)),
        None => error.into(),
    }
}

/// A line that the user types, shown or not.
fn ask(prompt: &str, echo: bool) -> anyhow::Result<String> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        anyhow::bail!(
            "cannot perform an interactive login from a non TTY device: use --username and --password-stdin"
        );
    }
    crate::err(prompt);
    let before = tcgetattr(&stdin)?;
    if !echo {
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Flush, &hidden)?;
    }
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    if !echo {
        tcsetattr(&stdin, OptionalActions::Flush, &before)?;
        crate::err("\n");
    }
    read?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// `hull logout`
pub(crate) fn logout(args: LogoutArgs) -> anyhow::Result<u8> {
    let known = login::logout(&args.server, &PullOptions::default()).map_err(advised)?;
    let text = match known {
        true => format!("Removing login credentials for {}\n", args.server),
        false => format!("Not logged in to {}\n", args.server),
    };
    out(&text)?;
    Ok(0)
}
