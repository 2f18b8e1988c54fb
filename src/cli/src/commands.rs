//! All commands, and what each does.

use clap::{CommandFactory, Parser, Subcommand};

use crate::containers::commit::{self, CommitArgs};
use crate::containers::control::{self, Containers, KillArgs, RenameArgs, RmArgs, StopArgs};
use crate::containers::cp::CpArgs;
use crate::containers::exec::ExecArgs;
use crate::containers::inspect::{InspectArgs, Type};
use crate::containers::logs::LogsArgs;
use crate::containers::look::{DiffArgs, ExportArgs, TopArgs};
use crate::containers::ports::{self, PortArgs};
use crate::containers::ps::PsArgs;
use crate::containers::run::{AttachArgs, StartArgs};
use crate::containers::stats::StatsArgs;
use crate::containers::update::UpdateArgs;
use crate::containers::{cp, exec, inspect, logs, look, ps, run, stats, update};
use crate::events::EventsArgs;
use crate::machine::{self, MachineCommand};
use crate::networks::{self, NetworkCommand};
use crate::pods::{self, PodCommand};
use crate::prune::{self, PruneArgs, SystemPruneArgs};
use crate::run_args::{CreateArgs, RunArgs};
use crate::system::{self, DfArgs, InfoArgs, VersionArgs};
use crate::volumes::{self, VolumeCommand};
use crate::{FAILED, completion, doctor, events, images, man, serve, service};

/// Containers, each in a virtual machine of its own
#[derive(Debug, Parser)]
#[command(
    name = "hull",
    version,
    propagate_version = false,
    max_term_width = 100
)]
pub(crate) struct Hull {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Shared(Shared),
    Ps(PsArgs),
    Inspect(InspectArgs),
    Pull(images::PullArgs),
    Import(images::ImportArgs),
    Images(images::list::ImagesArgs),
    Rmi(images::RmiArgs),
    #[command(flatten)]
    SharedImage(SharedImage),
    Login(images::registry::LoginArgs),
    Logout(images::registry::LogoutArgs),
    Events(EventsArgs),
    Info(InfoArgs),
    Version(VersionArgs),
    /// Manage containers
    #[command(subcommand)]
    Container(ContainerCommand),
    /// Manage images
    #[command(subcommand)]
    Image(ImageCommand),
    #[command(subcommand)]
    Pod(PodCommand),
    #[command(subcommand)]
    Machine(MachineCommand),
    #[command(subcommand)]
    Volume(VolumeCommand),
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Look after hull as a whole
    #[command(subcommand)]
    System(SystemCommand),
    Serve(serve::ServeArgs),
    Doctor(doctor::DoctorArgs),
    Completion(completion::CompletionArgs),
    #[command(hide = true)]
    Man(man::ManArgs),
    /// Measure hull beside other ways to run the same container
    Bench {
        /// What to measure
        #[command(subcommand)]
        what: bench::Bench,
    },
}

/// Commands that are below `hull` and below `hull container`.
#[derive(Debug, Subcommand)]
pub(crate) enum Shared {
    Run(Box<RunArgs>),
    Create(Box<CreateArgs>),
    Start(StartArgs),
    Attach(AttachArgs),
    Exec(ExecArgs),
    Stop(StopArgs),
    /// Stop containers and start them again
    Restart(StopArgs),
    Kill(KillArgs),
    /// Wait until containers have ended, and print their codes
    Wait(Containers),
    Rm(RmArgs),
    Rename(RenameArgs),
    /// Freeze all processes of containers
    Pause(Containers),
    /// Let frozen containers go on
    Unpause(Containers),
    Update(UpdateArgs),
    Logs(LogsArgs),
    Top(TopArgs),
    Stats(StatsArgs),
    Port(PortArgs),
    Diff(DiffArgs),
    Cp(CpArgs),
    Export(ExportArgs),
    Commit(CommitArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ContainerCommand {
    #[command(flatten)]
    Shared(Shared),
    #[command(visible_aliases = ["list", "ps"])]
    Ls(PsArgs),
    Inspect(InspectArgs),
    Prune(PruneArgs),
}

/// Commands that are below `hull` and below `hull image`.
#[derive(Debug, Subcommand)]
pub(crate) enum SharedImage {
    Push(images::registry::PushArgs),
    Save(images::archive::SaveArgs),
    Load(images::archive::LoadArgs),
    Tag(images::manage::TagArgs),
    History(images::manage::HistoryArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    #[command(flatten)]
    Shared(SharedImage),
    Pull(images::PullArgs),
    Import(images::ImportArgs),
    #[command(visible_alias = "list")]
    Ls(images::list::ImagesArgs),
    #[command(visible_alias = "remove")]
    Rm(images::RmiArgs),
    Inspect(InspectArgs),
    Prune(images::manage::PruneArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum SystemCommand {
    Df(DfArgs),
    Events(EventsArgs),
    Info(InfoArgs),
    Install(service::InstallArgs),
    Prune(SystemPruneArgs),
    Start(service::StartArgs),
    Uninstall(service::UninstallArgs),
}

/// Groups of the overview, as `hull --help` shows them: their heading and their commands.
const GROUPS: [(&str, &[&str]); 5] = [
    (
        "Common Commands",
        &["run", "exec", "ps", "pull", "images", "version", "info"],
    ),
    (
        "Management Commands",
        &[
            "container",
            "image",
            "volume",
            "network",
            "pod",
            "machine",
            "system",
        ],
    ),
    (
        "Containers",
        &[
            "create", "start", "attach", "stop", "restart", "kill", "wait", "rm", "rename",
            "pause", "unpause", "update", "logs", "inspect", "top", "stats", "port", "diff", "cp",
            "export", "commit",
        ],
    ),
    (
        "Images",
        &[
            "push", "save", "load", "import", "tag", "history", "rmi", "login", "logout",
        ],
    ),
    (
        "This Host",
        &["events", "serve", "doctor", "completion", "bench"],
    ),
];

/// The definition of the whole command line: for man pages and completions.
pub fn command() -> clap::Command {
    with_overview(Hull::command())
}

/// The command with its subcommands in groups.
pub(crate) fn with_overview(command: clap::Command) -> clap::Command {
    let mut overview = String::new();
    for (heading, names) in GROUPS {
        overview.push_str(&format!("{heading}:\n"));
        for name in names {
            let about = command
                .find_subcommand(name)
                .and_then(|found| found.get_about());
            let about = about.map(ToString::to_string).unwrap_or_default();
            overview.push_str(&format!("  {name:<11} {about}\n"));
        }
        overview.push('\n');
    }
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{overview}Options:\n{{options}}\n\n\
         Run 'hull COMMAND --help' for more about a command."
    );
    command.help_template(template)
}

/// Docker's code for a failure: 125 where the code may also be a container's, else 1.
pub(crate) fn failure_code(command: &Command) -> u8 {
    let shared = match command {
        Command::Shared(shared) | Command::Container(ContainerCommand::Shared(shared)) => shared,
        Command::Doctor(_) | Command::Bench { .. } => return FAILED,
        _ => return 1,
    };
    match shared {
        Shared::Run(_) => FAILED,
        _ => 1,
    }
}

/// Does what a command says, with `started` (T0) on the clock of DESIGN.md; its exit code.
pub(crate) fn execute(command: Command, started: u64) -> anyhow::Result<u8> {
    match command {
        Command::Shared(command) => shared(command, started),
        Command::Ps(args) => ps::ps(args),
        Command::Inspect(args) => inspect::inspect(args, None),
        Command::Pull(args) => images::pull(args),
        Command::Import(args) => images::import(args),
        Command::Images(args) => images::list::list(args),
        Command::Rmi(args) => images::remove(args),
        Command::SharedImage(command) => shared_image(command),
        Command::Login(args) => images::registry::login(args),
        Command::Logout(args) => images::registry::logout(args),
        Command::Events(args) => events::events(args),
        Command::Info(args) => system::info(args),
        Command::Version(args) => system::version(args),
        Command::Container(command) => match command {
            ContainerCommand::Shared(command) => shared(command, started),
            ContainerCommand::Ls(args) => ps::ps(args),
            ContainerCommand::Inspect(args) => inspect::inspect(args, Some(Type::Container)),
            ContainerCommand::Prune(args) => prune::containers(args),
        },
        Command::Image(command) => match command {
            ImageCommand::Shared(command) => shared_image(command),
            ImageCommand::Prune(args) => images::manage::prune(args),
            ImageCommand::Pull(args) => images::pull(args),
            ImageCommand::Import(args) => images::import(args),
            ImageCommand::Ls(args) => images::list::list(args),
            ImageCommand::Rm(args) => images::remove(args),
            ImageCommand::Inspect(args) => inspect::inspect(args, Some(Type::Image)),
        },
        Command::Pod(command) => pods::pod(command),
        Command::Volume(command) => volumes::volume(command),
        Command::Network(command) => networks::network_command(command),
        Command::Machine(command) => machine::machine(command, started),
        Command::System(command) => match command {
            SystemCommand::Df(args) => system::df(args),
            SystemCommand::Events(args) => events::events(args),
            SystemCommand::Info(args) => system::info(args),
            SystemCommand::Install(args) => service::install(args),
            SystemCommand::Prune(args) => prune::system(args),
            SystemCommand::Start(args) => service::start(args),
            SystemCommand::Uninstall(args) => service::uninstall(args),
        },
        Command::Serve(args) => serve::serve(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Completion(args) => completion::completion(args),
        Command::Man(args) => man::man(args),
        Command::Bench { what } => bench::run(what).map(|()| 0),
    }
}

fn shared_image(command: SharedImage) -> anyhow::Result<u8> {
    match command {
        SharedImage::Push(args) => images::registry::push(args),
        SharedImage::Save(args) => images::archive::save(args),
        SharedImage::Load(args) => images::archive::load(args),
        SharedImage::Tag(args) => images::manage::tag(args),
        SharedImage::History(args) => images::manage::history(args),
    }
}

fn shared(command: Shared, started: u64) -> anyhow::Result<u8> {
    match command {
        Shared::Run(args) => Ok(run::run(*args, started)),
        Shared::Create(args) => run::create(*args),
        Shared::Start(args) => run::start(args),
        Shared::Attach(args) => run::attach(args),
        Shared::Exec(args) => exec::exec(args),
        Shared::Stop(args) => control::stop(args),
        Shared::Restart(args) => control::restart(args),
        Shared::Kill(args) => control::kill(args),
        Shared::Wait(args) => control::wait(args),
        Shared::Rm(args) => control::rm(args),
        Shared::Rename(args) => control::rename(args),
        Shared::Pause(args) => control::pause(args),
        Shared::Unpause(args) => control::unpause(args),
        Shared::Update(args) => update::update(args),
        Shared::Logs(args) => logs::logs(args),
        Shared::Top(args) => look::top(args),
        Shared::Stats(args) => stats::stats(args),
        Shared::Port(args) => ports::port(args),
        Shared::Diff(args) => look::diff(args),
        Shared::Cp(args) => cp::cp(args),
        Shared::Export(args) => look::export(args),
        Shared::Commit(args) => commit::commit(args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overview_has_each_command_once_with_its_description() {
        let command = Hull::command();
        let mut defined: Vec<&str> = command
            .get_subcommands()
            .filter(|subcommand| !subcommand.is_hide_set())
            .map(clap::Command::get_name)
            .collect();
        let mut shown: Vec<&str> = GROUPS
            .iter()
            .flat_map(|(_, names)| names.iter().copied())
            .collect();
        defined.sort_unstable();
        shown.sort_unstable();
        assert_eq!(shown, defined);
        let help = with_overview(command).render_help().to_string();
        assert!(
            help.contains("Management Commands:\n  container   Manage containers\n"),
            "{help}"
        );
        assert!(help.contains("  ps          List containers\n"), "{help}");
    }

    #[test]
    fn every_command_and_option_is_described() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path}");
            for option in command
                .get_arguments()
                .filter(|option| !option.is_hide_set())
            {
                assert!(option.get_help().is_some(), "{path}: {}", option.get_id());
            }
            command
                .get_subcommands()
                .for_each(|subcommand| check(subcommand, &path));
        }
        check(&Hull::command(), "");
    }

    #[test]
    fn the_definition_is_consistent() {
        command().debug_assert();
    }

    fn parse(words: &[&str]) -> Command {
        let words: Vec<_> = ["hull"]
            .iter()
            .chain(words)
            .map(std::ffi::OsString::from)
            .collect();
        crate::grammar::parse::<Hull>(words).unwrap().command
    }

    #[test]
    fn a_command_is_also_below_its_group() {
        assert!(matches!(
            parse(&["container", "ls", "-aq"]),
            Command::Container(ContainerCommand::Ls(_))
        ));
        assert!(matches!(
            parse(&["container", "ps"]),
            Command::Container(ContainerCommand::Ls(_))
        ));
        assert!(matches!(
            parse(&["container", "logs", "-n", "-1", "web"]),
            Command::Container(ContainerCommand::Shared(Shared::Logs(_)))
        ));
        assert!(matches!(
            parse(&["image", "ls"]),
            Command::Image(ImageCommand::Ls(_))
        ));
        assert_eq!(failure_code(&parse(&["rename", "a", "b"])), 1);
        assert_eq!(failure_code(&parse(&["container", "run", "a"])), 125);
        assert_eq!(failure_code(&parse(&["create", "a"])), 1);
        assert_eq!(failure_code(&parse(&["image", "pull", "a"])), 1);
    }
}
