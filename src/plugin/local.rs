//! `local`: names that never leave the machine get their answer here: `localhost`, what lies below
//! it, and the reverse zones 0, 127 and 255 (RFC 6761 §6.3, RFC 6303 §4.2).
//!
//! Owns the zones and their few records. Never asks anybody.

use super::{Context, Flow, Handler, Level, Setup};
use crate::corefile::{CorefileError, quote};
use crate::dns::{Class, Query, Rcode, RecordType, Response, Section};
use crate::metrics::{Counter, names};

/// The TTL in seconds of every record: a week.
const TTL: u32 = 604_800;

/// The reverse zones, beside `localhost.`: 0, 127 and 255 in wire form.
const REVERSE_ZONES: [&[u8]; 3] = [
    b"\x010\x07in-addr\x04arpa\0",
    b"\x03127\x07in-addr\x04arpa\0",
    b"\x03255\x07in-addr\x04arpa\0",
];

/// The one name of the reverse zones that has a PTR record: that of 127.0.0.1, in wire form.
const LOOPBACK: &[u8] = b"\x011\x010\x010\x03127\x07in-addr\x04arpa\0";

/// The label `localhost` in wire form.
const LOCALHOST_LABEL: &[u8] = b"\x09localhost";

/// The name `localhost.` in wire form.
const LOCALHOST: &[u8] = b"\x09localhost\0";

/// The running part.
struct Local {
    /// `localhost.example.org.` counts as local too.
    takes_prefix: bool,
    counted: Counter,
}

/// The one record of a reply, and where it stands.
struct Reply<'q> {
    rcode: Rcode,
    section: Section,
    owner: &'q [u8],
    rtype: RecordType,
    rdata: Vec<u8>,
}

impl<'q> Reply<'q> {
    fn answer(owner: &'q [u8], rtype: RecordType, rdata: &[u8]) -> Reply<'q> {
        let (rcode, section) = (Rcode::NOERROR, Section::Answer);
        Reply { rcode, section, owner, rtype, rdata: rdata.to_vec() }
    }

    /// A negative response: the SOA record of `owner` in the authority section.
    fn negative(rcode: Rcode, owner: &'q [u8]) -> Reply<'q> {
        Reply { rcode, section: Section::Authority, owner, rtype: RecordType::SOA, rdata: soa() }
    }

    /// The addresses of the machine itself.
    fn loopback(owner: &'q [u8], qtype: RecordType) -> Reply<'q> {
        match qtype {
            RecordType::A => Reply::answer(owner, qtype, &[127, 0, 0, 1]),
            RecordType::AAAA => {
                Reply::answer(owner, qtype, &std::net::Ipv6Addr::LOCALHOST.octets())
            }
            _ => Reply::negative(Rcode::NOERROR, owner),
        }
    }

    /// What stands at the top of a zone.
    fn apex(owner: &'q [u8], qtype: RecordType) -> Reply<'q> {
        match qtype {
            RecordType::SOA => Reply::answer(owner, qtype, &soa()),
            RecordType::NS => Reply::answer(owner, qtype, LOCALHOST),
            _ => Reply::negative(Rcode::NOERROR, owner),
        }
    }
}

/// The RDATA of a SOA record: primary, mailbox, serial 1, no transfers, MINIMUM.
fn soa() -> Vec<u8> {
    let mut rdata = LOCALHOST.to_vec();
    rdata.extend_from_slice(b"\x04root");
    rdata.extend_from_slice(LOCALHOST);
    for number in [1, 0, 0, 0, TTL] {
        rdata.extend_from_slice(&number.to_be_bytes());
    }
    rdata
}

impl Local {
    /// The reply to a question about something local.
    fn reply<'q>(&self, query: &'q Query<'_>, context: &Context<'_>) -> Option<Reply<'q>> {
        if query.qclass() != Class::IN {
            return None;
        }
        let (name, owner, qtype) = (query.name(), query.spelled_name(), query.qtype());
        if name.as_bytes() == LOCALHOST {
            return Some(match qtype {
                RecordType::A | RecordType::AAAA => Reply::loopback(owner, qtype),
                _ => Reply::apex(owner, qtype),
            });
        }
        if name.suffixes().any(|suffix| suffix == LOCALHOST)
            || (self.takes_prefix && name.as_bytes().starts_with(LOCALHOST_LABEL))
        {
            self.counted.increment();
            context.journal.line(
                Level::Debug,
                format_args!(
                    "plugin/local: Intercepting localhost query for {} {qtype}, from {}",
                    quote(&name.to_string()),
                    context.client.address.ip().to_canonical()
                ),
            );
            return Some(Reply::loopback(owner, qtype));
        }
        let zone = name.suffixes().find(|suffix| REVERSE_ZONES.contains(suffix))?;
        let zone_owner = &owner[owner.len() - zone.len()..];
        Some(if name.as_bytes() == zone {
            Reply::apex(owner, qtype)
        } else if name.as_bytes() != LOOPBACK {
            Reply::negative(Rcode::NXDOMAIN, zone_owner)
        } else if qtype == RecordType::PTR {
            Reply::answer(owner, qtype, LOCALHOST)
        } else {
            Reply::negative(Rcode::NOERROR, zone_owner)
        })
    }
}

impl Handler for Local {
    fn word(&self) -> &'static str {
        "local"
    }

    fn query(
        &self,
        query: &mut Query<'_>,
        response: &mut Response,
        context: &mut Context<'_>,
    ) -> Flow {
        let Some(reply) = self.reply(query, context) else { return Flow::Next };
        let mut writer = response.start_with_records(query, reply.rcode, 0, "local");
        writer.raw_record(reply.section, reply.owner, reply.rtype, Class::IN, TTL, &reply.rdata);
        Flow::Answer
    }
}

/// Reads the directive; of several in a block the last values count.
///
/// # Errors
///
/// `unknown property '…'`, `localhost_prefix expects 'on' or 'off', got "…"` and `Wrong argument count
/// or unexpected line ending after '…'`; all of our own option, CoreDNS has no block.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    let dispenser = &mut setup.dispenser;
    let mut takes_prefix = true;
    while dispenser.next() {
        // Passed over, as CoreDNS does.
        dispenser.remaining_args();
        while dispenser.next_block() {
            let option = dispenser.val();
            if option != "localhost_prefix" {
                return Err(dispenser.err(format!("unknown property '{option}'")));
            }
            takes_prefix = match dispenser.remaining_args()[..] {
                ["on"] => true,
                ["off"] => false,
                [other] => {
                    return Err(dispenser.err(format!(
                        "localhost_prefix expects 'on' or 'off', got {}",
                        quote(other)
                    )));
                }
                _ => return Err(dispenser.arg_err()),
            };
        }
    }
    let counted = setup.metrics.counter(&names::LOCAL_LOCALHOST, &[]);
    setup.block.add(Local { takes_prefix, counted });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corefile::MemorySurroundings;
    use crate::plugin::testing::{Bench, always, nobody, query};

    const SOA: &str = "604800 IN SOA localhost. root.localhost. 1 0 0 0 604800";

    #[test]
    fn local_names_have_few_records() {
        let mut bench = Bench::new();
        let chain = bench.load("local", &MemorySurroundings::new()).unwrap();
        for (name, qtype, rcode, record) in [
            ("localhost.", RecordType::A, Rcode::NOERROR, "localhost. 604800 IN A 127.0.0.1"),
            ("localhost.", RecordType::AAAA, Rcode::NOERROR, "localhost. 604800 IN AAAA ::1"),
            ("localhost.", RecordType::NS, Rcode::NOERROR, "localhost. 604800 IN NS localhost."),
            ("localhost.", RecordType::SOA, Rcode::NOERROR, &format!("localhost. {SOA}")),
            ("localhost.", RecordType::MX, Rcode::NOERROR, &format!("localhost. {SOA}")),
            ("a.localhost.", RecordType::A, Rcode::NOERROR, "a.localhost. 604800 IN A 127.0.0.1"),
            ("a.localhost.", RecordType::TXT, Rcode::NOERROR, &format!("a.localhost. {SOA}")),
            (
                "localhost.a.test.",
                RecordType::AAAA,
                Rcode::NOERROR,
                "localhost.a.test. 604800 IN AAAA ::1",
            ),
            ("0.in-addr.arpa.", RecordType::A, Rcode::NOERROR, &format!("0.in-addr.arpa. {SOA}")),
            (
                "1.0.0.127.in-addr.arpa.",
                RecordType::PTR,
                Rcode::NOERROR,
                "1.0.0.127.in-addr.arpa. 604800 IN PTR localhost.",
            ),
            (
                "1.0.0.127.in-addr.arpa.",
                RecordType::A,
                Rcode::NOERROR,
                &format!("127.in-addr.arpa. {SOA}"),
            ),
            (
                "2.255.in-addr.arpa.",
                RecordType::PTR,
                Rcode::NXDOMAIN,
                &format!("255.in-addr.arpa. {SOA}"),
            ),
        ] {
            let outcome = bench.ask(&chain, query(name, qtype), nobody);
            assert_eq!(outcome.records(), [record], "{name} {qtype}");
            assert_eq!(outcome.response.rcode, rcode, "{name} {qtype}");
        }
        assert_eq!(bench.metrics.counter(&names::LOCAL_LOCALHOST, &[]).value(), 3);
        let line = "[DEBUG] plugin/local: Intercepting localhost query for \"a.localhost.\" A, from 127.0.0.1";
        assert_eq!(bench.journal.take()[0], line);
    }

    #[test]
    fn all_else_goes_on() {
        let mut bench = Bench::new();
        let text = "local {\n localhost_prefix off\n}";
        let chain = bench.load(text, &MemorySurroundings::new()).unwrap();
        for name in ["a.test.", "localhost.a.test.", "localhosts.", "1.in-addr.arpa."] {
            let below = always(Rcode::REFUSED, &[]);
            let outcome = bench.ask(&chain, query(name, RecordType::A), below);
            assert_eq!(outcome.response.rcode, Rcode::REFUSED, "{name}");
        }
    }

    #[test]
    fn what_stands_behind_the_word_is_passed_over() {
        assert!(Bench::new().load("local host", &MemorySurroundings::new()).is_ok());
    }

    #[test]
    fn mistakes_are_told_in_corednss_words() {
        for (text, error) in [
            ("local {\n x\n}", "unknown property 'x'"),
            (
                "local {\n localhost_prefix x\n}",
                "localhost_prefix expects 'on' or 'off', got \"x\"",
            ),
            ("local {\n localhost_prefix\n}", "unexpected line ending after 'localhost_prefix'"),
        ] {
            let found = Bench::new().load_error(text, &MemorySurroundings::new());
            assert!(found.starts_with("plugin/local: Corefile:"), "{found}");
            assert!(found.ends_with(error), "{found}");
        }
    }
}
