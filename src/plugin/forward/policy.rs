//! The order in which upstreams are tried (docs/plugins/forward.md).
//!
//! Owns the policies. Chance and the round-robin count come in as arguments.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// The most upstreams of one directive.
pub const MOST_UPSTREAMS: usize = 15;

/// How the first upstream of a query is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// All in random order.
    Random,
    /// Each query begins one further on; the rest follow in Corefile order.
    RoundRobin,
    /// Corefile order.
    Sequential,
}

impl Policy {
    /// The policy of a word in a Corefile.
    pub fn from_word(word: &str) -> Option<Policy> {
        match word {
            "random" => Some(Policy::Random),
            "round_robin" => Some(Policy::RoundRobin),
            "sequential" => Some(Policy::Sequential),
            _ => None,
        }
    }
}

/// The upstreams' places in the order in which one query tries them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    places: [u8; MOST_UPSTREAMS],
    count: u8,
}

impl Order {
    /// The order for one query among `count` upstreams. `turn` counts a directive's queries from
    /// 1: round robin starts at the second upstream, as CoreDNS does.
    pub fn new(policy: Policy, count: usize, turn: u32, random: &mut StdRng) -> Order {
        let count = count.min(MOST_UPSTREAMS);
        let mut places = std::array::from_fn(|place| place as u8);
        match policy {
            Policy::Sequential => {}
            Policy::Random if count > 1 => places[..count].shuffle(random),
            Policy::RoundRobin if count > 1 => {
                let first = turn as usize % count;
                places[..=first].rotate_right(1);
            }
            Policy::Random | Policy::RoundRobin => {}
        }
        Order { places, count: count as u8 }
    }

    /// The upstream that comes at `step`.
    pub fn get(&self, step: usize) -> Option<usize> {
        self.places[..usize::from(self.count)].get(step).map(|&place| usize::from(place))
    }

    /// How many upstreams there are.
    pub fn count(&self) -> usize {
        usize::from(self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn order(policy: Policy, count: usize, turn: u32) -> Vec<usize> {
        let mut random = StdRng::seed_from_u64(1);
        let order = Order::new(policy, count, turn, &mut random);
        (0..order.count()).filter_map(|step| order.get(step)).collect()
    }

    #[test]
    fn sequential_is_the_corefile_order() {
        assert_eq!(order(Policy::Sequential, 3, 7), [0, 1, 2]);
    }

    #[test]
    fn round_robin_starts_at_the_second_and_keeps_the_rest_in_order() {
        assert_eq!(order(Policy::RoundRobin, 3, 1), [1, 0, 2]);
        assert_eq!(order(Policy::RoundRobin, 3, 2), [2, 0, 1]);
        assert_eq!(order(Policy::RoundRobin, 3, 3), [0, 1, 2]);
        assert_eq!(order(Policy::RoundRobin, 1, 5), [0]);
    }

    #[test]
    fn no_more_are_in_an_order_than_a_directive_may_name() {
        for policy in [Policy::Sequential, Policy::RoundRobin, Policy::Random] {
            let mut all = order(policy, MOST_UPSTREAMS + 1, 15);
            all.sort_unstable();
            assert_eq!(all, (0..MOST_UPSTREAMS).collect::<Vec<_>>());
        }
    }

    #[test]
    fn random_is_a_permutation_with_equal_shares() {
        let mut random = StdRng::seed_from_u64(3);
        let mut firsts = [0; 3];
        for turn in 0..3000 {
            let order = Order::new(Policy::Random, 3, turn, &mut random);
            let mut all: Vec<_> = (0..3).filter_map(|step| order.get(step)).collect();
            firsts[all[0]] += 1;
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2]);
        }
        assert!(firsts.iter().all(|&share| share > 800), "{firsts:?}");
    }
}
