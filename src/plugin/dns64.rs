//! `dns64`: AAAA records made from A records where there are none (RFC 6147, docs/plugins/dns64.md).
//!
//! Owns the directive, the decision and the synthesis. Asks for the A records through the whole
//! server ([`Turn::Ask`]), so that they are cached like any other question.

use super::{Context, Handler, PerServer, Setup, Turn};
use crate::corefile::{CorefileError, Dispenser};
use crate::dns::{
    Class, Malformed, Query, Rcode, RecordType, ReplyLimits, Response, Section, Written, flags,
    foreseen_reply,
};
use crate::metrics::{Counter, Registry, names};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The well-known prefix 64:ff9b::/96 (RFC 6052 §2.1).
const WELL_KNOWN: Prefix =
    Prefix { address: Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), length: 96 };

/// The greatest TTL in seconds of a synthesised record when the AAAA response names none
/// (RFC 6147 §5.1.7).
const MOST_TTL: u32 = 600;

/// An IPv6 prefix that IPv4 addresses are embedded in (RFC 6052 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Prefix {
    address: Ipv6Addr,
    /// 32, 40, 48, 56, 64, 72, 80, 88 or 96, as CoreDNS has it.
    length: u8,
}

impl Prefix {
    /// Reads `ADDRESS/LENGTH`.
    fn parse(text: &str, dispenser: &Dispenser<'_>) -> Result<Prefix, CorefileError> {
        let invalid = || dispenser.plain_err(format!("invalid CIDR address: {text}"));
        let (address, length) = text.split_once('/').ok_or_else(invalid)?;
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let is_number = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
        let length = length.parse::<u8>().ok().filter(|_| is_number).ok_or_else(invalid)?;
        match address {
            IpAddr::V4(_) if length > 32 => Err(invalid()),
            IpAddr::V6(_) if length > 128 => Err(invalid()),
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                let network = Ipv4Addr::from_bits(address.to_bits() & mask);
                Err(dispenser
                    .err(format!("invalid netmask 32 IPv6 address: \"{network}/{length}\"")))
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                let address = Ipv6Addr::from_bits(address.to_bits() & mask);
                if length % 8 != 0 || !(32..=96).contains(&length) {
                    let shown = match address.to_ipv4_mapped() {
                        Some(address) => format!("{address}/{}", length.saturating_sub(96)),
                        None => format!("{address}/{length}"),
                    };
                    return Err(dispenser.err(format!("invalid prefix length \"{shown}\"")));
                }
                Ok(Prefix { address, length })
            }
        }
    }

    /// The IPv6 address that stands for an IPv4 address: its octets behind the prefix, octet 8
    /// left zero (RFC 6052 §2.2).
    fn embed(self, address: Ipv4Addr) -> Ipv6Addr {
        let mut octets = self.address.octets();
        let places = (usize::from(self.length / 8)..16).filter(|place| *place != 8);
        for (place, octet) in places.zip(address.octets()) {
            octets[place] = octet;
        }
        Ipv6Addr::from(octets)
    }
}

/// The running part.
struct Dns64 {
    prefix: Prefix,
    translates_all: bool,
    allows_ipv4: bool,
    metrics: Registry,
    translated: PerServer<Counter>,
}

/// Reads the directive; of several in a block the last values count.
///
/// # Errors
///
/// `Wrong argument count or unexpected line ending after '…'`; `unknown property '…'`; `invalid CIDR
/// address: …`; `invalid netmask 32 IPv6 address: "…"`; `invalid prefix length "…"`.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    let mut dns64 = Dns64 {
        prefix: WELL_KNOWN,
        translates_all: false,
        allows_ipv4: false,
        metrics: setup.metrics.clone(),
        translated: PerServer::new(),
    };
    let dispenser = &mut setup.dispenser;
    while dispenser.next() {
        match dispenser.remaining_args()[..] {
            [] => {}
            [prefix] => dns64.prefix = Prefix::parse(prefix, dispenser)?,
            _ => return Err(dispenser.arg_err()),
        }
        while dispenser.next_block() {
            match dispenser.val() {
                "prefix" => {
                    if !dispenser.next_arg() {
                        return Err(dispenser.arg_err());
                    }
                    dns64.prefix = Prefix::parse(dispenser.val(), dispenser)?;
                }
                "translate_all" => dns64.translates_all = true,
                "allow_ipv4" => dns64.allows_ipv4 = true,
                other => return Err(dispenser.err(format!("unknown property '{other}'"))),
            }
        }
    }
    setup.block.add(dns64);
    Ok(())
}

impl Dns64 {
    /// Whether queries like this one are looked after at all.
    fn cares(&self, query: &Query<'_>, context: &Context<'_>) -> bool {
        query.qtype() == RecordType::AAAA
            && query.qclass() == Class::IN
            && (self.allows_ipv4 || context.client.address.ip().to_canonical().is_ipv6())
    }

    /// Whether a response needs synthesis: NXDOMAIN does not (RFC 6147 §5.1.2), nor does one with
    /// AAAA records.
    fn is_lacking(&self, response: &Response) -> bool {
        if response.written == Written::Nothing || response.rcode == Rcode::NXDOMAIN {
            return false;
        }
        let Ok(message) = response.message() else { return false };
        self.translates_all
            || !message
                .records()
                .any(|record| record.section == Section::Answer && record.rtype == RecordType::AAAA)
    }

    /// The response to an AAAA query, made of the one to the A query. `ttl` bounds the TTL of
    /// what is synthesised.
    fn synthesise(
        &self,
        query: &Query<'_>,
        response: &mut Response,
        further: &Response,
        ttl: u32,
    ) -> Result<(), Malformed> {
        let message = further.message()?;
        let cut = further.flags() & flags::TC;
        let mut writer = response.start_with_records(query, Rcode::NOERROR, cut, "dns64");
        for record in message.records() {
            let octets = match record.rtype {
                RecordType::A if record.section == Section::Answer => message
                    .wire()
                    .get(record.rdata.clone())
                    .and_then(|rdata| <[u8; 4]>::try_from(rdata).ok()),
                _ => None,
            };
            match octets {
                Some(octets) => writer.raw_record(
                    record.section,
                    message.owner(&record).as_bytes(),
                    RecordType::AAAA,
                    record.class,
                    record.ttl.min(ttl),
                    &self.prefix.embed(Ipv4Addr::from(octets)).octets(),
                ),
                None => writer.record(record.section, &message, &record, None),
            }
        }
        Ok(())
    }
}

/// The TTL of the SOA record in the authority section, or [`MOST_TTL`] (RFC 6147 §5.1.7).
fn most_ttl(response: &Response) -> u32 {
    let soa = |message: crate::dns::Message<'_>| {
        message
            .records()
            .filter(|record| {
                record.section == Section::Authority && record.rtype == RecordType::SOA
            })
            .last()
            .map(|record| record.ttl)
    };
    response.message().ok().and_then(soa).unwrap_or(MOST_TTL)
}

impl Handler for Dns64 {
    fn word(&self) -> &'static str {
        "dns64"
    }

    fn response(
        &self,
        query: &mut Query<'_>,
        response: &mut Response,
        context: &mut Context<'_>,
    ) -> Turn {
        if !self.cares(query, context) {
            return Turn::Up;
        }
        response.pass_through("dns64");
        if !self.is_lacking(response) {
            return Turn::Up;
        }
        let mut question = query.clone().into_owned();
        let name = query.name().clone();
        question.set_question(name.as_bytes(), RecordType::A, Class::IN);
        Turn::Ask(Box::new(question))
    }

    fn answered(
        &self,
        query: &mut Query<'_>,
        response: &mut Response,
        further: &Response,
        context: &mut Context<'_>,
    ) -> Turn {
        // Where the A records could not be had either, what is known of the AAAA ones stands.
        if further.written == Written::Nothing || further.rcode != Rcode::NOERROR {
            return Turn::Up;
        }
        let ttl = most_ttl(response);
        // What the server answers itself has the client's OPT record, and sizes that are logged count it.
        let foreseen = query.edns().is_some().then(|| {
            let limits = ReplyLimits::of(query, context.client.transport);
            foreseen_reply(query, further, limits)
        });
        let further = foreseen.as_ref().unwrap_or(further);
        if self.synthesise(query, response, further, ttl).is_err() {
            response.fail(Rcode::SERVFAIL, Some("dns64: malformed response".into()));
            return Turn::Up;
        }
        let make = |server: &str| self.metrics.counter(&names::DNS64_TRANSLATED, &[server]);
        self.translated.get(context.server, make).increment();
        Turn::Up
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corefile::MemorySurroundings;
    use crate::dns::Received;
    use crate::plugin::testing::{Bench, Outcome, query, respond};

    /// The responses to the AAAA and to the A question.
    type Script<'s> = (Rcode, &'s [&'s str], Rcode, &'s [&'s str]);

    /// A client's cookie (RFC 7873).
    const COOKIE: &[u8] = b"\0\x0a\0\x08abcdefgh";

    const SOA: &str = "authority: test. 60 IN SOA ns.test. hm.test. 7 3600 600 86400 60";

    fn ask(bench: &mut Bench, directive: &str, qtype: RecordType, script: Script<'_>) -> Outcome {
        let chain = bench.load(directive, &MemorySurroundings::new()).unwrap();
        let (aaaa_rcode, aaaa, a_rcode, a) = script;
        bench.ask(&chain, query("a.test.", qtype), |query, response| match query.qtype() {
            RecordType::A => respond(query, response, a_rcode, a),
            _ => respond(query, response, aaaa_rcode, aaaa),
        })
    }

    #[test]
    fn a_name_without_aaaa_gets_them_from_its_a_records() {
        const ANY_CLIENT: &str = "dns64 {\n allow_ipv4\n}";
        let ok = Rcode::NOERROR;
        let a: &[&str] = &["a.test. 300 IN A 192.0.2.33"];
        for (directive, script, records) in [
            (ANY_CLIENT, (ok, &[SOA][..], ok, a), vec!["a.test. 60 IN AAAA 64:ff9b::c000:221"]),
            (
                ANY_CLIENT,
                (ok, &[], ok, &["a.test. 3000 IN A 192.0.2.33"][..]),
                vec!["a.test. 600 IN AAAA 64:ff9b::c000:221"],
            ),
            (
                ANY_CLIENT,
                (Rcode::SERVFAIL, &[], ok, a),
                vec!["a.test. 300 IN AAAA 64:ff9b::c000:221"],
            ),
            (
                ANY_CLIENT,
                (ok, &[], ok, &["a.test. 40 IN CNAME b.test.", "b.test. 30 IN A 192.0.2.33"][..]),
                vec!["a.test. 40 IN CNAME b.test.", "b.test. 30 IN AAAA 64:ff9b::c000:221"],
            ),
            (
                ANY_CLIENT,
                (ok, &["a.test. 20 IN AAAA 2001:db8::6"][..], ok, a),
                vec!["a.test. 20 IN AAAA 2001:db8::6"],
            ),
            (
                "dns64 2001:db8::/32 {\n allow_ipv4\n translate_all\n}",
                (ok, &["a.test. 20 IN AAAA 2001:db8::6"][..], ok, a),
                vec!["a.test. 300 IN AAAA 2001:db8:c000:221::"],
            ),
            ("dns64", (ok, &[], ok, a), vec![]),
        ] {
            let outcome = ask(&mut Bench::new(), directive, RecordType::AAAA, script);
            assert_eq!(outcome.records(), records, "{directive} {script:?}");
            assert_eq!(outcome.response.rcode, ok);
        }
    }

    #[test]
    fn what_was_cut_of_the_a_records_is_said() {
        let mut bench = Bench::new();
        let chain = bench.load("dns64 {\n allow_ipv4\n}", &MemorySurroundings::new()).unwrap();
        for is_cut in [false, true] {
            let outcome =
                bench.ask(&chain, query("a.test.", RecordType::AAAA), |query, response| {
                    let a: &[&str] = &["a.test. 300 IN A 192.0.2.33"];
                    let is_a = query.qtype() == RecordType::A;
                    respond(query, response, Rcode::NOERROR, if is_a { a } else { &[] });
                    if is_a && is_cut {
                        response.set_flags(response.flags() | flags::TC);
                    }
                });
            assert_eq!(outcome.response.flags() & flags::TC != 0, is_cut);
        }
    }

    #[test]
    fn what_is_logged_of_a_synthesised_response_counts_the_clients_opt_record() {
        let mut bench = Bench::new();
        let directives = "dns64 {\n allow_ipv4\n}\nlog . {rsize}";
        let chain = bench.load(directives, &MemorySurroundings::new()).unwrap();
        // Header, question, record with its name in full; OPT record, cookie.
        for (opt, size) in [(None, 12 + 12 + 34), (Some(&[][..]), 58 + 11), (Some(COOKIE), 58 + 23)]
        {
            let mut wire = query("a.test.", RecordType::AAAA).wire().to_vec();
            if let Some(options) = opt {
                wire[11] = 1;
                wire.extend([0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, options.len() as u8]);
                wire.extend_from_slice(options);
            }
            let Received::Query(asked) = Query::receive(&wire) else { panic!("no query") };
            let outcome = bench.ask(&chain, asked.into_owned(), |query, response| {
                let a: &[&str] = &["a.test. 300 IN A 192.0.2.33"];
                let is_a = query.qtype() == RecordType::A;
                respond(query, response, Rcode::NOERROR, if is_a { a } else { &[] });
            });
            assert_eq!(outcome.response.message().unwrap().edns().is_some(), opt.is_some());
            assert_eq!(bench.journal.take(), [format!("[INFO] {size}")]);
        }
    }

    #[test]
    fn nxdomain_and_failures_stand() {
        let directive = "dns64 {\n allow_ipv4\n}";
        let a: &[&str] = &["a.test. 300 IN A 192.0.2.33"];
        let script = (Rcode::NXDOMAIN, &[SOA][..], Rcode::NOERROR, a);
        let outcome = ask(&mut Bench::new(), directive, RecordType::AAAA, script);
        assert_eq!(outcome.response.rcode, Rcode::NXDOMAIN);
        assert!(outcome.further.is_empty());

        let script = (Rcode::SERVFAIL, &[][..], Rcode::SERVFAIL, &[][..]);
        let outcome = ask(&mut Bench::new(), directive, RecordType::AAAA, script);
        assert_eq!(outcome.response.rcode, Rcode::SERVFAIL);
        assert_eq!(outcome.further.len(), 1);

        let script = (Rcode::NOERROR, &[][..], Rcode::NOERROR, a);
        let outcome = ask(&mut Bench::new(), directive, RecordType::TXT, script);
        assert!(outcome.further.is_empty());
    }

    #[test]
    fn an_ipv6_client_needs_no_permission_and_is_counted() {
        let mut bench = Bench::new();
        bench.client.address = "[2001:db8::9]:4000".parse().unwrap();
        let a: &[&str] = &["a.test. 300 IN A 192.0.2.33"];
        let script = (Rcode::NOERROR, &[][..], Rcode::NOERROR, a);
        let outcome = ask(&mut bench, "dns64", RecordType::AAAA, script);
        assert_eq!(outcome.records().len(), 1);
        assert_eq!(outcome.response.flags() & (flags::AA | flags::RA | flags::AD), 0);
        let server = bench.server.label.to_string();
        assert_eq!(bench.metrics.counter(&names::DNS64_TRANSLATED, &[&server]).value(), 1);

        bench.client.address = "[::ffff:192.0.2.9]:4000".parse().unwrap();
        let outcome = ask(&mut bench, "dns64", RecordType::AAAA, script);
        assert!(outcome.records().is_empty());
    }

    #[test]
    fn addresses_are_embedded_as_rfc_6052_shows() {
        // RFC 6052 §2.4.
        for (prefix, length, text) in [
            ("2001:db8::", 32, "2001:db8:c000:221::"),
            ("2001:db8:100::", 40, "2001:db8:1c0:2:21::"),
            ("2001:db8:122::", 48, "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::", 56, "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::", 64, "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::", 96, "2001:db8:122:344::192.0.2.33"),
        ] {
            let prefix = Prefix { address: prefix.parse().unwrap(), length };
            let address = prefix.embed(Ipv4Addr::new(192, 0, 2, 33));
            assert_eq!(address, text.parse::<Ipv6Addr>().unwrap());
        }
    }

    #[test]
    fn mistakes_are_told_in_corednss_words() {
        for (directive, text) in [
            ("dns64 1.2.3.4/24", "invalid netmask 32 IPv6 address: \"1.2.3.0/24\""),
            ("dns64 64:ff9b::/95", "invalid prefix length \"64:ff9b::/95\""),
            ("dns64 64:ff9b::/24", "invalid prefix length \"64:ff00::/24\""),
            ("dns64 ::ffff:10.0.0.0/104", "invalid prefix length \"10.0.0.0/8\""),
            ("dns64 foo", "invalid CIDR address: foo"),
            ("dns64 64:ff9b::/129", "invalid CIDR address: 64:ff9b::/129"),
            ("dns64 64:ff9b::/96 x", "Wrong argument count"),
            ("dns64 {\n foo\n}", "unknown property 'foo'"),
            ("dns64 {\n prefix\n}", "Wrong argument count"),
        ] {
            let error = Bench::new().load_error(directive, &MemorySurroundings::new());
            assert!(error.contains(text), "{directive}: {error}");
        }
    }
}
