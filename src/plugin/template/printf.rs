//! Go's `printf`, for what templates can hold.
//!
//! Owns flags, width and precision, which are bounded by [`MOST_WIDTH`], and what is shown of a value that
//! fits no verb.

use super::functions::{MOST_TEXT, Value};
use std::borrow::Cow;
use std::fmt::Write as _;

/// The greatest width or precision.
const MOST_WIDTH: usize = 1_000;

/// Flags, width, precision and verb of one place in a format.
#[derive(Default)]
struct Spec {
    minus: bool,
    plus: bool,
    space: bool,
    zero: bool,
    sharp: bool,
    width: usize,
    precision: Option<usize>,
}

/// The text of `values` by `format`. The error is a width that is too great, or a value that is not
/// supported.
pub(super) fn printf(format: &str, values: &[Value]) -> Result<String, String> {
    let mut out = String::new();
    let mut values = values.iter();
    let mut rest = format.chars().peekable();
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut spec = Spec::default();
        while let Some(flag) = rest.next_if(|c| "-+ 0#".contains(*c)) {
            match flag {
                '-' => spec.minus = true,
                '+' => spec.plus = true,
                ' ' => spec.space = true,
                '0' => spec.zero = true,
                _ => spec.sharp = true,
            }
        }
        let mut number = || -> Result<Option<usize>, String> {
            let mut number = None;
            while let Some(digit) = rest.peek().and_then(|c| c.to_digit(10)) {
                rest.next();
                let grown = number.unwrap_or(0) * 10 + digit as usize;
                if grown > MOST_WIDTH {
                    return Err("width or precision too great".to_owned());
                }
                number = Some(grown);
            }
            Ok(number)
        };
        spec.width = number()?.unwrap_or(0);
        if rest.next_if_eq(&'.').is_some() {
            let mut precision = 0;
            while let Some(digit) = rest.peek().and_then(|c| c.to_digit(10)) {
                rest.next();
                precision = precision * 10 + digit as usize;
                if precision > MOST_WIDTH {
                    return Err("width or precision too great".to_owned());
                }
            }
            spec.precision = Some(precision);
        }
        match rest.next() {
            None => out.push_str("%!(NOVERB)"),
            Some('%') => out.push('%'),
            Some(verb @ ('[' | '*')) => return Err(format!("%{verb} is not supported")),
            Some(verb) => match values.next() {
                None => out.push_str(&format!("%!{verb}(MISSING)")),
                Some(value) => spec.write(verb, value, &mut out)?,
            },
        }
        if out.len() > MOST_TEXT {
            return Err("text too long".to_owned());
        }
    }
    let extra: Result<Vec<_>, _> = values.map(typed).collect();
    match extra?.as_slice() {
        [] => Ok(out),
        extra => Ok(format!("{out}%!(EXTRA {})", extra.join(", "))),
    }
}

/// A value with its type, as Go shows those that fit no verb.
fn typed(value: &Value) -> Result<String, String> {
    Ok(match value {
        Value::Nothing | Value::Nil => "<nil>".to_owned(),
        value => format!("{}={}", value.kind(), value.print()?),
    })
}

impl Spec {
    fn write(&self, verb: char, value: &Value, out: &mut String) -> Result<(), String> {
        match (verb, value) {
            ('d' | 'x' | 'X' | 'o' | 'b', Value::Integer(number)) => {
                self.integer(verb, *number, out);
            }
            ('v', Value::Integer(number)) => self.integer('d', *number, out),
            ('c', Value::Integer(number)) => {
                let character = u32::try_from(*number).ok().and_then(char::from_u32);
                self.pad(&character.unwrap_or(char::REPLACEMENT_CHARACTER).to_string(), out);
            }
            ('x' | 'X', Value::Text(text)) => {
                let mut digits = String::new();
                for octet in text.bytes().take(self.precision.unwrap_or(usize::MAX)) {
                    // Writing to a string cannot fail.
                    let _ = match verb {
                        'x' => write!(digits, "{octet:02x}"),
                        _ => write!(digits, "{octet:02X}"),
                    };
                }
                self.pad(&digits, out);
            }
            ('v', Value::Text(text)) if self.sharp => self.pad(&format!("{text:?}"), out),
            ('q', Value::Text(text)) => self.pad(&format!("{:?}", self.cut(text)), out),
            ('s' | 'v', Value::Text(text)) => self.pad(&self.cut(text), out),
            ('t' | 'v', Value::Bool(value)) => self.pad(&value.to_string(), out),
            ('T', value) => self.pad(value.kind(), out),
            (verb, Value::List(items)) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    out.push_str(if at == 0 { "" } else { " " });
                    self.write(verb, item, out)?;
                }
                out.push(']');
            }
            (verb, Value::Map(items)) => {
                out.push_str("map[");
                for (at, (key, item)) in items.iter().enumerate() {
                    out.push_str(if at == 0 { "" } else { " " });
                    self.write(verb, &Value::text(key), out)?;
                    out.push(':');
                    self.write(verb, item, out)?;
                }
                out.push(']');
            }
            ('v', Value::Nothing | Value::Nil) => self.pad("<nil>", out),
            ('q' | 'U' | 'O', Value::Integer(_))
            | (_, Value::Data | Value::Question | Value::Message) => {
                return Err(format!("%{verb} of {} is not supported", value.kind()));
            }
            (verb, value) => {
                out.push_str(&format!("%!{verb}("));
                match value {
                    Value::Nothing | Value::Nil => out.push_str("<nil>"),
                    value => {
                        out.push_str(&format!("{}=", value.kind()));
                        self.write('v', value, out)?;
                    }
                }
                out.push(')');
            }
        }
        Ok(())
    }

    fn cut<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self.precision {
            None => Cow::Borrowed(text),
            Some(most) => Cow::Owned(text.chars().take(most).collect()),
        }
    }

    fn integer(&self, verb: char, number: i128, out: &mut String) {
        let magnitude = number.unsigned_abs();
        let (prefix, mut digits) = match verb {
            'x' => ("0x", format!("{magnitude:x}")),
            'X' => ("0X", format!("{magnitude:X}")),
            'o' => ("0", format!("{magnitude:o}")),
            'b' => ("0b", format!("{magnitude:b}")),
            _ => ("", magnitude.to_string()),
        };
        let sign = match (number < 0, self.plus, self.space) {
            (true, ..) => "-",
            (false, true, _) => "+",
            (false, false, true) => " ",
            (false, false, false) => "",
        };
        let prefix = if self.sharp { prefix } else { "" };
        let least = match self.precision {
            Some(precision) => precision,
            None if self.zero && !self.minus => {
                self.width.saturating_sub(sign.len() + prefix.len())
            }
            None => 0,
        };
        if digits.len() < least {
            digits.insert_str(0, &"0".repeat(least - digits.len()));
        }
        self.pad(&format!("{sign}{prefix}{digits}"), out);
    }

    fn pad(&self, text: &str, out: &mut String) {
        let missing = self.width.saturating_sub(text.chars().count());
        let fill = if self.zero && !self.minus { "0" } else { " " };
        if !self.minus {
            out.push_str(&fill.repeat(missing));
        }
        out.push_str(text);
        if self.minus {
            out.push_str(&" ".repeat(missing));
        }
    }
}
