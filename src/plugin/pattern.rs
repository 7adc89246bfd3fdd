//! Regular expressions as Corefiles write them: Go's RE2 syntax on the `regex` crate.
//!
//! Owns the differences between both (ASCII classes, literal braces, `\Q…\E`, brackets and set
//! operators inside classes) and Go's error texts. Never matches anything itself.

use regex::{Regex, RegexBuilder};

/// The greatest length of a pattern in octets (CoreDNS 1.14).
pub(crate) const MOST_PATTERN: usize = 10_000;

/// The greatest number in a repetition's braces.
const MOST_REPETITIONS: u32 = 1000;

/// Compiles a pattern of Go's syntax. The error is Go's text, such as
/// ``error parsing regexp: missing closing ): `(` ``.
pub(crate) fn compile(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > MOST_PATTERN {
        return Err(format!("regex pattern too long: {} > {MOST_PATTERN}", pattern.len()));
    }
    let translated =
        translate(pattern).map_err(|reason| format!("error parsing regexp: {reason}"))?;
    RegexBuilder::new(&translated)
        .build()
        .map_err(|error| format!("error parsing regexp: {}", go_reason(pattern, &error)))
}

/// Go's reason for one of the crate's: for what only the crate refuses, such as a program too large.
fn go_reason(pattern: &str, error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => "expression too large".to_owned(),
        _ => format!("invalid pattern: `{pattern}`"),
    }
}

/// Go's syntax to the crate's. What Go refuses is refused here, with its reason, from left to right.
fn translate(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    // What begins with the operator that stands just before `rest`.
    let mut operator: Option<&str> = None;
    // Whether there is something that an operator may repeat.
    let mut is_repeatable = false;
    let mut open = 0u32;
    while let Some(head) = rest.chars().next() {
        if let Some(octets) = repetition(rest)? {
            if let Some(before) = operator {
                let both = &before[..before.len() - rest.len() + octets];
                return Err(format!("invalid nested repetition operator: `{both}`"));
            }
            if !is_repeatable {
                let alone = &rest[..octets];
                return Err(format!("missing argument to repetition operator: `{alone}`"));
            }
            operator = Some(rest);
            rest = copy(rest, octets, &mut out);
            continue;
        }
        operator = None;
        is_repeatable = !matches!(head, '(' | '|');
        match head {
            '(' => {
                let (opens, behind) = group(rest, &mut out)?;
                open += u32::from(opens == Opens::Group);
                rest = behind;
            }
            ')' => {
                let Some(fewer) = open.checked_sub(1) else {
                    return Err(format!("unexpected ): `{pattern}`"));
                };
                open = fewer;
                rest = copy(rest, 1, &mut out);
            }
            '\\' => rest = escape(rest, &mut out)?,
            '[' => rest = class(rest, &mut out)?,
            '{' => {
                out.push_str("\\{");
                rest = &rest[1..];
            }
            other => rest = copy(rest, other.len_utf8(), &mut out),
        }
    }
    match open {
        0 => Ok(out),
        _ => Err(format!("missing closing ): `{pattern}`")),
    }
}

/// The octets of a repetition operator that `rest` starts with, the `?` of a lazy one included:
/// `*`, `+`, `?`, `{2}`, `{2,}` or `{2,3}`; other braces are literal in Go.
fn repetition(rest: &str) -> Result<Option<usize>, String> {
    let octets = match rest.chars().next() {
        Some('*' | '+' | '?') => 1,
        Some('{') => {
            let Some((inside, _)) = rest[1..].split_once('}') else { return Ok(None) };
            let (least, most) = inside.split_once(',').unwrap_or((inside, inside));
            let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
            if least.is_empty() || !digits(least) || !digits(most) {
                return Ok(None);
            }
            let number = |text: &str| text.parse().unwrap_or(u32::MAX);
            let most = if most.is_empty() { MOST_REPETITIONS } else { number(most) };
            if most > MOST_REPETITIONS || number(least) > most {
                return Err(format!("invalid repeat count: `{{{inside}}}`"));
            }
            inside.len() + 2
        }
        _ => return Ok(None),
    };
    Ok(Some(octets + usize::from(rest[octets..].starts_with('?'))))
}

/// What a parenthesis begins.
#[derive(PartialEq)]
enum Opens {
    /// A group, which a parenthesis closes.
    Group,
    /// Flags for what follows: they are closed already.
    Flags,
}

/// A group's beginning, `rest` starting with its parenthesis; gives what follows it. Names have
/// letters, digits and underscores; flags are `imsU`.
fn group<'p>(rest: &'p str, out: &mut String) -> Result<(Opens, &'p str), String> {
    let Some(inside) = rest.strip_prefix("(?") else {
        return Ok((Opens::Group, copy(rest, 1, out)));
    };
    if let Some(named) = inside.strip_prefix("P<").or_else(|| inside.strip_prefix('<'))
        && !named.is_empty()
    {
        let is_part = |octet: u8| octet == b'_' || octet.is_ascii_alphanumeric();
        let (name, end) = match named.find('>') {
            Some(end) => (&named[..end], rest.len() - named.len() + end + 1),
            None => ("", rest.len()),
        };
        if name.is_empty() || !name.bytes().all(is_part) {
            return Err(format!("invalid named capture: `{}`", &rest[..end]));
        }
        return Ok((Opens::Group, copy(rest, end, out)));
    }
    let (mut set, mut cleared) = (String::new(), None::<String>);
    for (at, flag) in inside.char_indices() {
        let behind = &inside[at + flag.len_utf8()..];
        match (flag, &mut cleared) {
            ('i' | 'm' | 's' | 'U', flags) => {
                let flags = flags.as_mut().unwrap_or(&mut set);
                if !flags.contains(flag) {
                    flags.push(flag);
                }
                continue;
            }
            ('-', None) => {
                cleared = Some(String::new());
                continue;
            }
            (':' | ')', Some(flags)) if flags.is_empty() => {}
            (':' | ')', _) => {
                // The crate refuses a flag that is set and cleared; in Go the later one counts.
                let cleared = cleared.unwrap_or_default();
                set.retain(|flag| !cleared.contains(flag));
                let minus = if cleared.is_empty() { "" } else { "-" };
                let opens = if flag == ':' { Opens::Group } else { Opens::Flags };
                if opens == Opens::Group || !set.is_empty() || !cleared.is_empty() {
                    *out += &format!("(?{set}{minus}{cleared}{flag}");
                }
                return Ok((opens, behind));
            }
            _ => {}
        }
        let octets = rest.len() - behind.len();
        return Err(format!("invalid or unsupported Perl syntax: `{}`", &rest[..octets]));
    }
    Err(format!("invalid or unsupported Perl syntax: `{rest}`"))
}

/// One escape outside of classes, `rest` starting with the backslash; gives what follows it.
fn escape<'p>(rest: &'p str, out: &mut String) -> Result<&'p str, String> {
    let after = rest.get(2..).unwrap_or_default();
    match rest[1..].chars().next() {
        Some('b') => out.push_str("(?-u:\\b)"),
        // Not `(?-u:\B)`: that may match between the octets of a character, which the crate
        // refuses for text.
        Some('B') => out.push_str("\\B"),
        Some('A') => out.push_str("\\A"),
        Some('z') => out.push_str("\\z"),
        Some('Q') => {
            let (literal, after) = after.split_once("\\E").unwrap_or((after, ""));
            out.push_str(&regex::escape(literal));
            return Ok(after);
        }
        _ => {
            if let Some((set, after)) = set(rest)? {
                *out += &format!("[{set}]");
                return Ok(after);
            }
            let (character, after) = escaped(rest)?;
            push(character, out);
            return Ok(after);
        }
    }
    Ok(after)
}

/// A set of characters that `rest` names with a backslash, as the inside of a class, and what follows
/// it. They are ASCII's: names and errors have no other characters.
fn set(rest: &str) -> Result<Option<(String, &str)>, String> {
    let mut characters = rest.chars();
    let (Some('\\'), Some(letter)) = (characters.next(), characters.next()) else {
        return Ok(None);
    };
    let after = characters.as_str();
    let inside = match letter.to_ascii_lowercase() {
        'd' => "0-9",
        'w' => "0-9A-Za-z_",
        's' => "\\t\\n\\x0c\\r ",
        'p' => return property(rest).map(Some),
        _ => return Ok(None),
    };
    Ok(Some(match letter.is_ascii_uppercase() {
        true => (all_but(inside), after),
        false => (inside.to_owned(), after),
    }))
}

/// `\p{Lu}` and the like, `rest` starting with the backslash.
fn property(rest: &str) -> Result<(String, &str), String> {
    let mut end = rest.char_indices().nth(3).map_or(rest.len(), |(end, _)| end);
    let mut name = rest.get(2..end).unwrap_or_default();
    if name == "{" {
        end = rest.find('}').map_or(rest.len(), |end| end + 1);
        name = rest[3..end].strip_suffix('}').unwrap_or("?");
    }
    let (name, is_other) = match name.strip_prefix('^') {
        Some(name) => (name, true),
        None => (name, false),
    };
    let inside = match name {
        "Any" => "\\x00-\\x{10ffff}",
        "L" | "Latin" => "A-Za-z",
        "Lu" => "A-Z",
        "Ll" => "a-z",
        "N" | "Nd" => "0-9",
        "P" => "!-#%-*,-/:;?@\\[-\\]_{}",
        "S" => "$+<->^`|~",
        "Z" | "Zs" => " ",
        _ => return Err(format!("invalid character class range: `{}`", &rest[..end])),
    };
    // `\P{^…}` is meant twice.
    let set = match is_other != rest.starts_with("\\P") {
        true => all_but(inside),
        false => inside.to_owned(),
    };
    Ok((set, &rest[end..]))
}

/// The inside of a class for all characters but those of `inside`.
fn all_but(inside: &str) -> String {
    format!("[^{inside}]")
}

/// The character that an escape stands for, `rest` starting with the backslash, and what follows it.
fn escaped(rest: &str) -> Result<(char, &str), String> {
    let mut characters = rest[1..].chars();
    let Some(head) = characters.next() else {
        return Err("trailing backslash at end of expression: ``".to_owned());
    };
    let after = characters.as_str();
    let invalid = |behind: &str| {
        Err(format!("invalid escape sequence: `{}`", &rest[..rest.len() - behind.len()]))
    };
    let is_octal = |text: &str| text.starts_with(|digit: char| digit.is_digit(8));
    let character = match head {
        'a' => '\x07',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        'x' => return hexadecimal(rest, after),
        '0'..='7' if head == '0' || is_octal(after) => {
            let digits = (1..=2).take_while(|&more| after.get(more - 1..).is_some_and(is_octal));
            let (digits, after) = rest[1..].split_at(1 + digits.count());
            let number = u32::from_str_radix(digits, 8).ok().and_then(char::from_u32);
            return number.map_or_else(|| invalid(after), |character| Ok((character, after)));
        }
        other if other.is_ascii() && !other.is_ascii_alphanumeric() => other,
        _ => return invalid(after),
    };
    Ok((character, after))
}

/// `\x41` or `\x{41}`, `after` being what stands behind the `x`.
fn hexadecimal<'p>(rest: &'p str, after: &'p str) -> Result<(char, &'p str), String> {
    let (digits, octets) = match after.strip_prefix('{') {
        Some(inside) => match inside.find(|digit: char| !digit.is_ascii_hexdigit()) {
            Some(end) => (&inside[..end], 1 + end + usize::from(inside[end..].starts_with('}'))),
            None => (inside, after.len()),
        },
        None => {
            let end = after.bytes().take(2).take_while(u8::is_ascii_hexdigit).count();
            (if end == 2 { &after[..2] } else { "" }, end)
        }
    };
    let is_closed = !after.starts_with('{') || after[..octets].ends_with('}');
    let number = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32);
    match number.filter(|_| is_closed) {
        Some(character) => Ok((character, &after[octets..])),
        None => {
            // Go names what it had read, the first character that does not fit included, also the digit
            // that makes the number too great.
            let is_too_great = |digits: &str| {
                u32::from_str_radix(digits, 16).map_or(true, |number| number > char::MAX.into())
            };
            let too_great = (1..=digits.len()).find(|&read| is_too_great(&digits[..read]));
            if let Some(read) = too_great {
                let end = rest.len() - after.len() + 1 + read;
                return Err(format!("invalid escape sequence: `{}`", &rest[..end]));
            }
            let wrong = after[octets..].chars().next().map_or(0, char::len_utf8);
            let end = rest.len() - after.len() + octets + if is_closed { 0 } else { wrong };
            Err(format!("invalid escape sequence: `{}`", &rest[..end.min(rest.len())]))
        }
    }
}

fn copy<'p>(rest: &'p str, octets: usize, out: &mut String) -> &'p str {
    out.push_str(&rest[..octets]);
    &rest[octets..]
}

/// One character that stands for itself, also in a class.
fn push(character: char, out: &mut String) {
    *out += &format!("\\x{{{:x}}}", u32::from(character));
}

/// The names that may stand as `[:alpha:]` in a class.
const NAMED: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
    "space", "upper", "word", "xdigit",
];

/// One class, `whole` starting with its bracket. All that it holds is written out, since `[`, `&&`,
/// `--` and `~~` are literal in Go and operators in the crate.
fn class<'p>(whole: &'p str, out: &mut String) -> Result<&'p str, String> {
    let unclosed = || format!("missing closing ]: `{whole}`");
    let mut rest = copy(whole, 1, out);
    if rest.starts_with('^') {
        rest = copy(rest, 1, out);
    }
    let mut is_first = true;
    loop {
        if rest.is_empty() {
            return Err(unclosed());
        }
        if rest.starts_with(']') && !is_first {
            return Ok(copy(rest, 1, out));
        }
        is_first = false;
        if rest.starts_with("[:")
            && let Some(end) = rest.find(":]")
        {
            let name = rest.get(2..end).unwrap_or_default();
            if !NAMED.contains(&name.strip_prefix('^').unwrap_or(name)) {
                return Err(format!("invalid character class range: `{}`", &rest[..end + 2]));
            }
            rest = copy(rest, end + 2, out);
            continue;
        }
        if let Some((set, after)) = set(rest)? {
            *out += &set;
            rest = after;
            continue;
        }
        let range = rest;
        let (low, after) = one(rest).ok_or_else(unclosed)??;
        rest = after;
        push(low, out);
        if rest.len() >= 2 && rest.starts_with('-') && !rest[1..].starts_with(']') {
            let (high, after) = one(&rest[1..]).ok_or_else(unclosed)??;
            rest = after;
            if high < low {
                let range = &range[..range.len() - rest.len()];
                return Err(format!("invalid character class range: `{range}`"));
            }
            out.push('-');
            push(high, out);
        }
    }
}

/// One character of a class and what follows it; `None` at the end of the text.
fn one(rest: &str) -> Option<Result<(char, &str), String>> {
    let mut characters = rest.chars();
    match characters.next()? {
        '\\' => Some(escaped(rest)),
        other => Some(Ok((other, characters.as_str()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_ascii_as_in_go() {
        assert!(compile(r"^\d+$").unwrap().is_match("42"));
        assert!(!compile(r"^\d+$").unwrap().is_match("٤٢"));
        assert!(!compile(r"^\w+$").unwrap().is_match("é"));
        assert!(compile(r"^[\w.-]+$").unwrap().is_match("a-b.c"));
        assert!(compile(r"^[^\s]+$").unwrap().is_match("é"));
        assert!(compile(r"\bfoo\b").unwrap().is_match("a foo b"));
    }

    #[test]
    fn what_is_literal_in_go_is_literal_here() {
        for (pattern, text) in [
            ("a{,5}", "a{,5}"),
            ("{x}", "{x}"),
            (r"\Qa.b\E+", "a.bb"),
            ("[[]", "["),
            ("[a&&b]", "&"),
            ("[]a]", "]"),
            ("[-a]", "-"),
            (r"\<a\>", "<a>"),
            (r"a\_b", "a_b"),
            ("[[:alpha:]]", "x"),
            ("(?i)FOO", "foo"),
            ("(?P<name>a)", "a"),
            ("^(?:ab){2}?c+?$", "ababcc"),
            (r"^a\*+$", "a**"),
            ("^[*]+$", "**"),
            (r"^\123\x41\x{42}$", "SAB"),
            (r"^\p{Lu}\pL\P{N}$", "Abc"),
            (r"^[\d-a]+$", "1-a"),
            ("^[!--]+$", "+-"),
            ("(?ii)(?i-i:A)B", "Ab"),
            ("(?)a", "a"),
            (r"^[\x41-C\]]+$", "B]"),
        ] {
            assert!(compile(pattern).unwrap().is_match(text), "{pattern} {text}");
        }
    }

    #[test]
    fn errors_are_gos() {
        for (pattern, text) in [
            ("(", "missing closing ): `(`"),
            ("a)", "unexpected ): `a)`"),
            ("[a", "missing closing ]: `[a`"),
            ("*", "missing argument to repetition operator: `*`"),
            ("a\\", "trailing backslash at end of expression: ``"),
            ("\\y", "invalid escape sequence: `\\y`"),
            ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
            ("a**", "invalid nested repetition operator: `**`"),
            ("xa{2}?+b", "invalid nested repetition operator: `{2}?+`"),
            ("a{3,2}", "invalid repeat count: `{3,2}`"),
            ("a{1001,}", "invalid repeat count: `{1001,}`"),
            ("a*|{2}", "missing argument to repetition operator: `{2}`"),
            ("(+?)", "missing argument to repetition operator: `+?`"),
            ("[b-a]", "invalid character class range: `b-a`"),
            ("[a--b]", "invalid character class range: `a--`"),
            ("[a-\\d]", "invalid escape sequence: `\\d`"),
            ("[[:foo:]]", "invalid character class range: `[:foo:]`"),
            ("\\p{Foo}", "invalid character class range: `\\p{Foo}`"),
            ("(?<=a)", "invalid named capture: `(?<=a)`"),
            ("(?P<a-b>x)", "invalid named capture: `(?P<a-b>`"),
            ("(?x)a", "invalid or unsupported Perl syntax: `(?x`"),
            ("(?i-)a", "invalid or unsupported Perl syntax: `(?i-)`"),
            ("(?", "invalid or unsupported Perl syntax: `(?`"),
            ("\\1", "invalid escape sequence: `\\1`"),
            ("\\x4", "invalid escape sequence: `\\x4`"),
            ("\\x{1100001}", "invalid escape sequence: `\\x{110000`"),
        ] {
            assert_eq!(compile(pattern).unwrap_err(), format!("error parsing regexp: {text}"));
        }
        let long = "a".repeat(MOST_PATTERN + 1);
        assert_eq!(compile(&long).unwrap_err(), "regex pattern too long: 10001 > 10000");
    }
}
