//! `multisocket`: how many sockets CoreDNS opens for each address.
//!
//! Owns the grammar alone: every worker here has sockets of its own (SO_REUSEPORT) with and
//! without it.

use super::Setup;
use crate::corefile::{CorefileError, parse_integer};

/// The most sockets that CoreDNS opens for one address.
const MOST: i64 = 1024;

/// Reads the directive: a number, or none.
///
/// # Errors
///
/// `Wrong argument count or unexpected line ending after '…'` for a second number or directive;
/// `invalid num sockets: …` with Go's text; `num sockets can not be zero or negative: …`; `num sockets
/// exceeds maximum (1024): …`.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    let dispenser = &mut setup.dispenser;
    dispenser.next();
    let arguments = dispenser.remaining_args();
    if arguments.len() > 1 || dispenser.next() {
        return Err(dispenser.arg_err());
    }
    let Some(text) = arguments.first() else { return Ok(()) };
    let number = parse_integer(text)
        .map_err(|error| dispenser.plain_err(format!("invalid num sockets: {error}")))?;
    if number < 1 {
        let text = format!("num sockets can not be zero or negative: {number}");
        return Err(dispenser.plain_err(text));
    }
    if number > MOST {
        let text = format!("num sockets exceeds maximum ({MOST}): {number}");
        return Err(dispenser.plain_err(text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use crate::corefile::MemorySurroundings;

    #[test]
    fn a_number_of_sockets_is_taken_and_needs_no_handler() {
        for text in ["multisocket", "multisocket 1", "multisocket 1024"] {
            let chain = Bench::new().load(text, &MemorySurroundings::new()).unwrap();
            assert!(chain.is_empty(), "{text}");
        }
    }

    #[test]
    fn mistakes_are_told_in_corednss_words() {
        for (text, error) in [
            ("x", "invalid num sockets: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("0", "num sockets can not be zero or negative: 0"),
            ("1025", "num sockets exceeds maximum (1024): 1025"),
            ("1 2", "Wrong argument count or unexpected line ending after '2'"),
            (
                "1\nmultisocket",
                "Wrong argument count or unexpected line ending after 'multisocket'",
            ),
        ] {
            let text = format!("multisocket {text}");
            let found = Bench::new().load_error(&text, &MemorySurroundings::new());
            assert!(found.contains("plugin/multisocket: ") && found.ends_with(error), "{found}");
        }
    }
}
