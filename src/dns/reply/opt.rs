//! The OPT of a reply: the upstream's with the client's fields, or the client's own.
//!
//! Owns which options and flags go back (RFC 6891 §6).

use super::super::edns::Edns;
use super::super::layout::split_option;
use super::super::malformed::Malformed;
use super::super::query::Query;
use super::super::record::Section;
use super::super::words::{RecordType, options};

/// The client's options that go back to it as they came.
const REFLECTED: [u16; 5] =
    [options::NSID, options::EXPIRE, options::COOKIE, options::TCP_KEEPALIVE, options::PADDING];

/// The flag bits of an upstream's or client's OPT that a reply keeps: DO and the upper part of Z.
pub(super) const KEPT_EDNS_FLAGS: u16 = 0xff00;

/// An OPT record without options: root owner, TYPE, CLASS, TTL, RDLENGTH.
pub(super) const BARE_OPT: usize = 11;

/// The TTL field of an OPT record.
pub(super) fn opt_ttl(opt: &Edns) -> u32 {
    let [high, low] = opt.flags.to_be_bytes();
    u32::from_be_bytes([opt.extended_rcode, opt.version, high, low])
}

/// Writes the fields of `opt` over the OPT record that it was read from.
pub(super) fn patch_opt(wire: &mut [u8], opt: &Edns) -> Result<(), Malformed> {
    // CLASS, TTL and RDLENGTH stand right before the options, whatever owns the record.
    let start = opt.options.start.checked_sub(8).ok_or(Malformed::Cut)?;
    let fields = wire.get_mut(start..start + 6).ok_or(Malformed::Cut)?;
    fields[..2].copy_from_slice(&opt.udp_size.to_be_bytes());
    fields[2..].copy_from_slice(&opt_ttl(opt).to_be_bytes());
    Ok(())
}

/// Appends the client's own OPT, with the options that are reflected.
pub(super) fn append_opt(query: &Query<'_>, client: &Edns, extended_rcode: u8, wire: &mut Vec<u8>) {
    let at = wire.len();
    let mut opt = Edns {
        at,
        udp_size: client.udp_size,
        extended_rcode,
        version: 0,
        flags: client.flags & KEPT_EDNS_FLAGS,
        options: at + BARE_OPT..at + BARE_OPT,
    };
    wire.push(0);
    wire.extend_from_slice(&RecordType::OPT.0.to_be_bytes());
    wire.extend_from_slice(&opt.udp_size.to_be_bytes());
    wire.extend_from_slice(&opt_ttl(&opt).to_be_bytes());
    wire.extend_from_slice(&[0, 0]);
    let mut rest = query.wire().get(client.options.clone()).unwrap_or_default();
    while let Some((code, option, behind)) = split_option(rest) {
        if REFLECTED.contains(&code) || query.reflected_options().contains(&code) {
            wire.extend_from_slice(option);
        }
        rest = behind;
    }
    opt.options.end = wire.len();
    // They are a part of the client's own RDATA: their length fits.
    let length = opt.options.len() as u16;
    wire[at + 9..at + BARE_OPT].copy_from_slice(&length.to_be_bytes());
    let place = Section::Additional.count_place();
    let count = u16::from_be_bytes([wire[place.start], wire[place.start + 1]]).saturating_add(1);
    wire[place].copy_from_slice(&count.to_be_bytes());
}
