//! Longest-suffix match of names to blocks.
//!
//! Owns which block of a listener serves a name. Allocates nothing at look-up: a name's suffixes
//! are compared in place, and only those whose length is some zone's length.

use crate::dns::{Name, RecordType};

/// The zones of one listener.
#[derive(Debug, Default)]
pub struct Zones {
    /// Wire form and block, ordered by length and octets.
    places: Vec<(Box<[u8]>, usize)>,
    /// The lengths that occur: bit n for a zone of n octets.
    lengths: [u64; 4],
}

impl Zones {
    /// Has `zone` and the names below it served by `block`; false when the zone has one already,
    /// which then stays.
    pub fn insert(&mut self, zone: &Name, block: usize) -> bool {
        let wire = zone.as_bytes();
        match self.position(wire) {
            Ok(_) => false,
            Err(at) => {
                self.places.insert(at, (wire.into(), block));
                self.lengths[wire.len() / 64] |= 1 << (wire.len() % 64);
                true
            }
        }
    }

    /// The zones in wire form with their blocks.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], usize)> {
        self.places.iter().map(|(wire, block)| (&**wire, *block))
    }

    /// The block for a question: that of the longest zone that the name is in. For DS it is the
    /// shortest one above the root, since the parent answers for its delegations (CoreDNS's rule);
    /// the root zone when nothing else matches.
    pub fn find(&self, name: &Name, qtype: RecordType) -> Option<usize> {
        let mut found = None;
        for suffix in name.suffixes() {
            let length = suffix.len();
            if self.lengths[length / 64] & (1 << (length % 64)) == 0 {
                continue;
            }
            let Ok(at) = self.position(suffix) else { continue };
            let block = self.places[at].1;
            if qtype != RecordType::DS {
                return Some(block);
            }
            if length > 1 || found.is_none() {
                found = Some(block);
            }
        }
        found
    }

    fn position(&self, wire: &[u8]) -> Result<usize, usize> {
        self.places.binary_search_by(|(zone, _)| {
            zone.len().cmp(&wire.len()).then_with(|| (**zone).cmp(wire))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zones(texts: &[&str]) -> Zones {
        let mut zones = Zones::default();
        for (block, text) in texts.iter().enumerate() {
            assert!(zones.insert(&text.parse().unwrap(), block), "{text}");
        }
        zones
    }

    fn check(zones: &Zones, qtype: RecordType, table: &[(&str, Option<usize>)]) {
        for (name, block) in table {
            assert_eq!(zones.find(&name.parse().unwrap(), qtype), *block, "{name}");
        }
    }

    #[test]
    fn the_longest_zone_wins_at_label_boundaries() {
        let zones = zones(&["example.org", "sub.example.org", ".", "Upper.TEST"]);
        check(
            &zones,
            RecordType::A,
            &[
                ("example.org.", Some(0)),
                ("a.example.org.", Some(0)),
                ("EXAMPLE.org.", Some(0)),
                ("x.y.sub.example.org.", Some(1)),
                ("xsub.example.org.", Some(0)),
                ("notexample.org.", Some(2)),
                ("org.", Some(2)),
                (".", Some(2)),
                ("a.upper.test.", Some(3)),
            ],
        );
    }

    #[test]
    fn a_name_in_no_zone_has_no_block() {
        let zones = zones(&["example.org"]);
        check(&zones, RecordType::A, &[("org.", None), (".", None), ("a.example.org.", Some(0))]);
        check(&zones, RecordType::DS, &[("org.", None), ("a.example.org.", Some(0))]);
    }

    #[test]
    fn a_ds_question_goes_to_the_shortest_zone_but_the_root() {
        let zones = zones(&["a.b", "b", "."]);
        check(
            &zones,
            RecordType::DS,
            &[
                ("a.b.", Some(1)),
                ("x.a.b.", Some(1)),
                ("b.", Some(1)),
                ("c.", Some(2)),
                (".", Some(2)),
            ],
        );
    }

    #[test]
    fn a_zone_is_taken_once() {
        let mut zones = zones(&["a.b"]);
        assert!(!zones.insert(&"A.B.".parse().unwrap(), 7));
        check(&zones, RecordType::A, &[("a.b.", Some(0))]);
    }
}
