//! `bufsize`: lowers the UDP payload size that a client advertises.
//!
//! Changes the query on its way down, so that upstreams see the lower size and the reply's OPT and
//! truncation follow it. Never raises a size, never adds an OPT.

use super::{Context, Flow, Handler, Setup};
use crate::corefile::{CorefileError, parse_integer};
use crate::dns::{Query, Response, sizes};

/// The size when none is given: what fits into one IPv6 packet on most paths (DNS flag day 2020).
const DEFAULT: u16 = 1232;

/// The least size.
const LEAST: i64 = sizes::UDP_LEAST as i64;

/// The greatest size that CoreDNS takes.
const GREATEST: i64 = 4096;

struct Bufsize {
    octets: u16,
}

impl Handler for Bufsize {
    fn word(&self) -> &'static str {
        "bufsize"
    }

    fn query(
        &self,
        query: &mut Query<'_>,
        _response: &mut Response,
        _context: &mut Context<'_>,
    ) -> Flow {
        if query.edns().is_some_and(|edns| edns.udp_size > self.octets) {
            query.set_udp_size(self.octets);
        }
        Flow::Next
    }
}

/// Reads the directive; a second one in the same block has no effect.
///
/// # Errors
///
/// `Wrong argument count or unexpected line ending after '…'` for more than one word and for one that
/// is no number from 512 to 4096; the text has `plugin/bufsize: ` twice, as CoreDNS's has.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    let dispenser = &mut setup.dispenser;
    dispenser.next();
    let octets = match dispenser.remaining_args().as_slice() {
        [] => Some(DEFAULT),
        [text] => parse_integer(text)
            .ok()
            .filter(|size| (LEAST..=GREATEST).contains(size))
            .and_then(|size| u16::try_from(size).ok()),
        _ => None,
    };
    let Some(octets) = octets else { return Err(dispenser.arg_err().in_plugin("bufsize")) };
    setup.block.add(Bufsize { octets });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;
    use crate::corefile::MemorySurroundings;
    use crate::dns::Received;

    /// A query for the root's NS with an OPT of this UDP payload size.
    fn query(octets: u16) -> Query<'static> {
        let mut wire = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 2, 0, 1, 0, 0, 41];
        wire.extend_from_slice(&octets.to_be_bytes());
        wire.extend_from_slice(&[0; 6]);
        match Query::receive(&wire) {
            Received::Query(query) => query.into_owned(),
            other => panic!("{other:?}"),
        }
    }

    fn seen(directive: &str, octets: u16) -> u16 {
        let mut bench = Bench::new();
        let chain = bench.load(directive, &MemorySurroundings::new()).unwrap();
        let outcome = bench.ask(&chain, query(octets), |_, _| {});
        outcome.query.edns().unwrap().udp_size
    }

    #[test]
    fn a_size_is_lowered_and_never_raised() {
        assert_eq!(seen("bufsize", 4096), 1232);
        assert_eq!(seen("bufsize 512", 4096), 512);
        assert_eq!(seen("bufsize 1400", 800), 800);
        assert_eq!(seen("bufsize 600\nbufsize 700", 4096), 600);
    }

    #[test]
    fn sizes_out_of_bounds_are_refused() {
        for text in ["100", "5000", "big", "600 700"] {
            let error =
                Bench::new().load_error(&format!("bufsize {text}"), &MemorySurroundings::new());
            let last = text.split(' ').next_back().unwrap();
            assert_eq!(
                error,
                format!(
                    "plugin/bufsize: plugin/bufsize: Corefile:2 - Error during parsing: Wrong argument count or unexpected line ending after '{last}'"
                )
            );
        }
    }
}
