//! How findings are shown: to people, with the line and the words underlined, or as JSON.

use super::finding::{Finding, Severity};
use crate::corefile::Place;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// The texts that places are in, by the names of their files.
pub(super) type Texts = BTreeMap<Arc<str>, String>;

/// For people; `name` is what the checked file is called.
pub(super) fn as_text(
    findings: &[Finding],
    texts: &Texts,
    name: &str,
    renderer: &Renderer,
) -> String {
    let mut shown: String =
        findings.iter().map(|one| one_as_text(one, texts, name, renderer) + "\n\n").collect();
    shown += &summary(findings, name);
    shown.push('\n');
    shown
}

fn one_as_text(finding: &Finding, texts: &Texts, name: &str, renderer: &Renderer) -> String {
    let level = match finding.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    };
    let title = level.primary_title(one_line(finding.message.trim_end())).id(finding.code);
    let help = Level::HELP.message(one_line(&finding.hint));
    let place = finding.place.as_ref();
    let shown = place.and_then(|place| Some((place, excerpt(texts.get(&place.file)?, place)?)));
    match shown {
        Some((place, (line, span))) => {
            let snippet = Snippet::source(line)
                .line_start(usize::try_from(place.line).unwrap_or(usize::MAX))
                .path(one_line(&place.file))
                .annotation(AnnotationKind::Primary.span(span));
            renderer.render(&[title.element(snippet).element(help)])
        }
        None => {
            let file = place.map_or(name, |place| &place.file);
            let origin = Origin::path(one_line(file));
            let origin = match place {
                Some(Place { line, column, .. }) => {
                    origin.line(*line as usize).char_column(*column as usize)
                }
                None => origin,
            };
            renderer.render(&[Group::with_title(title).element(origin).element(help)])
        }
    }
}

/// A message is a line of its own, whatever was in the word that it quotes.
fn one_line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// The longest line that is shown, in octets.
const LONGEST_LINE: usize = 4096;

/// The line of a place, and the octets of the place within it. `None` when there is no such line, or
/// when it is too long to be read.
fn excerpt<'t>(text: &'t str, place: &Place) -> Option<(&'t str, Range<usize>)> {
    let index = usize::try_from(place.line.checked_sub(1)?).ok()?;
    let line = text.strip_prefix('\u{feff}').unwrap_or(text).split('\n').nth(index)?;
    let line = line.strip_suffix('\r').unwrap_or(line);
    let at = |column: u32| {
        let column = usize::try_from(column).unwrap_or(usize::MAX);
        line.char_indices().nth(column).map_or(line.len(), |(octet, _)| octet)
    };
    let start = place.column.saturating_sub(1);
    let span = at(start)..at(start.saturating_add(place.length));
    (line.len() <= LONGEST_LINE).then_some((line, span))
}

/// From so many errors on there may be more: loading code that goes on after mistakes has its bounds.
const MANY: usize = 100;

/// `NAME: 1 error, 2 warnings`.
fn summary(findings: &[Finding], name: &str) -> String {
    let count = |severity| findings.iter().filter(|one| one.severity == severity).count();
    let counted = |severity: Severity| match count(severity) {
        1 => format!("1 {}", severity.word()),
        many => format!("{many} {}s", severity.word()),
    };
    let mut text =
        format!("{}: {}, {}", one_line(name), counted(Severity::Error), counted(Severity::Warning));
    if count(Severity::Note) > 0 {
        text += &format!(", {}", counted(Severity::Note));
    }
    if count(Severity::Error) >= MANY {
        text += " and perhaps more: the search ended there";
    }
    text
}

/// For programs.
pub(super) fn as_json(findings: &[Finding], name: &str) -> Value {
    let one = |finding: &Finding| {
        let place = finding.place.as_ref();
        json!({
            "file": place.map_or(name, |place| &place.file),
            "line": place.map(|place| place.line),
            "column": place.map(|place| place.column),
            "length": place.map(|place| place.length),
            "severity": finding.severity.word(),
            "code": finding.code,
            "message": finding.message,
            "hint": finding.hint,
        })
    };
    let count = |severity| findings.iter().filter(|one| one.severity == severity).count();
    json!({
        "file": name,
        "errors": count(Severity::Error),
        "warnings": count(Severity::Warning),
        "notes": count(Severity::Note),
        "findings": findings.iter().map(one).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(line: u32, column: u32, length: u32) -> Place {
        Place { file: "C".into(), line, column, length }
    }

    #[test]
    fn a_place_is_its_octets_and_never_leaves_its_line() {
        let text = "\u{feff}ä bc\r\n\tde\n";
        let cut = |place: Place| {
            let (line, span) = excerpt(text, &place).unwrap();
            &line[span]
        };
        assert_eq!(cut(place(1, 3, 2)), "bc");
        assert_eq!(cut(place(2, 2, 2)), "de");
        assert_eq!(cut(place(2, 2, 99)), "de");
        assert_eq!(cut(place(1, 99, 1)), "");
        assert_eq!(excerpt(text, &place(99, 1, 1)), None);
        assert_eq!(excerpt(&"x".repeat(9000), &place(1, 1, 1)), None);
    }
}
