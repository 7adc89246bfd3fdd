//! Names as text: how rules recognise them and what they make of them.
//!
//! Owns matching and replacement on lower-case presentation text with the final dot. Never sees a
//! message.

use crate::plugin::pattern;
use regex::Regex;
use std::sync::Arc;

/// How many groups a replacement may name: `{0}` to `{100}`.
const MOST_GROUPS: usize = 100;

/// CoreDNS's normal form of a name in a rule: lower case, with the final dot.
pub(super) fn normalise(text: &str) -> String {
    let mut text = text.to_lowercase();
    if !text.ends_with('.') || text.ends_with("\\.") {
        text.push('.');
    }
    text
}

/// The words for ways to match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MatchKind {
    /// The whole name.
    Exact,
    /// Its beginning.
    Prefix,
    /// Its end.
    Suffix,
    /// Any part.
    Substring,
    /// A regular expression, anchored only where it says so.
    Regex,
}

impl MatchKind {
    /// Reads the word; its case does not matter.
    pub(super) fn from_word(word: &str) -> Option<MatchKind> {
        Some(match word.to_lowercase().as_str() {
            "exact" => MatchKind::Exact,
            "prefix" => MatchKind::Prefix,
            "suffix" => MatchKind::Suffix,
            "substring" => MatchKind::Substring,
            "regex" => MatchKind::Regex,
            _ => return None,
        })
    }
}

/// What a rule looks for in a name.
#[derive(Debug, Clone)]
pub(super) enum Matcher {
    /// The whole name.
    Exact(String),
    /// Its beginning.
    Prefix(String),
    /// Its end.
    Suffix(String),
    /// Any part.
    Substring(String),
    /// A regular expression.
    Regex(Regex),
}

impl Matcher {
    /// The matcher of `kind` for the text of a rule: normalised unless it is a regular expression.
    /// The error is the pattern that does not compile.
    pub(super) fn new(kind: MatchKind, text: &str) -> Result<Matcher, String> {
        Ok(match kind {
            MatchKind::Exact => Matcher::Exact(normalise(text)),
            MatchKind::Prefix => Matcher::Prefix(normalise(text)),
            MatchKind::Suffix => Matcher::Suffix(normalise(text)),
            MatchKind::Substring => Matcher::Substring(normalise(text)),
            MatchKind::Regex => {
                Matcher::Regex(pattern::compile(text).map_err(|_| text.to_owned())?)
            }
        })
    }

    /// Whether a name has it.
    pub(super) fn matches(&self, name: &str) -> bool {
        match self {
            Matcher::Exact(text) => name == text,
            Matcher::Prefix(text) => name.starts_with(text.as_str()),
            Matcher::Suffix(text) => name.ends_with(text.as_str()),
            Matcher::Substring(text) => name.contains(text.as_str()),
            Matcher::Regex(pattern) => pattern.is_match(name),
        }
    }

    /// The name with what was found replaced by `replacement`, or `None` when it is not there.
    pub(super) fn replace(&self, name: &str, replacement: &str) -> Option<String> {
        match self {
            Matcher::Exact(text) => (name == text).then(|| replacement.to_owned()),
            Matcher::Prefix(text) => {
                name.strip_prefix(text.as_str()).map(|rest| format!("{replacement}{rest}"))
            }
            Matcher::Suffix(text) => {
                name.strip_suffix(text.as_str()).map(|rest| format!("{rest}{replacement}"))
            }
            Matcher::Substring(text) => {
                name.contains(text.as_str()).then(|| name.replace(text.as_str(), replacement))
            }
            Matcher::Regex(pattern) => substitute(pattern, name, replacement),
        }
    }
}

/// The replacement with `{0}`, `{1}` … filled from the groups of the match, or `None` without one.
pub(super) fn substitute(pattern: &Regex, text: &str, replacement: &str) -> Option<String> {
    let groups = pattern.captures(text)?;
    let mut out = replacement.to_owned();
    for (number, group) in groups.iter().enumerate().take(MOST_GROUPS + 1) {
        let place = format!("{{{number}}}");
        if out.contains(&place) {
            out = out.replace(&place, group.map_or("", |found| found.as_str()));
        }
    }
    Some(out)
}

/// Compiles the pattern of a rule and checks that its replacement names no more groups than there
/// are. `{0}` counts as one, as in CoreDNS.
pub(super) fn checked_pattern(from: &str, to: &str) -> Result<Regex, String> {
    let pattern =
        pattern::compile(from).map_err(|_| format!("invalid regex matching pattern: {from}"))?;
    let used = (0..=MOST_GROUPS).filter(|number| to.contains(&format!("{{{number}}}"))).count();
    // The crate counts the whole match as a group.
    if used > pattern.captures_len() - 1 {
        return Err(format!(
            "the rewrite regex pattern ({to}) uses more subexpressions than its corresponding \
             matching regex pattern ({from})"
        ));
    }
    Ok(pattern)
}

/// Makes one name of another on the way up.
#[derive(Debug, Clone)]
pub(super) enum TextRewriter {
    /// By a regular expression.
    Regex(Regex, Arc<str>),
    /// One name, and all below it, to another.
    Remap(String, String),
    /// The end of a name.
    Suffix(Arc<str>, Arc<str>),
}

impl TextRewriter {
    /// The new text, or `None` when it stays.
    pub(super) fn rewrite(&self, text: &str) -> Option<String> {
        let new = match self {
            TextRewriter::Regex(pattern, replacement) => substitute(pattern, text, replacement)?,
            TextRewriter::Remap(from, to) => {
                let rest = text.strip_suffix(from.as_str())?;
                if !rest.is_empty() && !rest.ends_with('.') {
                    return None;
                }
                format!("{rest}{to}")
            }
            TextRewriter::Suffix(from, to) => {
                format!("{}{to}", text.strip_suffix(from.as_ref())?)
            }
        };
        (new != text).then_some(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_and_substrings_end_at_label_boundaries() {
        let prefix = Matcher::new(MatchKind::Prefix, "a").unwrap();
        assert_eq!(prefix.replace("a.test.", "b."), Some("b.test.".to_owned()));
        assert_eq!(prefix.replace("ab.test.", "b."), None);
        let substring = Matcher::new(MatchKind::Substring, "mid").unwrap();
        assert!(!substring.matches("xmidy.test."));
        assert!(substring.matches("xmid.test."));
    }

    #[test]
    fn groups_fill_the_replacement() {
        let pattern = checked_pattern(r"(.*)-(us)\.test\.", "{1}.{2}.x.").unwrap();
        assert_eq!(substitute(&pattern, "a-us.test.", "{1}.{2}.x."), Some("a.us.x.".to_owned()));
        assert_eq!(
            checked_pattern("a", "{1}").unwrap_err(),
            "the rewrite regex pattern ({1}) uses more subexpressions than its corresponding \
             matching regex pattern (a)"
        );
        assert_eq!(checked_pattern("(", "b").unwrap_err(), "invalid regex matching pattern: (");
    }

    #[test]
    fn a_remap_takes_names_below_along() {
        let rewriter = TextRewriter::Remap("b.test.".to_owned(), "a.test.".to_owned());
        for (text, new) in [
            ("b.test.", Some("a.test.")),
            ("x.b.test.", Some("x.a.test.")),
            ("xb.test.", None),
            ("c.test.", None),
        ] {
            assert_eq!(rewriter.rewrite(text).as_deref(), new, "{text}");
        }
    }
}
