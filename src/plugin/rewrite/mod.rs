//! `rewrite`: queries changed on the way down, their responses changed back on the way up
//! (docs/plugins/rewrite.md).
//!
//! Owns the directive, the order of rules, and what one query remembers of them. All handlers
//! above see the question as the client asked it.

mod cname;
mod edns0;
mod name;
mod options;
mod revert;
mod rule;
mod text;

use super::{Context, Flow, Handler, Setup, Turn};
use crate::corefile::CorefileError;
use crate::dns::{Class, Name, Query, Rcode, RecordType, Response, Written, sizes};
use revert::Reversal;
use rule::{Action, Applied, Rule};

/// The running part.
#[derive(Debug)]
struct Rewrite {
    rules: Vec<Rule>,
    /// A rule may change the query's EDNS options, and `cache`, which hands a copy of the query
    /// down, stands above: clients see nothing of the change.
    hides_options: bool,
}

/// What a query remembers until its response comes.
struct Memory {
    came_in: CameIn,
    /// In the order of the rules.
    reversals: Vec<Reversal>,
    /// A rule without `continue` matched.
    stopped: bool,
    /// The `cname` rules that matched, by place.
    aliases: Vec<usize>,
    /// The `cname` rule whose new target is being asked for.
    asking: Option<(usize, Name)>,
}

/// What a query was when it came in, in wire form.
enum CameIn {
    /// Its question.
    Question(Vec<u8>),
    /// The whole message, where those above are not to see its new options.
    Message(Vec<u8>),
}

/// Reads the directive, all of a block's rules at once.
///
/// # Errors
///
/// What is wrong with a rule, in CoreDNS's words: `no rule type specified for rewrite`, `invalid rule
/// type "…"`, `too few arguments for a name rule`, `invalid regex pattern in a … rule: …`, `exceeded
/// the number of arguments for a non-answer rule argument for … rule`, and their like for each type of
/// docs/plugins/rewrite.md.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    let dispenser = &mut setup.dispenser;
    let mut rules = Vec::new();
    while dispenser.next() {
        let mut arguments = dispenser.remaining_args();
        if arguments.len() < 2 {
            // A rule may also stand in braces, over several lines.
            while dispenser.next_block() {
                arguments.push(dispenser.val());
            }
        }
        rules.push(Rule::parse(&arguments).map_err(|error| dispenser.plain_err(error))?);
    }
    // What a rule gives a query, the reply may show its client, in CoreDNS also where no rule ran.
    setup.block.reflected.extend(rules.iter().filter_map(Rule::reflected_code));
    let hides_options = rules.iter().any(|rule| matches!(rule.action, Action::Edns(_)))
        && setup.directives.iter().any(|directive| directive.word == "cache");
    setup.block.add(Rewrite { rules, hides_options });
    Ok(())
}

impl Memory {
    fn of(came_in: CameIn) -> Memory {
        Memory { came_in, reversals: Vec::new(), stopped: false, aliases: Vec::new(), asking: None }
    }

    /// Makes of a query what it was, but for options that no rule takes back: a response without an OPT
    /// record shows them to the client.
    fn restore(&mut self, query: &mut Query<'_>) {
        let keeps_options = matches!(self.came_in, CameIn::Question(_));
        self.came_in.restore(query);
        if keeps_options && revert::concern_options(&self.reversals) {
            let mut options = options::of_query(query);
            revert::revert_options(&mut options, &self.reversals);
            let _ = options::set(query, &options);
        }
    }
}

impl CameIn {
    /// Makes of a query what it was. A whole message is given away with that.
    fn restore(&mut self, query: &mut Query<'_>) {
        match self {
            CameIn::Message(message) => {
                let _ = query.replace(std::mem::take(message));
            }
            CameIn::Question(question) if query.question() == question => {}
            CameIn::Question(question) => {
                if let Some((name, &[a, b, c, d])) = question.split_last_chunk::<4>() {
                    let qtype = RecordType(u16::from_be_bytes([a, b]));
                    query.set_question(name, qtype, Class(u16::from_be_bytes([c, d])));
                }
            }
        }
    }
}

impl Rewrite {
    /// The first `cname` rule among those that matched which finds a target to exchange.
    fn find_alias(&self, memory: &Memory, response: &Response) -> Option<(usize, Name)> {
        let message = response.message().ok()?;
        memory.aliases.iter().rev().find_map(|&place| {
            let Action::Cname(rule) = &self.rules.get(place)?.action else { return None };
            Some((place, rule.new_target(&message)?))
        })
    }

    /// Changes the response back, to that of a `query` which has been restored.
    fn finish(memory: &Memory, query: &Query<'_>, response: &mut Response) {
        let question = query.question();
        let has_question =
            response.wire.get(sizes::HEADER..).is_some_and(|rest| rest.starts_with(question));
        if response.written == Written::Nothing || has_question && memory.reversals.is_empty() {
            return;
        }
        if let Err(error) = revert::revert(response, question, &memory.reversals) {
            response.fail(Rcode::SERVFAIL, Some(error.to_string().into()));
        }
    }
}

impl Handler for Rewrite {
    fn word(&self) -> &'static str {
        "rewrite"
    }

    fn query(
        &self,
        query: &mut Query<'_>,
        response: &mut Response,
        context: &mut Context<'_>,
    ) -> Flow {
        let mut memory = Memory::of(match self.hides_options {
            true => CameIn::Message(query.wire().to_vec()),
            false => CameIn::Question(query.question().to_vec()),
        });
        let mut is_needed = self.hides_options;
        for (place, rule) in self.rules.iter().enumerate() {
            let reversals = match rule.apply(query, context) {
                Applied::Ignored => continue,
                Applied::Done(reversals) => reversals,
                Applied::InvalidName(name) => {
                    memory.came_in.restore(query);
                    let error = format!("invalid name after rewrite: {name}");
                    response.fail(Rcode::SERVFAIL, Some(error.into()));
                    return Flow::Answer;
                }
            };
            is_needed = true;
            memory.reversals.extend(reversals);
            if matches!(rule.action, Action::Cname(_)) {
                memory.aliases.push(place);
            }
            if rule.stops {
                memory.stopped = true;
                break;
            }
        }
        if is_needed {
            context.note = Some(Box::new(memory));
        }
        Flow::Next
    }

    fn response(
        &self,
        query: &mut Query<'_>,
        response: &mut Response,
        context: &mut Context<'_>,
    ) -> Turn {
        let Some(mut memory) = take(context) else { return Turn::Up };
        memory.restore(query);
        if memory.stopped || !memory.reversals.is_empty() {
            response.pass_through("rewrite");
        }
        if let Some((place, target)) = self.find_alias(&memory, response) {
            let mut question = query.clone().into_owned();
            question.set_question(target.as_bytes(), query.qtype(), query.qclass());
            memory.asking = Some((place, target));
            context.note = Some(memory);
            return Turn::Ask(Box::new(question));
        }
        Rewrite::finish(&memory, query, response);
        Turn::Up
    }

    fn answered(
        &self,
        query: &mut Query<'_>,
        response: &mut Response,
        further: &Response,
        context: &mut Context<'_>,
    ) -> Turn {
        let Some(memory) = take(context) else { return Turn::Up };
        if let Some((place, target)) = &memory.asking
            && let Some(Action::Cname(rule)) = self.rules.get(*place).map(|rule| &rule.action)
            && rule.splice(response, target, further).is_err()
        {
            response.fail(Rcode::SERVFAIL, Some("malformed response".into()));
        }
        Rewrite::finish(&memory, query, response);
        Turn::Up
    }
}

/// Takes what this query remembers.
fn take(context: &mut Context<'_>) -> Option<Box<Memory>> {
    context.note.take()?.downcast::<Memory>().ok()
}

#[cfg(test)]
mod tests;
