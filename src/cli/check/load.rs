//! A Corefile through the loading code, mistake after mistake, with what each means.
//!
//! Owns which mistakes belong together. Whether something is a mistake is the parser's and the
//! directives' to say.

use super::braces::{Unclosed, closed, unclosed};
use super::finding::{Finding, Severity};
use super::hints;
use super::watched::Watched;
use crate::corefile::{CorefileError, Surroundings, Token, Tree, parse, parse_tokens, tokens};
use crate::engine::{Inspection, Mistake, MistakeKind, World, build, inspect};
use crate::metrics::Registry;
use crate::plugin::{Carried, SilentJournal, is_known};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::Arc;

/// How many missing braces are put in to see what is behind them.
const MOST_BRACES: usize = 16;

/// A Corefile as far as it could be loaded.
pub(super) struct Loaded {
    /// The tokens of the file itself, imports and variables as written.
    pub(super) written: Vec<Token>,
    /// What is right of it.
    pub(super) tree: Tree,
    /// What it comes to.
    pub(super) inspection: Inspection,
    /// What is wrong.
    pub(super) findings: Vec<Finding>,
}

/// Whether the machine that checks is the one that will serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// It is: what is missing here is missing.
    Ours,
    /// It is not: files and interfaces of the node may not be here.
    Anothers,
}

/// Loads it. `file` is what its tokens are called by, and where its imports start from.
pub(super) fn load(
    text: &str,
    file: &Arc<str>,
    default_port: u16,
    whose: Whose,
    surroundings: &Watched<'_>,
) -> Loaded {
    let written = tokens(text.as_bytes(), file);
    let mut findings = Vec::new();
    let verdict = verdict(text, file, default_port, surroundings);
    let quote = unclosed_quote(text, &written);
    let (tree, mistakes) = match &verdict {
        // The quote has the braces in it.
        _ if quote.is_some() => parse_tokens(written.clone(), &is_known, surroundings),
        Ok(()) => as_it_is(&written, surroundings, &mut findings),
        Err(_) => with_braces(&written, surroundings, &mut findings),
    };
    for error in mistakes {
        let (code, hint) = hints::of_reading(&error, &written);
        findings.push(Finding::error(code, error, hint));
    }
    for warning in &tree.warnings {
        findings.push(said_at_start(&CorefileError::unplaced(warning), &written));
    }
    let inspection = inspected(&tree, default_port, surroundings);
    for Mistake { error, kind } in &inspection.mistakes {
        let (code, hint) = match kind {
            MistakeKind::Key => ("server-key", hints::of_key(error)),
            MistakeKind::LeftOut(instead) => ("left-out-directive", (*instead).to_owned()),
            MistakeKind::Directive => {
                let judge = |tree: &Tree| inspected(tree, default_port, surroundings).mistakes;
                ("directive", hints::of_directive(error, &tree, &judge))
            }
            MistakeKind::Listener => ("listener", hints::of_listener(error, &inspection.blocks)),
        };
        findings.push(Finding::error(code, error.clone(), hint));
    }
    for remark in &inspection.remarks {
        findings.push(said_at_start(remark, &written));
    }
    if let Some(token) = quote {
        findings.retain(|one| one.place.as_ref() != Some(&token.place()) && one.code != "syntax");
        let severity = if verdict.is_ok() { Severity::Warning } else { Severity::Error };
        findings.push(Finding {
            severity,
            ..Finding::warning(
                "unclosed-quote",
                token,
                "this quote is not closed: all that follows is in it",
                "add the `\"` that ends it",
            )
        });
    }
    // Whatever was put in to see more: it is wrong when, and only when, nodens does not take it.
    if let Err(error) = verdict
        && !findings.iter().any(|one| one.severity == Severity::Error)
    {
        findings.push(Finding::error("directive", error, hints::SEE));
    }
    tell_what_is_missing(&mut findings, whose, surroundings);
    Loaded { written, tree, inspection, findings }
}

/// Tells mistakes apart that only are some because something is not on this machine.
fn tell_what_is_missing(findings: &mut [Finding], whose: Whose, surroundings: &Watched<'_>) {
    for finding in findings {
        let is_missing = surroundings.is_about_what_is_missing(&finding.message);
        if finding.severity != Severity::Error || !is_missing || finding.code == "import" {
            continue;
        }
        finding.code = "not-on-this-machine";
        match whose {
            Whose::Ours => {
                finding.hint +=
                    "; when the Corefile is for another machine, check it with --elsewhere";
            }
            Whose::Anothers => {
                finding.severity = Severity::Warning;
                finding.hint = "nodens does not start where it is not".to_owned();
            }
        }
    }
}

/// The last token, when it is a quote without end.
fn unclosed_quote<'t>(text: &str, written: &'t [Token]) -> Option<&'t Token> {
    let last = written.last()?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = usize::try_from(last.line.checked_sub(1)?).ok()?;
    let start: usize = text.split_inclusive('\n').take(lines).map(str::len).sum();
    let column = usize::try_from(last.column.checked_sub(1)?).ok()?;
    let mut rest = text[start..].chars().skip(column);
    let is_quoted = rest.next() == Some('"');
    // A quote that ends has its last letter in it; what was read stands for the rest.
    let is_whole = rest.clone().count() + 1 == usize::try_from(last.length).ok()?;
    let mut is_escaped = false;
    let is_closed = rest.any(|letter| {
        let closes = letter == '"' && !is_escaped;
        is_escaped = letter == '\\' && !is_escaped;
        closes
    });
    (is_quoted && is_whole && !is_closed).then_some(last)
}

/// The tree of a Corefile that loads, whatever its braces.
fn as_it_is(
    written: &[Token],
    surroundings: &dyn Surroundings,
    findings: &mut Vec<Finding>,
) -> (Tree, Vec<CorefileError>) {
    findings.extend(unclosed(written).map(|found| missing_brace(&[], written, &found)));
    parse_tokens(written.to_vec(), &is_known, surroundings)
}

/// The tree, and the mistakes that no missing braces make: those are put in, and become findings.
fn with_braces(
    written: &[Token],
    surroundings: &dyn Surroundings,
    findings: &mut Vec<Finding>,
) -> (Tree, Vec<CorefileError>) {
    let mut tokens = written.to_vec();
    let (mut tree, mut mistakes) = parse_tokens(tokens.clone(), &is_known, surroundings);
    while let Some(found) = unclosed(&tokens).filter(|_| findings.len() < MOST_BRACES) {
        let brace = missing_brace(&mistakes, &tokens, &found);
        findings.push(Finding { severity: Severity::Error, ..brace });
        tokens = closed(&tokens, &found);
        (tree, mistakes) = parse_tokens(tokens.clone(), &is_known, surroundings);
    }
    (tree, mistakes)
}

fn missing_brace(mistakes: &[CorefileError], tokens: &[Token], found: &Unclosed) -> Finding {
    let missing = match tokens.get(found.before) {
        Some(next) => format!("is a `}}` missing before line {}?", next.line),
        None => "is a `}` missing at the end?".to_owned(),
    };
    let stumbles = mistakes.iter().find_map(|error| {
        let line = error.place.as_ref().filter(|place| !place.file.is_empty())?.line;
        Some(format!(" Loading stumbles at line {line}: {}", error.message))
    });
    let message = "this brace is not closed where its block ends";
    let hint = missing + &stumbles.unwrap_or_default();
    Finding::warning("missing-brace", &tokens[found.open], message, hint)
}

/// Whether nodens starts with it, as far as the Corefile is concerned; else why not.
fn verdict(
    text: &str,
    file: &str,
    default_port: u16,
    surroundings: &dyn Surroundings,
) -> Result<(), CorefileError> {
    let tree = parse(text.as_bytes(), file, &is_known, surroundings)?;
    build(&tree, world(surroundings, default_port, &Registry::new(1), &mut numbers()))?;
    Ok(())
}

/// All that the directives say.
fn inspected(tree: &Tree, default_port: u16, surroundings: &dyn Surroundings) -> Inspection {
    inspect(tree, world(surroundings, default_port, &Registry::new(1), &mut numbers()))
}

/// Nothing that is made here is used: any numbers do.
fn numbers() -> StdRng {
    StdRng::seed_from_u64(0)
}

fn world<'w>(
    surroundings: &'w dyn Surroundings,
    default_port: u16,
    metrics: &'w Registry,
    random: &'w mut StdRng,
) -> World<'w> {
    let carried = Carried::default();
    World { surroundings, metrics, journal: &SilentJournal, random, default_port, carried }
}

/// What loading says and goes on.
fn said_at_start(remark: &CorefileError, written: &[Token]) -> Finding {
    let named = |token: &&Token| remark.message.ends_with(&token.text) && !token.text.is_empty();
    let place = remark.place.clone().or_else(|| written.iter().find(named).map(Token::place));
    Finding {
        severity: Severity::Warning,
        code: "said-at-start",
        place,
        message: remark.message.clone(),
        hint: "nodens says this when it loads the Corefile, and starts all the same".to_owned(),
    }
}
