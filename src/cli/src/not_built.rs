//! Options of `docker run` that hull knows and does not have: refused by name rather than as unknown.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

/// What is to come: long name, and whether a value follows.
const NOT_BUILT: [(&str, bool); 10] = [
    ("cgroup-parent", true),
    ("device-cgroup-rule", true),
    ("device-read-bps", true),
    ("device-read-iops", true),
    ("device-write-bps", true),
    ("device-write-iops", true),
    ("ip6", true),
    ("link-local-ip", true),
    ("runtime", true),
    ("use-api-socket", false),
];

/// What cannot be: long name, whether a value follows, and why.
const IMPOSSIBLE: [(&str, bool, &str); 6] = [
    (
        "blkio-weight",
        true,
        "the guest kernel has no proportional I/O scheduler",
    ),
    (
        "blkio-weight-device",
        true,
        "the guest kernel has no proportional I/O scheduler",
    ),
    ("gpus", true, "a VM has none of this host's GPUs"),
    (
        "kernel-memory",
        true,
        "Linux no longer limits kernel memory apart from the rest; -m counts both",
    ),
    (
        "memory-swappiness",
        true,
        "cgroup v2 has no swappiness of a container's own, and a VM has no swap",
    ),
    (
        "oom-kill-disable",
        false,
        "cgroup v2 cannot switch the OOM killer off; give the container more memory with -m",
    ),
];

/// Whether one of them was used.
#[derive(Debug, Default)]
pub(crate) struct NotBuilt {
    /// The first that was used and why it is refused, as a message.
    pub(crate) refusal: Option<String>,
}

impl FromArgMatches for NotBuilt {
    fn from_arg_matches(matches: &ArgMatches) -> Result<NotBuilt, clap::Error> {
        // A flag that is switched off (`--publish-all=false`) asks for nothing.
        let used = |name: &str, has_value: bool| {
            matches.value_source(name) == Some(clap::parser::ValueSource::CommandLine)
                && (has_value || matches.get_flag(name))
        };
        let not_built = NOT_BUILT
            .iter()
            .find(|(name, has_value)| used(name, *has_value));
        let not_built = not_built
            .map(|(name, _)| format!("--{name} is not built yet; `hull run --help` lists what is"));
        let impossible = IMPOSSIBLE
            .iter()
            .find(|(name, has_value, _)| used(name, *has_value));
        let impossible =
            impossible.map(|(name, _, why)| format!("--{name} is not possible: {why}"));
        Ok(NotBuilt {
            refusal: not_built.or(impossible),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = NotBuilt::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for NotBuilt {
    fn augment_args(command: Command) -> Command {
        let impossible = IMPOSSIBLE
            .iter()
            .map(|&(name, has_value, _)| (name, has_value));
        NOT_BUILT
            .into_iter()
            .chain(impossible)
            .fold(command, |command, (name, has_value)| {
                let action = if has_value {
                    ArgAction::Append
                } else {
                    ArgAction::SetTrue
                };
                command.arg(Arg::new(name).long(name).action(action).hide(true))
            })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}
