//! `header`: sets and clears flags of queries on their way down and of responses on their way up.
//!
//! Owns the rules. Stands below `cache`: what it does to a response is stored with it.

use super::{Context, Flow, Handler, Setup, Turn};
use crate::corefile::CorefileError;
use crate::dns::{Query, Response, flags};

/// The flags to set and to clear; a later rule has taken its flags out of the earlier ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Rules {
    set: u16,
    clear: u16,
}

impl Rules {
    /// Adds a rule; what it names no longer obeys the rules before it.
    fn add(&mut self, action: Action, flag: u16) {
        let (to, from) = match action {
            Action::Set => (&mut self.set, &mut self.clear),
            Action::Clear => (&mut self.clear, &mut self.set),
        };
        *to |= flag;
        *from &= !flag;
    }

    fn apply(self, flags: u16) -> u16 {
        (flags | self.set) & !self.clear
    }
}

/// What a rule does to its flags.
#[derive(Debug, Clone, Copy)]
enum Action {
    Set,
    Clear,
}

/// The running part.
struct Header {
    query: Rules,
    response: Rules,
}

impl Handler for Header {
    fn word(&self) -> &'static str {
        "header"
    }

    fn query(
        &self,
        query: &mut Query<'_>,
        _response: &mut Response,
        context: &mut Context<'_>,
    ) -> Flow {
        let own = query.flags();
        let changed = self.query.apply(own);
        if changed != own {
            context.note = Some(Box::new(own));
            query.set_flags(changed);
        }
        Flow::Next
    }

    fn response(
        &self,
        query: &mut Query<'_>,
        response: &mut Response,
        context: &mut Context<'_>,
    ) -> Turn {
        // An error reply of the server core has the client's own flags.
        if let Some(own) = context.note.take().and_then(|note| note.downcast::<u16>().ok()) {
            query.set_flags(*own);
        }
        // Where no handler wrote a response the server core makes one, which stays as it is.
        response.set_flags(self.response.apply(response.flags()));
        response.pass_through("header");
        Turn::Up
    }
}

/// Reads the directive; the first one with rules counts.
///
/// # Errors
///
/// `Wrong argument count or unexpected line ending after '…'` when no directive has a rule; `setting up
/// rule: …` with `invalid selector=… should be query or response`, `no flag action provided`, `invalid
/// length for flags, at least one should be provided`, `unknown flag action=…, should be set or clear`
/// or `unknown/unsupported flag=…`.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    let dispenser = &mut setup.dispenser;
    let mut header = Header { query: Rules::default(), response: Rules::default() };
    while dispenser.next() {
        while dispenser.next_block() {
            let wrong = |why: String| dispenser.plain_err(format!("setting up rule: {why}"));
            let selector = dispenser.val().to_lowercase();
            let mut words = dispenser.clone().remaining_args().into_iter();
            // Before `query` and `response` there were rules for responses alone.
            let (rules, action) = match selector.as_str() {
                "set" | "clear" => (&mut header.response, Some(selector.clone())),
                "query" => (&mut header.query, words.next().map(str::to_lowercase)),
                "response" => (&mut header.response, words.next().map(str::to_lowercase)),
                _ => {
                    return Err(wrong(format!(
                        "invalid selector={selector} should be query or response"
                    )));
                }
            };
            let action = action.ok_or_else(|| wrong("no flag action provided".to_owned()))?;
            if words.len() == 0 {
                return Err(wrong(
                    "invalid length for flags, at least one should be provided".to_owned(),
                ));
            }
            let action = match action.as_str() {
                "set" => Action::Set,
                "clear" => Action::Clear,
                other => {
                    let text = format!("unknown flag action={other}, should be set or clear");
                    return Err(wrong(text));
                }
            };
            for word in words {
                let flag = match word.to_lowercase().as_str() {
                    "aa" => flags::AA,
                    "ra" => flags::RA,
                    "rd" => flags::RD,
                    other => return Err(wrong(format!("unknown/unsupported flag={other}"))),
                };
                rules.add(action, flag);
            }
            dispenser.remaining_args();
        }
        if header.query != Rules::default() || header.response != Rules::default() {
            setup.block.add(header);
            return Ok(());
        }
    }
    Err(dispenser.arg_err())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corefile::MemorySurroundings;
    use crate::dns::{Rcode, RecordType};
    use crate::plugin::testing::{Bench, query, respond};

    /// The flags that the upstream sees and those of the response.
    fn flags(directive: &str, rcode: Rcode) -> (u16, u16) {
        let mut bench = Bench::new();
        let chain = bench.load(directive, &MemorySurroundings::new()).unwrap();
        let mut seen = 0;
        let outcome = bench.ask(&chain, query("a.test.", RecordType::A), |query, response| {
            seen = query.flags();
            respond(query, response, rcode, &["a.test. 60 IN A 192.0.2.1"]);
        });
        assert_eq!(outcome.query.flags(), flags::RD, "the client's own");
        (seen, outcome.response.flags())
    }

    #[test]
    fn flags_are_set_and_cleared_on_both_ways() {
        let (asked, answered) = flags(
            "header {\n query set aa ra\n query clear rd\n response set AA\n response clear ra rd\n}",
            Rcode::NXDOMAIN,
        );
        assert_eq!(asked, flags::AA | flags::RA);
        assert_eq!(answered, flags::QR | flags::AA | 3);
    }

    #[test]
    fn the_last_rule_for_a_flag_counts_and_the_old_form_means_responses() {
        let (asked, answered) =
            flags("header {\n set aa ra\n clear aa\n Response Set aa\n}", Rcode::NOERROR);
        assert_eq!(asked, flags::RD);
        assert_eq!(answered, flags::QR | flags::AA | flags::RD | flags::RA);
    }

    #[test]
    fn a_failure_stays_a_failure() {
        let mut bench = Bench::new();
        let rules = "header {\n set ra\n query clear rd\n}";
        let chain = bench.load(rules, &MemorySurroundings::new()).unwrap();
        let outcome = bench.ask(&chain, query("a.test.", RecordType::A), |_, response| {
            response.fail(Rcode::SERVFAIL, None);
        });
        assert!(outcome.response.wire.is_empty());
        // The server core's error reply has the flags of the query.
        assert_eq!(outcome.query.flags(), flags::RD);
    }

    #[test]
    fn mistakes_are_told_in_corednss_words() {
        let place = "Corefile:3 - plugin/header: setting up rule: ";
        for (text, error) in [
            ("answer set aa", "invalid selector=answer should be query or response"),
            ("query", "no flag action provided"),
            ("query set", "invalid length for flags, at least one should be provided"),
            ("set", "invalid length for flags, at least one should be provided"),
            ("response turn aa", "unknown flag action=turn, should be set or clear"),
            ("response set aa ZZ", "unknown/unsupported flag=zz"),
        ] {
            let text = format!("header {{\n {text}\n}}");
            let found = Bench::new().load_error(&text, &MemorySurroundings::new());
            assert_eq!(found, format!("{place}{error}"));
        }
        let found = Bench::new().load_error("header", &MemorySurroundings::new());
        assert!(found.contains("Wrong argument count"), "{found}");
    }
}
