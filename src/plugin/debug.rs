//! `debug`: debug lines in the log, for every listener that the block serves.
//!
//! Sets one fact of the block. Unlike CoreDNS's, it does not let a panic end the process.

use super::Setup;
use crate::corefile::CorefileError;

/// Reads the directive.
///
/// # Errors
///
/// `Wrong argument count or unexpected line ending after '…'` for any argument.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    while setup.dispenser.next() {
        if setup.dispenser.next_arg() {
            return Err(setup.dispenser.arg_err());
        }
        setup.block.debug = true;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use crate::corefile::MemorySurroundings;

    #[test]
    fn it_takes_no_argument() {
        let mut bench = Bench::new();
        bench.load("debug\ndebug", &MemorySurroundings::new()).unwrap();
        assert!(bench.block.debug);
        assert_eq!(
            bench.load_error("debug on", &MemorySurroundings::new()),
            "plugin/debug: Corefile:2 - Error during parsing: Wrong argument count or unexpected line ending after 'on'"
        );
    }
}
