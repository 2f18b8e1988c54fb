//! The functions of templates, and how values print.

use serde_json::Value;

use super::Fault;
use super::eval::Got;
use super::printf::printf;

/// The most columns of padding, so that a short template cannot exhaust memory.
pub(super) const MAX_PADDING: i64 = 4096;

/// A function by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    And,
    Or,
    Not,
    Len,
    Index,
    Slice,
    Print,
    Printf,
    Println,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Json,
    Join,
    Split,
    Lower,
    Upper,
    Title,
    Pad,
    Truncate,
}

impl Function {
    /// `None`: there is none of that name.
    pub(super) fn named(name: &str) -> Option<Function> {
        Some(match name {
            "and" => Function::And,
            "or" => Function::Or,
            "not" => Function::Not,
            "len" => Function::Len,
            "index" => Function::Index,
            "slice" => Function::Slice,
            "print" => Function::Print,
            "printf" => Function::Printf,
            "println" => Function::Println,
            "eq" => Function::Eq,
            "ne" => Function::Ne,
            "lt" => Function::Lt,
            "le" => Function::Le,
            "gt" => Function::Gt,
            "ge" => Function::Ge,
            "json" => Function::Json,
            "join" => Function::Join,
            "split" => Function::Split,
            "lower" => Function::Lower,
            "upper" => Function::Upper,
            "title" => Function::Title,
            "pad" => Function::Pad,
            "truncate" => Function::Truncate,
            _ => return None,
        })
    }

    /// Whether it makes a text of a text, and so has no business with a heading.
    pub(super) fn changes_text(self) -> bool {
        use Function::{Join, Json, Lower, Pad, Split, Title, Truncate, Upper};
        matches!(
            self,
            Join | Json | Lower | Pad | Split | Title | Truncate | Upper
        )
    }

    /// Calls it.
    pub(super) fn call(self, arguments: &[Got]) -> Result<Got, Fault> {
        let text = |text: String| Ok(Some(Value::String(text)));
        match self {
            Function::And | Function::Or => match arguments.last() {
                Some(value) => Ok(value.clone()),
                None => Err(wrong_number("and", "at least 1", 0)),
            },
            Function::Not => {
                let [value] = exactly("not", "1", arguments)?;
                Ok(Some(Value::Bool(!is_true(value.as_ref()))))
            }
            Function::Len => {
                let [value] = exactly("len", "1", arguments)?;
                length(value.as_ref()).map(|len| Some(Value::from(len)))
            }
            Function::Index => index(arguments),
            Function::Slice => slice(arguments),
            Function::Print => text(print(arguments)),
            Function::Println => {
                let words: Vec<String> = arguments
                    .iter()
                    .map(|got| self::text(got.as_ref()))
                    .collect();
                text(format!("{}\n", words.join(" ")))
            }
            Function::Printf => text(printf(arguments)?),
            Function::Eq
            | Function::Ne
            | Function::Lt
            | Function::Le
            | Function::Gt
            | Function::Ge => self.compare(arguments).map(|is| Some(Value::Bool(is))),
            Function::Json => {
                let [value] = exactly("json", "1", arguments)?;
                text(
                    value
                        .as_ref()
                        .map_or_else(|| "null".to_owned(), Value::to_string),
                )
            }
            Function::Join => {
                let [list, separator] = exactly("join", "2", arguments)?;
                let words: Vec<String> = list_of(list)?
                    .iter()
                    .map(|item| self::text(Some(item)))
                    .collect();
                text(words.join(string(separator)?))
            }
            Function::Split => {
                let [whole, separator] = exactly("split", "2", arguments)?;
                let (whole, separator) = (string(whole)?, string(separator)?);
                let parts: Vec<Value> = match separator.is_empty() {
                    true => whole.chars().map(|c| Value::String(c.into())).collect(),
                    false => whole.split(separator).map(Value::from).collect(),
                };
                Ok(Some(Value::Array(parts)))
            }
            Function::Lower => {
                text(string(exactly::<1>("lower", "1", arguments)?[0])?.to_lowercase())
            }
            Function::Upper => {
                text(string(exactly::<1>("upper", "1", arguments)?[0])?.to_uppercase())
            }
            Function::Title => text(title(string(exactly::<1>("title", "1", arguments)?[0])?)),
            Function::Pad => {
                let [value, before, after] = exactly("pad", "3", arguments)?;
                let (value, before, after) = (string(value)?, padding(before)?, padding(after)?);
                match value.is_empty() {
                    true => text(String::new()),
                    false => text(format!(
                        "{}{value}{}",
                        " ".repeat(before),
                        " ".repeat(after)
                    )),
                }
            }
            Function::Truncate => {
                let [value, most] = exactly("truncate", "2", arguments)?;
                let most = usize::try_from(integer(most)?).unwrap_or(0);
                text(string(value)?.chars().take(most).collect())
            }
        }
    }

    fn compare(self, arguments: &[Got]) -> Result<bool, Fault> {
        let Some((first, rest)) = arguments.split_first().filter(|(_, rest)| !rest.is_empty())
        else {
            return Err(wrong_number("comparison", "at least 2", arguments.len()));
        };
        if self == Function::Eq {
            for other in rest {
                if equal(first, other)? {
                    return Ok(true);
                }
            }
            return Ok(false);
        }
        let [first, second] = exactly("comparison", "2", arguments)?;
        if self == Function::Ne {
            return Ok(!equal(first, second)?);
        }
        let order = order(first, second)?;
        Ok(match self {
            Function::Lt => order.is_lt(),
            Function::Le => order.is_le(),
            Function::Gt => order.is_gt(),
            _ => order.is_ge(),
        })
    }
}

fn wrong_number(name: &'static str, want: &'static str, got: usize) -> Fault {
    Fault::Arguments { name, want, got }
}

fn exactly<'a, const N: usize>(
    name: &'static str,
    want: &'static str,
    arguments: &'a [Got],
) -> Result<[&'a Got; N], Fault> {
    if arguments.len() != N {
        return Err(wrong_number(name, want, arguments.len()));
    }
    Ok(std::array::from_fn(|at| &arguments[at]))
}

/// A value's type in words.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    }
}

fn kind_of(got: &Got) -> &'static str {
    got.as_ref().map_or("nil", kind)
}

fn wanted(want: &'static str, got: &Got) -> Fault {
    Fault::Type {
        want,
        got: kind_of(got),
    }
}

/// A text; what is not there is an empty one.
fn string(got: &Got) -> Result<&str, Fault> {
    match got {
        Some(Value::String(text)) => Ok(text),
        None | Some(Value::Null) => Ok(""),
        _ => Err(wanted("string", got)),
    }
}

fn integer(got: &Got) -> Result<i64, Fault> {
    got.as_ref()
        .and_then(Value::as_i64)
        .ok_or_else(|| wanted("int", got))
}

fn padding(got: &Got) -> Result<usize, Fault> {
    let columns = integer(got)?;
    match columns > MAX_PADDING {
        true => Err(Fault::TooWide(columns)),
        false => Ok(usize::try_from(columns).unwrap_or(0)),
    }
}

fn list_of(got: &Got) -> Result<&[Value], Fault> {
    match got {
        Some(Value::Array(items)) => Ok(items),
        None | Some(Value::Null) => Ok(&[]),
        _ => Err(wanted("[]string", got)),
    }
}

/// As Go's templates test a value.
pub(super) fn is_true(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => false,
        Some(Value::Bool(is)) => *is,
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(members)) => !members.is_empty(),
    }
}

fn length(value: Option<&Value>) -> Result<usize, Fault> {
    match value {
        None | Some(Value::Null) => Ok(0),
        Some(Value::String(text)) => Ok(text.len()),
        Some(Value::Array(items)) => Ok(items.len()),
        Some(Value::Object(members)) => Ok(members.len()),
        Some(other) => Err(Fault::Type {
            want: "string, slice or map",
            got: kind(other),
        }),
    }
}

/// `index LIST 1` or `index MAP "key"`, repeatedly. A key that is missing is an empty text, as of a map of texts.
fn index(arguments: &[Got]) -> Result<Got, Fault> {
    let Some((value, keys)) = arguments.split_first() else {
        return Err(wrong_number("index", "at least 1", 0));
    };
    let mut value = value.clone();
    for key in keys {
        value = match value {
            Some(Value::Array(items)) => {
                let at = integer(key)?;
                let item = usize::try_from(at)
                    .ok()
                    .and_then(|at| items.get(at).cloned());
                Some(item.ok_or(Fault::Range(at))?)
            }
            Some(Value::Object(mut members)) => {
                let key = string(key)?;
                Some(
                    members
                        .remove(key)
                        .unwrap_or_else(|| Value::String(String::new())),
                )
            }
            None | Some(Value::Null) => Some(Value::String(String::new())),
            other => return Err(wanted("slice or map", &other)),
        };
    }
    Ok(value)
}

/// `slice X`, `slice X FROM`, `slice X FROM TO` of a text's characters or a list.
fn slice(arguments: &[Got]) -> Result<Got, Fault> {
    let (value, bounds) = match arguments {
        [value, bounds @ ..] if bounds.len() <= 2 => (value, bounds),
        _ => return Err(wrong_number("slice", "1 to 3", arguments.len())),
    };
    let bound = |at: usize, otherwise: usize| -> Result<usize, Fault> {
        let Some(bound) = bounds.get(at) else {
            return Ok(otherwise);
        };
        let bound = integer(bound)?;
        usize::try_from(bound).map_err(|_| Fault::Range(bound))
    };
    let check = |from: usize, to: usize, len: usize| match from <= to && to <= len {
        true => Ok(from..to),
        false => Err(Fault::Range(
            i64::try_from(to.max(from)).unwrap_or(i64::MAX),
        )),
    };
    match value {
        Some(Value::String(text)) => {
            let range = check(bound(0, 0)?, bound(1, text.len())?, text.len())?;
            // Bytes, as Go has it; a cut character is replaced.
            let bytes = text.as_bytes().get(range).unwrap_or_default();
            Ok(Some(Value::String(
                String::from_utf8_lossy(bytes).into_owned(),
            )))
        }
        Some(Value::Array(items)) => {
            let range = check(bound(0, 0)?, bound(1, items.len())?, items.len())?;
            Ok(Some(Value::Array(
                items.get(range).unwrap_or_default().to_vec(),
            )))
        }
        other => Err(wanted("string or slice", other)),
    }
}

/// As Go's `fmt.Sprint`: a blank between two values of which neither is a text.
fn print(arguments: &[Got]) -> String {
    let mut text = String::new();
    let mut before_is_text = true;
    for got in arguments {
        let is_text = matches!(got, Some(Value::String(_)));
        if !before_is_text && !is_text {
            text.push(' ');
        }
        text.push_str(&self::text(got.as_ref()));
        before_is_text = is_text;
    }
    text
}

/// A value as Go's `%v` prints it.
pub(super) fn text(value: Option<&Value>) -> String {
    match value {
        None => "<no value>".to_owned(),
        Some(Value::Null) => "<nil>".to_owned(),
        Some(Value::Bool(is)) => is.to_string(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => {
            let items: Vec<String> = items.iter().map(|item| text(Some(item))).collect();
            format!("[{}]", items.join(" "))
        }
        Some(Value::Object(members)) => {
            let members: Vec<String> = members
                .iter()
                .map(|(key, member)| format!("{key}:{}", text(Some(member))))
                .collect();
            format!("map[{}]", members.join(" "))
        }
    }
}

fn title(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut begins = true;
    for c in text.chars() {
        match begins {
            true => result.extend(c.to_uppercase()),
            false => result.push(c),
        }
        begins = !(c.is_alphanumeric() || c == '_' || c == '\'');
    }
    result
}

fn equal(a: &Got, b: &Got) -> Result<bool, Fault> {
    match (a, b) {
        (None | Some(Value::Null), other) | (other, None | Some(Value::Null)) => {
            Ok(matches!(other, None | Some(Value::Null)))
        }
        (Some(Value::Bool(a)), Some(Value::Bool(b))) => Ok(a == b),
        (Some(Value::Number(_)), Some(Value::Number(_)))
        | (Some(Value::String(_)), Some(Value::String(_))) => {
            order(a, b).map(std::cmp::Ordering::is_eq)
        }
        _ => Err(Fault::Incomparable),
    }
}

fn order(a: &Got, b: &Got) -> Result<std::cmp::Ordering, Fault> {
    match (a, b) {
        (Some(Value::String(a)), Some(Value::String(b))) => Ok(a.cmp(b)),
        (Some(Value::Number(a)), Some(Value::Number(b))) => {
            let order = match (a.as_i64(), b.as_i64()) {
                (Some(a), Some(b)) => Some(a.cmp(&b)),
                _ => a
                    .as_f64()
                    .zip(b.as_f64())
                    .and_then(|(a, b)| a.partial_cmp(&b)),
            };
            order.ok_or(Fault::Incomparable)
        }
        _ => Err(Fault::Incomparable),
    }
}
