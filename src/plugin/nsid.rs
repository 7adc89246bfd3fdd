//! `nsid`: names this server in responses to clients that ask for it (RFC 5001).
//!
//! Works on the way up, so that nothing of it goes upstream. Never adds an OPT record: a client
//! without EDNS cannot have asked.

use super::{Context, Handler, Setup, Turn};
use crate::corefile::CorefileError;
use crate::dns::options::NSID;
use crate::dns::{Query, Response, Written};

/// The most octets of the name: what a client with a small buffer might still get.
const LONGEST: usize = 1024;

/// The running part.
struct Nsid {
    data: Vec<u8>,
}

impl Handler for Nsid {
    fn word(&self) -> &'static str {
        "nsid"
    }

    fn response(
        &self,
        query: &mut Query<'_>,
        response: &mut Response,
        _context: &mut Context<'_>,
    ) -> Turn {
        let asks = query
            .edns()
            .is_some_and(|edns| edns.each_option(query.wire()).any(|(code, _)| code == NSID));
        if asks {
            // The client's OPT goes back to it where the response has none of its own, error
            // replies included.
            query.set_option(NSID, &self.data);
            if response.written == Written::Message {
                response.set_option(NSID, &self.data);
            }
        }
        Turn::Up
    }
}

/// Reads the directive: the words of the name, or none for the host's.
///
/// # Errors
///
/// `identifier of … octets, at most …`, ours; `this plugin can only be used once per Server Block`.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    let dispenser = &mut setup.dispenser;
    dispenser.next();
    let words = dispenser.remaining_args();
    let data = if words.is_empty() { setup.surroundings.hostname() } else { words.join(" ") };
    if data.len() > LONGEST {
        let text = format!("identifier of {} octets, at most {LONGEST}", data.len());
        return Err(dispenser.err(text));
    }
    if dispenser.next() {
        return Err(dispenser.once_err());
    }
    setup.block.add(Nsid { data: data.into_bytes() });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corefile::MemorySurroundings;
    use crate::dns::{Rcode, Received, ReplyLimits, finish_reply, fit_reply};
    use crate::plugin::testing::{Bench, Outcome};

    /// A query for `a. A` whose OPT has these options.
    fn query(options: &[u8]) -> Query<'static> {
        let mut wire = b"\0\x07\x01\0\0\x01\0\0\0\0\0\x01\x01a\0\0\x01\0\x01".to_vec();
        wire.extend_from_slice(b"\0\0\x29\x04\xd0\0\0\0\0\0");
        wire.push(options.len() as u8);
        wire.extend_from_slice(options);
        match Query::receive(&wire) {
            Received::Query(query) => query.into_owned(),
            other => panic!("{other:?}"),
        }
    }

    /// The options of the reply that the client gets.
    fn options(mut outcome: Outcome) -> Vec<u8> {
        let limits = ReplyLimits::udp(&outcome.query);
        finish_reply(&outcome.query, &mut outcome.response, limits, fit_reply);
        let edns = outcome.response.message().unwrap().edns().unwrap();
        outcome.response.wire[edns.options].to_vec()
    }

    const ASKED: &[u8] = b"\0\x0a\0\x04abcd\0\x03\0\0";

    #[test]
    fn a_client_that_asks_is_told_and_its_cookie_goes_back_too() {
        let mut bench = Bench::new();
        let chain = bench.load("nsid", &MemorySurroundings::new()).unwrap();
        let outcome = bench.ask(&chain, query(ASKED), |query, response| {
            assert!(query.wire().ends_with(ASKED));
            response.start(query, Rcode::NOERROR, 0, "whoami");
        });
        assert_eq!(options(outcome), b"\0\x0a\0\x04abcd\0\x03\0\x04node");
    }

    #[test]
    fn an_upstreams_name_is_replaced() {
        let mut bench = Bench::new();
        let chain = bench.load("nsid Use The Force", &MemorySurroundings::new()).unwrap();
        let outcome = bench.ask(&chain, query(ASKED), |query, response| {
            response.start(query, Rcode::NOERROR, 0, "forward");
            response.wire[11] = 1;
            response.wire.extend_from_slice(b"\0\0\x29\x04\xd0\0\0\0\0\0\x06\0\x03\0\x02up");
        });
        assert_eq!(options(outcome), b"\0\x03\0\x0dUse The Force");
    }

    #[test]
    fn failures_are_named_and_who_does_not_ask_hears_nothing() {
        let mut bench = Bench::new();
        let chain = bench.load("nsid x", &MemorySurroundings::new()).unwrap();
        let fail = |_: &Query<'_>, response: &mut Response| response.fail(Rcode::SERVFAIL, None);
        assert_eq!(
            options(bench.ask(&chain, query(ASKED), fail)),
            b"\0\x0a\0\x04abcd\0\x03\0\x01x"
        );
        assert_eq!(options(bench.ask(&chain, query(b""), fail)), b"");
    }

    #[test]
    fn it_stands_once_and_the_name_has_a_bound() {
        let found = Bench::new().load_error("nsid a\nnsid b", &MemorySurroundings::new());
        assert!(found.ends_with("this plugin can only be used once per Server Block"), "{found}");
        let long = format!("nsid {}", "x".repeat(1025));
        let found = Bench::new().load_error(&long, &MemorySurroundings::new());
        assert!(found.ends_with("identifier of 1025 octets, at most 1024"), "{found}");
    }
}
