//! `pprof`: a CPU profile over HTTP.
//!
//! Owns the grammar; the app runs the endpoint.

use super::address::{look_at, split_host_port};
use super::{Service, Setup};
use crate::corefile::{CorefileError, parse_integer};

/// Where to listen when no address is given.
const DEFAULT_ADDRESS: &str = "localhost:6053";

/// Reads the directive.
///
/// # Errors
///
/// `Wrong argument count or unexpected line ending after '…'`; Go's text about the address (`address …:
/// missing port in address`, `listen tcp: …`); `unknown property '…'`; `property 'block' invalid
/// integer value '…'`; `this plugin can only be used once per Server Block`.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    let dispenser = &mut setup.dispenser;
    dispenser.next();
    let address = match dispenser.remaining_args().as_slice() {
        [] => DEFAULT_ADDRESS,
        [address] => {
            split_host_port(address).map_err(|why| dispenser.err(why))?;
            address
        }
        _ => return Err(dispenser.arg_err()),
    };
    // What only listening would find comes after what the words say, at the address.
    let address_at = dispenser.clone();
    while dispenser.next_block() {
        let property = dispenser.val();
        if property != "block" {
            return Err(dispenser.err(format!("unknown property '{property}'")));
        }
        // A rate of Go's block profile: there is none here.
        match dispenser.remaining_args().as_slice() {
            [] => {}
            [rate] => {
                parse_integer(rate).map_err(|_| {
                    dispenser.err(format!("property 'block' invalid integer value '{rate}'"))
                })?;
            }
            _ => return Err(dispenser.arg_err()),
        }
    }
    if dispenser.next() {
        return Err(dispenser.once_err());
    }
    look_at(address).map_err(|why| address_at.start_err(why))?;
    setup.services.push(Service::Pprof { address: address.to_owned() });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;
    use crate::corefile::MemorySurroundings;

    #[test]
    fn the_address_has_a_default() {
        for (text, expected) in [
            ("pprof", "localhost:6053"),
            ("pprof 127.0.0.1:1 {\n block 20\n}", "127.0.0.1:1"),
            ("pprof :6060 {\n block\n}", ":6060"),
        ] {
            let mut bench = Bench::new();
            bench.load(text, &MemorySurroundings::new()).unwrap();
            assert!(
                matches!(&bench.services[..], [Service::Pprof { address }] if address == expected)
            );
            assert!(bench.journal.take().is_empty());
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, error) in [
            (
                "pprof 6053",
                "plugin/pprof: Corefile:2 - Error during parsing: address 6053: missing port in address",
            ),
            ("pprof :99999", "Corefile:2 - listen tcp: address 99999: invalid port"),
            (
                "pprof :99999 {\n foo\n}",
                "plugin/pprof: Corefile:3 - Error during parsing: unknown property 'foo'",
            ),
            (
                "pprof {\n foo\n}",
                "plugin/pprof: Corefile:3 - Error during parsing: unknown property 'foo'",
            ),
            (
                "pprof\npprof",
                "Corefile:3 - plugin/pprof: this plugin can only be used once per Server Block",
            ),
        ] {
            assert_eq!(Bench::new().load_error(text, &MemorySurroundings::new()), error);
        }
    }
}
