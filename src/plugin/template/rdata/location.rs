//! The RDATA of LOC from its text (RFC 1876).
//!
//! Owns the units: degrees, metres, and the size of a sphere in one octet. Never panics on any text.

use std::iter::Peekable;

/// Thousandths of a second of arc in a degree.
const DEGREE: u32 = 3_600_000;

/// The equator and the prime meridian (RFC 1876 §2).
const MIDDLE: u32 = 1 << 31;

/// The reference of altitudes, in centimetres below the sphere of GPS (RFC 1876 §2).
const DEEPEST: f64 = 10_000_000.0;

/// The greatest size, in metres.
const GREATEST: u64 = 90_000_000;

/// Size, horizontal and vertical precision that a text leaves out: 1 m, 10 km, 10 m (RFC 1876 §3).
const USUAL: [u8; 3] = [0x12, 0x16, 0x13];

/// The RDATA of `d1 [m1 [s1]] N|S d2 [m2 [s2]] E|W alt[m] [size[m] [hp[m] [vp[m]]]]`. As with miekg/dns,
/// what stands behind these is passed over.
pub(super) fn octets<'t>(fields: impl Iterator<Item = &'t str>) -> Option<Vec<u8>> {
    let mut fields = fields.peekable();
    let latitude = angle(&mut fields, 90, ["N", "S"])?;
    let longitude = angle(&mut fields, 180, ["E", "W"])?;
    let altitude = altitude(fields.next()?)?;
    let mut octets = vec![0];
    for usual in USUAL {
        octets.push(fields.next().map_or(Some(usual), size)?);
    }
    fields.for_each(drop);
    for word in [latitude, longitude, altitude] {
        octets.extend(word.to_be_bytes());
    }
    Some(octets)
}

/// An angle of so many degrees at most, up to and with the letter of its side.
fn angle<'t>(
    fields: &mut Peekable<impl Iterator<Item = &'t str>>,
    most: u32,
    [positive, negative]: [&str; 2],
) -> Option<u32> {
    let side = |text: &str| {
        let is_positive = text.eq_ignore_ascii_case(positive);
        (is_positive || text.eq_ignore_ascii_case(negative)).then_some(is_positive)
    };
    let mut angle = below(fields.next()?, most + 1)? * DEGREE;
    if side(fields.peek()?).is_none() {
        angle += below(fields.next()?, 60)? * 60_000;
        if side(fields.peek()?).is_none() {
            let seconds =
                decimal(fields.next()?).filter(|seconds| (0.0..60.0).contains(seconds))?;
            angle += (seconds * 1_000.0) as u32;
        }
    }
    let is_positive = side(fields.next()?)?;
    let within = angle <= most * DEGREE;
    within.then(|| if is_positive { MIDDLE + angle } else { MIDDLE - angle })
}

/// A number below `bound`.
fn below(text: &str, bound: u32) -> Option<u32> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| is_number && *number < bound)
}

fn decimal(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// The altitude in centimetres above [`DEEPEST`].
fn altitude(text: &str) -> Option<u32> {
    let centimetres = (decimal(metres(text))? * 100.0 + DEEPEST).round();
    (0.0..=f64::from(u32::MAX)).contains(&centimetres).then_some(centimetres as u32)
}

/// Without the unit.
fn metres(text: &str) -> &str {
    text.strip_suffix(['m', 'M']).unwrap_or(text)
}

/// A size as a digit and a power of ten, in centimetres (RFC 1876 §2): the first digit that is not 0.
fn size(text: &str) -> Option<u8> {
    let text = metres(text);
    let (whole, hundredths) = match text.split_once('.') {
        Some((whole, hundredths)) if matches!(hundredths.len(), 1 | 2) => (whole, hundredths),
        Some(_) => return None,
        None => (text, "0"),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if text.is_empty() || !digits(whole) || !digits(hundredths) {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let unit = if hundredths.len() == 1 { 10 } else { 1 };
    let mut mantissa: u64 = hundredths.parse::<u64>().ok()? * unit;
    let mut exponent = 0;
    if whole > 0 {
        (mantissa, exponent) = (whole, 2);
    }
    if whole > GREATEST {
        return None;
    }
    while mantissa >= 10 {
        mantissa /= 10;
        exponent += 1;
    }
    Some((mantissa as u8) << 4 | exponent)
}
