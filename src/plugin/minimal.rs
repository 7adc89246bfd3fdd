//! `minimal`: takes the authority and additional sections out of answers that do not need them.
//!
//! Looks at the response's kind alone. Never touches negative responses, errors or referrals: there
//! those sections are what is said.

use super::kind::Kind;
use super::{Context, Handler, Setup, Turn};
use crate::corefile::CorefileError;
use crate::dns::{Query, Response, Written};

/// The running part.
struct Minimal;

impl Handler for Minimal {
    fn word(&self) -> &'static str {
        "minimal"
    }

    fn response(
        &self,
        _query: &mut Query<'_>,
        response: &mut Response,
        context: &mut Context<'_>,
    ) -> Turn {
        if response.written == Written::Message
            && let Ok(message) = response.message()
        {
            if Kind::of(&message, response.rcode, context.now.unix) == Kind::NoError {
                response.keep_answers();
            }
            response.pass_through("minimal");
        }
        Turn::Up
    }
}

/// Reads the directive, which takes no argument.
///
/// # Errors
///
/// `Wrong argument count or unexpected line ending after '…'` for any argument.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    setup.dispenser.next();
    if setup.dispenser.next_arg() {
        return Err(setup.dispenser.arg_err());
    }
    setup.block.add(Minimal);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::corefile::MemorySurroundings;
    use crate::dns::{Rcode, RecordType};
    use crate::plugin::testing::{Bench, always, query};

    const ANSWER: &str = "a.test. 60 IN A 192.0.2.1";
    const NS: &str = "authority: test. 60 IN NS ns.test.";
    const GLUE: &str = "additional: ns.test. 60 IN A 192.0.2.2";
    const SOA: &str = "authority: test. 60 IN SOA ns.test. hm.test. 7 3600 600 86400 60";

    #[test]
    fn answers_alone_are_cut() {
        let mut bench = Bench::new();
        let chain = bench.load("minimal", &MemorySurroundings::new()).unwrap();
        for (qtype, rcode, records, left) in [
            (RecordType::A, Rcode::NOERROR, &[ANSWER, NS, GLUE][..], 1),
            (RecordType::A, Rcode::NOERROR, &[GLUE], 0),
            (RecordType::A, Rcode::NOERROR, &[NS, GLUE], 2),
            (RecordType::A, Rcode::NOERROR, &[SOA], 1),
            (RecordType::A, Rcode::NXDOMAIN, &[SOA, GLUE], 2),
            (RecordType::A, Rcode::REFUSED, &[GLUE], 1),
            (RecordType::AXFR, Rcode::NOERROR, &[ANSWER, GLUE], 2),
        ] {
            let below = always(rcode, records);
            let outcome = bench.ask(&chain, query("a.test.", qtype), below);
            assert_eq!(outcome.records().len(), left, "{records:?}");
            assert_eq!(outcome.response.writer, "minimal");
        }
    }

    #[test]
    fn it_takes_no_argument() {
        let found = Bench::new().load_error("minimal x", &MemorySurroundings::new());
        assert!(found.ends_with("unexpected line ending after 'x'"), "{found}");
    }
}
