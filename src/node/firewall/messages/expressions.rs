//! What a rule of nftables compares and does, as the expressions of its message.
//!
//! Owns the numbers of `meta`, `payload`, `cmp` and `immediate`. Pure.

use super::super::rules::{Protocol, Rule, Side};
use super::{IPV4, IPV6, number};
use crate::sys::netlink::Request;
use std::net::IpAddr;

const ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;

/// The register that values pass through (`NFT_REG_1`).
const REGISTER: u32 = 1;

/// `NFT_META_IIF`, `NFT_META_OIF`.
pub(super) const LINK_IN: u32 = 4;
pub(super) const LINK_OUT: u32 = 5;
/// `NFT_META_NFPROTO`, `NFT_META_L4PROTO`.
const META_FAMILY: u32 = 15;
const META_PROTOCOL: u32 = 16;

/// The number of the loopback link, in every network namespace.
const LOOPBACK: u32 = 1;

/// `NFT_CMP_EQ`, `NFT_CMP_NEQ`.
const EQUAL: u32 = 0;
const UNEQUAL: u32 = 1;

/// `NFT_PAYLOAD_CSUM_NONE`, `…_INET`: whether the header that is written to has a checksum; and
/// `NFT_PAYLOAD_L4CSUM_PSEUDOHDR`: the transport's checksum covers the addresses.
const NO_CHECKSUM: u32 = 0;
const HEADER_CHECKSUM: u32 = 1;
const COVERED_BY_TRANSPORT: u32 = 1;
/// Where an IPv4 header has its checksum.
const CHECKSUM_PLACE: u32 = 10;

/// `NFT_PAYLOAD_NETWORK_HEADER`, `NFT_PAYLOAD_TRANSPORT_HEADER`.
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;

/// `ip daddr ADDRESS udp dport PORT`.
pub(super) fn matching(list: Request, rule: &Rule) -> Request {
    let family = if rule.address.is_ipv4() { IPV4 } else { IPV6 };
    let (place, address) = address_at(rule.side, rule.address);
    let protocol = match rule.protocol {
        Protocol::Tcp => libc::IPPROTO_TCP,
        Protocol::Udp => libc::IPPROTO_UDP,
    };
    let port_place = match rule.side {
        Side::Source => 0,
        Side::Destination => 2,
    };
    let list = equal(meta(list, META_FAMILY), &[family]);
    let list = equal(payload(list, NETWORK, place, address.len()), &address);
    let list = equal(meta(list, META_PROTOCOL), &[protocol as u8]);
    equal(payload(list, TRANSPORT, port_place, 2), &rule.port.to_be_bytes())
}

/// Where the header of its family has an address, and its octets.
fn address_at(side: Side, address: IpAddr) -> (u32, Vec<u8>) {
    let (source, destination, octets) = match address {
        IpAddr::V4(v4) => (12, 16, v4.octets().to_vec()),
        IpAddr::V6(v6) => (8, 24, v6.octets().to_vec()),
    };
    match side {
        Side::Source => (source, octets),
        Side::Destination => (destination, octets),
    }
}

/// `ip daddr set ADDRESS`, with the checksums.
pub(super) fn exchange(list: Request, side: Side, by: IpAddr) -> Request {
    let (place, octets) = address_at(side, by);
    let (kind, checksum_place) = match by {
        IpAddr::V4(_) => (HEADER_CHECKSUM, CHECKSUM_PLACE),
        IpAddr::V6(_) => (NO_CHECKSUM, 0),
    };
    let list = expression(list, "immediate", |data| {
        number(data, 1, REGISTER).nested(2, |inner| inner.attribute(DATA_VALUE, &octets))
    });
    expression(list, "payload", |data| {
        let data = number(number(data, 5, REGISTER), 2, NETWORK);
        let data = number(number(data, 3, place), 4, octets.len() as u32);
        number(number(number(data, 6, kind), 7, checksum_place), 8, COVERED_BY_TRANSPORT)
    })
}

/// `iif != 1`, or `oif`.
pub(super) fn not_loopback(list: Request, link: u32) -> Request {
    // Links have their numbers in the machine's order.
    compare(meta(list, link), UNEQUAL, &LOOPBACK.to_ne_bytes())
}

/// `notrack`.
pub(super) fn not_tracked(list: Request) -> Request {
    list.nested(ELEMENT, |element| element.text(EXPRESSION_NAME, "notrack"))
}

fn meta(list: Request, key: u32) -> Request {
    expression(list, "meta", |data| number(number(data, 1, REGISTER), 2, key))
}

fn payload(list: Request, base: u32, offset: u32, length: usize) -> Request {
    expression(list, "payload", |data| {
        let data = number(number(data, 1, REGISTER), 2, base);
        number(number(data, 3, offset), 4, length as u32)
    })
}

fn equal(list: Request, value: &[u8]) -> Request {
    compare(list, EQUAL, value)
}

fn compare(list: Request, operation: u32, value: &[u8]) -> Request {
    expression(list, "cmp", |data| {
        let data = number(number(data, 1, REGISTER), 2, operation);
        data.nested(3, |inner| inner.attribute(DATA_VALUE, value))
    })
}

fn expression(list: Request, name: &str, fill: impl FnOnce(Request) -> Request) -> Request {
    list.nested(ELEMENT, |element| {
        element.text(EXPRESSION_NAME, name).nested(EXPRESSION_DATA, fill)
    })
}
