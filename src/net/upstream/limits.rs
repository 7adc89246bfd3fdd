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
    /// The most that take queries while half of them have waited for [`STUCK`]: the upstream is slow, and
    /// who shares a connection may wait for more answers than its own.
    pub(super) strained: usize,
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
/// none gets old. 128 where answers take long: 85 queries a second of 1.5 s each, and a silent upstream
/// costs no more descriptors and buffers than that.
pub(super) const STREAMS: Limits = Limits {
    connections: 64,
    strained: 128,
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
    strained: 8,
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
    strained: 16,
    least_depth: 64,
    most_depth: 64,
    hard_depth: 512,
    queued: 4096,
    uses: 256,
    age: Duration::from_secs(30),
};

/// The longest that a connection may take to be established.
pub(super) const DIAL: Duration = Duration::from_secs(2);

/// A connection with queries on it over which so long nothing came is stuck: 64 that all take so long
/// carry no more than 640 queries a second.
const STUCK: Duration = Duration::from_millis(100);

/// After a refusal nobody is dialled for so long: whoever asks meanwhile waits for the next dial, together
/// with all others. Each further time is twice the one before.
pub(super) const REFUSED: Duration = Duration::from_millis(5);

/// The longest of these times: less than those between the passes of a query that waits for the upstream to
/// come back.
pub(super) const REFUSED_MOST: Duration = Duration::from_millis(40);

/// How long a refusal is remembered: until then, queries share the dial that is under way.
pub(super) const REFUSAL_LASTS: Duration = Duration::from_secs(1);

/// A query that waited for so long, or for half of `read_timeout`, shows that its connection is silent when
/// nothing came over it. One that was put there with less time left shows nothing: an answer may take longer.
pub(super) const TELLING: Duration = Duration::from_secs(1);

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
    /// How long nothing came although queries were in flight.
    pub(super) waited: Duration,
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

/// Which connections are good for a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wish {
    /// Only those with a greater serial: a query whose connection turned out dead does not trust the
    /// others of that time.
    pub(super) newer_than: u64,
    /// Queries in flight on each before another one is used.
    pub(super) depth: u32,
    /// One that has waited for longer is held up, and holds up who comes behind.
    pub(super) patience: Duration,
}

/// Chooses the oldest connection with fewer than `depth` queries that is not held up, so that the others
/// can idle out; when no more may be opened, the least loaded, of those that are not held up if there are
/// any. A worn one is better than none: when an upstream loses a few datagrams, worn sockets wait for
/// them, and must not use up all places.
pub(super) fn choose(seen: impl Iterator<Item = Seen>, wish: Wish, limits: &Limits) -> Choice {
    let (mut all, mut usable, mut stuck, mut trusted) = (0, 0, 0, 0);
    // Held up or not, load, place: less is better.
    let mut best: Option<(bool, u32, usize)> = None;
    let mut worn: Option<(bool, u32, usize)> = None;
    for (place, one) in seen.enumerate() {
        all += 1;
        let least = match one.fitness {
            Fitness::Fit => &mut best,
            Fitness::Worn => &mut worn,
            Fitness::Unfit => continue,
        };
        let is_fit = one.fitness == Fitness::Fit;
        usable += usize::from(is_fit);
        stuck += usize::from(is_fit && one.waited >= STUCK);
        if one.serial <= wish.newer_than {
            continue;
        }
        trusted += 1;
        let is_held_up = one.waited > wish.patience;
        if is_fit && !is_held_up && one.load < wish.depth {
            return Choice::Take(place);
        }
        let this = (is_held_up, one.load, place);
        if one.load < limits.hard_depth && least.is_none_or(|other| this < other) {
            *least = Some(this);
        }
    }
    // While half of them are not stuck, those that were just opened among them, it goes on with these.
    let most = if 2 * stuck >= usable { limits.strained } else { limits.connections };
    let may_open = |most: usize| usable < most && all < 2 * limits.connections;
    match best.or(worn) {
        _ if may_open(most) => Choice::Open,
        Some((_, _, place)) => Choice::Take(place),
        None if trusted == 0 && may_open(limits.strained) => Choice::Open,
        None => Choice::Full,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        connections: 3,
        strained: 5,
        least_depth: 1,
        most_depth: 1,
        hard_depth: 4,
        queued: 0,
        uses: u64::MAX,
        age: Duration::from_secs(60),
    };

    const PATIENCE: Duration = Duration::from_millis(20);
    const WISH: Wish = Wish { newer_than: 0, depth: 1, patience: PATIENCE };

    fn chosen(loads: &[u32], newer_than: u64) -> Choice {
        chosen_by(Wish { newer_than, ..WISH }, loads, &[])
    }

    /// The first connections have waited for so many milliseconds, the others not at all.
    fn chosen_by(wish: Wish, loads: &[u32], waited: &[u64]) -> Choice {
        let seen = loads.iter().enumerate().map(|(place, &load)| Seen {
            load: if load >= 100 { load.saturating_sub(101) } else { load },
            waited: Duration::from_millis(waited.get(place).copied().unwrap_or(0)),
            // 100: takes nothing; above: worn, with so much less load.
            serial: place as u64 + 1,
            fitness: match load {
                0..100 => Fitness::Fit,
                100 => Fitness::Unfit,
                _ => Fitness::Worn,
            },
        });
        choose(seen, wish, &LIMITS)
    }

    #[test]
    fn an_idle_connection_is_taken_before_one_is_opened() {
        assert_eq!(chosen(&[], 0), Choice::Open);
        assert_eq!(chosen(&[1, 0, 0], 0), Choice::Take(1));
        assert_eq!(chosen(&[1, 1], 0), Choice::Open);
    }

    #[test]
    fn the_oldest_connection_is_filled_before_the_next_is_used() {
        let deep = Wish { depth: 3, ..WISH };
        assert_eq!(chosen_by(deep, &[2, 0], &[]), Choice::Take(0));
        assert_eq!(chosen_by(deep, &[3, 1], &[]), Choice::Take(1));
        assert_eq!(chosen_by(deep, &[3, 3], &[]), Choice::Open);
    }

    #[test]
    fn when_no_more_may_be_opened_the_least_loaded_is_taken_until_all_are_full() {
        assert_eq!(chosen(&[3, 2, 3], 0), Choice::Take(1));
        assert_eq!(chosen(&[4, 4, 4], 0), Choice::Full);
    }

    #[test]
    fn nobody_is_put_behind_one_that_is_held_up_while_there_is_another_way() {
        let deep = Wish { depth: 3, ..WISH };
        assert_eq!(chosen_by(deep, &[1, 0], &[20, 0]), Choice::Take(0), "as long as it may take");
        assert_eq!(chosen_by(deep, &[1, 0], &[21, 0]), Choice::Take(1));
        assert_eq!(chosen_by(deep, &[1, 1], &[21, 21]), Choice::Open);
        assert_eq!(chosen_by(deep, &[1, 3, 1], &[21, 0, 21]), Choice::Take(1));
        assert_eq!(chosen_by(deep, &[2, 1, 3], &[21, 21, 21]), Choice::Take(1), "no other way");
    }

    #[test]
    fn more_are_opened_while_half_of_them_are_stuck() {
        assert_eq!(chosen_by(WISH, &[1, 1, 2], &[100, 99, 99]), Choice::Take(0));
        assert_eq!(chosen_by(WISH, &[1, 1, 2], &[100, 100, 0]), Choice::Open);
        assert_eq!(chosen_by(WISH, &[1, 1, 1, 1, 1], &[100; 5]), Choice::Take(0), "not for ever");
        // Those that were just opened have their chance before there are still more.
        assert_eq!(chosen_by(WISH, &[1, 1, 1, 1], &[100]), Choice::Take(1));
        assert_eq!(chosen_by(WISH, &[100; 5], &[]), Choice::Open);
        assert_eq!(chosen_by(WISH, &[100; 6], &[]), Choice::Full);
    }

    #[test]
    fn a_connection_that_takes_no_queries_does_not_count() {
        assert_eq!(chosen(&[100, 100, 2, 100], 0), Choice::Open);
    }

    #[test]
    fn those_that_end_are_bounded_too() {
        assert_eq!(chosen(&[100; 10], 0), Choice::Full);
        assert_eq!(chosen(&[100, 100, 100, 100, 100, 3], 0), Choice::Take(5));
    }

    #[test]
    fn a_worn_one_is_taken_only_when_no_other_can_be_had() {
        assert_eq!(chosen(&[101, 101], 0), Choice::Open);
        let worn = [103, 102, 103, 100, 100, 100, 100, 100, 100, 100];
        assert_eq!(chosen(&worn, 0), Choice::Take(1));
        assert_eq!(chosen(&[103, 102, 103, 100, 100, 3], 0), Choice::Take(5));
        assert_eq!(chosen(&[105; 10], 0), Choice::Full);
    }

    #[test]
    fn after_a_dead_connection_only_later_ones_are_trusted() {
        assert_eq!(chosen(&[0, 0], 1), Choice::Take(1));
        assert_eq!(chosen(&[0, 0], 2), Choice::Open);
        // Be there as many as usually may.
        assert_eq!(chosen(&[0, 0, 0], 3), Choice::Open);
        assert_eq!(chosen(&[0; 5], 5), Choice::Full);
    }
}
