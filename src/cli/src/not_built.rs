//! Options of `docker run` that hull knows and does not have yet: refused by name rather than as unknown.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

/// Long name, short name if any, and whether a value follows.
const OPTIONS: [(&str, Option<char>, bool); 71] = [
    ("add-host", None, true),
    ("annotation", None, true),
    ("attach", Some('a'), true),
    ("blkio-weight", None, true),
    ("blkio-weight-device", None, true),
    ("cgroup-parent", None, true),
    ("cgroupns", None, true),
    ("cidfile", None, true),
    ("cpu-period", None, true),
    ("cpu-quota", None, true),
    ("cpu-shares", Some('c'), true),
    ("cpuset-cpus", None, true),
    ("cpuset-mems", None, true),
    ("detach", Some('d'), false),
    ("detach-keys", None, true),
    ("device", None, true),
    ("device-cgroup-rule", None, true),
    ("device-read-bps", None, true),
    ("device-read-iops", None, true),
    ("device-write-bps", None, true),
    ("device-write-iops", None, true),
    ("disable-content-trust", None, false),
    ("dns", None, true),
    ("dns-option", None, true),
    ("dns-search", None, true),
    ("domainname", None, true),
    ("expose", None, true),
    ("gpus", None, true),
    ("group-add", None, true),
    ("health-cmd", None, true),
    ("health-interval", None, true),
    ("health-retries", None, true),
    ("health-start-period", None, true),
    ("health-timeout", None, true),
    ("ip", None, true),
    ("ip6", None, true),
    ("ipc", None, true),
    ("kernel-memory", None, true),
    ("label", Some('l'), true),
    ("label-file", None, true),
    ("link", None, true),
    ("link-local-ip", None, true),
    ("log-driver", None, true),
    ("log-opt", None, true),
    ("mac-address", None, true),
    ("memory-reservation", None, true),
    ("memory-swap", None, true),
    ("memory-swappiness", None, true),
    ("mount", None, true),
    ("network-alias", None, true),
    ("no-healthcheck", None, false),
    ("oom-kill-disable", None, false),
    ("oom-score-adj", None, true),
    ("pid", None, true),
    ("pids-limit", None, true),
    ("platform", None, true),
    ("publish", Some('p'), true),
    ("publish-all", Some('P'), false),
    ("quiet", Some('q'), false),
    ("restart", None, true),
    ("runtime", None, true),
    ("shm-size", None, true),
    ("sig-proxy", None, true),
    ("stop-signal", None, true),
    ("stop-timeout", None, true),
    ("storage-opt", None, true),
    ("sysctl", None, true),
    ("userns", None, true),
    ("uts", None, true),
    ("volume", Some('v'), true),
    ("volumes-from", None, true),
];

/// Which of them was used.
#[derive(Debug, Default)]
pub(crate) struct NotBuilt {
    /// The first, as the user knows it.
    pub used: Option<String>,
}

impl FromArgMatches for NotBuilt {
    fn from_arg_matches(matches: &ArgMatches) -> Result<NotBuilt, clap::Error> {
        let used = |(name, ..): &&(&str, Option<char>, bool)| {
            matches.value_source(name) == Some(clap::parser::ValueSource::CommandLine)
        };
        Ok(NotBuilt {
            used: OPTIONS
                .iter()
                .find(used)
                .map(|(name, ..)| format!("--{name}")),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = NotBuilt::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for NotBuilt {
    fn augment_args(command: Command) -> Command {
        OPTIONS
            .iter()
            .fold(command, |command, (name, short, has_value)| {
                let action = if *has_value {
                    ArgAction::Append
                } else {
                    ArgAction::SetTrue
                };
                let arg = Arg::new(*name).long(*name).action(action).hide(true);
                command.arg(match short {
                    Some(short) => arg.short(*short),
                    None => arg,
                })
            })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}
