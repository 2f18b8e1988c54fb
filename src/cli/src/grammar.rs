//! Docker's grammar of options, where clap's is stricter: `--rm=false`, and values that begin with a hyphen.

use std::ffi::OsString;
use std::mem::ManuallyDrop;

use clap::builder::ValueParser;
use clap::error::{ContextKind, ErrorKind};
use clap::{Arg, ArgAction, Command, Parser};

/// Reads a command line as Docker would. Called once in a process: the definition of all commands, which takes as long to
/// free as to make, is left to the process's end.
pub(crate) fn parse<C: Parser>(
    words: impl IntoIterator<Item = OsString> + Clone,
) -> Result<C, clap::Error> {
    let mut definition =
        ManuallyDrop::new(as_docker(C::command(), words.clone().into_iter().skip(1)));
    let matches = definition.try_get_matches_from_mut(words.clone());
    match matches.and_then(|matches| C::from_arg_matches(&matches)) {
        Err(error) if is_help(&error) => {
            // Of the plain command, whose flags take nothing; where that does not get as far, of this one.
            let plain = match C::command() {
                command if command.get_name() == "hull" => crate::commands::with_overview(command),
                command => command,
            };
            let plain = plain.try_get_matches_from(words).err();
            Err(plain
                .filter(|plain| plain.kind() == error.kind())
                .unwrap_or(error))
        }
        parsed => parsed.map_err(without_wrong_advice),
    }
}

fn is_help(error: &clap::Error) -> bool {
    use ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand};
    matches!(
        error.kind(),
        DisplayHelp | DisplayHelpOnMissingArgumentOrSubcommand
    )
}

/// The command whose options, and those of the subcommands that the words name, are read as Docker reads them: a flag takes
/// `=BOOL`, and an option takes the next word as its value whatever it looks like (`--stop-timeout -1`). Of one that is
/// given several times the last counts.
///
/// For parsing only: its help would show the values that flags take.
fn as_docker(command: Command, mut words: impl Iterator<Item = OsString>) -> Command {
    let command = command.args_override_self(true).mut_args(arg_as_docker);
    let named = words.find_map(|word| Some(command.find_subcommand(word)?.get_name().to_owned()));
    match named {
        Some(name) => {
            // Not by the iterator's type: there is one for each level.
            let words: Vec<OsString> = words.collect();
            command.mut_subcommand(name, |command| as_docker(command, words.into_iter()))
        }
        None => command,
    }
}

fn arg_as_docker(arg: Arg) -> Arg {
    let is_option = arg.get_long().is_some() || arg.get_short().is_some();
    match arg.get_action() {
        ArgAction::SetTrue => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .default_value("false")
            .value_parser(ValueParser::new(values::boolean)),
        ArgAction::Set | ArgAction::Append if is_option && !arg.is_require_equals_set() => {
            arg.allow_hyphen_values(true)
        }
        _ => arg,
    }
}

/// The error without clap's advice to put what looks like an option behind `--`: there it would name the image.
fn without_wrong_advice(mut error: clap::Error) -> clap::Error {
    error.remove(ContextKind::Suggested);
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    #[command(name = "run")]
    struct Options {
        #[arg(short, long)]
        interactive: bool,
        #[arg(short, long)]
        tty: bool,
        #[arg(long)]
        rm: bool,
        #[arg(long)]
        stop_timeout: Option<i64>,
        #[arg(short, long)]
        env: Vec<String>,
        image: Option<String>,
    }

    fn parse(words: &[&str]) -> Result<Options, clap::Error> {
        super::parse(["run"].iter().chain(words).map(OsString::from))
    }

    #[test]
    fn a_flag_takes_a_boolean_behind_an_equals_sign() {
        let options = parse(&["-it", "--rm=false", "demo"]).unwrap();
        assert!(options.interactive && options.tty && !options.rm);
        assert_eq!(options.image.as_deref(), Some("demo"));
        assert!(parse(&["--rm"]).unwrap().rm);
        assert!(parse(&["--rm=1"]).unwrap().rm);
        assert!(!parse(&["-i=false"]).unwrap().interactive);
        assert!(parse(&["--rm=maybe"]).is_err());
    }

    #[test]
    fn the_last_of_several_counts_unless_it_is_a_list() {
        let options = parse(&[
            "--rm",
            "--rm=false",
            "-ii",
            "--stop-timeout=1",
            "--stop-timeout",
            "2",
        ]);
        let options = options.unwrap();
        assert!(!options.rm && options.interactive);
        assert_eq!(options.stop_timeout, Some(2));
        assert_eq!(
            parse(&["-e", "A=1", "-e", "B=2"]).unwrap().env,
            ["A=1", "B=2"]
        );
    }

    #[test]
    fn a_value_may_begin_with_a_hyphen() {
        assert_eq!(
            parse(&["--stop-timeout", "-1"]).unwrap().stop_timeout,
            Some(-1)
        );
        assert_eq!(parse(&["-e", "-x=1", "-e-y"]).unwrap().env, ["-x=1", "-y"]);
    }

    #[test]
    fn an_unknown_option_is_not_to_be_put_behind_two_hyphens() {
        for word in ["-1", "--foo"] {
            let message = parse(&[word, "demo"]).unwrap_err().to_string();
            assert!(message.contains("unexpected argument"), "{message}");
            assert!(!message.contains("-- "), "{message}");
        }
    }

    #[test]
    fn help_shows_flags_without_values() {
        let help = parse(&["--help"]).unwrap_err().to_string();
        assert!(help.contains("--rm") && !help.contains("--rm["), "{help}");
        let help = parse(&["--rm=false", "--help"]).unwrap_err();
        assert_eq!(help.kind(), ErrorKind::DisplayHelp);
    }
}
