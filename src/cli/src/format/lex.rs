//! A template's tokens.

use super::Fault;

/// A token and its bytes in the template.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    /// What it is.
    pub(super) kind: Kind,
    /// Its first byte.
    pub(super) from: usize,
    /// The byte after its last.
    pub(super) to: usize,
}

/// What a token is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// Text outside of actions.
    Text(String),
    /// `{{`
    Open,
    /// `}}`
    Close,
    /// A name: a keyword, a function, true, false or nil.
    Word(String),
    /// `.name`
    Field(String),
    /// `.`
    Dot,
    /// `$` or `$name`, with its dollar sign.
    Variable(String),
    /// A quoted text.
    Quoted(String),
    /// An integer, or a character's number.
    Integer(i64),
    /// A number with a fraction or an exponent.
    Float(f64),
    /// `|`
    Pipe,
    /// `(`
    Left,
    /// `)`
    Right,
    /// `,`
    Comma,
    /// `:=`
    Declare,
    /// `=`
    Assign,
    /// Blank between operands: `.a .b` is two, `.a.b` one.
    Blank,
}

type Lexed<T> = Result<T, (usize, Fault)>;

/// The tokens of a template. Text beside a trimmed delimiter has lost its blanks.
pub(super) fn lex(text: &str) -> Lexed<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut at = 0;
    let mut trim_left = false;
    loop {
        let rest = &text[at..];
        let open = rest.find("{{");
        let mut literal = &rest[..open.unwrap_or(rest.len())];
        if trim_left {
            literal = literal.trim_start();
        }
        let Some(open) = open else {
            push_text(&mut tokens, literal, at);
            return Ok(tokens);
        };
        let mut inside = at + open + 2;
        // A hyphen trims if a blank follows; otherwise it begins a number.
        if is_trim(&text[inside..]) {
            literal = literal.trim_end();
            inside += 2;
        }
        push_text(&mut tokens, literal, at);
        if text[inside..].starts_with("/*") {
            (at, trim_left) = comment(text, inside)?;
            continue;
        }
        tokens.push(Token {
            kind: Kind::Open,
            from: at + open,
            to: inside,
        });
        (at, trim_left) = action(text, inside, &mut tokens)?;
    }
}

fn push_text(tokens: &mut Vec<Token>, text: &str, at: usize) {
    if !text.is_empty() {
        tokens.push(Token {
            kind: Kind::Text(text.to_owned()),
            from: at,
            to: at + text.len(),
        });
    }
}

fn is_trim(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next() == Some('-') && chars.next().is_some_and(char::is_whitespace)
}

/// Passes a comment over: where it ends, and whether it trims what follows.
fn comment(text: &str, from: usize) -> Lexed<(usize, bool)> {
    let end = text[from..].find("*/");
    let end = from + end.ok_or((from, Fault::UnclosedComment))? + 2;
    match &text[end..] {
        rest if rest.starts_with("}}") => Ok((end + 2, false)),
        rest if rest.trim_start().starts_with("-}}") && !rest.starts_with('-') => {
            let close = rest.find("-}}").map_or(end, |close| end + close + 3);
            Ok((close, true))
        }
        _ => Err((from, Fault::UnclosedComment)),
    }
}

/// The tokens of an action up to its `}}`: where it ends, and whether it trims what follows.
fn action(text: &str, from: usize, tokens: &mut Vec<Token>) -> Lexed<(usize, bool)> {
    let mut at = from;
    loop {
        let rest = &text[at..];
        let blanks = rest.len() - rest.trim_start().len();
        let trims = blanks > 0 && rest.trim_start().starts_with("-}}");
        if rest.starts_with("}}") || trims {
            let to = if trims { at + blanks + 3 } else { at + 2 };
            tokens.push(Token {
                kind: Kind::Close,
                from: at,
                to,
            });
            return Ok((to, trims));
        }
        let (kind, len) = match blanks {
            0 => token(rest).map_err(|fault| (at, fault))?,
            blanks => (Kind::Blank, blanks),
        };
        tokens.push(Token {
            kind,
            from: at,
            to: at + len,
        });
        at += len;
    }
}

/// The first token of a text inside an action, and its length in bytes.
fn token(rest: &str) -> Result<(Kind, usize), Fault> {
    let Some(first) = rest.chars().next() else {
        return Err(Fault::UnclosedAction);
    };
    let second = rest[first.len_utf8()..].chars().next();
    Ok(match first {
        '|' => (Kind::Pipe, 1),
        '(' => (Kind::Left, 1),
        ')' => (Kind::Right, 1),
        ',' => (Kind::Comma, 1),
        '=' => (Kind::Assign, 1),
        ':' if second == Some('=') => (Kind::Declare, 2),
        '"' | '\'' => quoted(rest, first)?,
        '`' => {
            let end = rest[1..].find('`').ok_or(Fault::UnclosedQuote)?;
            (Kind::Quoted(rest[1..=end].to_owned()), end + 2)
        }
        '.' if second.is_some_and(is_name) => {
            let name = name(&rest[1..]);
            (Kind::Field(name.to_owned()), name.len() + 1)
        }
        '.' => (Kind::Dot, 1),
        '$' => {
            let len = name(&rest[1..]).len() + 1;
            (Kind::Variable(rest[..len].to_owned()), len)
        }
        '0'..='9' | '-' | '+' => number(rest)?,
        c if is_name(c) => {
            let name = name(rest);
            (Kind::Word(name.to_owned()), name.len())
        }
        c => return Err(Fault::Unexpected(format!("{c:?}"))),
    })
}

fn is_name(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn name(text: &str) -> &str {
    let end = text.find(|c| !is_name(c)).unwrap_or(text.len());
    &text[..end]
}

/// A quoted text with Go's escapes, or a character in single quotes, which is its number.
fn quoted(rest: &str, quote: char) -> Result<(Kind, usize), Fault> {
    let mut value = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\n' => break,
            '\\' => {
                let (_, escaped) = chars.next().ok_or(Fault::UnclosedQuote)?;
                value.push(match escaped {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    '\\' | '"' | '\'' => escaped,
                    other => return Err(Fault::Unexpected(format!("\\{other}"))),
                });
            }
            c if c == quote => {
                let kind = match (quote, value.chars().next()) {
                    ('"', _) => Kind::Quoted(value),
                    (_, Some(c)) if value.chars().nth(1).is_none() => {
                        Kind::Integer(i64::from(u32::from(c)))
                    }
                    _ => return Err(Fault::Unexpected(rest[..=at].to_owned())),
                };
                return Ok((kind, at + 1));
            }
            c => value.push(c),
        }
    }
    Err(Fault::UnclosedQuote)
}

fn number(rest: &str) -> Result<(Kind, usize), Fault> {
    let sign = usize::from(rest.starts_with(['-', '+']));
    let belongs = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_');
    let len = rest[sign..]
        .find(|c| !belongs(c))
        .unwrap_or(rest.len() - sign)
        + sign;
    let text = &rest[..len];
    let bad = || Fault::Unexpected(format!("bad number syntax: {text:?}"));
    let integer = match text[sign..].strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16)
            .ok()
            .map(|value| if text.starts_with('-') { -value } else { value }),
        None => text.parse().ok(),
    };
    let kind = match integer {
        Some(integer) => Kind::Integer(integer),
        None => {
            let float: f64 = text.parse().map_err(|_| bad())?;
            match float.is_finite() {
                true => Kind::Float(float),
                false => return Err(bad()),
            }
        }
    };
    Ok((kind, len))
}
