//! The bounds of what is in flight towards one upstream, and the choice of a connection within
//! them.
//!
//! Owns the numbers and the pure choice. CoreDNS and its kin serve a TCP connection one query
//! after the other, so depth has a price: how many queries share a connection before another is
//! opened is learned ([`super::pace`]).

use std::time::Duration;

/// The bounds of one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// The most connections that take queries; twice as many with those that end with their last
    /// query.
    pub(super) connections: usize,
    /// Queries in flight on each before another connection is opened, to begin with.
    pub(super) least_depth: u32,
    /// The same for an upstream whose answers never keep others waiting.
    pub(super) most_depth: u32,
    /// The most queries in flight on each.
    pub(super) hard_depth: u32,
    /// The most queries that wait for a place.
    pub(super) queued: usize,
    /// The most queries that one connection carries in its life; `u64::MAX`: no limit.
    pub(super) uses: u64,
    /// The age after which a connection takes no more queries, unless `max_age` says.
    pub(super) age: Duration,
}

/// TCP and TLS: one pool for the node. 64 connections of depth 1 when hot, or fewer and deeper ones
/// where that is no slower. A connection to a Service's address is bound to one pod behind it, so
/// none gets old.
pub(super) const STREAMS: Limits = Limits {
    connections: 64,
    least_depth: 1,
    most_depth: 64,
    hard_depth: 64,
    queued: 8192,
    uses: u64::MAX,
    age: Duration::from_secs(60),
};

/// HTTPS and QUIC: one pool for the node. Messages overtake one another, and a handshake is dear; 100
/// in flight is what servers allow at least (RFC 9113 §6.5.2).
pub(super) const MESSENGERS: Limits = Limits {
    connections: 8,
    least_depth: 32,
    most_depth: 32,
    hard_depth: 100,
    queued: 8192,
    uses: u64::MAX,
    age: Duration::from_secs(300),
};

/// UDP: one pool for each worker. Datagrams overtake one another, so depth is free; a socket is
/// given up after a number of queries because its port is half of what an attacker must guess.
pub(super) const DATAGRAMS: Limits = Limits {
    connections: 16,
    least_depth: 64,
    most_depth: 64,
    hard_depth: 512,
    queued: 4096,
    uses: 256,
    age: Duration::from_secs(30),
};

/// The longest that a connection may take to be established.
pub(super) const DIAL: Duration = Duration::from_secs(2);

/// How long sent octets may stay unacknowledged before a stream counts as dead.
pub(super) const UNACKNOWLEDGED: Duration = Duration::from_millis(500);

/// How often one try moves to another connection because the kept one it used was dead.
pub(super) const MOST_STALE: u32 = 3;

/// The most upstreams whose health and connections are remembered without a snapshot that uses
/// them.
pub(super) const REMEMBERED: usize = 256;

/// What [`choose`] sees of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// Queries in flight on it.
    pub(super) load: u32,
    /// Its number; later ones are greater.
    pub(super) serial: u64,
    /// Whether it takes queries.
    pub(super) fitness: Fitness,
}

/// Whether a connection takes queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fitness {
    /// It does.
    Fit,
    /// It has carried its number of queries, and takes more only for want of another.
    Worn,
    /// It takes none.
    Unfit,
}

/// Where a query goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// On the connection at this place.
    Take(usize),
    /// On a new connection.
    Open,
    /// Nowhere now.
    Full,
}

/// Chooses the oldest connection with fewer than `depth` queries, so that the others can idle out;
/// when no more may be opened, the least loaded. Only those with a serial above `newer_than` count:
/// a query whose connection turned out dead does not trust the others of that time. A worn one is
/// better than none: when an upstream loses a few datagrams, worn sockets wait for them, and must
/// not use up all places.
pub(super) fn choose(
    seen: impl Iterator<Item = Seen>,
    newer_than: u64,
    depth: u32,
    limits: &Limits,
) -> Choice {
    let (mut all, mut usable) = (0, 0);
    let mut best: Option<(u32, usize)> = None;
    let mut worn: Option<(u32, usize)> = None;
    for (place, one) in seen.enumerate() {
        all += 1;
        let least = match one.fitness {
            Fitness::Fit => &mut best,
            Fitness::Worn => &mut worn,
            Fitness::Unfit => continue,
        };
        let is_fit = one.fitness == Fitness::Fit;
        usable += usize::from(is_fit);
        if one.serial <= newer_than {
            continue;
        }
        if is_fit && one.load < depth {
            return Choice::Take(place);
        }
        if least.is_none_or(|(load, _)| one.load < load) {
            *least = Some((one.load, place));
        }
    }
    match best {
        _ if usable < limits.connections && all < 2 * limits.connections => Choice::Open,
        Some((load, place)) if load < limits.hard_depth => Choice::Take(place),
        _ => match worn {
            Some((load, place)) if load < limits.hard_depth => Choice::Take(place),
            _ => Choice::Full,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        connections: 3,
        least_depth: 1,
        most_depth: 1,
        hard_depth: 4,
        queued: 0,
        uses: u64::MAX,
        age: Duration::from_secs(60),
    };

    fn chosen(loads: &[u32], newer_than: u64) -> Choice {
        chosen_at(LIMITS.least_depth, loads, newer_than)
    }

    fn chosen_at(depth: u32, loads: &[u32], newer_than: u64) -> Choice {
        let seen = loads.iter().enumerate().map(|(place, &load)| Seen {
            load: if load > 100 { load - 101 } else { load },
            // 100: takes nothing; above: worn, with so much less load.
            serial: place as u64 + 1,
            fitness: match load {
                0..100 => Fitness::Fit,
                100 => Fitness::Unfit,
                _ => Fitness::Worn,
            },
        });
        choose(seen, newer_than, depth, &LIMITS)
    }

    #[test]
    fn an_idle_connection_is_taken_before_one_is_opened() {
        assert_eq!(chosen(&[], 0), Choice::Open);
        assert_eq!(chosen(&[1, 0, 0], 0), Choice::Take(1));
        assert_eq!(chosen(&[1, 1], 0), Choice::Open);
    }

    #[test]
    fn the_oldest_connection_is_filled_before_the_next_is_used() {
        assert_eq!(chosen_at(3, &[2, 0], 0), Choice::Take(0));
        assert_eq!(chosen_at(3, &[3, 1], 0), Choice::Take(1));
        assert_eq!(chosen_at(3, &[3, 3], 0), Choice::Open);
    }

    #[test]
    fn when_no_more_may_be_opened_the_least_loaded_is_taken_until_all_are_full() {
        assert_eq!(chosen(&[3, 2, 3], 0), Choice::Take(1));
        assert_eq!(chosen(&[4, 4, 4], 0), Choice::Full);
    }

    #[test]
    fn a_connection_that_takes_no_queries_does_not_count() {
        assert_eq!(chosen(&[100, 100, 2, 100], 0), Choice::Open);
    }

    #[test]
    fn those_that_end_are_bounded_too() {
        assert_eq!(chosen(&[100; 6], 0), Choice::Full);
        assert_eq!(chosen(&[100, 100, 100, 100, 100, 3], 0), Choice::Take(5));
    }

    #[test]
    fn a_worn_one_is_taken_only_when_no_other_can_be_had() {
        assert_eq!(chosen(&[101, 101], 0), Choice::Open);
        assert_eq!(chosen(&[103, 102, 103, 100, 100, 100], 0), Choice::Take(1));
        assert_eq!(chosen(&[103, 102, 103, 100, 100, 3], 0), Choice::Take(5));
        assert_eq!(chosen(&[105; 6], 0), Choice::Full);
    }

    #[test]
    fn after_a_dead_connection_only_later_ones_are_trusted() {
        assert_eq!(chosen(&[0, 0], 1), Choice::Take(1));
        assert_eq!(chosen(&[0, 0], 2), Choice::Open);
    }
}
