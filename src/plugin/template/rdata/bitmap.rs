//! Bitmaps of types in RDATA that is given in octets.
//!
//! Owns their one form (RFC 4034 §4.1.2): windows in order, and no octet that is zero behind the last type. Others
//! are refused by clients, or cut.

use crate::dns::RecordType;

/// The most octets of a window.
const WINDOW_MOST: usize = 32;

/// RDATA of `rtype` with its bitmap in that form, if the type has one; `None` when it cannot be read.
pub(super) fn in_form(rtype: RecordType, rdata: Vec<u8>) -> Option<Vec<u8>> {
    if rdata.is_empty() {
        return Some(rdata);
    }
    let start = match rtype {
        RecordType::NSEC => behind_name(&rdata)?,
        // RFC 5155 §3.2: algorithm, flags, iterations, salt, hash.
        RecordType::NSEC3 => behind_string(&rdata, behind_string(&rdata, 4)?)?,
        // RFC 7477 §2.1.1: serial, flags.
        RecordType::CSYNC => 6,
        _ => return Some(rdata),
    };
    let (fields, mut rest) = rdata.split_at_checked(start)?;
    let mut octets = fields.to_vec();
    let mut last = None;
    while let Some((&[window, length], behind)) = rest.split_first_chunk() {
        let (bits, next) = behind.split_at_checked(usize::from(length))?;
        if bits.is_empty() || bits.len() > WINDOW_MOST || last.is_some_and(|last| window <= last) {
            return None;
        }
        let used = bits.iter().rposition(|octet| *octet != 0).map_or(0, |at| at + 1);
        if used > 0 {
            octets.extend([window, u8::try_from(used).ok()?]);
            octets.extend_from_slice(&bits[..used]);
        }
        (last, rest) = (Some(window), next);
    }
    rest.is_empty().then_some(octets)
}

/// Where the octets end that stand behind their length at `at`.
fn behind_string(rdata: &[u8], at: usize) -> Option<usize> {
    Some(at + 1 + usize::from(*rdata.get(at)?))
}

fn behind_name(rdata: &[u8]) -> Option<usize> {
    let mut at = 0;
    while *rdata.get(at)? != 0 {
        at = behind_string(rdata, at)?;
    }
    Some(at + 1)
}
