//! Which messages of a batch leave together: those for one client, as one train that the kernel cuts
//! up again.
//!
//! Owns the grouping alone: pure, without system calls. A stub resolver asks for A and AAAA at once, and
//! what costs most of a reply is its way through the kernel, which a train takes once. In a train all
//! messages but the last have one length, and the last is no longer (udp(7), UDP_SEGMENT).

/// Messages in one train, at most: the kernel's bound (UDP_MAX_SEGMENTS) before Linux 6.9.
pub(super) const MESSAGES_MOST: usize = 64;

/// A longer message goes alone: what the smallest MTU of IPv6 takes (RFC 8200 §5), less the headers and
/// some room for tunnels.
const SEGMENT_MOST: usize = 1200;

/// Octets in one train, at most: a datagram's bound, less some headers.
const OCTETS_MOST: usize = 65_000;

/// Places of the table: a power of two, several times the messages of a usual batch.
const PLACES: usize = 256;

/// Places that are looked at for one message. Who finds none begins a train of its own.
const PROBES_MOST: usize = 8;

/// Messages that leave together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Train {
    /// The first one's number in the batch.
    pub(super) first: usize,
    /// How many there are.
    pub(super) count: usize,
    /// Octets of each but the last.
    pub(super) segment: usize,
    last: usize,
    octets: usize,
    /// Its messages leave in others.
    is_broken: bool,
}

impl Train {
    fn of(place: usize, length: usize) -> Train {
        Train {
            first: place,
            count: 1,
            segment: length,
            last: place,
            octets: length,
            is_broken: false,
        }
    }

    /// Whether one more message, no longer than the others, may come.
    fn has_place(&self) -> bool {
        (1..=SEGMENT_MOST).contains(&self.segment)
            && self.count < MESSAGES_MOST
            && self.octets + self.segment <= OCTETS_MOST
    }
}

/// What there is for a message.
enum Found {
    /// This train.
    Train(usize),
    /// None; a new one belongs to this place of the table, if to any.
    None(Option<usize>),
}

/// The arrangement of a batch. Made once, used for all: it allocates until it has seen the largest
/// batch.
#[derive(Debug)]
pub(super) struct Trains {
    trains: Vec<Train>,
    order: Vec<usize>,
    /// The message behind each in its train.
    next: Vec<usize>,
    /// One more than the number of a train for the client that belongs here; 0 for none.
    known: Box<[u16; PLACES]>,
    /// The numbers of the trains in their lower halves, by client and length.
    ranks: Vec<u64>,
    /// The trains of one client that take one more message.
    open: Vec<usize>,
}

impl Trains {
    /// For batches of so many messages; larger ones are taken, too.
    pub(super) fn new(slots: usize) -> Trains {
        Trains {
            trains: Vec::with_capacity(slots),
            order: Vec::with_capacity(slots),
            next: Vec::with_capacity(slots),
            known: Box::new([0; PLACES]),
            ranks: Vec::with_capacity(slots),
            open: Vec::with_capacity(slots),
        }
    }

    /// Arranges `count` messages, fewer than 65535. `length` gives the octets of each, `hash` a number
    /// that is the same for one client, `is_same` whether two are for the same client.
    pub(super) fn arrange(
        &mut self,
        count: usize,
        length: impl Fn(usize) -> usize,
        hash: impl Fn(usize) -> usize,
        is_same: impl Fn(usize, usize) -> bool,
    ) {
        self.clear();
        if count == 1 {
            return self.alone(count, length);
        }
        self.known.fill(0);
        for place in 0..count {
            self.next.push(place);
            let length = length(place);
            // Those of one length first: they make long trains.
            match self.find(place, length, hash(place), &is_same) {
                Found::Train(number) => {
                    let train = &mut self.trains[number];
                    self.next[train.last] = place;
                    train.last = place;
                    train.count += 1;
                    train.octets += length;
                }
                Found::None(known) => {
                    self.trains.push(Train::of(place, length));
                    if let Some(known) = known {
                        self.known[known] = self.trains.len() as u16;
                    }
                }
            }
        }
        self.couple(hash, is_same);
        self.trains.retain(|train| train.count > 0);
        for train in &self.trains {
            let mut place = train.first;
            for _ in 0..train.count {
                self.order.push(place);
                place = self.next[place];
            }
        }
    }

    /// The train that a message belongs into.
    fn find(
        &self,
        place: usize,
        length: usize,
        hash: usize,
        is_same: &impl Fn(usize, usize) -> bool,
    ) -> Found {
        // Fibonacci hashing: neighbouring ports and lengths come far apart.
        let mixed = ((hash << 16 | length) as u32).wrapping_mul(0x9e37_79b1) as usize >> 16;
        for probe in 0..PROBES_MOST {
            let at = (mixed + probe) % PLACES;
            let Some(number) = usize::from(self.known[at]).checked_sub(1) else {
                return Found::None(Some(at));
            };
            let train = &self.trains[number];
            if train.segment == length && is_same(train.first, place) {
                return if train.has_place() {
                    Found::Train(number)
                } else {
                    Found::None(Some(at))
                };
            }
        }
        Found::None(None)
    }

    /// Has every message leave by itself.
    pub(super) fn part(&mut self, count: usize, length: impl Fn(usize) -> usize) {
        self.clear();
        self.alone(count, length);
    }

    /// The trains; the messages of the first come first in [`Trains::order`], and so on.
    pub(super) fn trains(&self) -> &[Train] {
        &self.trains
    }

    /// The numbers of the messages in the order in which they leave.
    pub(super) fn order(&self) -> &[usize] {
        &self.order
    }

    fn clear(&mut self) {
        self.trains.clear();
        self.order.clear();
        self.next.clear();
    }

    fn alone(&mut self, count: usize, length: impl Fn(usize) -> usize) {
        self.trains.extend((0..count).map(|place| Train::of(place, length(place))));
        self.order.extend(0..count);
    }

    /// Puts what is in short trains behind longer messages for the same client, one behind each train,
    /// so that few trains are left.
    fn couple(&mut self, hash: impl Fn(usize) -> usize, is_same: impl Fn(usize, usize) -> bool) {
        self.ranks.clear();
        for (number, train) in self.trains.iter().enumerate() {
            // By client, then the longest first. A longer message than a datagram is not there.
            let (client, length) = (hash(train.first) as u16, !(train.segment as u16));
            let rank = u64::from(client) << 48 | u64::from(length) << 32 | number as u64;
            self.ranks.push(rank);
        }
        self.ranks.sort_unstable();
        let mut start = 0;
        while start < self.ranks.len() {
            let client = self.ranked(start).first;
            let others = self.ranks.len() - start;
            let count = (1..others)
                .find(|&other| !is_same(client, self.ranked(start + other).first))
                .unwrap_or(others);
            if count > 1 {
                self.couple_of_one(start, start + count);
            }
            start += count;
        }
    }

    fn ranked(&self, rank: usize) -> &Train {
        &self.trains[self.ranks[rank] as u32 as usize]
    }

    fn ranked_mut(&mut self, rank: usize) -> &mut Train {
        &mut self.trains[self.ranks[rank] as u32 as usize]
    }

    /// Couples the trains of one client, which stand in `ranks` from the longest messages to the
    /// shortest. A train is broken up only if each of its messages finds a place.
    fn couple_of_one(&mut self, start: usize, end: usize) {
        let mut places = 0;
        for rank in start..end {
            let train = self.ranked_mut(rank);
            if train.count == 1 && train.segment > 0 && places > 0 {
                train.is_broken = true;
                places -= 1;
            } else if train.has_place() {
                places += 1;
            }
        }
        // Then what takes several places: of few and short messages first.
        for rank in (start + 1..end).rev() {
            let train = self.ranked(rank);
            let needed = train.count + usize::from(train.has_place());
            if train.count > 1 && needed <= places {
                self.ranked_mut(rank).is_broken = true;
                match self.is_enough(start, end) {
                    true => places -= needed,
                    false => self.ranked_mut(rank).is_broken = false,
                }
            }
        }
        self.open.clear();
        for rank in start..end {
            let number = self.ranks[rank] as u32 as usize;
            let train = self.trains[number];
            if !train.is_broken {
                if train.has_place() {
                    self.open.push(number);
                }
                continue;
            }
            let mut place = train.first;
            for _ in 0..train.count {
                let behind = self.next[place];
                let Some(open) = self.open.pop() else {
                    debug_assert!(false, "a train was broken up without places");
                    return;
                };
                let long = &mut self.trains[open];
                // What is no longer than a train's messages ends it.
                self.next[long.last] = place;
                long.count += 1;
                place = behind;
            }
            self.trains[number].count = 0;
        }
    }

    /// Whether every message of a broken train finds a place behind a longer one.
    fn is_enough(&self, start: usize, end: usize) -> bool {
        let mut places = 0_usize;
        for rank in start..end {
            let train = self.ranked(rank);
            if train.is_broken {
                match places.checked_sub(train.count) {
                    Some(left) => places = left,
                    None => return false,
                }
            } else if train.has_place() {
                places += 1;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Client and length of each message; the trains, as the numbers of their messages.
    fn arranged(messages: &[(usize, usize)]) -> Vec<Vec<usize>> {
        let mut trains = Trains::new(4);
        trains.arrange(
            messages.len(),
            |place| messages[place].1,
            |place| messages[place].0,
            |one, other| messages[one].0 == messages[other].0,
        );
        let mut order = trains.order().iter().copied();
        let lists = trains.trains().iter().map(|train| order.by_ref().take(train.count).collect());
        let lists: Vec<Vec<usize>> = lists.collect();
        assert_eq!(order.next(), None);
        lists
    }

    #[test]
    fn the_two_replies_to_one_client_leave_together_the_longer_one_first() {
        assert_eq!(arranged(&[(1, 60), (1, 90)]), [[1, 0]]);
        assert_eq!(arranged(&[(1, 90), (2, 60), (1, 60)]), [vec![0, 2], vec![1]]);
    }

    #[test]
    fn replies_of_one_length_make_a_long_train_with_a_shorter_one_at_its_end() {
        let messages = [(1, 80), (1, 70), (1, 80), (2, 80), (1, 80)];
        assert_eq!(arranged(&messages), [vec![0, 2, 4, 1], vec![3]]);
    }

    #[test]
    fn there_are_as_few_trains_as_can_be() {
        let messages = |lengths: &[usize]| -> Vec<(usize, usize)> {
            lengths.iter().map(|&length| (1, length)).collect()
        };
        let trains = arranged(&messages(&[90, 90, 80, 80, 70, 70]));
        assert_eq!(trains, [vec![0, 1, 5], vec![2, 3, 4]]);
        let trains = arranged(&messages(&[100, 90, 80, 80, 80, 70]));
        assert_eq!(trains.len(), 2, "{trains:?}");
        let trains = arranged(&messages(&[100, 100, 90, 90, 80, 80, 70, 60]));
        assert_eq!(trains.len(), 3, "{trains:?}");
        let trains = arranged(&messages(&[60, 70, 80, 90, 100]));
        assert_eq!(trains.len(), 3, "{trains:?}");
    }

    #[test]
    fn what_may_not_fit_the_way_goes_alone() {
        assert_eq!(arranged(&[(1, 1201), (1, 1201)]), [[0], [1]]);
        assert_eq!(arranged(&[(1, 1300), (1, 80), (1, 0)]), [[0], [1], [2]]);
        let long = arranged(&vec![(1, 1200); 60]);
        assert_eq!(long.iter().map(Vec::len).collect::<Vec<_>>(), [54, 6]);
        assert_eq!(arranged(&vec![(1, 80); 65]).len(), 2);
    }

    #[test]
    fn nothing_is_put_behind_a_train_that_is_full() {
        let mut messages = vec![(1, 100)];
        messages.resize(1 + MESSAGES_MOST, (1, 90));
        messages.push((1, 80));
        let full = (1..=MESSAGES_MOST).collect();
        assert_eq!(arranged(&messages), [vec![0, 1 + MESSAGES_MOST], full]);
    }

    proptest! {
        #[test]
        fn every_message_leaves_once_with_its_own_client_and_no_longer_than_the_first(
            // Few lengths make long trains, many make clients meet in the table.
            messages in proptest::collection::vec(
                (0..6_usize, prop_oneof![(0..6_usize).prop_map(|size| size * 250), 60..160_usize]),
                1..200,
            ),
        ) {
            let trains = arranged(&messages);
            let mut all: Vec<usize> = trains.concat();
            all.sort_unstable();
            prop_assert!(all.into_iter().eq(0..messages.len()));
            for train in trains {
                let (client, segment) = messages[train[0]];
                let (last, others) = train.split_last().unwrap();
                prop_assert!(others.iter().all(|&place| messages[place] == (client, segment)));
                prop_assert!(messages[*last].0 == client && messages[*last].1 <= segment);
                let octets: usize = train.iter().map(|&place| messages[place].1).sum();
                let fits = segment <= SEGMENT_MOST && octets <= OCTETS_MOST;
                let is_seen = messages[*last].1 > 0;
                prop_assert!(train.len() == 1 || (fits && is_seen && train.len() <= MESSAGES_MOST));
            }
        }
    }
}
