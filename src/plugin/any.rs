//! `any`: queries of type ANY get one short HINFO record (RFC 8482 §4.2).
//!
//! Decides by the type alone. Never lets such a query go upstream.

use super::{Context, Flow, Handler, Setup};
use crate::corefile::CorefileError;
use crate::dns::{Class, Query, Rcode, RecordType, Response, Section, Writer};

/// The record's TTL in seconds: the number of the RFC, as CoreDNS has it.
const TTL: u32 = 8482;

/// CPU and OS of the record, each behind its length.
const RDATA: &[u8] = b"\x0dANY obsoleted\x0cSee RFC 8482";

/// The running part.
struct Any;

impl Handler for Any {
    fn word(&self) -> &'static str {
        "any"
    }

    fn query(
        &self,
        query: &mut Query<'_>,
        response: &mut Response,
        _context: &mut Context<'_>,
    ) -> Flow {
        if query.qtype() != RecordType::ANY {
            return Flow::Next;
        }
        response.start(query, Rcode::NOERROR, 0, "any");
        let flags = response.flags();
        let mut writer = Writer::new(&mut response.wire, query.id(), flags);
        writer.question(query.question());
        let owner = query.spelled_name();
        writer.raw_record(Section::Answer, owner, RecordType::HINFO, Class::IN, TTL, RDATA);
        Flow::Answer
    }
}

/// Reads the directive, which takes neither arguments nor a block.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    let dispenser = &mut setup.dispenser;
    dispenser.next();
    if !dispenser.remaining_args().is_empty() {
        return Err(dispenser.arg_err());
    }
    if dispenser.next_block() {
        return Err(dispenser.err(format!("unknown property '{}'", dispenser.val())));
    }
    setup.block.add(Any);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corefile::MemorySurroundings;
    use crate::dns::flags;
    use crate::plugin::testing::{Bench, always, nobody, query};

    #[test]
    fn any_is_answered_with_one_record_that_says_why() {
        let mut bench = Bench::new();
        let chain = bench.load("any", &MemorySurroundings::new()).unwrap();
        let outcome = bench.ask(&chain, query("A.test.", RecordType::ANY), nobody);
        let message = outcome.response.message().unwrap();
        let record = message.records().next().unwrap();
        assert_eq!((record.rtype, record.ttl), (RecordType::HINFO, 8482));
        assert_eq!(message.rdata(&record), b"\x0dANY obsoleted\x0cSee RFC 8482");
        assert_eq!(message.records().count(), 1);
        assert_eq!(outcome.response.flags(), flags::QR | flags::RD);
    }

    #[test]
    fn other_types_go_on() {
        let mut bench = Bench::new();
        let chain = bench.load("any", &MemorySurroundings::new()).unwrap();
        let below = always(Rcode::NOERROR, &["a.test. 60 IN A 192.0.2.1"]);
        let outcome = bench.ask(&chain, query("a.test.", RecordType::A), below);
        assert_eq!(outcome.records(), ["a.test. 60 IN A 192.0.2.1"]);
    }

    #[test]
    fn it_has_neither_arguments_nor_a_block() {
        for (text, error) in [
            ("any thing", "Wrong argument count or unexpected line ending after 'thing'"),
            ("any {\n x\n}", "unknown property 'x'"),
        ] {
            let found = Bench::new().load_error(text, &MemorySurroundings::new());
            assert!(found.starts_with("plugin/any: Corefile:"), "{found}");
            assert!(found.ends_with(error), "{found}");
        }
    }
}
