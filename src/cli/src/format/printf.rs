//! Go's `fmt.Sprintf`, as far as templates use it: the verbs v, s, d, q, x, X, t, f and c, with flags, width and precision.

use serde_json::Value;

use super::Fault;
use super::eval::Got;
use super::functions::{MAX_PADDING, text};

/// What stands between `%` and its verb.
#[derive(Default)]
struct Flags {
    left: bool,
    zero: bool,
    plus: bool,
    width: usize,
    precision: Option<usize>,
}

/// Formats the arguments behind the first as the first says.
pub(super) fn printf(arguments: &[Got]) -> Result<String, Fault> {
    let Some((Some(Value::String(format)), arguments)) = arguments.split_first() else {
        return Err(Fault::Arguments {
            name: "printf",
            want: "at least 1",
            got: arguments.len(),
        });
    };
    let mut arguments = arguments.iter();
    let mut out = String::new();
    let mut rest = format.as_str();
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let (flags, after) = flags(&rest[at + 1..])?;
        let Some(verb) = after.chars().next() else {
            out.push_str("%!(NOVERB)");
            return Ok(out);
        };
        rest = &after[verb.len_utf8()..];
        if verb == '%' {
            out.push('%');
            continue;
        }
        match arguments.next() {
            Some(value) => out.push_str(&padded(formatted(verb, value.as_ref(), &flags), &flags)),
            None => out.push_str(&format!("%!{verb}(MISSING)")),
        }
    }
    out.push_str(rest);
    let extra: Vec<String> = arguments.map(|got| text(got.as_ref())).collect();
    if !extra.is_empty() {
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    Ok(out)
}

fn flags(mut text: &str) -> Result<(Flags, &str), Fault> {
    let mut flags = Flags::default();
    while let Some(flag) = text
        .chars()
        .next()
        .filter(|c| matches!(c, '-' | '0' | '+' | ' ' | '#'))
    {
        flags.left |= flag == '-';
        flags.zero |= flag == '0';
        flags.plus |= flag == '+';
        text = &text[1..];
    }
    (flags.width, text) = number(text)?;
    if let Some(rest) = text.strip_prefix('.') {
        let (precision, rest) = number(rest)?;
        flags.precision = Some(precision);
        text = rest;
    }
    Ok((flags, text))
}

fn number(text: &str) -> Result<(usize, &str), Fault> {
    let len = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at(len);
    let number = match digits {
        "" => 0,
        digits => digits.parse().unwrap_or(i64::MAX),
    };
    match usize::try_from(number) {
        Ok(columns) if number <= MAX_PADDING => Ok((columns, rest)),
        _ => Err(Fault::TooWide(number)),
    }
}

fn formatted(verb: char, value: Option<&Value>, flags: &Flags) -> String {
    let integer = value.and_then(Value::as_i64);
    let float = value.and_then(Value::as_f64);
    let plain = text(value);
    let cut = |text: &str| match flags.precision {
        Some(most) => text.chars().take(most).collect(),
        None => text.to_owned(),
    };
    let sign = |text: String, negative: bool| match flags.plus && !negative {
        true => format!("+{text}"),
        false => text,
    };
    match (verb, value) {
        ('v', _) | ('s', Some(Value::String(_) | Value::Array(_))) => cut(&plain),
        ('q', Some(Value::String(text))) => crate::output::quoted(text),
        ('t', Some(Value::Bool(is))) => is.to_string(),
        ('x', Some(Value::String(text))) => {
            text.bytes().map(|byte| format!("{byte:02x}")).collect()
        }
        ('X', Some(Value::String(text))) => {
            text.bytes().map(|byte| format!("{byte:02X}")).collect()
        }
        ('d', Some(Value::Number(_))) if integer.is_some() => sign(plain, integer < Some(0)),
        ('x', Some(Value::Number(_))) if integer.is_some() => format!("{:x}", integer.unwrap_or(0)),
        ('X', Some(Value::Number(_))) if integer.is_some() => format!("{:X}", integer.unwrap_or(0)),
        ('c', Some(Value::Number(_))) => integer
            .and_then(|number| u32::try_from(number).ok())
            .and_then(char::from_u32)
            .map_or_else(|| "\u{fffd}".to_owned(), String::from),
        ('f', Some(Value::Number(number))) if number.is_f64() => {
            let value = float.unwrap_or(0.0);
            sign(
                format!("{value:.*}", flags.precision.unwrap_or(6)),
                value < 0.0,
            )
        }
        _ => format!("%!{verb}({plain})"),
    }
}

fn padded(text: String, flags: &Flags) -> String {
    let missing = flags.width.saturating_sub(text.chars().count());
    if flags.left {
        return format!("{text}{}", " ".repeat(missing));
    }
    match text.strip_prefix(['-', '+']) {
        Some(digits) if flags.zero => format!("{}{}{digits}", &text[..1], "0".repeat(missing)),
        None if flags.zero => format!("{}{text}", "0".repeat(missing)),
        _ => format!("{}{text}", " ".repeat(missing)),
    }
}
