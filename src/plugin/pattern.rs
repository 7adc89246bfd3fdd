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

/// Go's reason for the crate's: the crate gives its reasons as text only.
fn go_reason(pattern: &str, error: &regex::Error) -> String {
    let text = error.to_string();
    let has = |part: &str| text.contains(part);
    let operator = || pattern.chars().find(|c| "*+?{".contains(*c)).unwrap_or('*');
    if has("unclosed group") {
        format!("missing closing ): `{pattern}`")
    } else if has("unopened group") {
        format!("unexpected ): `{pattern}`")
    } else if has("repetition operator missing expression") {
        format!("missing argument to repetition operator: `{}`", operator())
    } else if has("look-around") || has("flag") || has("group name") {
        let at = pattern.find("(?").unwrap_or(0);
        let end = pattern[at..].char_indices().nth(3).map_or(pattern.len(), |(end, _)| at + end);
        format!("invalid or unsupported Perl syntax: `{}`", &pattern[at..end])
    } else if has("invalid character class range") {
        "invalid character class range".to_owned()
    } else if has("repetition quantifier") || has("repetition range") || has("size limit") {
        "invalid repeat count".to_owned()
    } else {
        format!("invalid pattern: `{pattern}`")
    }
}

/// Go's syntax to the crate's.
fn translate(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    // What begins with the operator that stands just before `rest`.
    let mut operator: Option<&str> = None;
    while let Some(head) = rest.chars().next() {
        if let Some(octets) = repetition(rest)? {
            if let Some(before) = operator {
                let both = &before[..before.len() - rest.len() + octets];
                return Err(format!("invalid nested repetition operator: `{both}`"));
            }
            operator = Some(rest);
            rest = copy(rest, octets, &mut out);
            continue;
        }
        operator = None;
        match head {
            '(' if rest.starts_with("(?") => rest = copy(rest, 2, &mut out),
            '\\' => rest = escape(rest, &mut out, false)?,
            '[' => rest = class(rest, &mut out)?,
            '{' => {
                out.push_str("\\{");
                rest = &rest[1..];
            }
            other => {
                out.push(other);
                rest = &rest[other.len_utf8()..];
            }
        }
    }
    Ok(out)
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

/// One escape, `rest` starting with the backslash; gives what follows it.
fn escape<'p>(rest: &'p str, out: &mut String, in_class: bool) -> Result<&'p str, String> {
    let Some(head) = rest[1..].chars().next() else {
        return Err("trailing backslash at end of expression: ``".to_owned());
    };
    let after = &rest[1 + head.len_utf8()..];
    let plain = match head {
        // The crate's classes are Unicode's, Go's are ASCII's.
        'd' => "[0-9]",
        'D' => "[^0-9]",
        'w' => "[0-9A-Za-z_]",
        'W' => "[^0-9A-Za-z_]",
        's' => "[\\t\\n\\x0c\\r ]",
        'S' => "[^\\t\\n\\x0c\\r ]",
        'b' if !in_class => "(?-u:\\b)",
        // Not `(?-u:\B)`: that may match between the octets of a character, which the crate
        // refuses for text.
        'B' if !in_class => "\\B",
        'A' | 'z' if !in_class => return Ok(copy(rest, 2, out)),
        'a' | 'f' | 'n' | 'r' | 't' | 'v' | 'x' | 'p' | 'P' => return Ok(copy(rest, 2, out)),
        'Q' if !in_class => {
            let (literal, after) = after.split_once("\\E").unwrap_or((after, ""));
            out.push_str(&regex::escape(literal));
            return Ok(after);
        }
        '<' | '>' => {
            out.push(head);
            return Ok(after);
        }
        other if other.is_ascii() && !other.is_ascii_alphanumeric() => {
            return Ok(copy(rest, 2, out));
        }
        other => return Err(format!("invalid escape sequence: `\\{other}`")),
    };
    out.push_str(plain);
    Ok(after)
}

fn copy<'p>(rest: &'p str, octets: usize, out: &mut String) -> &'p str {
    out.push_str(&rest[..octets]);
    &rest[octets..]
}

/// One class, `rest` starting with its bracket. Inside, `[`, `&&`, `--` and `~~` are literal in
/// Go and operators in the crate.
fn class<'p>(whole: &'p str, out: &mut String) -> Result<&'p str, String> {
    let mut rest = copy(whole, 1, out);
    if rest.starts_with('^') {
        rest = copy(rest, 1, out);
    }
    let mut is_first = true;
    while let Some(head) = rest.chars().next() {
        match head {
            ']' if !is_first => return Ok(copy(rest, 1, out)),
            '\\' => rest = escape(rest, out, true)?,
            '[' if rest.starts_with("[:") && rest.contains(":]") => {
                let end = rest.find(":]").map_or(rest.len(), |at| at + 2);
                rest = copy(rest, end, out);
            }
            '[' | '&' | '~' | ']' => {
                out.push('\\');
                rest = copy(rest, 1, out);
            }
            '-' if is_first => {
                out.push_str("\\-");
                rest = &rest[1..];
            }
            '-' if rest.starts_with("--") => {
                out.push_str("-\\-");
                rest = &rest[2..];
            }
            other => rest = copy(rest, other.len_utf8(), out),
        }
        is_first = false;
    }
    Err(format!("missing closing ]: `{whole}`"))
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
        ] {
            assert_eq!(compile(pattern).unwrap_err(), format!("error parsing regexp: {text}"));
        }
        let long = "a".repeat(MOST_PATTERN + 1);
        assert_eq!(compile(&long).unwrap_err(), "regex pattern too long: 10001 > 10000");
    }
}
