//! `rewrite name …` with its answer rules.
//!
//! Owns the syntax of name rules and the reversals that they order.

use super::revert::Reversal;
use super::text::{MatchKind, Matcher, TextRewriter, checked_pattern, normalise};

/// Changes the question's name.
#[derive(Debug)]
pub(super) struct NameRule {
    matcher: Matcher,
    replacement: String,
    /// The new name, and what is below it, becomes the old one in the response.
    reverts: bool,
    /// The reversals that do not depend on the query.
    fixed: Vec<Reversal>,
}

/// What `answer …` said.
#[derive(Default)]
struct AnswerRules {
    auto: bool,
    rules: Vec<Reversal>,
}

impl NameRule {
    /// Reads the words behind `name`.
    pub(super) fn parse(arguments: &[&str]) -> Result<NameRule, String> {
        let (word, from, to, rest) = match *arguments {
            [] | [_] => return Err("too few arguments for a name rule".to_owned()),
            [from, to] => ("exact".to_owned(), from, to, &[][..]),
            [word, from, to, ref rest @ ..] => (word.to_lowercase(), from, to, rest),
        };
        let answers = match rest {
            [] => AnswerRules::default(),
            rest => AnswerRules::parse(&word, rest)?,
        };
        let Some(kind) = MatchKind::from_word(&word) else {
            return Err(format!(
                "name rule supports only exact, prefix, suffix, substring, and regex name \
                 matching, received: {word}"
            ));
        };
        let mut rule = NameRule {
            matcher: match kind {
                MatchKind::Regex => Matcher::Regex(checked_pattern(from, to)?),
                kind => Matcher::new(kind, from)?,
            },
            replacement: normalise(to),
            reverts: answers.auto,
            fixed: answers.rules,
        };
        match kind {
            MatchKind::Exact => {
                // CoreDNS would look for the new name as if it were a pattern.
                checked_pattern(&rule.replacement, &normalise(from))?;
                rule.reverts = true;
            }
            MatchKind::Suffix if answers.auto => {
                let (from, to) = (normalise(from).into(), rule.replacement.as_str().into());
                let rewriter = TextRewriter::Suffix(to, from);
                let both = [Reversal::Name(rewriter.clone()), Reversal::Value(rewriter)];
                rule.fixed.splice(0..0, both);
                rule.reverts = false;
            }
            _ => {}
        }
        Ok(rule)
    }

    /// The new name for `name`, with the reversals for the response, or `None` when the rule does
    /// not match.
    pub(super) fn apply(&self, name: &str) -> Option<(String, Vec<Reversal>)> {
        let new = self.matcher.replace(name, &self.replacement)?;
        let mut reversals = Vec::with_capacity(self.fixed.len() + 2);
        if self.reverts {
            let rewriter = TextRewriter::Remap(new.clone(), name.to_owned());
            reversals.push(Reversal::Name(rewriter.clone()));
            reversals.push(Reversal::Value(rewriter));
        }
        reversals.extend(self.fixed.iter().cloned());
        Some((new, reversals))
    }
}

impl AnswerRules {
    /// Reads `[answer] auto | name FROM TO | value FROM TO`, any number of them; `rule` is the
    /// kind of the name rule, for errors.
    fn parse(rule: &str, arguments: &[&str]) -> Result<AnswerRules, String> {
        if arguments.len() < 2 {
            return Err(format!("invalid arguments for {rule} rule"));
        }
        let mut answers = AnswerRules::default();
        let mut has_name_rule = false;
        let mut rest = arguments.iter().copied().peekable();
        if rest.peek() != Some(&"answer") {
            return Err(format!(
                "exceeded the number of arguments for a non-answer rule argument for {rule} rule"
            ));
        }
        while rest.peek().is_some() {
            rest.next_if_eq(&"answer");
            let Some(kind) = rest.next() else {
                return Err(format!("type missing for answer rule for {rule} rule"));
            };
            match kind {
                "auto" => answers.auto = true,
                "name" | "value" => {
                    let (Some(from), Some(to)) = (rest.next(), rest.next()) else {
                        return Err(format!(
                            "{kind} answer rule for {rule} rule: 2 arguments required"
                        ));
                    };
                    let pattern = checked_pattern(from, to)
                        .map_err(|error| format!("{kind} answer rule for {rule} rule: {error}"))?;
                    let rewriter = TextRewriter::Regex(pattern, normalise(to).into());
                    has_name_rule |= kind == "name";
                    answers.rules.push(match kind {
                        "name" => Reversal::Name(rewriter),
                        _ => Reversal::Value(rewriter),
                    });
                }
                other => {
                    return Err(format!("invalid type {other:?} for answer rule for {rule} rule"));
                }
            }
        }
        if answers.auto && has_name_rule {
            return Err("auto name answer rule cannot be combined with explicit name anwer rules"
                .to_owned());
        }
        Ok(answers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<NameRule, String> {
        NameRule::parse(&text.split_whitespace().collect::<Vec<_>>())
    }

    #[test]
    fn mistakes_are_told_in_corednss_words() {
        for (text, error) in [
            ("a", "too few arguments for a name rule"),
            (
                "foo a b",
                "name rule supports only exact, prefix, suffix, substring, and regex name \
                 matching, received: foo",
            ),
            ("regex ( b", "invalid regex matching pattern: ("),
            (
                "regex a {1}",
                "the rewrite regex pattern ({1}) uses more subexpressions than its corresponding \
                 matching regex pattern (a)",
            ),
            ("regex a b answer", "invalid arguments for regex rule"),
            ("regex a b answer name c", "name answer rule for regex rule: 2 arguments required"),
            (
                "regex a b answer name ( c",
                "name answer rule for regex rule: invalid regex matching pattern: (",
            ),
            (
                "regex a b answer auto answer name a b",
                "auto name answer rule cannot be combined with explicit name anwer rules",
            ),
            (
                "exact a b c d",
                "exceeded the number of arguments for a non-answer rule argument for exact rule",
            ),
            ("regex a b answer x", "invalid type \"x\" for answer rule for regex rule"),
            ("regex a b answer auto answer", "type missing for answer rule for regex rule"),
        ] {
            assert_eq!(parse(text).unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn rules_rewrite_names() {
        for (text, name, new) in [
            ("a.test b.test", "a.test.", Some("b.test.")),
            ("a.test b.test", "x.a.test.", None),
            ("exact A.test. b.test.", "a.test.", Some("b.test.")),
            ("prefix old new", "old.x.", Some("new.x.")),
            ("prefix old- new-", "old-x.test.", None),
            ("suffix .from.test .to.test", "a.from.test.", Some("a.to.test.")),
            ("substring mid middle", "xmid.test.", Some("xmiddle.test.")),
            (r"regex ^(.*)\.a\.test\.$ {1}.b.test", "x.a.test.", Some("x.b.test.")),
        ] {
            let applied = parse(text).unwrap().apply(name);
            assert_eq!(applied.map(|(new, _)| new).as_deref(), new, "{text} {name}");
        }
    }
}
