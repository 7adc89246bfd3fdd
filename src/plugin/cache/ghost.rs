//! Keys that were let go lately: who comes back soon was let go too early.
//!
//! Owns no entry: 32 bits for each key. Made when the first key comes, so that a store that is never
//! full pays nothing for it.

use super::store::Key;

/// Keys that may stand in one row; the oldest makes room.
const ROW: usize = 4;

/// As many keys as the shard has places, in rows.
pub(super) struct Ghost {
    /// A power of two.
    rows: usize,
    marks: Box<[[u32; ROW]]>,
}

impl Ghost {
    /// Room for `capacity` keys, rounded up to a power of two.
    pub(super) fn new(capacity: usize) -> Ghost {
        Ghost { rows: capacity.div_ceil(ROW).next_power_of_two(), marks: Box::default() }
    }

    /// Remembers a key.
    pub(super) fn put(&mut self, key: Key) {
        if self.marks.is_empty() {
            self.marks = vec![[0; ROW]; self.rows].into_boxed_slice();
        }
        if let Some(row) = self.row(key) {
            row.rotate_right(1);
            row[0] = mark(key);
        }
    }

    /// Whether the key was here; it no longer is.
    pub(super) fn take(&mut self, key: Key) -> bool {
        let mark = mark(key);
        match self.row(key).and_then(|row| row.iter_mut().find(|one| **one == mark)) {
            Some(one) => {
                *one = 0;
                true
            }
            None => false,
        }
    }

    fn row(&mut self, key: Key) -> Option<&mut [u32; ROW]> {
        self.marks.get_mut(key.0 as usize & (self.rows - 1))
    }
}

/// Never 0, which is an empty place.
fn mark(key: Key) -> u32 {
    (key.0 >> 32) as u32 | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key of row `row`.
    fn key(row: u64, number: u64) -> Key {
        Key(number << 33 | row)
    }

    #[test]
    fn a_key_that_was_never_put_in_is_not_there() {
        let mut ghost = Ghost::new(16);
        assert!(!ghost.take(key(0, 0)));
        ghost.put(key(0, 1));
        assert!(!ghost.take(key(0, 0)) && !ghost.take(key(1, 1)));
        assert!(ghost.take(key(0, 1)) && !ghost.take(key(0, 1)));
    }

    #[test]
    fn it_remembers_as_many_as_it_has_room_for_and_the_oldest_makes_room() {
        let mut ghost = Ghost::new(16);
        for number in 0..5 {
            (0..4).for_each(|row| ghost.put(key(row, number)));
        }
        for row in 0..4 {
            assert_eq!(
                [0, 1, 2, 3, 4].map(|number| ghost.take(key(row, number))),
                [false, true, true, true, true]
            );
        }
    }
}
