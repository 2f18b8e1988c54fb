//! Patterns of image names, as the filter `reference=` takes them: Go's path.Match, which Docker applies to a name's
//! short form with its tag and without. A `*` or `?` never matches a slash.

use std::str::FromStr;

use crate::reference::Reference;

/// A pattern that is well-formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    segments: Vec<Vec<Token>>,
}

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pattern:?} is not a pattern of image names: a '[' is not closed, or a '\\' ends it")]
pub struct PatternError {
    /// The text.
    pub pattern: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// `*`
    Any,
    /// `?`
    One,
    Literal(char),
    /// `[a-z]`, `[^a-z]`
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Token {
    fn matches(&self, c: char) -> bool {
        match self {
            Token::Any | Token::One => true,
            Token::Literal(literal) => *literal == c,
            Token::Class { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
            }
        }
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Pattern, PatternError> {
        let malformed = || PatternError {
            pattern: text.chars().take(200).collect(),
        };
        let mut segments = vec![Vec::new()];
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            let token = match c {
                '/' => {
                    segments.push(Vec::new());
                    continue;
                }
                '*' => Token::Any,
                '?' => Token::One,
                '[' => class(&mut rest).ok_or_else(malformed)?,
                '\\' => Token::Literal(rest.next().ok_or_else(malformed)?),
                c => Token::Literal(c),
            };
            if let Some(segment) = segments.last_mut() {
                segment.push(token);
            }
        }
        Ok(Pattern {
            text: text.to_owned(),
            segments,
        })
    }
}

/// What follows a `[`; `None` if it is malformed.
fn class(rest: &mut std::str::Chars<'_>) -> Option<Token> {
    let negated = rest.as_str().starts_with('^');
    if negated {
        rest.next();
    }
    let mut ranges = Vec::new();
    // A `]` that comes first is refused, as Go does.
    while ranges.is_empty() || !rest.as_str().starts_with(']') {
        let low = class_char(rest)?;
        let mut high = low;
        if rest.as_str().starts_with('-') {
            rest.next();
            high = class_char(rest)?;
        }
        ranges.push((low, high));
    }
    rest.next();
    Some(Token::Class { negated, ranges })
}

fn class_char(rest: &mut std::str::Chars<'_>) -> Option<char> {
    match rest.next()? {
        '-' | ']' => None,
        '\\' => rest.next(),
        c => Some(c),
    }
}

impl Pattern {
    /// Whether it matches the whole text.
    pub fn matches(&self, text: &str) -> bool {
        let mut parts = text.split('/');
        let all = self.segments.iter().all(|segment| {
            parts
                .next()
                .is_some_and(|part| segment_matches(segment, part))
        });
        all && parts.next().is_none()
    }

    /// Whether it matches the name as people write it, with its tag or digest or without.
    pub(super) fn matches_name(&self, name: &Reference) -> bool {
        let whole = name.to_string();
        let without = whole.split('@').next().unwrap_or(&whole);
        let start = without.rfind('/').map_or(0, |slash| slash + 1);
        let end = without[start..].find(':').map(|colon| start + colon);
        self.matches(&whole) || self.matches(&without[..end.unwrap_or(without.len())])
    }
}

/// In time bounded by the product of the lengths: only the last `*` ever has to give back.
fn segment_matches(pattern: &[Token], text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut position) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while position < text.len() {
        match pattern.get(at) {
            Some(Token::Any) => {
                star = Some((at, position));
                at += 1;
            }
            Some(token) if token.matches(text[position]) => {
                at += 1;
                position += 1;
            }
            _ => match &mut star {
                Some((star_at, taken)) => {
                    *taken += 1;
                    (at, position) = (*star_at + 1, *taken);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|token| *token == Token::Any)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        let name: Reference = name.parse().unwrap();
        pattern.parse::<Pattern>().unwrap().matches_name(&name)
    }

    #[test]
    fn a_name_is_matched_with_and_without_its_tag() {
        for pattern in [
            "nginx",
            "nginx:1.27",
            "n*x",
            "nginx:1.*",
            "ng?nx",
            "ngin[w-y]",
            "n\\ginx",
        ] {
            assert!(matches(pattern, "nginx:1.27"), "{pattern}");
        }
        for pattern in ["ngin", "nginx:2*", "library/nginx", "[^n]ginx", "", "*/*"] {
            assert!(!matches(pattern, "nginx:1.27"), "{pattern}");
        }
        assert!(matches("localhost:5000/*", "localhost:5000/a:1"));
        assert!(
            !matches("*", "localhost:5000/a:1"),
            "a star stops at a slash"
        );
        assert!(matches("*/*/*:v*", "r.example/a/b:v1"));
    }

    #[test]
    fn malformed_patterns_are_refused() {
        for pattern in ["[", "[]", "[a", "[a-]", "a\\", "[-z]"] {
            assert!(pattern.parse::<Pattern>().is_err(), "{pattern}");
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let pattern = "*a".repeat(60).parse::<Pattern>().unwrap();
        assert!(!pattern.matches(&"a".repeat(59)));
        assert!(pattern.matches(&"ba".repeat(61)));
    }
}
