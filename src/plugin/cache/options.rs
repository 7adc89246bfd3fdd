//! The options of one `cache` directive: what was typed, checked (docs/plugins/cache.md).
//!
//! Owns defaults, limits and error texts. Never looks at a message.

use crate::corefile::{CorefileError, Dispenser, normalise_zone, parse_duration, parse_integer};
use crate::dns::Name;
use std::time::Duration;

/// The greatest TTL in seconds that a record may have (RFC 2181 §8).
pub(super) const MOST_TTL: u32 = i32::MAX as u32;
/// CAPACITY of both stores unless given.
const CAPACITY: i64 = 10_000;
/// Greatest TTL in seconds of positive responses unless given.
const SUCCESS_TTL: u32 = 3600;
/// Greatest TTL in seconds of negative responses unless given.
const DENIAL_TTL: u32 = 1800;
/// Least TTL in seconds unless given.
const LEAST_TTL: u32 = 5;
/// How long a SERVFAIL is kept unless given, and at most (RFC 2308 §7.1), in seconds.
const SERVFAIL_TTL: u32 = 5;
const MOST_SERVFAIL: Duration = Duration::from_secs(5 * 60);
/// How long after its TTL an entry is served when `serve_stale` gives no duration, in seconds.
const STALE_WINDOW: u32 = 3600;
/// The longest FAILURE_RECHECK (RFC 8767 §5).
const MOST_RECHECK: Duration = Duration::from_secs(5 * 60);
/// `prefetch`: the longest gap between two hits, and the rest of the TTL, unless given.
const PREFETCH_GAP: Duration = Duration::from_secs(60);
const PREFETCH_PERCENT: u32 = 10;

/// What one store keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Limits {
    /// CAPACITY as written; what it comes to is [`super::store::effective_capacity`].
    pub(super) capacity: i64,
    /// The TTL cap in seconds.
    pub(super) most: u32,
    /// The TTL minimum in seconds; the cap wins over it.
    pub(super) least: u32,
    /// Zones whose responses this store does not keep (`disable`).
    pub(super) disabled: Vec<Name>,
}

impl Limits {
    /// `min(max(ttl, least), most)`.
    pub(super) fn clamp(&self, ttl: u32) -> u32 {
        ttl.max(self.least).min(self.most)
    }

    /// Whether `disable` keeps responses for `name` out.
    pub(super) fn excludes(&self, name: &Name) -> bool {
        self.disabled.iter().any(|zone| name.is_in(zone))
    }
}

/// `prefetch AMOUNT [DURATION [PERCENTAGE%]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Prefetch {
    /// Hits without a longer gap than `gap` before an entry is refreshed; at least 1.
    pub(super) amount: u32,
    /// The longest gap between two hits.
    pub(super) gap: Duration,
    /// The part of its TTL below which an entry is refreshed, 10 to 90.
    pub(super) percent: u32,
}

/// What is done with a query for an expired entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refresh {
    /// Reply with the entry, refresh behind it.
    Immediate,
    /// Ask upstream first; the entry when that gives nothing usable, or nothing in time.
    Verify(Option<Duration>),
}

/// The whole directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Options {
    /// The zones that are cached; empty when all that were written are invalid.
    pub(super) zones: Vec<Name>,
    /// Positive responses.
    pub(super) success: Limits,
    /// Negative responses.
    pub(super) denial: Limits,
    /// Off when `None`.
    pub(super) prefetch: Option<Prefetch>,
    /// How long after its TTL an entry may be served, in seconds; 0 is off.
    pub(super) stale_window: u32,
    /// The mode of `serve_stale`.
    pub(super) refresh: Refresh,
    /// The TTL in seconds that an expired entry shows.
    pub(super) stale_ttl: u32,
    /// How long after a failed refresh nobody asks again; 0 is not at all.
    pub(super) recheck: Duration,
    /// How long SERVFAIL and NOTIMP are kept, in seconds, 0 to 300.
    pub(super) servfail: u32,
    /// Hits show the TTL that was stored, not what is left of it.
    pub(super) keep_ttl: bool,
}

impl Options {
    /// Reads the directive; `block_zones` are cached unless it names zones itself.
    pub(super) fn parse(
        dispenser: &mut Dispenser<'_>,
        block_zones: &[Name],
    ) -> Result<Options, CorefileError> {
        let limits =
            |most| Limits { capacity: CAPACITY, most, least: LEAST_TTL, disabled: Vec::new() };
        let mut options = Options {
            zones: Vec::new(),
            success: limits(SUCCESS_TTL),
            denial: limits(DENIAL_TTL),
            prefetch: None,
            stale_window: 0,
            refresh: Refresh::Immediate,
            stale_ttl: 0,
            recheck: Duration::ZERO,
            servfail: SERVFAIL_TTL,
            keep_ttl: false,
        };
        let mut seen = false;
        while dispenser.next() {
            if seen {
                return Err(dispenser.once_err());
            }
            seen = true;
            options.head(dispenser, block_zones)?;
            while dispenser.next_block() {
                options.line(dispenser)?;
            }
        }
        Ok(options)
    }

    /// The zone that `name` is in, if any is cached.
    pub(super) fn covers(&self, name: &Name) -> bool {
        self.zones.iter().any(|zone| zone.is_root() || name.is_in(zone))
    }

    /// The `zones` label: all zones, in order.
    pub(super) fn zones_label(&self) -> String {
        let names: Vec<String> = self.zones.iter().map(Name::to_string).collect();
        names.join(",")
    }

    /// `cache [TTL] [ZONES...]`.
    fn head(
        &mut self,
        dispenser: &mut Dispenser<'_>,
        block_zones: &[Name],
    ) -> Result<(), CorefileError> {
        let args = dispenser.remaining_args();
        let mut zones = args.as_slice();
        if let Some((first, rest)) = args.split_first()
            && let Ok(ttl) = parse_integer(first)
        {
            let ttl = positive_ttl(dispenser, ttl)?;
            (self.success.most, self.denial.most) = (ttl, ttl);
            zones = rest;
        }
        self.zones = match zones {
            [] => block_zones.to_vec(),
            zones => zones.iter().flat_map(|zone| normalise_zone(zone)).collect(),
        };
        Ok(())
    }

    /// One line of the block.
    fn line(&mut self, dispenser: &mut Dispenser<'_>) -> Result<(), CorefileError> {
        let word = dispenser.val();
        match word {
            "success" => store(dispenser, &mut self.success),
            "denial" => store(dispenser, &mut self.denial),
            "prefetch" => {
                self.prefetch = prefetch(dispenser)?;
                Ok(())
            }
            "serve_stale" => self.serve_stale(dispenser),
            "servfail" => {
                self.servfail = servfail(dispenser)?;
                Ok(())
            }
            "disable" => self.disable(dispenser),
            "keepttl" => match dispenser.remaining_args().as_slice() {
                [] => {
                    self.keep_ttl = true;
                    Ok(())
                }
                _ => Err(dispenser.arg_err()),
            },
            // CoreDNS 1.14.7's.
            "serve_stale_policy" => Err(dispenser.err(
                "serve_stale_policy is not there: leave the line out, a SERVFAIL never hides an answer \
                 that may still be served",
            )),
            _ => Err(dispenser.arg_err()),
        }
    }

    fn serve_stale(&mut self, dispenser: &mut Dispenser<'_>) -> Result<(), CorefileError> {
        let args = dispenser.remaining_args();
        // More than a duration and a mode is of later releases: what they cannot be is too many words.
        let is_later = |duration: &str, mode: &str| {
            parse_duration(duration).is_ok_and(|nanoseconds| nanoseconds >= 0)
                && ["immediate", "verify"].contains(&mode.to_lowercase().as_str())
        };
        if let [duration, mode, _, rest @ ..] = args.as_slice()
            && (rest.len() > 2 || !is_later(duration, mode))
        {
            return Err(dispenser.arg_err());
        }
        self.stale_window = match args.first() {
            None => STALE_WINDOW,
            Some(text) => {
                let nanoseconds =
                    parse_duration(text).map_err(|error| dispenser.plain_err(error))?;
                let window = positive(nanoseconds).ok_or_else(|| {
                    dispenser.plain_err("invalid negative duration for serve_stale")
                })?;
                whole_seconds(window)
            }
        };
        let mode = args.get(1).map(|mode| mode.to_lowercase());
        self.refresh = match mode.as_deref() {
            None | Some("immediate") => Refresh::Immediate,
            Some("verify") => Refresh::Verify(None),
            Some(other) => {
                return Err(dispenser
                    .plain_err(format!("invalid value for serve_stale refresh mode: {other}")));
            }
        };
        let mut rest = args.iter().skip(2);
        if let Refresh::Verify(_) = self.refresh
            && let Some(text) = rest.next()
        {
            let nanoseconds = parse_duration(text).map_err(|error| {
                dispenser.plain_err(format!("invalid serve_stale verify timeout: {error}"))
            })?;
            let timeout = positive(nanoseconds).ok_or_else(|| {
                dispenser.plain_err("invalid negative timeout for serve_stale verify")
            })?;
            self.refresh = Refresh::Verify(Some(timeout).filter(|timeout| !timeout.is_zero()));
        }
        self.stale_ttl = rest.next().map_or(Ok(0), |text| response_ttl(dispenser, text))?;
        self.recheck = rest.next().map_or(Ok(Duration::ZERO), |text| recheck(dispenser, text))?;
        match rest.next() {
            Some(_) => Err(dispenser.arg_err()),
            None => Ok(()),
        }
    }

    fn disable(&mut self, dispenser: &mut Dispenser<'_>) -> Result<(), CorefileError> {
        let args = dispenser.remaining_args();
        let Some((&kind, zones)) = args.split_first() else {
            return Err(dispenser.arg_err());
        };
        let zones = match zones {
            [] => vec![Name::root()],
            zones => zones.iter().filter_map(|zone| zone.parse().ok()).collect(),
        };
        match kind {
            "success" => self.success.disabled = zones,
            "denial" => self.denial.disabled = zones,
            _ => {
                return Err(
                    dispenser.plain_err("cache type for disable must be \"success\" or \"denial\"")
                );
            }
        }
        Ok(())
    }
}

/// `success|denial CAPACITY [TTL] [MINTTL]`; further arguments are ignored.
fn store(dispenser: &mut Dispenser<'_>, limits: &mut Limits) -> Result<(), CorefileError> {
    let args = dispenser.remaining_args();
    let Some(capacity) = args.first() else {
        return Err(dispenser.arg_err());
    };
    limits.capacity = integer(dispenser, capacity)?;
    if let Some(ttl) = args.get(1) {
        let ttl = integer(dispenser, ttl)?;
        limits.most = positive_ttl(dispenser, ttl)?;
    }
    if let Some(least) = args.get(2) {
        let least = integer(dispenser, least)?;
        if least < 0 {
            return Err(dispenser.plain_err(format!("cache min TTL can not be negative: {least}")));
        }
        limits.least = seconds(least);
    }
    Ok(())
}

fn prefetch(dispenser: &mut Dispenser<'_>) -> Result<Option<Prefetch>, CorefileError> {
    let args = dispenser.remaining_args();
    if args.is_empty() || args.len() > 3 {
        return Err(dispenser.arg_err());
    }
    let amount = integer(dispenser, args[0])?;
    if amount < 0 {
        return Err(dispenser.plain_err(format!("prefetch amount should be positive: {amount}")));
    }
    let gap = match args.get(1) {
        None => PREFETCH_GAP,
        Some(text) => {
            let nanoseconds = parse_duration(text).map_err(|error| dispenser.plain_err(error))?;
            positive(nanoseconds).unwrap_or(Duration::ZERO)
        }
    };
    let percent = match args.get(2) {
        None => PREFETCH_PERCENT,
        Some(text) => percentage(dispenser, text)?,
    };
    let amount = u32::try_from(amount).unwrap_or(u32::MAX);
    Ok((amount > 0).then_some(Prefetch { amount, gap, percent }))
}

fn percentage(dispenser: &Dispenser<'_>, text: &str) -> Result<u32, CorefileError> {
    let Some(digits) = text.strip_suffix('%') else {
        let last = text.chars().last().map(String::from).unwrap_or_default();
        return Err(dispenser
            .plain_err(format!("last character of percentage should be `%`, but is: '{last}'")));
    };
    let number = integer(dispenser, digits)?;
    match u32::try_from(number) {
        Ok(percent @ 10..=90) => Ok(percent),
        _ => {
            Err(dispenser.plain_err(format!("percentage should fall in range [10, 90]: {number}")))
        }
    }
}

/// RESPONSE_TTL of `serve_stale`, in seconds.
fn response_ttl(dispenser: &Dispenser<'_>, text: &str) -> Result<u32, CorefileError> {
    let nanoseconds = parse_duration(text).map_err(|error| {
        dispenser.plain_err(format!("invalid serve_stale response TTL: {error}"))
    })?;
    let ttl = positive(nanoseconds)
        .ok_or_else(|| dispenser.plain_err("invalid negative response TTL for serve_stale"))?;
    if ttl.subsec_nanos() != 0 {
        let text = "serve_stale response TTL must be a whole number of seconds";
        return Err(dispenser.plain_err(text));
    }
    // Go's durations end at 292 years.
    u32::try_from(ttl.as_secs())
        .ok()
        .filter(|ttl| *ttl <= MOST_TTL)
        .ok_or_else(|| dispenser.plain_err("serve_stale response TTL exceeds the DNS TTL range"))
}

/// FAILURE_RECHECK of `serve_stale`.
fn recheck(dispenser: &Dispenser<'_>, text: &str) -> Result<Duration, CorefileError> {
    let nanoseconds = parse_duration(text).map_err(|error| {
        dispenser.plain_err(format!("invalid serve_stale failure recheck: {error}"))
    })?;
    let pause = positive(nanoseconds)
        .ok_or_else(|| dispenser.plain_err("invalid negative failure recheck for serve_stale"))?;
    if pause > MOST_RECHECK {
        return Err(dispenser.plain_err("serve_stale failure recheck cannot exceed 5 minutes"));
    }
    Ok(pause)
}

fn servfail(dispenser: &mut Dispenser<'_>) -> Result<u32, CorefileError> {
    let args = dispenser.remaining_args();
    let [text] = args.as_slice() else {
        return Err(dispenser.arg_err());
    };
    let nanoseconds = parse_duration(text).map_err(|error| dispenser.plain_err(error))?;
    let ttl = positive(nanoseconds)
        .ok_or_else(|| dispenser.plain_err("invalid negative ttl for servfail"))?;
    if ttl > MOST_SERVFAIL {
        return Err(
            dispenser.plain_err("caching SERVFAIL responses over 5 minutes is not permitted")
        );
    }
    Ok(whole_seconds(ttl))
}

fn integer(dispenser: &Dispenser<'_>, text: &str) -> Result<i64, CorefileError> {
    parse_integer(text).map_err(|error| dispenser.plain_err(error))
}

fn positive_ttl(dispenser: &Dispenser<'_>, ttl: i64) -> Result<u32, CorefileError> {
    if ttl <= 0 {
        return Err(dispenser.plain_err(format!("cache TTL can not be zero or negative: {ttl}")));
    }
    Ok(seconds(ttl))
}

/// A TTL of at most [`MOST_TTL`]; `ttl` is not negative.
fn seconds(ttl: i64) -> u32 {
    u32::try_from(ttl).unwrap_or(MOST_TTL).min(MOST_TTL)
}

/// A duration from Go's signed nanoseconds.
fn positive(nanoseconds: i64) -> Option<Duration> {
    u64::try_from(nanoseconds).ok().map(Duration::from_nanos)
}

fn whole_seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(MOST_TTL).min(MOST_TTL)
}
