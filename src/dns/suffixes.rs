//! Name compression (RFC 1035 §4.1.4): which names a message that is being written holds already.
//!
//! Owns a table of bounded size. Never allocates but to grow the buffer it writes to.

/// The names already in a message, by the hash of each suffix: bounded in size and in work, so a
/// message made to defeat it is merely compressed less.
#[derive(Debug)]
pub(super) struct Suffixes {
    /// A part of the hash, and the offset; offset 0 is an empty slot.
    slots: [(u16, u16); Suffixes::SLOTS],
}

impl Default for Suffixes {
    fn default() -> Suffixes {
        Suffixes { slots: [(0, 0); Suffixes::SLOTS] }
    }
}

impl Suffixes {
    const SLOTS: usize = 256;
    /// How many slots are looked at for one suffix.
    const PROBES: usize = 8;
    /// Offsets from here on do not fit into a pointer.
    pub(super) const REACH: usize = 0x4000;
    /// The most labels a name has, root not counted.
    const LABELS: usize = 127;
    /// The hash of nothing.
    const OF_ROOT: u32 = 0x811c_9dc5;

    /// Appends `name` (valid wire form), its longest known suffix as a pointer. Case decides: a
    /// name never changes its spelling by being compressed.
    pub(super) fn write(&mut self, out: &mut Vec<u8>, name: &[u8]) {
        match self.learn(out, name) {
            Some((ahead, offset)) => {
                out.extend_from_slice(&name[..ahead]);
                out.extend_from_slice(&(0xc000 | offset).to_be_bytes());
            }
            None => out.extend_from_slice(name),
        }
    }

    /// Appends `name` in full. Later names may point to it (RFC 3597 §4 forbids pointers inside
    /// RDATA of newer types, not into it).
    pub(super) fn write_in_full(&mut self, out: &mut Vec<u8>, name: &[u8]) {
        self.learn(out, name);
        out.extend_from_slice(name);
    }

    /// Remembers the suffixes of a `name` that is written at the end of `out` next. Of its longest that was
    /// known: how many octets stand ahead of it, and where it is.
    fn learn(&mut self, out: &[u8], name: &[u8]) -> Option<(usize, u16)> {
        let mut starts = [0u8; Suffixes::LABELS];
        let mut labels = 0;
        let mut place = 0;
        while name[place] != 0 && labels < Suffixes::LABELS {
            starts[labels] = place as u8;
            labels += 1;
            place += 1 + usize::from(name[place]);
        }
        // From the root leftwards so that a suffix's hash is on the way to its name's.
        let mut hashes = [0u32; Suffixes::LABELS];
        let mut hash = Suffixes::OF_ROOT;
        let mut end = place;
        for label in (0..labels).rev() {
            let start = usize::from(starts[label]);
            hash = Suffixes::hash(hash, &name[start..end]);
            hashes[label] = hash;
            end = start;
        }
        let mut unknown = labels;
        let mut known = None;
        for label in 0..labels {
            let ahead = usize::from(starts[label]);
            if let Some(offset) = self.find(hashes[label], out, &name[ahead..]) {
                unknown = label;
                known = Some((ahead, offset));
                break;
            }
        }
        for label in 0..unknown {
            self.remember(hashes[label], out.len() + usize::from(starts[label]));
        }
        known
    }

    /// The hash (FNV-1a) of a suffix, from that of what stands behind its first label.
    fn hash(behind: u32, label: &[u8]) -> u32 {
        label.iter().fold(behind, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
    }

    fn places(hash: u32) -> impl Iterator<Item = usize> {
        (0..Suffixes::PROBES).map(move |step| (hash as usize + step) % Suffixes::SLOTS)
    }

    fn find(&self, hash: u32, out: &[u8], suffix: &[u8]) -> Option<u16> {
        for place in Suffixes::places(hash) {
            let (tag, offset) = self.slots[place];
            if offset == 0 {
                return None;
            }
            if tag == (hash >> 16) as u16 && stands_at(out, usize::from(offset), suffix) {
                return Some(offset);
            }
        }
        None
    }

    fn remember(&mut self, hash: u32, offset: usize) {
        if offset >= Suffixes::REACH {
            return;
        }
        for place in Suffixes::places(hash) {
            if self.slots[place].1 == 0 {
                self.slots[place] = ((hash >> 16) as u16, offset as u16);
                return;
            }
        }
    }
}

/// True when the name at `offset` of the message that we wrote is `name`, spelling included.
fn stands_at(out: &[u8], offset: usize, name: &[u8]) -> bool {
    let (mut place, mut rest) = (offset, name);
    while let Some(&head) = out.get(place) {
        if head & 0xc0 == 0xc0 {
            let Some(&low) = out.get(place + 1) else { return false };
            place = (usize::from(head & 0x3f) << 8) | usize::from(low);
            continue;
        }
        let stop = place + 1 + usize::from(head);
        let Some(label) = out.get(place..stop) else { return false };
        let Some(behind) = rest.strip_prefix(label) else { return false };
        if head == 0 {
            return behind.is_empty();
        }
        (place, rest) = (stop, behind);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use std::collections::HashMap;

    #[test]
    fn names_whose_hashes_are_alike_are_not_taken_for_one_another() {
        // As much of the hash as decides where a suffix is looked for, and what stands there.
        let part = |hash: u32| (hash >> 16, hash as usize % Suffixes::SLOTS);
        let mut known = HashMap::new();
        let mut random = StdRng::seed_from_u64(1);
        let alike = (0..100_000).find_map(|_| {
            let name = [&[8], random.random::<[u8; 8]>().as_slice(), &[0]].concat();
            let place = part(Suffixes::hash(Suffixes::OF_ROOT, &name[..9]));
            known.insert(place, name.clone()).map(|other| [other, name])
        });
        let names = alike.expect("2^24 places and 10^5 names");
        let (mut suffixes, mut out) = (Suffixes::default(), vec![0; 12]);
        names.iter().for_each(|name| suffixes.write(&mut out, name));
        assert_eq!(out[12..], names.concat());
        suffixes.write(&mut out, &names[1]);
        assert_eq!(out[32..], 0xc016_u16.to_be_bytes(), "the second is known all the same");
    }
}
