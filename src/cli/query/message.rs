//! The query that is sent, and which reply is one to it.
//!
//! hickory-proto writes the message. A reply is not decoded here: it is one by its header and its
//! question alone.

use super::settings::Settings;
use crate::corefile::Network;
use crate::dns::{Class, RecordType, flags, sizes};
use hickory_proto::op::{self, Message, MessageType, OpCode};
use hickory_proto::rr::rdata::opt::{ClientSubnet, EdnsOption, NSIDPayload};
use hickory_proto::rr::{DNSClass, Name};

/// A query's octets. The error says what does not fit.
pub(super) fn query(
    id: u16,
    (name, qtype, qclass): (&Name, RecordType, Class),
    settings: &Settings,
) -> Result<Vec<u8>, String> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = settings.recursion;
    message.metadata.authentic_data = settings.authentic;
    message.metadata.checking_disabled = settings.checking_disabled;
    let mut question = op::Query::query(name.clone(), qtype.0.into());
    question.set_query_class(DNSClass::from(qclass.0));
    message.add_query(question);
    if let Some(wanted) = &settings.edns {
        let mut edns = op::Edns::new();
        edns.set_version(wanted.version).set_max_payload(wanted.size).set_dnssec_ok(wanted.dnssec);
        if wanted.nsid {
            let payload = NSIDPayload::new(Vec::new()).map_err(|error| error.to_string())?;
            edns.options_mut().insert(EdnsOption::NSID(payload));
        }
        if let Some((address, length)) = wanted.subnet {
            // The bits behind the prefix must not be sent (RFC 7871 §6).
            let address = Network::of(address, length).address;
            let subnet = ClientSubnet::new(address, length, 0);
            edns.options_mut().insert(EdnsOption::Subnet(subnet));
        }
        message.set_edns(edns);
    }
    message.to_vec().map_err(|error| format!("the query cannot be written: {error}"))
}

/// Whether `reply` is one to `query`. The error says why it is not.
pub(super) fn belongs(reply: &[u8], query: &[u8]) -> Result<(), String> {
    let Some((head, behind)) = reply.split_first_chunk::<{ sizes::HEADER }>() else {
        return Err(format!("{} octets are no message", reply.len()));
    };
    let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    let id = u16::from_be_bytes([query[0], query[1]]);
    if word(0) != id {
        return Err(format!("its id is {}, not {id}", word(0)));
    }
    if word(2) & flags::QR == 0 {
        return Err("it is a query itself".to_owned());
    }
    // Some errors come without a question.
    if word(4) == 0 && word(2) & flags::RCODE != 0 {
        return Ok(());
    }
    let asked = question(&query[sizes::HEADER..]).unwrap_or_default();
    match question(behind) {
        Some(told) if word(4) == 1 && told.eq_ignore_ascii_case(asked) => Ok(()),
        _ => Err("its question is another one".to_owned()),
    }
}

/// The octets of the one question of a message: it is the first, so nothing in it is compressed.
fn question(behind_header: &[u8]) -> Option<&[u8]> {
    let mut at = 0;
    loop {
        match usize::from(*behind_header.get(at)?) {
            0 => return behind_header.get(..at + 1 + sizes::TYPE_AND_CLASS),
            length @ 1..=sizes::LABEL_MOST => at += 1 + length,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::Edns;
    use super::*;

    fn sent(settings: &Settings) -> Vec<u8> {
        let name = Name::from_ascii("www.Example.com.").unwrap();
        query(0x1234, (&name, RecordType::A, Class::IN), settings).unwrap()
    }

    #[test]
    fn a_query_carries_what_was_asked_for() {
        let plain = sent(&Settings { edns: None, ..Settings::default() });
        assert_eq!(plain[..12], [0x12, 0x34, 1, 0x20, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(plain[12..], *b"\x03www\x07Example\x03com\0\0\x01\0\x01");
        let edns = Edns { size: 4096, dnssec: true, nsid: true, ..Edns::default() };
        let settings = Settings {
            edns: Some(edns),
            recursion: false,
            authentic: false,
            checking_disabled: true,
            ..Settings::default()
        };
        let wire = sent(&settings);
        assert_eq!(wire[2..4], [0, 0x10]);
        assert_eq!(wire[wire.len() - 15..], [0, 0, 41, 16, 0, 0, 0, 0x80, 0, 0, 4, 0, 3, 0, 0]);
    }

    #[test]
    fn a_subnet_is_sent_without_the_bits_behind_it() {
        let subnet = Some(("192.0.2.77".parse().unwrap(), 20));
        let edns = Edns { subnet, ..Edns::default() };
        let wire = sent(&Settings { edns: Some(edns), ..Settings::default() });
        assert!(wire.ends_with(&[0, 8, 0, 7, 0, 1, 20, 0, 192, 0, 0]), "{wire:?}");
        let subnet = Some(("2001:db8::1".parse().unwrap(), 0));
        let edns = Edns { subnet, ..Edns::default() };
        let wire = sent(&Settings { edns: Some(edns), ..Settings::default() });
        assert!(wire.ends_with(&[0, 8, 0, 4, 0, 2, 0, 0]), "{wire:?}");
    }

    #[test]
    fn a_reply_must_be_to_this_query() {
        let query = sent(&Settings::default());
        let mut reply = query.clone();
        assert_eq!(belongs(&reply, &query), Err("it is a query itself".to_owned()));
        reply[2] |= 0x80;
        assert_eq!(belongs(&reply, &query), Ok(()));
        reply[13] = b'W';
        assert_eq!(belongs(&reply, &query), Ok(()), "case does not count");
        reply[13] = b'x';
        assert_eq!(belongs(&reply, &query), Err("its question is another one".to_owned()));
        reply[1] = 0x35;
        assert_eq!(belongs(&reply, &query), Err("its id is 4661, not 4660".to_owned()));
        assert_eq!(belongs(&reply[..5], &query), Err("5 octets are no message".to_owned()));
        let bare = [0x12, 0x34, 0x80, 5, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(belongs(&bare, &query), Ok(()), "an error without a question");
        assert_eq!(belongs(&reply[..14], &reply), Err("its question is another one".to_owned()));
    }
}
