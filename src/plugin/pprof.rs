//! `pprof`: accepted so that a Corefile for CoreDNS loads; there is no Go runtime to look into.
//!
//! Owns the grammar and the one warning that it has no effect.

use super::address::split_host_port;
use super::{Level, Setup};
use crate::corefile::{CorefileError, parse_integer};

/// Reads the directive.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    let dispenser = &mut setup.dispenser;
    dispenser.next();
    match dispenser.remaining_args().as_slice() {
        [] => {}
        [address] => {
            split_host_port(address).map_err(|why| dispenser.plain_err(why))?;
        }
        _ => return Err(dispenser.arg_err()),
    }
    while dispenser.next_block() {
        let property = dispenser.val();
        if property != "block" {
            return Err(dispenser.err(format!("unknown property '{property}'")));
        }
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
    setup.journal.line(
        Level::Warning,
        format_args!("plugin/pprof: accepted without effect: there are no Go profiles to serve"),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use crate::corefile::MemorySurroundings;

    #[test]
    fn it_is_accepted_with_one_warning() {
        let mut bench = Bench::new();
        bench.load("pprof 127.0.0.1:6053 {\n block 20\n}", &MemorySurroundings::new()).unwrap();
        assert_eq!(bench.journal.take().len(), 1);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, error) in [
            ("pprof 6053", "Corefile:2 - plugin/pprof: address 6053: missing port in address"),
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
