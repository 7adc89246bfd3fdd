//! The functions of templates: Go's built-in ones and CoreDNS's `parseInt`.
//!
//! Owns values, and their printing as Go prints them. Results are bounded by [`MOST_TEXT`].

use super::escapes;
use super::printf::printf;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::rc::Rc;

/// The greatest length in octets of a text that a template makes.
pub(super) const MOST_TEXT: usize = 65_535;

/// A value in a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// A missing key; prints as `<no value>`.
    Nothing,
    /// `nil`.
    Nil,
    Bool(bool),
    Integer(i128),
    Text(Rc<str>),
    List(Rc<Vec<Value>>),
    Map(Rc<BTreeMap<String, Value>>),
    /// The data itself, `.`.
    Data,
    /// `.Question`.
    Question,
    /// `.Message`.
    Message,
}

impl Value {
    /// A text.
    pub(super) fn text(text: &str) -> Value {
        Value::Text(Rc::from(text))
    }

    /// Whether `if` takes it for true.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Value::Nothing | Value::Nil => false,
            Value::Bool(value) => *value,
            Value::Integer(value) => *value != 0,
            Value::Text(text) => !text.is_empty(),
            Value::List(list) => !list.is_empty(),
            Value::Map(map) => !map.is_empty(),
            Value::Data | Value::Question | Value::Message => true,
        }
    }

    /// As Go's `fmt` prints it.
    pub(super) fn print(&self) -> Result<String, String> {
        Ok(match self {
            Value::Nothing => "<no value>".to_owned(),
            Value::Nil => "<nil>".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Integer(value) => value.to_string(),
            Value::Text(text) => text.to_string(),
            Value::List(list) => {
                let parts: Result<Vec<_>, _> = list.iter().map(Value::print).collect();
                format!("[{}]", parts?.join(" "))
            }
            Value::Map(map) => {
                let parts: Result<Vec<_>, String> = map
                    .iter()
                    .map(|(key, value)| Ok(format!("{key}:{}", value.print()?)))
                    .collect();
                format!("map[{}]", parts?.join(" "))
            }
            Value::Data | Value::Question | Value::Message => {
                return Err("printing a structure is not supported".to_owned());
            }
        })
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Nothing | Value::Nil => "nil",
            Value::Bool(_) => "bool",
            Value::Integer(_) => "int",
            Value::Text(_) => "string",
            Value::List(_) => "[]string",
            Value::Map(_) => "map[string]string",
            Value::Data => "*template.templateData",
            Value::Question => "*dns.Question",
            Value::Message => "*dns.Msg",
        }
    }
}

/// Whether a word is a function here. `and` and `or` decide themselves what they evaluate.
pub(super) fn is_function(word: &str) -> bool {
    matches!(
        word,
        "and"
            | "or"
            | "not"
            | "len"
            | "index"
            | "slice"
            | "print"
            | "html"
            | "js"
            | "urlquery"
            | "printf"
            | "println"
            | "eq"
            | "ne"
            | "lt"
            | "le"
            | "gt"
            | "ge"
            | "parseInt"
    )
}

/// Calls a function other than `and` and `or`.
pub(super) fn call(function: &str, arguments: &[Value]) -> Result<Value, String> {
    let result = match (function, arguments) {
        ("not", [value]) => Ok(Value::Bool(!value.is_true())),
        ("len", [value]) => length(value).map(|length| Value::Integer(length as i128)),
        ("index", [value, keys @ ..]) => index(value, keys),
        ("slice", [value, bounds @ ..]) => slice(value, bounds),
        ("print", values) => print(values),
        ("html", values) => print(values).map(|text| escaped(&text, escapes::html)),
        ("js", values) => print(values).map(|text| escaped(&text, escapes::js)),
        ("urlquery", values) => print(values).map(|text| escaped(&text, escapes::url_query)),
        ("println", values) => {
            let texts: Result<Vec<_>, _> = values.iter().map(Value::print).collect();
            texts.map(|texts| Value::text(&format!("{}\n", texts.join(" "))))
        }
        ("printf", [Value::Text(format), values @ ..]) => {
            printf(format, values).map(|text| Value::text(&text))
        }
        ("eq", [first, others @ ..]) if !others.is_empty() => others
            .iter()
            .try_fold(false, |found, other| Ok(found || order(first, other)?.is_eq()))
            .map(Value::Bool),
        ("ne", [a, b]) => order(a, b).map(|order| Value::Bool(order.is_ne())),
        ("lt", [a, b]) => order(a, b).map(|order| Value::Bool(order.is_lt())),
        ("le", [a, b]) => order(a, b).map(|order| Value::Bool(order.is_le())),
        ("gt", [a, b]) => order(a, b).map(|order| Value::Bool(order.is_gt())),
        ("ge", [a, b]) => order(a, b).map(|order| Value::Bool(order.is_ge())),
        ("parseInt", [Value::Text(text), Value::Integer(base), Value::Integer(bits)]) => {
            parse_integer(text, *base, *bits)
        }
        _ => return Err(wrong_arguments(function, arguments)),
    };
    let result = result.map_err(|reason| format!("error calling {function}: {reason}"))?;
    match &result {
        Value::Text(text) if text.len() > MOST_TEXT => Err(format!("{function}: text too long")),
        _ => Ok(result),
    }
}

/// Why these arguments do not fit the function.
fn wrong_arguments(function: &str, arguments: &[Value]) -> String {
    let (least, or_more) = match function {
        "not" | "len" => (1, ""),
        "ne" | "lt" | "le" | "gt" | "ge" => (2, ""),
        "parseInt" => (3, ""),
        _ => (1, "at least "),
    };
    let got = arguments.len();
    match (function, or_more) {
        _ if got < least => {}
        ("eq", _) if got == 1 => {
            return "error calling eq: missing argument for comparison".to_owned();
        }
        (_, "") if got > least => {}
        _ => return format!("wrong type of an argument for {function}"),
    }
    format!("wrong number of args for {function}: want {or_more}{least} got {got}")
}

fn escaped(text: &Value, escape: fn(&str) -> String) -> Value {
    match text {
        Value::Text(text) => Value::text(&escape(text)),
        other => other.clone(),
    }
}

fn length(value: &Value) -> Result<usize, String> {
    match value {
        Value::Text(text) => Ok(text.len()),
        Value::List(list) => Ok(list.len()),
        Value::Map(map) => Ok(map.len()),
        other => Err(format!("len of type {}", other.kind())),
    }
}

fn index(value: &Value, keys: &[Value]) -> Result<Value, String> {
    let mut value = value.clone();
    for key in keys {
        value = match (&value, key) {
            (Value::List(list), Value::Integer(at)) => place(*at, list.len())
                .and_then(|at| list.get(at))
                .cloned()
                .ok_or_else(|| format!("index out of range: {at}"))?,
            (Value::Text(text), Value::Integer(at)) => place(*at, text.len())
                .and_then(|at| text.as_bytes().get(at))
                .map(|octet| Value::Integer(i128::from(*octet)))
                .ok_or_else(|| format!("index out of range: {at}"))?,
            // The zero value, as Go gives for a key that is not there.
            (Value::Map(map), Value::Text(key)) => {
                map.get(key.as_ref()).cloned().unwrap_or_else(|| Value::text(""))
            }
            (Value::Nothing | Value::Nil, _) => return Err("index of untyped nil".to_owned()),
            (Value::List(_) | Value::Text(_), key) => {
                return Err(format!("cannot index slice/array with type {}", key.kind()));
            }
            (value, _) => {
                let kind = value.kind();
                return Err(format!("can't index item of type {}", kind.trim_start_matches('*')));
            }
        };
    }
    Ok(value)
}

fn place(at: i128, most: usize) -> Option<usize> {
    usize::try_from(at).ok().filter(|at| *at <= most)
}

fn slice(value: &Value, bounds: &[Value]) -> Result<Value, String> {
    let length = length(value)?;
    let mut places = [0, length];
    if bounds.len() > 2 {
        return Err("3-index slice is not supported".to_owned());
    }
    for (bound, into) in bounds.iter().zip(&mut places) {
        let Value::Integer(at) = bound else {
            return Err(format!("cannot index slice/array with type {}", bound.kind()));
        };
        *into = place(*at, length).ok_or_else(|| format!("index out of range: {at}"))?;
    }
    let [from, to] = places;
    if from > to {
        return Err(format!("invalid slice index: {from} > {to}"));
    }
    match value {
        Value::Text(text) => {
            let octets = text.as_bytes().get(from..to).unwrap_or_default();
            Ok(Value::text(&String::from_utf8_lossy(octets)))
        }
        Value::List(list) => {
            Ok(Value::List(Rc::new(list.get(from..to).unwrap_or_default().to_vec())))
        }
        other => Err(format!("can't slice item of type {}", other.kind())),
    }
}

/// Go's `Sprint`: a space between two operands of which neither is a text.
fn print(values: &[Value]) -> Result<Value, String> {
    let mut out = String::new();
    let mut was_text = true;
    for value in values {
        let is_text = matches!(value, Value::Text(_));
        if !out.is_empty() && !was_text && !is_text {
            out.push(' ');
        }
        out.push_str(&value.print()?);
        was_text = is_text;
    }
    Ok(Value::text(&out))
}

fn order(a: &Value, b: &Value) -> Result<Ordering, String> {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Ok(a.cmp(b)),
        (Value::Integer(a), Value::Integer(b)) => Ok(a.cmp(b)),
        (Value::Text(a), Value::Text(b)) => Ok(a.cmp(b)),
        (Value::Nothing | Value::Nil, Value::Nothing | Value::Nil) => Ok(Ordering::Equal),
        (a, b) => Err(format!("incompatible types for comparison: {} and {}", a.kind(), b.kind())),
    }
}

/// Go's `strconv.ParseUint`, which is what CoreDNS calls `parseInt`.
fn parse_integer(text: &str, base: i128, bits: i128) -> Result<Value, String> {
    let wrong = |reason: &str| format!("strconv.ParseUint: parsing {text:?}: {reason}");
    let mut digits = Cow::Borrowed(text);
    let radix = match base {
        2..=36 => base as u32,
        0 => {
            let (radix, behind) = prefixed(text);
            // Behind a prefix one underscore may stand, too.
            let behind = match behind.len() < text.len() {
                true => behind.strip_prefix('_').unwrap_or(behind),
                false => behind,
            };
            digits = plain(behind).ok_or_else(|| wrong("invalid syntax"))?;
            radix
        }
        _ => return Err(wrong(&format!("invalid base {base}"))),
    };
    let bits = match bits {
        0 => 64,
        1..=64 => bits as u32,
        _ => return Err(wrong(&format!("invalid bit size {bits}"))),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Err(wrong("invalid syntax"));
    }
    let most = u64::MAX >> (64 - bits);
    u64::from_str_radix(&digits, radix)
        .ok()
        .filter(|number| *number <= most)
        .map(|number| Value::Integer(i128::from(number)))
        .ok_or_else(|| wrong("value out of range"))
}

/// The base that a number's prefix says, and what is behind it: Go's base 0.
fn prefixed(text: &str) -> (u32, &str) {
    match text.as_bytes() {
        [b'0', b'x' | b'X', _, ..] => (16, &text[2..]),
        [b'0', b'o' | b'O', _, ..] => (8, &text[2..]),
        [b'0', b'b' | b'B', _, ..] => (2, &text[2..]),
        [b'0', _, ..] => (8, &text[1..]),
        _ => (10, text),
    }
}

/// The digits without the underscores between them; `None` where one is not between two digits.
fn plain(digits: &str) -> Option<Cow<'_, str>> {
    if !digits.contains('_') {
        return Some(Cow::Borrowed(digits));
    }
    let is_misplaced = digits.starts_with('_') || digits.ends_with('_') || digits.contains("__");
    (!is_misplaced).then(|| Cow::Owned(digits.replace('_', "")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printf_formats_as_go_does() {
        let (number, text) = (Value::Integer(42), Value::text("ab"));
        for (format, value, result) in [
            ("%d", &number, "42"),
            ("%05d|", &number, "00042|"),
            ("%-5d|", &number, "42   |"),
            ("%x", &number, "2a"),
            ("%#X", &number, "0X2A"),
            ("%+d", &number, "+42"),
            ("%.4d", &number, "0042"),
            ("%v%%", &number, "42%"),
            ("%c", &number, "*"),
            ("%s", &text, "ab"),
            ("%5s", &text, "   ab"),
            ("%.1s", &text, "a"),
            ("%q", &text, "\"ab\""),
            ("%x", &text, "6162"),
        ] {
            assert_eq!(printf(format, std::slice::from_ref(value)).as_deref(), Ok(result));
        }
        assert!(printf("%2000s", std::slice::from_ref(&text)).is_err());
        assert!(printf("%*s", &[Value::Integer(-2000), text]).is_err());
    }

    #[test]
    fn printf_takes_widths_and_places_from_values_as_go_does() {
        let values = [Value::Integer(5), Value::Integer(-3), Value::text("ab")];
        for (format, result) in [
            ("%[3]s %[1]d", "ab 5"),
            ("%[3]*.[2]*[1]f|", "%!(BADWIDTH)%!(BADPREC)%!f(int=5)|"),
            ("%*d|", "   -3|%!(EXTRA string=ab)"),
            ("%d %*s|", "5 ab |"),
            ("%[3]*s|", "%!(BADWIDTH)%!s(MISSING)|"),
            ("%.*d|", "-00003|%!(EXTRA string=ab)"),
            ("%.[2]*d|", "%!(BADPREC)%!d(string=ab)|"),
            ("%[2]d %d", "-3 %!d(string=ab)"),
            ("%[1]d %[1]x", "5 5"),
            ("%[4]d", "%!d(BADINDEX)"),
            ("%[0]d", "%!d(BADINDEX)"),
            ("%[x]d", "%!d(BADINDEX)"),
            ("%[]d", "%!d(BADINDEX)"),
            ("%[1]2d", "%!d(BADINDEX)"),
            ("%2[1]d|", " 5|"),
            ("%[1].2d", "%!d(BADINDEX)"),
            ("%[1", "%!(NOVERB)"),
            ("%[2]*[1]d|", "5  |"),
            ("%[", "%!(NOVERB)"),
            ("%-*[3]s|", "ab   |"),
        ] {
            assert_eq!(printf(format, &values).as_deref(), Ok(result), "{format}");
        }
    }

    #[test]
    fn printf_shows_what_fits_no_verb_as_go_does() {
        let (number, text) = (Value::Integer(42), Value::text("ab"));
        let list = Value::List(Rc::new(vec![text.clone(), text.clone()]));
        let map = BTreeMap::from([("a".to_owned(), Value::text("b"))]);
        for (format, values, result) in [
            ("%d", vec![text.clone()], "%!d(string=ab)"),
            ("%5d|", vec![text.clone()], "%!d(string=   ab)|"),
            ("%s", vec![number.clone()], "%!s(int=42)"),
            ("%t", vec![number.clone()], "%!t(int=42)"),
            ("%d", vec![Value::Bool(true)], "%!d(bool=true)"),
            ("%s", vec![Value::Nil], "%!s(<nil>)"),
            ("%!", vec![text.clone()], "%!!(string=ab)"),
            ("%", vec![text.clone()], "%!(NOVERB)%!(EXTRA string=ab)"),
            ("%d %d", vec![number.clone()], "42 %!d(MISSING)"),
            ("%d", vec![number, text.clone(), Value::Nil], "42%!(EXTRA string=ab, <nil>)"),
            ("%q", vec![list.clone()], "[\"ab\" \"ab\"]"),
            ("%d", vec![list], "[%!d(string=ab) %!d(string=ab)]"),
            ("%x", vec![Value::Map(Rc::new(map))], "map[61:62]"),
            ("%T", vec![text.clone()], "string"),
            ("%#v", vec![text], "\"ab\""),
        ] {
            assert_eq!(printf(format, &values).as_deref(), Ok(result), "{format}");
        }
    }

    #[test]
    fn indexes_and_slices_keep_within_bounds() {
        let list = Value::List(Rc::new(vec![Value::text("a"), Value::text("b")]));
        assert_eq!(call("index", &[list.clone(), Value::Integer(1)]), Ok(Value::text("b")));
        for at in [2, -1, 9] {
            assert!(call("index", &[list.clone(), Value::Integer(at)]).is_err());
        }
        let text = Value::text("abcdef");
        let bounds = [text.clone(), Value::Integer(2), Value::Integer(4)];
        assert_eq!(call("slice", &bounds), Ok(Value::text("cd")));
        assert!(call("slice", &[text, Value::Integer(4), Value::Integer(2)]).is_err());
    }

    #[test]
    fn parse_int_is_unsigned_and_bounded() {
        let parse = |text: &str, base, bits| {
            call("parseInt", &[Value::text(text), Value::Integer(base), Value::Integer(bits)])
        };
        assert_eq!(parse("ff", 16, 8), Ok(Value::Integer(255)));
        assert_eq!(
            parse("100", 16, 8),
            Err("error calling parseInt: strconv.ParseUint: parsing \"100\": value out of range"
                .to_owned())
        );
        for (text, number) in [
            ("60", 60),
            ("0x3C", 60),
            ("074", 60),
            ("0o74", 60),
            ("0b11", 3),
            ("1_000", 1000),
            ("0x_f", 15),
            ("0_7", 7),
            ("0", 0),
        ] {
            assert_eq!(parse(text, 0, 64), Ok(Value::Integer(number)), "{text}");
        }
        for text in ["", "0x", "08", "_1", "1_", "1__0", "0b2", "-1", "1 "] {
            assert!(parse(text, 0, 64).is_err(), "{text}");
        }
        assert!(parse("1_0", 10, 64).is_err());
        assert!(parse("-1", 10, 8).is_err());
        assert!(parse("1", 1, 8).is_err());
    }
}
