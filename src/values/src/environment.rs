//! Environment variables, labels, and the files that hold many of them.

use std::collections::BTreeMap;

use engine::options::Variable;

/// Why a line or a word is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No variable.
    #[error("{0:?} is not an environment variable: NAME=VALUE, or NAME to pass the host's on")]
    Variable(String),
    /// A line of a file without a name.
    #[error("line {0:?} has no name; a line is NAME=VALUE, NAME or a comment")]
    NoName(String),
    /// A name with a space in a file, where it is most likely a mistake.
    #[error("the name {0:?} contains white space; a line is NAME=VALUE, NAME or a comment")]
    Space(String),
    /// A value that cannot be handed on.
    #[error("the host's variable {0} is not UTF-8 text; set it to text with {0}=VALUE")]
    NotText(String),
    /// No label.
    #[error("{0:?} is not a label: KEY[=VALUE] with a key without white space")]
    Label(String),
    /// No pair.
    #[error("{0:?} is not KEY=VALUE")]
    Pair(String),
}

/// A variable of the host: `None` if there is none, an error if it is not text.
pub fn of_host(name: &str) -> Result<Option<String>, Error> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(Error::NotText(name.to_owned())),
    }
}

/// `NAME=VALUE`, or `NAME` for the host's, which `host` looks up. As with Docker any name will do that is not empty.
pub fn variable(
    text: &str,
    host: impl Fn(&str) -> Result<Option<String>, Error>,
) -> Result<Variable, Error> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        // std::env::var panics at such names.
        None if text.contains('\0') => return Err(Error::Variable(text.to_owned())),
        None => (text, host(text)?),
    };
    if name.is_empty() {
        return Err(Error::Variable(text.to_owned()));
    }
    Ok(match value {
        Some(value) => Variable::Set(name.to_owned(), value),
        None => Variable::Unset(name.to_owned()),
    })
}

/// The lines of an `--env-file`: as [`variable`], with empty lines and those that begin with `#` left out. A name alone
/// that the host does not have is left out too, as Docker does in files.
pub fn env_file(
    text: &str,
    host: impl Fn(&str) -> Result<Option<String>, Error>,
) -> Result<Vec<Variable>, Error> {
    let mut variables = Vec::new();
    for line in lines(text) {
        match variable(line_with_name(line)?, &host)? {
            Variable::Unset(_) => {}
            set => variables.push(set),
        }
    }
    Ok(variables)
}

/// `KEY[=VALUE]`
pub fn label(text: &str) -> Result<(String, String), Error> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    let key = key.trim_start();
    if key.is_empty() || key.contains(char::is_whitespace) {
        return Err(Error::Label(text.to_owned()));
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// The lines of a `--label-file`.
pub fn label_file(text: &str) -> Result<BTreeMap<String, String>, Error> {
    lines(text)
        .map(|line| label(line_with_name(line)?))
        .collect()
}

/// `KEY[=VALUE]`, where the key may be anything that is not empty.
pub fn annotation(text: &str) -> Result<(String, String), Error> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        return Err(Error::Pair(text.to_owned()));
    }
    Ok((key.to_owned(), value.to_owned()))
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.lines()
        .map(str::trim_start)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn line_with_name(line: &str) -> Result<&str, Error> {
    let name = line.split_once('=').map_or(line, |(name, _)| name);
    if name.is_empty() {
        return Err(Error::NoName(line.to_owned()));
    }
    if name.contains(char::is_whitespace) {
        return Err(Error::Space(name.to_owned()));
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_alone_takes_the_host_s_value() {
        let host = |name: &str| Ok((name == "HOME").then(|| "/root".to_owned()));
        assert_eq!(
            variable("A=b=c", host),
            Ok(Variable::Set("A".into(), "b=c".into()))
        );
        assert_eq!(
            variable("A=", host),
            Ok(Variable::Set("A".into(), String::new()))
        );
        assert_eq!(
            variable("HOME", host),
            Ok(Variable::Set("HOME".into(), "/root".into()))
        );
        assert_eq!(variable("NOPE", host), Ok(Variable::Unset("NOPE".into())));
        assert!(variable("=x", host).is_err());
        // Docker passes such names on, and so does Linux.
        assert_eq!(
            variable("A B=x", host),
            Ok(Variable::Set("A B".into(), "x".into()))
        );
        assert!(variable("", host).is_err());
        assert!(variable("A\0", host).is_err());
    }

    #[test]
    fn an_env_file_has_comments_and_the_host_s_names() {
        let host = |name: &str| Ok((name == "HOME").then(|| "/root".to_owned()));
        let variables = env_file(
            "\u{feff}# comment\n\nA=1 # kept\n  HOME\nNOPE\r\nB='x'\n",
            host,
        )
        .unwrap();
        let expected = [("A", "1 # kept"), ("HOME", "/root"), ("B", "'x'")]
            .map(|(name, value)| Variable::Set(name.into(), value.into()));
        assert_eq!(variables, expected);
    }

    #[test]
    fn a_line_of_a_file_has_a_name_without_spaces() {
        let host = |_: &str| Ok(None);
        assert_eq!(env_file("=x", host), Err(Error::NoName("=x".into())));
        assert_eq!(
            env_file("export A=1", host),
            Err(Error::Space("export A".into()))
        );
        assert_eq!(label_file("a b=1"), Err(Error::Space("a b".into())));
    }

    #[test]
    fn a_value_of_the_host_that_is_not_text_is_not_lost_silently() {
        let host = |name: &str| Err(Error::NotText(name.to_owned()));
        assert_eq!(variable("A", host), Err(Error::NotText("A".into())));
        assert!(variable("A=1", host).is_ok());
    }

    #[test]
    fn labels_have_a_key_and_perhaps_a_value() {
        let pair = |key: &str, value: &str| Ok((key.to_owned(), value.to_owned()));
        assert_eq!(label("com.example=a=b"), pair("com.example", "a=b"));
        assert_eq!(label("key"), pair("key", ""));
        for bad in ["", "=x", "a b=c", " =x"] {
            assert_eq!(label(bad), Err(Error::Label(bad.into())));
        }
        let labels = label_file("# none\na=1\n\n  b\na=2\n").unwrap();
        assert_eq!(labels["a"], "2");
        assert_eq!(labels["b"], "");
        assert_eq!(annotation("a b=1"), pair("a b", "1"));
        assert!(annotation("=1").is_err());
    }
}
