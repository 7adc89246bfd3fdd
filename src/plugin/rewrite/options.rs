//! EDNS options of a query as a list, and back into its message (RFC 6891 §6.1.2).

use crate::dns::{Malformed, Query, Section};

/// The UDP payload size that a query without EDNS is given, as in CoreDNS.
const NEW_UDP_SIZE: u16 = 4096;

/// TYPE of the OPT record.
const OPT: u16 = 41;

/// A code and its octets.
pub(super) type EdnsOption = (u16, Vec<u8>);

/// The options of OPT RDATA; what is cut at the end is left off.
pub(super) fn read(rdata: &[u8]) -> Vec<EdnsOption> {
    let mut options = Vec::new();
    let mut rest = rdata;
    while let Some((&[a, b, c, d], behind)) = rest.split_first_chunk::<4>() {
        let length = usize::from(u16::from_be_bytes([c, d]));
        let Some((octets, behind)) = behind.split_at_checked(length) else { break };
        options.push((u16::from_be_bytes([a, b]), octets.to_vec()));
        rest = behind;
    }
    options
}

/// OPT RDATA of options.
pub(super) fn write(options: &[EdnsOption]) -> Vec<u8> {
    let mut rdata = Vec::new();
    for (code, octets) in options {
        let length = u16::try_from(octets.len()).unwrap_or(u16::MAX);
        rdata.extend_from_slice(&code.to_be_bytes());
        rdata.extend_from_slice(&length.to_be_bytes());
        rdata.extend_from_slice(&octets[..usize::from(length)]);
    }
    rdata
}

/// The options of a query; none without EDNS.
pub(super) fn of_query(query: &Query<'_>) -> Vec<EdnsOption> {
    let rdata = query.edns().and_then(|edns| query.wire().get(edns.options.clone()));
    read(rdata.unwrap_or_default())
}

/// Gives a query exactly these options, and an OPT record if it had none.
pub(super) fn set(query: &mut Query<'_>, options: &[EdnsOption]) -> Result<(), Malformed> {
    let rdata = write(options);
    let length = u16::try_from(rdata.len()).map_err(|_| Malformed::TooLong)?;
    let old = query.wire();
    let mut wire = Vec::with_capacity(old.len() + 11 + rdata.len());
    match query.edns().map(|edns| edns.options.clone()) {
        Some(place) => {
            wire.extend_from_slice(old.get(..place.start - 2).ok_or(Malformed::Cut)?);
            wire.extend_from_slice(&length.to_be_bytes());
            wire.extend_from_slice(&rdata);
            wire.extend_from_slice(old.get(place.end..).ok_or(Malformed::Cut)?);
        }
        None => {
            wire.extend_from_slice(old);
            wire.push(0);
            wire.extend_from_slice(&OPT.to_be_bytes());
            wire.extend_from_slice(&NEW_UDP_SIZE.to_be_bytes());
            wire.extend_from_slice(&[0; 4]);
            wire.extend_from_slice(&length.to_be_bytes());
            wire.extend_from_slice(&rdata);
            let count = wire.get_mut(Section::Additional.count_place()).ok_or(Malformed::Cut)?;
            let more = u16::from_be_bytes([count[0], count[1]]).saturating_add(1);
            count.copy_from_slice(&more.to_be_bytes());
        }
    }
    query.replace(wire)
}
