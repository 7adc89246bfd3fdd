//! What loads and is not what was meant: one function for each kind of thing that people stumble on.
//!
//! Owns what all of them look at. They never refuse anything: that is the loading code's.

mod cache;
mod forward;
mod hosts;
mod keys;
mod others;

use super::finding::Finding;
use super::load::Whose;
use super::watched::Watched;
use crate::corefile::{Directive, Place, ServerBlock, Token, Tree, normalise_zone};
use crate::dns::Name;
use crate::engine::InspectedBlock;
use crate::plugin::forward as forward_plugin;

pub(super) use forward::{Asked, asked};

/// All kinds, in no order that matters.
const KINDS: &[fn(&Facts<'_>, &mut Vec<Finding>)] = &[
    cache::zones,
    cache::ttls,
    cache::capacities,
    forward::shadowed,
    forward::unreachable,
    forward::excepted,
    forward::upstreams,
    forward::loops,
    forward::forced,
    forward::patient,
    hosts::lines_that_name_no_host,
    keys::zones,
    keys::shadowed,
    keys::names_of_others,
    keys::addresses,
    keys::no_block,
    keys::block_without_key,
    others::commas,
    others::outside,
    others::variables,
    others::log_format,
    others::passed_over,
    others::missing,
    others::open_metrics,
];

/// All that is worth a warning or a note.
pub(super) fn all(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for kind in KINDS {
        kind(facts, &mut findings);
    }
    findings
}

/// What is known of a Corefile.
pub(super) struct Facts<'f> {
    /// The tokens as written.
    pub(super) written: &'f [Token],
    /// What is right of it.
    pub(super) tree: &'f Tree,
    /// Where its blocks listen; as many as the tree has.
    pub(super) blocks: &'f [InspectedBlock],
    /// The places of mistakes: what is wrong is not warned of as well.
    pub(super) wrong: &'f [Place],
    /// Files and variables.
    pub(super) surroundings: &'f Watched<'f>,
    /// Whether they are those of the node.
    pub(super) whose: Whose,
}

/// A block of the tree and where it listens.
#[derive(Clone, Copy)]
struct Block<'f> {
    source: &'f ServerBlock,
    inspected: &'f InspectedBlock,
}

impl<'f> Facts<'f> {
    fn blocks(&self) -> impl Iterator<Item = Block<'f>> + use<'f> {
        let (sources, inspected) = (&self.tree.blocks, self.blocks);
        sources.iter().zip(inspected).map(|(source, inspected)| Block { source, inspected })
    }

    /// The blocks that have a directive, with it.
    fn directives(&self, word: &str) -> Vec<(Block<'f>, &'f Directive)> {
        self.blocks().filter_map(|block| Some((block, block.directive(word)?))).collect()
    }

    fn forwards(&self, directive: &Directive) -> Vec<forward_plugin::Said> {
        forward_plugin::read(&directive.tokens, self.surroundings).unwrap_or_default()
    }
}

impl<'f> Block<'f> {
    /// The directive, as far as it is right.
    fn directive(self, word: &str) -> Option<&'f Directive> {
        self.inspected.directives.iter().find(|one| one.word == word)
    }

    /// Whether the directive is there, right or wrong.
    fn has(self, word: &str) -> bool {
        self.source.directives.iter().any(|one| one.word == word)
    }

    fn zones(self) -> impl Iterator<Item = &'f Name> {
        self.inspected.keys.iter().map(|(key, _)| &key.zone)
    }

    /// Whether a query for some name below `zone` can come into the block.
    fn may_see(self, zone: &Name) -> bool {
        self.zones().any(|own| zone.is_in(own) || own.is_in(zone))
    }
}

/// A line of a directive's tokens, and how deep in braces it starts.
struct Line<'t> {
    tokens: &'t [Token],
    depth: u32,
}

impl<'t> Line<'t> {
    fn first(&self) -> &'t Token {
        &self.tokens[0]
    }

    /// What stands behind the first word, without the brace that opens a block.
    fn arguments(&self) -> &'t [Token] {
        match &self.tokens[1..] {
            [rest @ .., last] if last.text == "{" => rest,
            rest => rest,
        }
    }
}

/// The lines of a directive, those with nothing but a `}` left out.
fn lines(tokens: &[Token]) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    let mut depth = 0u32;
    for tokens in tokens.chunk_by(Token::shares_line_with) {
        if tokens[0].text != "}" {
            lines.push(Line { tokens, depth });
        }
        for token in tokens {
            match token.text.as_str() {
                "{" => depth += 1,
                "}" => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
    }
    lines
}

/// The zone that a word names, if it names one.
fn zone_of(token: &Token) -> Option<Name> {
    normalise_zone(&token.text).into_iter().next()
}
