//! Quotes, escapes and variables of a Dockerfile's words.

use std::iter::Peekable;
use std::str::Chars;

/// What a variable is, if it is set.
type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Splits at white space outside of quotes, takes quotes and escapes away, and replaces variables.
pub(super) fn split(text: &str, variable: Lookup<'_>) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text.chars().peekable();
    loop {
        while rest.next_if(|c| c.is_whitespace()).is_some() {}
        if rest.peek().is_none() {
            return words;
        }
        words.push(word(&mut rest, char::is_whitespace, variable));
    }
}

/// The same of a text that is one word.
pub(super) fn expand(text: &str, variable: Lookup<'_>) -> String {
    word(&mut text.chars().peekable(), |_| false, variable)
}

fn word(rest: &mut Peekable<Chars<'_>>, ends: fn(char) -> bool, variable: Lookup<'_>) -> String {
    let mut word = String::new();
    let mut quoted = false;
    while let Some(&c) = rest.peek() {
        if !quoted && ends(c) {
            break;
        }
        rest.next();
        match c {
            '"' => quoted = !quoted,
            '\'' if !quoted => word.extend(rest.by_ref().take_while(|c| *c != '\'')),
            '\\' => match rest.next() {
                Some(escaped) if quoted && !matches!(escaped, '"' | '$' | '\\') => {
                    word.extend(['\\', escaped]);
                }
                Some(escaped) => word.push(escaped),
                None => word.push('\\'),
            },
            '$' => word.push_str(&substitute(rest, variable)),
            c => word.push(c),
        }
    }
    word
}

/// What follows a dollar sign: `NAME`, `{NAME}`, `{NAME:-DEFAULT}` or `{NAME:+INSTEAD}`.
fn substitute(rest: &mut Peekable<Chars<'_>>, variable: Lookup<'_>) -> String {
    let is_name = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    if rest.next_if_eq(&'{').is_none() {
        let mut name = String::new();
        while let Some(c) = rest.next_if(is_name) {
            name.push(c);
        }
        return match name.is_empty() {
            true => "$".to_owned(),
            false => variable(&name).unwrap_or_default(),
        };
    }
    let inside: String = rest.by_ref().take_while(|c| *c != '}').collect();
    let value = |name: &str| variable(name).filter(|value| !value.is_empty());
    match inside.split_once(':') {
        None => variable(&inside).unwrap_or_default(),
        Some((name, word)) => match (word.split_at_checked(1), value(name)) {
            (Some(("-", default)), None) => default.to_owned(),
            (Some(("+", instead)), Some(_)) => instead.to_owned(),
            (Some(("+", _)), None) => String::new(),
            (_, value) => value.unwrap_or_default(),
        },
    }
}
