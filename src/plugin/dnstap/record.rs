//! One dnstap record in the octets of its protobuf schema (github.com/dnstap/dnstap.pb).
//!
//! Owns the field numbers.

use super::protobuf::Fields;
use crate::dns::Transport;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// `Message.Type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A query as a client sent it.
    ClientQuery = 5,
    /// The response to it.
    ClientResponse = 6,
    /// A query as it went to an upstream.
    ForwarderQuery = 7,
    /// The upstream's response.
    ForwarderResponse = 8,
}

/// Who writes, as every record of one directive says it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sender<'r> {
    /// The server's name.
    pub(super) identity: &'r [u8],
    /// The server's software.
    pub(super) version: &'r [u8],
    /// What the operator wants beside it; left out when empty.
    pub(super) extra: &'r [u8],
}

/// What happened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Event<'r> {
    /// Which message it is about.
    pub(super) kind: Kind,
    /// How it was carried.
    pub(super) transport: Transport,
    /// The client.
    pub(super) client: SocketAddr,
    /// The upstream.
    pub(super) upstream: Option<SocketAddr>,
    /// When the query was received or sent, since the Unix epoch.
    pub(super) asked: Duration,
    /// When the response was sent or received.
    pub(super) answered: Option<Duration>,
    /// The message, when messages are wanted.
    pub(super) message: Option<&'r [u8]>,
}

/// `SocketFamily`.
const INET: u64 = 1;
const INET6: u64 = 2;

/// `SocketProtocol`.
const UDP: u64 = 1;
const TCP: u64 = 2;
const DOT: u64 = 3;
const DOH: u64 = 4;
const DOQ: u64 = 7;

/// `Dnstap.Type.MESSAGE`.
const MESSAGE: u64 = 1;

/// The `Dnstap` message in wire form.
pub(super) fn encode(sender: &Sender<'_>, event: &Event<'_>) -> Vec<u8> {
    let inner = message(event);
    let rest = sender.identity.len() + sender.version.len() + sender.extra.len();
    let mut out = Fields::with_capacity(inner.len() + rest + 24);
    out.octets(1, sender.identity);
    out.octets(2, sender.version);
    if !sender.extra.is_empty() {
        out.octets(3, sender.extra);
    }
    out.octets(14, &inner);
    out.number(15, MESSAGE);
    out.into_octets()
}

/// The `Message` message. The socket is the one towards the upstream where there is one, as in
/// CoreDNS.
fn message(event: &Event<'_>) -> Vec<u8> {
    let is_response = matches!(event.kind, Kind::ClientResponse | Kind::ForwarderResponse);
    let client = event.client.ip().to_canonical();
    let socket = event.upstream.map_or(client, |upstream| upstream.ip().to_canonical());
    let mut out = Fields::with_capacity(80 + event.message.map_or(0, <[u8]>::len));
    out.number(1, event.kind as u64);
    out.number(2, if socket.is_ipv4() { INET } else { INET6 });
    let protocol = match event.transport {
        Transport::Udp => UDP,
        Transport::Tcp => TCP,
        Transport::Tls => DOT,
        Transport::Https => DOH,
        Transport::Quic => DOQ,
    };
    out.number(3, protocol);
    address(&mut out, 4, client);
    if let Some(upstream) = event.upstream {
        address(&mut out, 5, upstream.ip().to_canonical());
    }
    out.number(6, event.client.port().into());
    if let Some(upstream) = event.upstream {
        out.number(7, upstream.port().into());
    }
    out.number(8, event.asked.as_secs());
    out.fixed(9, event.asked.subsec_nanos());
    if let (Some(wire), false) = (event.message, is_response) {
        out.octets(10, wire);
    }
    if let Some(answered) = event.answered {
        out.number(12, answered.as_secs());
        out.fixed(13, answered.subsec_nanos());
    }
    if let (Some(wire), true) = (event.message, is_response) {
        out.octets(14, wire);
    }
    out.into_octets()
}

fn address(out: &mut Fields, field: u64, address: IpAddr) {
    match address {
        IpAddr::V4(address) => out.octets(field, &address.octets()),
        IpAddr::V6(address) => out.octets(field, &address.octets()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Field, and its value as text: numbers in decimal, octets as text or in hexadecimal.
    fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        fn varint(bytes: &mut &[u8]) -> u64 {
            let mut value = 0;
            for shift in (0..).step_by(7) {
                let (first, rest) = bytes.split_first().unwrap();
                *bytes = rest;
                value |= u64::from(first & 0x7f) << shift;
                if first & 0x80 == 0 {
                    break;
                }
            }
            value
        }
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let length = match key & 7 {
                0 => {
                    let value = varint(&mut bytes);
                    found.push((key >> 3, value.to_string().into_bytes()));
                    continue;
                }
                2 => varint(&mut bytes) as usize,
                5 => 4,
                other => panic!("wire type {other}"),
            };
            let (value, rest) = bytes.split_at(length);
            found.push((key >> 3, value.to_vec()));
            bytes = rest;
        }
        found
    }

    /// A record as text: `identity version extra | field=value …`, addresses and messages in
    /// hexadecimal.
    pub(in super::super) fn shown(bytes: &[u8]) -> String {
        let outer = fields(bytes);
        let get = |number| outer.iter().find(|(field, _)| *field == number).map(|(_, v)| v.clone());
        assert_eq!(get(15).unwrap(), b"1");
        let text = |number| String::from_utf8(get(number).unwrap_or_default()).unwrap();
        let mut line = format!("{} {} {} |", text(1), text(2), text(3));
        for (field, value) in fields(&get(14).unwrap()) {
            let value = match field {
                4 | 5 | 10 | 14 => value.iter().map(|octet| format!("{octet:02x}")).collect(),
                9 | 13 => u32::from_le_bytes(value.try_into().unwrap()).to_string(),
                _ => String::from_utf8(value).unwrap(),
            };
            line.push_str(&format!(" {field}={value}"));
        }
        line
    }

    #[test]
    fn every_field_has_its_number_and_type() {
        let sender = Sender { identity: b"node", version: b"v1", extra: b"more" };
        let event = Event {
            kind: Kind::ForwarderResponse,
            transport: Transport::Tls,
            client: "[::ffff:192.0.2.1]:40000".parse().unwrap(),
            upstream: Some("[2001:db8::53]:853".parse().unwrap()),
            asked: Duration::new(1_700_000_000, 300),
            answered: Some(Duration::new(1_700_000_001, 999_999_999)),
            message: Some(&[0xab, 0xcd]),
        };
        assert_eq!(
            shown(&encode(&sender, &event)),
            "node v1 more | 1=8 2=2 3=3 4=c0000201 5=20010db8000000000000000000000053 6=40000 7=853 \
             8=1700000000 9=300 12=1700000001 13=999999999 14=abcd"
        );
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let sender = Sender { identity: b"n", version: b"v", extra: b"" };
        let event = Event {
            kind: Kind::ClientQuery,
            transport: Transport::Udp,
            client: "192.0.2.1:5".parse().unwrap(),
            upstream: None,
            asked: Duration::from_secs(7),
            answered: None,
            message: Some(&[1]),
        };
        assert_eq!(
            shown(&encode(&sender, &event)),
            "n v  | 1=5 2=1 3=1 4=c0000201 6=5 8=7 9=0 10=01"
        );
    }
}
