//! Domain names in wire form, lower-cased: what zones, cache keys and questions are compared by.
//!
//! Owns name parsing, presentation text (miekg/dns's escapes) and suffix order. Never allocates
//! but for text.

use super::malformed::Malformed;
use super::sizes::{LABEL_MOST, NAME_MOST};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

/// The greatest number of compression pointers followed for one name: one for each label of the
/// longest name.
const MAX_POINTERS: usize = 127;

/// Why text is not a domain name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A label of no octets between two dots.
    #[error("empty label")]
    EmptyLabel,
    /// A label of more than 63 octets.
    #[error("label too long")]
    LabelTooLong,
    /// More than 255 octets in wire form.
    #[error("name too long")]
    NameTooLong,
    /// A backslash with nothing, or with a number above 255, behind it.
    #[error("bad escape")]
    BadEscape,
}

/// A domain name: uncompressed wire form, ASCII letters in lower case, always ending in the root.
#[derive(Clone)]
pub struct Name {
    length: u8,
    wire: [u8; NAME_MOST],
}

impl Name {
    /// The root.
    pub fn root() -> Name {
        Name { length: 1, wire: [0; NAME_MOST] }
    }

    /// Reads the (possibly compressed) name at `at` of `message`; also returns the offset just
    /// behind it. Compression pointers must point backwards (RFC 1035 §4.1.4).
    ///
    /// # Errors
    ///
    /// What of it is malformed: cut off, too long, a pointer that does not go backwards.
    pub fn parse(message: &[u8], at: usize) -> Result<(Name, usize), Malformed> {
        let (spelled, end) = Spelled::parse(message, at)?;
        Ok((spelled.name(), end))
    }

    /// Lower-cases what is a name in wire form.
    fn lowered(wire: &[u8]) -> Name {
        let mut name = Name { length: wire.len() as u8, wire: [0; NAME_MOST] };
        // A length octet is below 64 and lower-casing touches 65 to 90 only: it is safe.
        for (into, octet) in name.wire.iter_mut().zip(wire) {
            *into = octet.to_ascii_lowercase();
        }
        name
    }

    /// The wire form, root label included.
    pub fn as_bytes(&self) -> &[u8] {
        &self.wire[..usize::from(self.length)]
    }

    /// True for the root name.
    pub fn is_root(&self) -> bool {
        self.length == 1
    }

    /// The name itself, its parent, and so on to the root: each in wire form.
    pub fn suffixes(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = Some(self.as_bytes());
        std::iter::from_fn(move || {
            let now = rest?;
            rest = match now[0] {
                0 => None,
                length => Some(&now[1 + usize::from(length)..]),
            };
            Some(now)
        })
    }

    /// The labels from left to right, without the root's.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        self.suffixes()
            .filter(|suffix| suffix[0] != 0)
            .map(|suffix| &suffix[1..1 + usize::from(suffix[0])])
    }

    /// True when this name is `zone` or below it.
    pub fn is_in(&self, zone: &Name) -> bool {
        let (name, zone) = (self.as_bytes(), zone.as_bytes());
        // Every name ends in the root, and most zones asked about are it.
        zone.len() == 1
            || (name.ends_with(zone) && self.suffixes().any(|suffix| suffix.len() == zone.len()))
    }
}

/// A name's uncompressed wire form in the case it came in.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)] // A box would be an allocation for every compressed name.
pub(super) enum Spelled<'m> {
    /// It stands in its message as it is.
    Whole(&'m [u8]),
    /// It was put together from its parts.
    Joined {
        /// Octets of it.
        length: u8,
        /// They, and zeros.
        wire: [u8; NAME_MOST],
    },
}

impl<'m> Spelled<'m> {
    /// As [`Name::parse`], case kept.
    #[inline]
    pub(super) fn parse(message: &'m [u8], at: usize) -> Result<(Spelled<'m>, usize), Malformed> {
        match whole(message, at) {
            Some(wire) => Ok((Spelled::Whole(wire), at + wire.len())),
            None => Spelled::join(message, at),
        }
    }

    fn join(message: &[u8], at: usize) -> Result<(Spelled<'m>, usize), Malformed> {
        let mut wire = [0; NAME_MOST];
        let mut length = 0;
        let end = walk(message, at, |label| {
            let into = wire.get_mut(length..length + label.len()).ok_or(Malformed::NameTooLong)?;
            into.copy_from_slice(label);
            length += label.len();
            Ok(())
        })?;
        Ok((Spelled::Joined { length: length as u8, wire }, end))
    }

    /// The wire form, root label included.
    #[inline]
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Spelled::Whole(wire) => wire,
            Spelled::Joined { length, wire } => &wire[..usize::from(*length)],
        }
    }

    /// The name, lower-cased.
    #[inline]
    pub(super) fn name(&self) -> Name {
        Name::lowered(self.as_bytes())
    }
}

/// The octets of the name at `at` where it is uncompressed and complete, as nearly every question is.
#[inline]
fn whole(message: &[u8], at: usize) -> Option<&[u8]> {
    let mut length = 0;
    loop {
        let head = *message.get(at + length)?;
        length += 1 + usize::from(head);
        if usize::from(head) > LABEL_MOST || length > NAME_MOST {
            return None;
        }
        if head == 0 {
            return Some(&message[at..at + length]);
        }
    }
}

/// The uncompressed length in octets of the name at `at`, and the offset just behind it.
pub(super) fn measure(message: &[u8], at: usize) -> Result<(usize, usize), Malformed> {
    let mut length = 0;
    let end = walk(message, at, |label| {
        length += label.len();
        if length > NAME_MOST { Err(Malformed::NameTooLong) } else { Ok(()) }
    })?;
    Ok((length, end))
}

/// The offset just behind the name at `at`, its pointer not followed: for names already checked.
pub(super) fn skip(message: &[u8], at: usize) -> Option<usize> {
    let mut place = at;
    loop {
        let head = *message.get(place)?;
        match head & 0xc0 {
            0x00 => place += 1 + usize::from(head),
            _ => return Some(place + 2),
        }
        if head == 0 {
            return Some(place);
        }
    }
}

/// Gives each label of the name at `at`, its length octet first and the root's last; returns the
/// offset just behind the name.
fn walk(
    message: &[u8],
    at: usize,
    mut label: impl FnMut(&[u8]) -> Result<(), Malformed>,
) -> Result<usize, Malformed> {
    let mut place = at;
    let mut lowest = at;
    let mut end = None;
    let mut pointers = 0;
    loop {
        let head = *message.get(place).ok_or(Malformed::Cut)?;
        match head & 0xc0 {
            0x00 => {
                let stop = place + 1 + usize::from(head);
                label(message.get(place..stop).ok_or(Malformed::Cut)?)?;
                place = stop;
                if head == 0 {
                    return Ok(end.unwrap_or(place));
                }
            }
            0xc0 => {
                let low = *message.get(place + 1).ok_or(Malformed::Cut)?;
                let target = (usize::from(head & 0x3f) << 8) | usize::from(low);
                end.get_or_insert(place + 2);
                pointers += 1;
                // Pointers going only backwards end by themselves, but a message made of nothing
                // else would take a walk of thousands of steps for each of its names.
                if target >= lowest || pointers > MAX_POINTERS {
                    return Err(Malformed::Pointer);
                }
                lowest = target;
                place = target;
            }
            _ => return Err(Malformed::LabelKind),
        }
    }
}

impl FromStr for Name {
    type Err = NameError;

    /// Reads presentation text with `\.` and `\DDD` escapes; a missing final dot is added.
    fn from_str(text: &str) -> Result<Name, NameError> {
        let mut name = Name::root();
        if text == "." {
            return Ok(name);
        }
        let mut bytes = text.bytes().peekable();
        let (mut head, mut length) = (0usize, 1usize);
        while let Some(byte) = bytes.next() {
            let byte = match byte {
                b'.' => {
                    let label = length - head - 1;
                    if label == 0 {
                        return Err(NameError::EmptyLabel);
                    }
                    name.wire[head] = label as u8;
                    head = length;
                    length += 1;
                    if head >= NAME_MOST {
                        return Err(NameError::NameTooLong);
                    }
                    continue;
                }
                b'\\' => match bytes.next().ok_or(NameError::BadEscape)? {
                    digit @ b'0'..=b'9' => {
                        let mut value = u16::from(digit - b'0');
                        for _ in 0..2 {
                            match bytes.next() {
                                Some(digit @ b'0'..=b'9') => {
                                    value = value * 10 + u16::from(digit - b'0');
                                }
                                _ => return Err(NameError::BadEscape),
                            }
                        }
                        u8::try_from(value).map_err(|_| NameError::BadEscape)?
                    }
                    other => other,
                },
                other => other,
            };
            if length - head > LABEL_MOST {
                return Err(NameError::LabelTooLong);
            }
            *name.wire.get_mut(length).ok_or(NameError::NameTooLong)? = byte.to_ascii_lowercase();
            length += 1;
        }
        let label = length - head - 1;
        if label > 0 {
            name.wire[head] = label as u8;
            *name.wire.get_mut(length).ok_or(NameError::NameTooLong)? = 0;
            length += 1;
        } else if head == 0 {
            return Err(NameError::EmptyLabel);
        }
        name.length = u8::try_from(length).map_err(|_| NameError::NameTooLong)?;
        Ok(name)
    }
}

impl fmt::Display for Name {
    /// Presentation text with the final dot, special characters escaped as miekg/dns does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_str(".");
        }
        for label in self.labels() {
            for &byte in label {
                match byte {
                    b'.' | b' ' | b'\'' | b'@' | b';' | b'(' | b')' | b'"' | b'\\' => {
                        write!(f, "\\{}", char::from(byte))?;
                    }
                    0x21..=0x7e => write!(f, "{}", char::from(byte))?,
                    other => write!(f, "\\{other:03}")?,
                }
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Name) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Name {}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_wire_agree() {
        for text in [".", "a.", "www.Example.org", "a\\.b.c.", "\\000\\255."] {
            let name: Name = text.parse().unwrap();
            let again: Name = name.to_string().parse().unwrap();
            assert_eq!(name, again, "{text}");
        }
    }

    #[test]
    fn a_backslash_stands_before_three_digits_of_an_octet_or_before_any_other_character() {
        for (text, name) in [
            (r"\097\046\255\007x.", Ok(&b"\x05a.\xff\x07x\0"[..])),
            (r"\a\.\\.", Ok(b"\x03a.\\\0")),
            (r"\256.", Err(NameError::BadEscape)),
            (r"\999.", Err(NameError::BadEscape)),
            (r"\12", Err(NameError::BadEscape)),
            (r"\12x.", Err(NameError::BadEscape)),
            ("\\", Err(NameError::BadEscape)),
        ] {
            assert_eq!(
                text.parse::<Name>().as_ref().map(Name::as_bytes),
                name.as_ref().map(|wire| *wire),
                "{text}"
            );
        }
    }

    #[test]
    fn a_label_of_63_octets_and_a_name_of_255_are_the_longest() {
        let label = |octets: usize| "x".repeat(octets);
        assert_eq!(label(63).parse::<Name>().unwrap().as_bytes().len(), 65);
        assert_eq!(label(64).parse::<Name>(), Err(NameError::LabelTooLong));
        let (long, most) = (label(63), label(61));
        let name: Name = format!("{long}.{long}.{long}.{most}").parse().unwrap();
        assert_eq!(name.as_bytes().len(), NAME_MOST);
        let longer = format!("{long}.{long}.{long}.{most}x");
        assert_eq!(longer.parse::<Name>(), Err(NameError::NameTooLong));
        // The same of octets, in one piece and by a pointer.
        let wire = name.as_bytes();
        assert_eq!(Name::parse(wire, 0).unwrap(), (name.clone(), NAME_MOST));
        for (octets, length) in [(61, Ok(NAME_MOST)), (62, Err(Malformed::NameTooLong))] {
            let mut joined = wire[64..].to_vec();
            let at = joined.len();
            joined.extend_from_slice(&[1, b'a', octets]);
            joined.resize(at + 3 + usize::from(octets), b'x');
            joined.extend_from_slice(&[0xc0, 0]);
            assert_eq!(measure(&joined, at).map(|(length, _)| length), length);
        }
    }

    #[test]
    fn a_name_may_have_as_many_pointers_as_it_can_have_labels() {
        // A root, and behind it pointers, each to the one before.
        let mut message = vec![0];
        for pointer in 0..=MAX_POINTERS as u16 {
            let target = if pointer == 0 { 0 } else { 2 * pointer - 1 };
            message.extend_from_slice(&(0xc000 | target).to_be_bytes());
        }
        let last = message.len() - 2;
        assert_eq!(measure(&message, last - 2), Ok((1, last)));
        assert_eq!(measure(&message, last), Err(Malformed::Pointer));
    }

    #[test]
    fn a_name_is_in_its_zone_at_label_boundaries_only() {
        let zone: Name = "test.".parse().unwrap();
        assert!("a.test.".parse::<Name>().unwrap().is_in(&zone));
        assert!(zone.is_in(&zone));
        assert!(!"atest.".parse::<Name>().unwrap().is_in(&zone));
        assert!(zone.is_in(&Name::root()));
    }
}
