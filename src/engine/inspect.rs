//! All mistakes of a Corefile at once: the steps of `build`, going on after each mistake.
//!
//! Owns how it goes on: without the line, or the word, that was wrong. Judges nothing itself, and
//! makes nothing that could serve.

use super::build::{Common, Plan, World, canonical, hosts, plan, servers, set_up, start};
use super::snapshot::BuildError;
use crate::corefile::{CorefileError, Directive, Place, ServerKey, Token, Tree};
use crate::plugin::{BlockDraft, DirectiveRow, Journal, Level, TABLE};
use std::collections::HashSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// The greatest number of mistakes that are looked for in one Corefile.
const MOST_MISTAKES: usize = 100;

/// What is wrong, and of which kind it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// What is wrong, and where.
    pub error: CorefileError,
    /// Its kind.
    pub kind: MistakeKind,
}

/// The kinds of mistakes, in the order in which they are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MistakeKind {
    /// A key names no zone.
    Key,
    /// CoreDNS's directive, which nodens does not carry: what to do instead.
    LeftOut(&'static str),
    /// A directive's words.
    Directive,
    /// A port, or blocks that contradict one another.
    Listener,
}

/// What a Corefile comes to.
#[derive(Debug, Default)]
pub struct Inspection {
    /// All mistakes; the first is not always the one that a build ends with.
    pub mistakes: Vec<Mistake>,
    /// What loading says at WARNING or above, at the word that it is about.
    pub remarks: Vec<CorefileError>,
    /// The blocks of the tree, in its order.
    pub blocks: Vec<InspectedBlock>,
}

/// Where a block listens.
#[derive(Debug, Clone)]
pub struct InspectedBlock {
    /// The keys that name a zone, each with the place of its text; none when it is unknown where the
    /// block listens.
    pub keys: Vec<(ServerKey, Place)>,
    /// The addresses, each in its shortest form; `None` is all addresses.
    pub hosts: Vec<Option<String>>,
    /// The directives as far as they are right, in the order of setup.
    pub directives: Vec<Directive>,
}

/// Looks at the whole tree. What `world` takes over from a snapshot is not given back.
pub fn inspect(tree: &Tree, world: World<'_>) -> Inspection {
    let World { surroundings, metrics, random, default_port, carried, .. } = world;
    let heard = Heard::default();
    let services = Vec::new();
    let mut common = Common { surroundings, metrics, journal: &heard, random, carried, services };
    let mut found = Found::default();

    let mut plans =
        plan(tree, default_port, &mut found.all_of(MistakeKind::Key)).unwrap_or_default();
    let mut right: Vec<Vec<Directive>> = vec![Vec::new(); plans.len()];
    let mut is_known = vec![true; plans.len()];
    for row in TABLE {
        let blocks = plans.iter_mut().zip(right.iter_mut().zip(&mut is_known));
        for (Plan { source, draft, .. }, (right, is_known)) in blocks {
            let Some(directive) = source.directives.iter().find(|one| one.word == row.word) else {
                continue;
            };
            let try_out = |tokens: &[Token], draft: &mut BlockDraft| {
                let result = set_up(row, tokens, &source.directives, draft, &mut common);
                found.remarks(&heard, tokens);
                result
            };
            let (mistakes, tokens) = all_of_directive(row, &directive.tokens, draft, try_out);
            right.extend(tokens.map(|tokens| Directive { word: row.word.to_owned(), tokens }));
            *is_known &= mistakes.is_empty() || row.word != "bind";
            mistakes.into_iter().for_each(|mistake| found.add(mistake));
        }
    }
    // A block whose addresses are unknown would seem to listen everywhere.
    for (plan, _) in plans.iter_mut().zip(&is_known).filter(|(_, is_known)| !**is_known) {
        plan.draft.keys.clear();
        plan.places.clear();
    }
    let _ = servers(&plans, &common, &mut found.all_of(MistakeKind::Listener));
    let keys = plans.iter().flat_map(|plan| plan.places.iter().copied().cloned());
    found.remarks(&heard, &keys.collect::<Vec<_>>());
    for row in TABLE {
        for Plan { source, draft, .. } in &plans {
            if let Err(error) = start(row, draft, &common) {
                found.add(Mistake { error, kind: MistakeKind::Directive });
            }
            let directive = source.directives.iter().find(|one| one.word == row.word);
            found.remarks(&heard, directive.map_or(&[][..], |directive| &directive.tokens));
        }
    }
    let blocks = plans.iter().zip(right).map(|(plan, directives)| InspectedBlock {
        directives,
        keys: plan
            .draft
            .keys
            .iter()
            .cloned()
            .zip(plan.places.iter().map(|at| at.place()))
            .collect(),
        hosts: hosts(&plan.draft).map(|host| host.map(canonical)).collect(),
    });
    Inspection { blocks: blocks.collect(), ..found.inspection }
}

/// The mistakes of one directive of one block, and its tokens without them. `try_out` sets it up; the
/// draft of a try without mistakes is kept.
fn all_of_directive(
    row: &DirectiveRow,
    tokens: &[Token],
    draft: &mut BlockDraft,
    mut try_out: impl FnMut(&[Token], &mut BlockDraft) -> Result<(), CorefileError>,
) -> (Vec<Mistake>, Option<Vec<Token>>) {
    let mut mistakes: Vec<Mistake> = Vec::new();
    let mut tokens = tokens.to_vec();
    loop {
        let mut tried = draft.clone();
        let Err(error) = try_out(&tokens, &mut tried) else {
            *draft = tried;
            return (mistakes, Some(tokens));
        };
        let place = error.place.clone();
        let is_same_line = |mistake: &Mistake| {
            let line = |place: &Option<Place>| place.as_ref().map(|at| (at.file.clone(), at.line));
            line(&mistake.error.place) == line(&place)
        };
        // A word of this line was left out, and now another is missing; or all lines of a block were,
        // and now the block is empty: it was said already.
        let is_around = |place: &Place| {
            let token = tokens.iter().find(|token| token.place() == *place);
            token.is_some_and(|token| ["{", "}", row.word].contains(&token.text.as_str()))
        };
        let is_sequel = mistakes
            .last()
            .is_some_and(|last| is_same_line(last) || place.as_ref().is_some_and(is_around));
        if let Err(instead) = row.setup {
            return (vec![Mistake { error, kind: MistakeKind::LeftOut(instead) }], None);
        }
        if !is_sequel {
            mistakes.push(Mistake { error, kind: MistakeKind::Directive });
        }
        let rest = place.and_then(|place| match is_sequel {
            false => without(&tokens, &place),
            true => without_lines(&tokens, &place),
        });
        match rest {
            Some(rest) if mistakes.len() < MOST_MISTAKES => tokens = rest,
            _ => return (mistakes, None),
        }
    }
}

/// The tokens without what is wrong at `place`: one word of a line that opens a block, else the
/// line. `None` when nothing more can be learnt.
fn without(tokens: &[Token], place: &Place) -> Option<Vec<Token>> {
    let at = tokens.iter().position(|token| token.place() == *place)?;
    let (start, end) = line_around(tokens, at);
    let opens_block = tokens[end - 1].text == "{";
    if opens_block && (start + 1..end - 1).contains(&at) {
        let mut rest = tokens.to_vec();
        rest.remove(at);
        return Some(rest);
    }
    without_lines(tokens, place)
}

/// The tokens without the line of `place`, and without the block that opens on it.
fn without_lines(tokens: &[Token], place: &Place) -> Option<Vec<Token>> {
    let at = tokens.iter().position(|token| token.place() == *place)?;
    let (start, mut end) = line_around(tokens, at);
    let mut depth = 0i32;
    let step = |token: &Token| match token.text.as_str() {
        "{" => 1,
        "}" => -1,
        _ => 0,
    };
    for token in &tokens[start..end] {
        depth += step(token);
        if depth < 0 {
            return None;
        }
    }
    while depth > 0 {
        depth += step(tokens.get(end)?);
        end += 1;
    }
    let rest = [&tokens[..start], &tokens[end..]].concat();
    // What is left must still be this directive.
    (rest.first()?.text == tokens.first()?.text).then_some(rest)
}

/// From which token to which the line goes that this token stands on.
fn line_around(tokens: &[Token], at: usize) -> (usize, usize) {
    let shares = |index: usize| {
        tokens.get(index + 1).is_some_and(|next| tokens[index].shares_line_with(next))
    };
    let mut start = at;
    while start > 0 && shares(start - 1) {
        start -= 1;
    }
    let mut end = at;
    while shares(end) {
        end += 1;
    }
    (start, end + 1)
}

/// What was found so far, each thing once: a snippet is set up wherever it is imported.
#[derive(Default)]
struct Found {
    inspection: Inspection,
    known: HashSet<(Option<Place>, String)>,
}

impl Found {
    fn is_new(&mut self, error: &CorefileError) -> bool {
        self.known.insert((error.place.clone(), error.message.clone()))
    }

    fn add(&mut self, mistake: Mistake) {
        if self.inspection.mistakes.len() < MOST_MISTAKES && self.is_new(&mistake.error) {
            self.inspection.mistakes.push(mistake);
        }
    }

    /// Takes every mistake of a step, which goes on.
    fn all_of(&mut self, kind: MistakeKind) -> impl FnMut(BuildError) -> Result<(), BuildError> {
        move |error| {
            self.add(Mistake { error: error.into(), kind });
            Ok(())
        }
    }

    /// Takes what was heard while `tokens` were set up.
    fn remarks(&mut self, heard: &Heard, tokens: &[Token]) {
        for line in heard.take() {
            let remark = match tokens.first() {
                Some(first) => CorefileError::bare(first, line).about(tokens, tokens),
                None => CorefileError::unplaced(line),
            };
            if self.inspection.remarks.len() < MOST_MISTAKES && self.is_new(&remark) {
                self.inspection.remarks.push(remark);
            }
        }
    }
}

/// Keeps the lines that an operator should see.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Heard {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Journal for Heard {
    fn line(&self, level: Level, text: fmt::Arguments<'_>) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if level >= Level::Warning && lines.len() < MOST_MISTAKES {
            lines.push(text.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corefile::{MemorySurroundings, parse};
    use crate::metrics::Registry;
    use crate::plugin::Carried;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    /// Each mistake as `line:column message`.
    fn mistakes(text: &str) -> Vec<String> {
        let surroundings = MemorySurroundings::new();
        let tree = parse(text.as_bytes(), "Corefile", &|_| true, &surroundings).unwrap();
        let world = World {
            surroundings: &surroundings,
            metrics: &Registry::new(1),
            journal: &Heard::default(),
            random: &mut StdRng::seed_from_u64(1),
            default_port: 53,
            carried: Carried::default(),
        };
        let found = inspect(&tree, world).mistakes.into_iter();
        found
            .map(|Mistake { error, .. }| {
                let place = error.place.unwrap();
                format!("{}:{} {}", place.line, place.column, error.message)
            })
            .collect()
    }

    #[test]
    fn every_line_of_a_directive_is_judged() {
        let text = ". {\n cache 0 {\n  success x\n  denial 5 7\n  foo\n }\n bufsize big\n}\n";
        assert_eq!(
            mistakes(text),
            [
                "7:10 plugin/bufsize: Wrong argument count or unexpected line ending after 'big'",
                "2:8 plugin/cache: cache TTL can not be zero or negative: 0",
                "3:11 plugin/cache: strconv.Atoi: parsing \"x\": invalid syntax",
                "5:3 plugin/cache: Wrong argument count or unexpected line ending after 'foo'",
            ]
        );
    }

    #[test]
    fn a_word_left_out_makes_no_mistake_of_its_own() {
        let text = ". {\n forward . nowhere {\n  foo\n }\n forward . 192.0.2.1 {\n  bar\n }\n}\n";
        let found = mistakes(text);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("2:12 ") && found[1].starts_with("6:3 "), "{found:?}");
    }

    #[test]
    fn keys_and_listeners_are_judged_too() {
        let text =
            "a..b c.test:x:99999 . {\n bind 192.0.2.1\n}\n. {\n bind 192.0.2.1\n kubernetes\n}\n";
        let found = mistakes(text);
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(
            found[0].starts_with("1:1 error inspecting server blocks: zone is not"),
            "{found:?}"
        );
        assert!(
            found[1].starts_with("6:2 no action found for directive 'kubernetes'"),
            "{found:?}"
        );
        assert!(found[2].starts_with("1:6 address 99999: invalid port"), "{found:?}");
        assert!(found[3].starts_with("4:1 cannot serve dns://.:53 on 192.0.2.1"), "{found:?}");
    }

    #[test]
    fn a_block_with_unknown_addresses_contradicts_nobody() {
        let found = mistakes(". {\n bind nowhere\n}\n. {\n bind 192.0.2.1\n}\n");
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn what_is_no_warning_is_no_remark() {
        let heard = Heard::default();
        for level in [Level::Debug, Level::Info, Level::Warning, Level::Error] {
            heard.line(level, format_args!("{level:?}"));
        }
        assert_eq!(heard.take(), ["Warning", "Error"]);
    }
}
