//! `ready`: /ready over HTTP. Not in node-cache, but in full CoreDNS.
//!
//! Owns the grammar; the app runs the endpoint.

use super::address::look_at;
use super::{Monitor, Service, Setup};
use crate::corefile::CorefileError;

/// Where to listen when no address is given.
const DEFAULT_ADDRESS: &str = ":8181";

/// Reads the directive.
///
/// # Errors
///
/// `Wrong argument count or unexpected line ending after '…'`; for the address Go's text (`address …:
/// missing port in address`, `listen tcp: …`); `monitor type '…' not supported`; `this plugin can only
/// be used once per Server Block`.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    let dispenser = &mut setup.dispenser;
    dispenser.next();
    let arguments = dispenser.remaining_args();
    let address = match arguments.as_slice() {
        [] => DEFAULT_ADDRESS,
        [given] => {
            look_at(given).map_err(|why| dispenser.plain_err(why))?;
            given
        }
        _ => return Err(dispenser.arg_err()),
    };
    let mut monitor = Monitor::default();
    while dispenser.next_block() {
        if dispenser.val() != "monitor" {
            return Err(dispenser.arg_err());
        }
        monitor = match dispenser.remaining_args().as_slice() {
            ["until-ready"] => Monitor::UntilReady,
            ["continuously"] => Monitor::Continuously,
            [other] => {
                return Err(dispenser.err(format!("monitor type '{other}' not supported")));
            }
            _ => return Err(dispenser.arg_err()),
        };
    }
    if dispenser.next() {
        return Err(dispenser.once_err());
    }
    setup.services.push(Service::Ready { address: address.to_owned(), monitor });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;
    use crate::corefile::MemorySurroundings;

    #[test]
    fn the_address_has_a_default() {
        for (text, expected, way) in [
            ("ready", ":8181", Monitor::UntilReady),
            ("ready {\n monitor until-ready\n}", ":8181", Monitor::UntilReady),
            ("ready 127.0.0.1:1 {\n monitor continuously\n}", "127.0.0.1:1", Monitor::Continuously),
        ] {
            let mut bench = Bench::new();
            bench.load(text, &MemorySurroundings::new()).unwrap();
            let [Service::Ready { address, monitor }] = &bench.services[..] else {
                panic!("{text}")
            };
            assert_eq!((address.as_str(), *monitor), (expected, way));
        }
    }

    #[test]
    fn mistakes_are_told_in_corednss_words() {
        for (text, error) in [
            (
                "ready\nready",
                "Corefile:3 - plugin/ready: this plugin can only be used once per Server Block",
            ),
            (
                "ready {\n monitor never\n}",
                "plugin/ready: Corefile:3 - Error during parsing: monitor type 'never' not supported",
            ),
        ] {
            assert_eq!(Bench::new().load_error(text, &MemorySurroundings::new()), error);
        }
    }
}
