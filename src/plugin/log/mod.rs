//! `log`: one line per query (docs/plugins/log.md).
//!
//! Owns the rules (scope, class) and the format, which is read once at setup and written straight
//! into the journal's line: a query whose line is not wanted costs a comparison of names.

mod format;

use super::kind::{Kind, ResponseClass};
use super::{Context, Handler, Setup, Turn};
use crate::corefile::{CorefileError, Dispenser};
use crate::dns::{Name, Query, Response, Written};
pub(super) use format::Format;
use format::Line;
use std::sync::Arc;

const COMMON: &str = "{remote}:{port} - {>id} \"{type} {class} {name} {proto} {size} {>do} \
                      {>bufsize}\" {rcode} {>rflags} {rsize} {duration}";

/// What `{combined}` has behind [`COMMON`].
const COMBINED_END: &str = " \"{>opcode}\"";

/// Reads the directive.
///
/// # Errors
///
/// `Wrong argument count or unexpected line ending after '…'` for a line of the block that does not
/// begin with `class`, and for `class` alone; `invalid Class: …`.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    let dispenser = &mut setup.dispenser;
    let mut rules = Vec::new();
    while dispenser.next() {
        let words = dispenser.remaining_args();
        // A single word is a name even when it looks like a format, as in CoreDNS.
        let (names, format): (&[&str], _) = match words[..] {
            [] => (&["."], COMMON.to_owned()),
            [ref names @ .., last] if !names.is_empty() && last.contains('{') => {
                let combined = format!("{COMMON}{COMBINED_END}");
                (names, last.replace("{common}", COMMON).replace("{combined}", &combined))
            }
            ref names => (names, COMMON.to_owned()),
        };
        let format = Arc::new(Format::read(&format));
        let classes = classes(dispenser)?;
        rules.extend(names.iter().filter_map(|name| {
            // What is no name is no name's scope: `log "{remote}"` logs nothing.
            Some(Rule { scope: name.parse().ok()?, format: format.clone(), classes })
        }));
    }
    setup.block.add(Log { rules });
    Ok(())
}

/// The block of a directive; all classes when it names none.
fn classes(dispenser: &mut Dispenser<'_>) -> Result<Classes, CorefileError> {
    let mut classes = Classes::default();
    while dispenser.next_block() {
        if dispenser.val() != "class" {
            return Err(dispenser.arg_err());
        }
        let words = dispenser.remaining_args();
        if words.is_empty() {
            return Err(dispenser.arg_err());
        }
        for word in words {
            match word {
                "all" => classes = Classes::ALL,
                "success" => classes.success = true,
                "denial" => classes.denial = true,
                "error" => classes.error = true,
                other => return Err(dispenser.plain_err(format!("invalid Class: {other}"))),
            }
        }
    }
    Ok(if classes == Classes::default() { Classes::ALL } else { classes })
}

/// The classes of responses that a rule logs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Classes {
    success: bool,
    denial: bool,
    error: bool,
}

impl Classes {
    const ALL: Classes = Classes { success: true, denial: true, error: true };

    fn has(self, class: ResponseClass) -> bool {
        match class {
            ResponseClass::Success => self.success,
            ResponseClass::Denial => self.denial,
            ResponseClass::Error => self.error,
        }
    }
}

/// What became of a query.
fn kind_of(query: &Query<'_>, response: &Response, context: &Context<'_>) -> Kind {
    match response.message() {
        Ok(message) if response.written == Written::Message => {
            Kind::of_reply(query, &message, response.rcode, context.now.unix)
        }
        _ => Kind::of_failure(response.rcode),
    }
}

/// One name of one directive.
struct Rule {
    scope: Name,
    format: Arc<Format>,
    classes: Classes,
}

/// The handler.
struct Log {
    rules: Vec<Rule>,
}

impl Handler for Log {
    fn word(&self) -> &'static str {
        "log"
    }

    fn response(
        &self,
        query: &mut Query<'_>,
        response: &mut Response,
        context: &mut Context<'_>,
    ) -> Turn {
        // The first rule whose scope matches decides, whatever the later ones say.
        let scoped = self.rules.iter().find(|rule| query.name().is_in(&rule.scope));
        let Some(rule) = scoped else { return Turn::Up };
        if rule.classes != Classes::ALL || context.labels.wanted {
            let kind = kind_of(query, response, context);
            context.labels.set("log/type", || kind.word().to_owned());
            context.labels.set("log/class", || kind.class().word().to_owned());
            if !rule.classes.has(kind.class()) {
                return Turn::Up;
            }
        }
        let line = Line { format: &rule.format, query, response: Some(response), context };
        context.journal.query_line(format_args!("{line}"));
        Turn::Up
    }
}

#[cfg(test)]
mod tests;
