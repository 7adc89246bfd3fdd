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
    let mut format = Format { rest: format, values, next: 0, is_good: true, is_reordered: false };
    while let Some((text, place)) = format.rest.split_once('%') {
        out.push_str(text);
        format.rest = place;
        format.place(&mut out)?;
        if out.len() > MOST_TEXT {
            return Err("text too long".to_owned());
        }
    }
    out.push_str(format.rest);
    let extra = values.get(format.next..).filter(|_| !format.is_reordered).unwrap_or_default();
    let extra: Result<Vec<_>, _> = extra.iter().map(typed).collect();
    match extra?.as_slice() {
        [] => Ok(out),
        extra => Ok(format!("{out}%!(EXTRA {})", extra.join(", "))),
    }
}

/// A format that is being read, and the values that it speaks of.
struct Format<'f> {
    rest: &'f str,
    values: &'f [Value],
    /// The value that the next place takes, from 0.
    next: usize,
    /// Every number in brackets of this place is that of a value.
    is_good: bool,
    /// There were numbers in brackets.
    is_reordered: bool,
}

impl Format<'_> {
    /// What is behind a `%`.
    fn place(&mut self, out: &mut String) -> Result<(), String> {
        let mut spec = Spec::default();
        self.is_good = true;
        while let Some(flag) = self.rest.chars().next().filter(|flag| "-+ 0#".contains(*flag)) {
            self.rest = &self.rest[1..];
            match flag {
                '-' => spec.minus = true,
                '+' => spec.plus = true,
                ' ' => spec.space = true,
                '0' => spec.zero = true,
                _ => spec.sharp = true,
            }
        }
        let mut has_index = self.index();
        if self.take('*') {
            has_index = false;
            match self.size()? {
                None => out.push_str("%!(BADWIDTH)"),
                Some(width) => {
                    spec.minus |= width < 0;
                    spec.width = width.unsigned_abs();
                }
            }
        } else if let Some(width) = self.number()? {
            // `%[3]2d`: Go reads a width before a number in brackets alone.
            self.is_good &= !has_index;
            spec.width = width;
        }
        if self.take('.') {
            self.is_good &= !has_index;
            has_index = self.index();
            if self.take('*') {
                has_index = false;
                spec.precision = self.size()?.and_then(|size| usize::try_from(size).ok());
                if spec.precision.is_none() {
                    out.push_str("%!(BADPREC)");
                }
            } else {
                spec.precision = Some(self.number()?.unwrap_or(0));
            }
        }
        if !has_index {
            self.index();
        }
        let Some(verb) = self.rest.chars().next() else {
            out.push_str("%!(NOVERB)");
            return Ok(());
        };
        self.rest = &self.rest[verb.len_utf8()..];
        match (verb, self.values.get(self.next)) {
            ('%', _) => out.push('%'),
            (verb, _) if !self.is_good => out.push_str(&format!("%!{verb}(BADINDEX)")),
            (verb, None) => out.push_str(&format!("%!{verb}(MISSING)")),
            (verb, Some(value)) => {
                self.next += 1;
                spec.write(verb, value, out)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, letter: char) -> bool {
        let rest = self.rest.strip_prefix(letter);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// A number in brackets, which says what value is next; true when there is one.
    fn index(&mut self) -> bool {
        let Some(inside) = self.rest.strip_prefix('[') else { return false };
        self.is_reordered = true;
        let Some((digits, rest)) = inside.split_once(']') else {
            (self.rest, self.is_good) = (inside, false);
            return false;
        };
        self.rest = rest;
        let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
        let index = digits.parse().unwrap_or(0_usize).wrapping_sub(1);
        match is_number && index < self.values.len() {
            true => self.next = index,
            false => self.is_good = false,
        }
        is_number
    }

    /// Width or precision in the format.
    fn number(&mut self) -> Result<Option<usize>, String> {
        let behind = self.rest.trim_start_matches(|letter: char| letter.is_ascii_digit());
        let digits = &self.rest[..self.rest.len() - behind.len()];
        self.rest = behind;
        match digits.parse() {
            Ok(number) if number <= MOST_WIDTH => Ok(Some(number)),
            Err(_) if digits.is_empty() => Ok(None),
            _ => Err("width or precision too great".to_owned()),
        }
    }

    /// Width or precision from a value; `None` when it is no number.
    fn size(&mut self) -> Result<Option<isize>, String> {
        let value = self.values.get(self.next);
        self.next += usize::from(value.is_some());
        let Some(Value::Integer(size)) = value else { return Ok(None) };
        match isize::try_from(*size) {
            Ok(size) if size.unsigned_abs() <= MOST_WIDTH => Ok(Some(size)),
            _ => Err("width or precision too great".to_owned()),
        }
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
