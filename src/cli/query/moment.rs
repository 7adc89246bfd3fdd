//! A moment as calendar and clock show it, in UTC.
//!
//! The civil date comes from `httpdate`, which hyper brings: its text has all parts in fixed places.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The last second that `httpdate` can tell, in 9999.
const LAST: u64 = 253_402_300_799;

/// The parts of a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Moment {
    /// From 1970 to 9999.
    pub(super) year: u16,
    /// From 1.
    pub(super) month: usize,
    /// From 1.
    pub(super) day: u8,
    /// From 0 to 23.
    pub(super) hour: u8,
    /// From 0 to 59.
    pub(super) minute: u8,
    /// From 0 to 59.
    pub(super) second: u8,
    weekday: String,
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

impl Moment {
    /// Of a time; one before 1970 or after 9999 is the nearest of these years.
    pub(super) fn of(time: SystemTime) -> Moment {
        let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().min(LAST);
        // `Sun, 06 Nov 1994 08:49:37 GMT`
        let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
        let word =
            |place: usize| text.split([' ', ':', ',']).filter(|word| !word.is_empty()).nth(place);
        let number =
            |place: usize| word(place).and_then(|word| word.parse().ok()).unwrap_or_default();
        let month = word(2).and_then(|word| MONTHS.iter().position(|name| *name == word));
        Moment {
            year: number(3),
            month: month.unwrap_or_default() + 1,
            day: number(1) as u8,
            hour: number(4) as u8,
            minute: number(5) as u8,
            second: number(6) as u8,
            weekday: word(0).unwrap_or_default().to_owned(),
        }
    }

    /// `1994-11-06T08:49:37Z`.
    pub(super) fn to_rfc3339(&self) -> String {
        let Moment { year, month, day, hour, minute, second, .. } = self;
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// `Sun Nov  6 08:49:37 UTC 1994`, as dig does.
impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {:2} {:02}:{:02}:{:02} UTC {}",
            self.weekday,
            MONTHS.get(self.month - 1).unwrap_or(&"Jan"),
            self.day,
            self.hour,
            self.minute,
            self.second,
            self.year
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_reads_as_dig_writes_it() {
        let text = |seconds: u64| Moment::of(UNIX_EPOCH + Duration::from_secs(seconds)).to_string();
        assert_eq!(text(784_111_777), "Sun Nov  6 08:49:37 UTC 1994");
        assert_eq!(text(0), "Thu Jan  1 00:00:00 UTC 1970");
        assert_eq!(text(951_782_399), "Mon Feb 28 23:59:59 UTC 2000");
    }
}
