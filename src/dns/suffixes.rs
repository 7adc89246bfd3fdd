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

    /// Appends `name` (valid wire form), its longest known suffix as a pointer. Case decides: a
    /// name never changes its spelling by being compressed.
    pub(super) fn write(&mut self, out: &mut Vec<u8>, name: &[u8]) {
        let mut starts = [0u8; Suffixes::LABELS];
        let mut labels = 0;
        let mut place = 0;
        while name[place] != 0 && labels < Suffixes::LABELS {
            starts[labels] = place as u8;
            labels += 1;
            place += 1 + usize::from(name[place]);
        }
        // FNV-1a, from the root leftwards so that a suffix's hash is on the way to its name's.
        let mut hashes = [0u32; Suffixes::LABELS];
        let mut hash = 0x811c_9dc5u32;
        let mut end = place;
        for label in (0..labels).rev() {
            let start = usize::from(starts[label]);
            for &byte in &name[start..end] {
                hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
            }
            hashes[label] = hash;
            end = start;
        }
        let base = out.len();
        let mut known = labels;
        let mut pointer = None;
        for label in 0..labels {
            let suffix = &name[usize::from(starts[label])..];
            if let Some(offset) = self.find(hashes[label], out, suffix) {
                known = label;
                pointer = Some(offset);
                break;
            }
        }
        match pointer {
            Some(offset) => {
                out.extend_from_slice(&name[..usize::from(starts[known])]);
                out.extend_from_slice(&(0xc000 | offset).to_be_bytes());
            }
            None => out.extend_from_slice(name),
        }
        for label in 0..known {
            self.remember(hashes[label], base + usize::from(starts[label]));
        }
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
