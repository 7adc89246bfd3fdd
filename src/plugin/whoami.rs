//! `whoami`: answers with the client's own address, transport and port (docs/plugins/whoami.md).

use super::{Context, Flow, Handler, Setup};
use crate::corefile::CorefileError;
use crate::dns::{Query, Rcode, RecordType, Response, Section, flags, sizes};
use std::net::IpAddr;

/// Reads the directive.
///
/// # Errors
///
/// `Wrong argument count or unexpected line ending after '…'` for any argument.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    setup.dispenser.next();
    if setup.dispenser.next_arg() {
        return Err(setup.dispenser.arg_err());
    }
    setup.block.add(Whoami);
    Ok(())
}

/// The handler.
struct Whoami;

impl Handler for Whoami {
    fn word(&self) -> &'static str {
        "whoami"
    }

    fn query(
        &self,
        query: &mut Query<'_>,
        response: &mut Response,
        context: &mut Context<'_>,
    ) -> Flow {
        let mut writer = response.start_with_records(query, Rcode::NOERROR, flags::AA, "whoami");

        let (v4, v6);
        let (rtype, rdata): (_, &[u8]) = match context.client.address.ip().to_canonical() {
            IpAddr::V4(address) => {
                v4 = address.octets();
                (RecordType::A, &v4)
            }
            IpAddr::V6(address) => {
                v6 = address.octets();
                (RecordType::AAAA, &v6)
            }
        };
        let class = query.qclass();
        writer.raw_record(Section::Additional, query.spelled_name(), rtype, class, 0, rdata);

        // `_udp.` in front of a name that is almost 255 octets long is no name any more.
        let word = context.client.transport.client_word();
        let mut owner = Vec::with_capacity(query.spelled_name().len() + 5);
        owner.extend_from_slice(&[word.len() as u8 + 1, b'_']);
        owner.extend_from_slice(word.as_bytes());
        owner.extend_from_slice(query.spelled_name());
        if owner.len() <= sizes::NAME_MOST {
            let [high, low] = context.client.address.port().to_be_bytes();
            // Priority 0, weight 0, the port, the root as target.
            let rdata = [0, 0, 0, 0, high, low, 0];
            writer.raw_record(Section::Additional, &owner, RecordType::SRV, class, 0, &rdata);
        }
        Flow::Answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corefile::MemorySurroundings;
    use crate::dns::Transport;
    use crate::plugin::testing::{Bench, nobody, query};

    fn ask(bench: &mut Bench, name: &str) -> Vec<String> {
        let chain = bench.load("whoami", &MemorySurroundings::default()).unwrap();
        let outcome = bench.ask(&chain, query(name, RecordType::A), nobody);
        assert_eq!(outcome.response.rcode, Rcode::NOERROR);
        assert_ne!(outcome.response.flags() & flags::AA, 0);
        outcome.records()
    }

    #[test]
    fn the_client_is_told_its_address_transport_and_port() {
        let mut bench = Bench::new();
        assert_eq!(
            ask(&mut bench, "who.test."),
            ["who.test. 0 IN A 127.0.0.1", "_udp.who.test. 0 IN SRV 0 0 40212 ."]
        );
        bench.client.transport = Transport::Tcp;
        bench.client.address = "[2001:db8::1]:7".parse().unwrap();
        assert_eq!(ask(&mut bench, "."), [". 0 IN AAAA 2001:db8::1", "_tcp. 0 IN SRV 0 0 7 ."]);
        bench.client.address = "[::ffff:192.0.2.1]:7".parse().unwrap();
        assert_eq!(ask(&mut bench, ".")[0], ". 0 IN A 192.0.2.1");
    }

    #[test]
    fn a_name_with_no_room_for_another_label_gets_no_srv_record() {
        let label = "a".repeat(62);
        let name = format!("{label}.{label}.{label}.{label}.");
        assert_eq!(ask(&mut Bench::new(), &name).len(), 1);
    }

    #[test]
    fn it_takes_no_argument() {
        assert_eq!(
            Bench::new().load_error("whoami you", &MemorySurroundings::default()),
            "plugin/whoami: Corefile:2 - Error during parsing: Wrong argument count or unexpected line ending after 'you'"
        );
    }
}
