//! `cancel`: an end to how long a query waits for upstreams.
//!
//! Sets the query's deadline on the way down; those who wait keep it. Never answers itself.

use super::{Context, Flow, Handler, Setup};
use crate::corefile::{CorefileError, parse_duration, quote};
use crate::dns::{Query, Response};
use std::time::Duration;

/// How long when no time is given: a moment longer than most clients wait.
const DEFAULT: Duration = Duration::from_millis(5001);

/// The running part.
struct Cancel {
    after: Duration,
}

impl Handler for Cancel {
    fn word(&self) -> &'static str {
        "cancel"
    }

    fn query(
        &self,
        _query: &mut Query<'_>,
        _response: &mut Response,
        context: &mut Context<'_>,
    ) -> Flow {
        let end = context.received.monotonic.saturating_add(self.after);
        // A further question's own block does not give it more time than who asks has.
        *context.deadline = Some(context.deadline.map_or(end, |asker| asker.min(end)));
        Flow::Next
    }
}

/// Reads the directive; of several in a block the last one's time counts.
///
/// # Errors
///
/// `Wrong argument count or unexpected line ending after '…'`; `invalid duration: "…"`; `invalid
/// negative duration: "…"`, also for zero.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    let dispenser = &mut setup.dispenser;
    let mut after = DEFAULT;
    while dispenser.next() {
        after = match dispenser.remaining_args()[..] {
            [] => DEFAULT,
            [text] => {
                let nanoseconds = parse_duration(text).map_err(|_| {
                    dispenser.plain_err(format!("invalid duration: {}", quote(text)))
                })?;
                if nanoseconds <= 0 {
                    let text = format!("invalid negative duration: {}", quote(text));
                    return Err(dispenser.plain_err(text));
                }
                Duration::from_nanos(nanoseconds.unsigned_abs())
            }
            _ => return Err(dispenser.arg_err()),
        };
    }
    setup.block.add(Cancel { after });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corefile::MemorySurroundings;
    use crate::dns::RecordType;
    use crate::plugin::testing::{Bench, query};

    fn deadline(directive: &str) -> Option<Duration> {
        let mut bench = Bench::new();
        let chain = bench.load(directive, &MemorySurroundings::new()).unwrap();
        let outcome = bench.ask(&chain, query("a.test.", RecordType::A), |_, _| {});
        outcome.deadline.map(|end| end - bench.now.monotonic)
    }

    #[test]
    fn a_query_has_its_time() {
        assert_eq!(deadline("cancel"), Some(Duration::from_millis(5001)));
        assert_eq!(deadline("cancel 1s"), Some(Duration::from_secs(1)));
        assert_eq!(deadline("cancel 1s\ncancel 2s"), Some(Duration::from_secs(2)));
        assert_eq!(deadline("whoami"), None);
    }

    #[test]
    fn mistakes_are_told_in_corednss_words() {
        for (text, error) in [
            ("5", "Corefile:2 - plugin/cancel: invalid duration: \"5\""),
            ("-5s", "Corefile:2 - plugin/cancel: invalid negative duration: \"-5s\""),
            ("0s", "Corefile:2 - plugin/cancel: invalid negative duration: \"0s\""),
            (
                "1s 2s",
                "plugin/cancel: Corefile:2 - Error during parsing: Wrong argument count or unexpected line ending after '2s'",
            ),
        ] {
            let text = format!("cancel {text}");
            assert_eq!(Bench::new().load_error(&text, &MemorySurroundings::new()), error);
        }
    }
}
