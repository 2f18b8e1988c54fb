//! The exit codes of command lines that cannot be read, as Docker's command line has them: 125 for an option that it
//! refuses, 1 for arguments that are missing or too many and for what only its service refuses.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::FAILED;

/// Options whose values Docker's command line passes on unread.
const PASSED_ON: [&str; 4] = ["--signal", "--since", "--until", "--type"];

/// The code of a command line that was refused, or of help that was asked for.
pub(crate) fn code(error: &clap::Error) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => 0,
        ErrorKind::InvalidSubcommand
        | ErrorKind::MissingSubcommand
        | ErrorKind::MissingRequiredArgument => 1,
        ErrorKind::UnknownArgument if !argument(error).starts_with('-') => 1,
        ErrorKind::InvalidValue | ErrorKind::ValueValidation
            if PASSED_ON.contains(&argument(error)) =>
        {
            1
        }
        _ => FAILED,
    }
}

/// What is wrong: an option without its value, or a word.
fn argument(error: &clap::Error) -> &str {
    match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(text)) => text.split(' ').next().unwrap_or_default(),
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::code;
    use crate::commands::Hull;

    #[test]
    fn codes_are_dockers() {
        for (line, expected) in [
            ("ps --nope", 125),
            ("ps --filter nope", 125),
            ("run -m lots demo", 125),
            ("run --restart nope demo", 125),
            ("ps extra", 1),
            ("run", 1),
            ("rename one", 1),
            ("nosuch", 1),
            ("kill -s NOPE web", 1),
            ("logs --since nope web", 1),
            ("inspect --type nope web", 1),
            ("container", 0),
            ("", 0),
            ("ps --help", 0),
        ] {
            let words = ["hull"].into_iter().chain(line.split_whitespace());
            let words: Vec<_> = words.map(OsString::from).collect();
            let error = crate::grammar::parse::<Hull>(words).unwrap_err();
            assert_eq!(code(&error), expected, "hull {line}: {error}");
        }
    }
}
