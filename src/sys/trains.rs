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

/// Places of the table. Two clients in one place part trains, nothing worse.
const PLACES: usize = 256;

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
    is_closed: bool,
}

impl Train {
    fn of(place: usize, length: usize) -> Train {
        Train {
            first: place,
            count: 1,
            segment: length,
            last: place,
            octets: length,
            is_closed: length > SEGMENT_MOST,
        }
    }

    fn takes(&self, length: usize) -> bool {
        !self.is_closed
            && (1..=self.segment).contains(&length)
            && self.count < MESSAGES_MOST
            && self.octets + length <= OCTETS_MOST
    }
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
}

impl Trains {
    /// For batches of so many messages; larger ones are taken, too.
    pub(super) fn new(slots: usize) -> Trains {
        Trains {
            trains: Vec::with_capacity(slots),
            order: Vec::with_capacity(slots),
            next: Vec::with_capacity(slots),
            known: Box::new([0; PLACES]),
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
            let known = &mut self.known[(hash(place) ^ length.wrapping_mul(31)) % PLACES];
            let train = usize::from(*known).checked_sub(1).map(|number| &mut self.trains[number]);
            match train {
                Some(train)
                    if train.segment == length
                        && train.takes(length)
                        && is_same(train.first, place) =>
                {
                    self.next[train.last] = place;
                    train.last = place;
                    train.count += 1;
                    train.octets += length;
                }
                _ => {
                    self.trains.push(Train::of(place, length));
                    *known = self.trains.len() as u16;
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

    /// Puts a message that is alone behind a train of longer ones for the same client.
    fn couple(&mut self, hash: impl Fn(usize) -> usize, is_same: impl Fn(usize, usize) -> bool) {
        self.known.fill(0);
        for number in 0..self.trains.len() {
            let train = self.trains[number];
            let known = &mut self.known[hash(train.first) % PLACES];
            let other = usize::from(*known).checked_sub(1);
            *known = number as u16 + 1;
            let Some(other) = other.filter(|&other| is_same(self.trains[other].first, train.first))
            else {
                continue;
            };
            let (long, short) = match self.trains[other].segment > train.segment {
                true => (other, number),
                false => (number, other),
            };
            let behind = self.trains[short];
            if behind.count == 1 && self.trains[long].takes(behind.segment) {
                let long = &mut self.trains[long];
                self.next[long.last] = behind.first;
                long.last = behind.first;
                long.count += 1;
                long.octets += behind.segment;
                long.is_closed = true;
                self.trains[short].count = 0;
                *known = 0;
            }
        }
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
    fn what_may_not_fit_the_way_goes_alone() {
        assert_eq!(arranged(&[(1, 1201), (1, 1201)]), [[0], [1]]);
        assert_eq!(arranged(&[(1, 1300), (1, 80), (1, 0)]), [[0], [1], [2]]);
        assert_eq!(arranged(&vec![(1, 1200); 60]).len(), 2);
        assert_eq!(arranged(&vec![(1, 80); 65]).len(), 2);
    }

    proptest! {
        #[test]
        fn every_message_leaves_once_with_its_own_client_and_no_longer_than_the_first(
            messages in proptest::collection::vec((0..6_usize, 0..6_usize), 1..200),
        ) {
            let messages: Vec<_> =
                messages.into_iter().map(|(client, size)| (client, size * 250)).collect();
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
