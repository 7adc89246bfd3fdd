//! `any`: queries of type ANY get one short HINFO record (RFC 8482 §4.2).
//!
//! Decides by the type alone. Never lets such a query go upstream.

use super::{Context, Flow, Handler, Setup};
use crate::corefile::CorefileError;
use crate::dns::{Class, Query, Rcode, RecordType, Response, Section};

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
        let mut writer = response.start_with_records(query, Rcode::NOERROR, 0, "any");
        let owner = query.spelled_name();
        writer.raw_record(Section::Answer, owner, RecordType::HINFO, Class::IN, TTL, RDATA);
        Flow::Answer
    }
}

/// Has nothing to read: what stands behind the word is passed over, as CoreDNS does.
///
/// # Errors
///
/// None: there is nothing that could be wrong.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
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
    fn what_stands_behind_the_word_is_passed_over() {
        for text in ["any thing", "any {\n x\n}", "any\nany"] {
            assert!(Bench::new().load(text, &MemorySurroundings::new()).is_ok(), "{text}");
        }
    }
}
