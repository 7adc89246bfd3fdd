//! `dnstap`: accepted so that a Corefile for CoreDNS loads; nodens writes no dnstap frames.
//!
//! Owns the grammar and the one warning that it has no effect.

use super::{Level, Setup};
use crate::corefile::{CorefileError, parse_integer};

/// The greatest multiple that CoreDNS takes for the TCP write buffer, in MiB.
const GREATEST_BUFFER: i64 = 1024;

/// The greatest multiple that CoreDNS takes for the queue, in units of 10 000 messages.
const GREATEST_QUEUE: i64 = 4096;

/// Reads the directive.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    let dispenser = &mut setup.dispenser;
    while dispenser.next() {
        let arguments = dispenser.remaining_args();
        if arguments.is_empty() {
            return Err(dispenser.arg_err());
        }
        let sizes = [("MultipleTcpWriteBuf", GREATEST_BUFFER), ("MultipleQueue", GREATEST_QUEUE)];
        for (text, (name, greatest)) in arguments.iter().skip(2).zip(sizes) {
            if !parse_integer(text).is_ok_and(|size| (1..=greatest).contains(&size)) {
                return Err(dispenser
                    .plain_err(format!("dnstap {name} must be between 1 and {greatest}: {text}")));
            }
        }
        while dispenser.next_block() {
            match dispenser.val() {
                "skipverify" => {}
                "identity" | "version" | "extra" => {
                    if !dispenser.next_arg() {
                        return Err(dispenser.arg_err());
                    }
                }
                // CoreDNS 1.13.2 passes over words that it does not know.
                _ => {
                    dispenser.remaining_args();
                }
            }
        }
    }
    setup.journal.line(
        Level::Warning,
        format_args!("plugin/dnstap: accepted without effect: nodens writes no dnstap frames"),
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
        let text = "dnstap /run/dnstap.sock full 1 2 {\n identity a\n skipverify\n}";
        bench.load(text, &MemorySurroundings::new()).unwrap();
        assert_eq!(bench.journal.take().len(), 1);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, error) in [
            ("dnstap", "Wrong argument count or unexpected line ending after 'dnstap'"),
            ("dnstap a full x", "dnstap MultipleTcpWriteBuf must be between 1 and 1024: x"),
            (
                "dnstap a {\n identity\n}",
                "Wrong argument count or unexpected line ending after 'identity'",
            ),
        ] {
            let found = Bench::new().load_error(text, &MemorySurroundings::new());
            assert!(found.ends_with(error), "{found}");
        }
    }
}
