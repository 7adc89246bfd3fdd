//! `bind`: the addresses that a server block listens on.
//!
//! Owns the way from addresses and interface names to [`BlockDraft::hosts`]; opens no socket.
//!
//! [`BlockDraft::hosts`]: super::BlockDraft::hosts

use super::Setup;
use crate::corefile::{CorefileError, Dispenser, Surroundings, quote};
use std::net::IpAddr;

/// Reads the directive.
///
/// # Errors
///
/// `at least one address or interface name is expected`; `invalid option "…"`; `at least one address or
/// interface must be given to except subdirective`; `not a valid IP address or interface name: "…"`;
/// and, ours, `except leaves no address to listen on`.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    let dispenser = &mut setup.dispenser;
    while dispenser.next() {
        let arguments = dispenser.remaining_args();
        if arguments.is_empty() {
            return Err(dispenser.plain_err("at least one address or interface name is expected"));
        }
        // The grammar comes first: addresses are looked at once the block is read.
        let here = dispenser.clone();
        let mut except = None;
        while dispenser.next_block() {
            if dispenser.val() != "except" {
                let option = quote(dispenser.val());
                return Err(dispenser.plain_err(format!("invalid option {option}")));
            }
            let arguments = dispenser.remaining_args();
            if arguments.is_empty() {
                return Err(dispenser.plain_err(
                    "at least one address or interface must be given to except subdirective",
                ));
            }
            // Like in CoreDNS, a second `except` of the same line replaces the first.
            except = Some((arguments, dispenser.clone()));
        }
        let addresses = resolve(&arguments, setup.surroundings, &here)?;
        let excepted = match except {
            Some((arguments, there)) => resolve(&arguments, setup.surroundings, &there)?,
            None => Vec::new(),
        };
        let kept = addresses.into_iter().filter(|address| !excepted.contains(address));
        setup.block.hosts.extend(kept);
    }
    if setup.block.hosts.is_empty() {
        // An empty list would mean every address of the node.
        return Err(dispenser.plain_err("except leaves no address to listen on"));
    }
    Ok(())
}

/// Interface names replaced by their addresses; everything else must be an IP address.
fn resolve(
    arguments: &[&str],
    surroundings: &dyn Surroundings,
    dispenser: &Dispenser<'_>,
) -> Result<Vec<String>, CorefileError> {
    let mut addresses = Vec::new();
    for &argument in arguments {
        if let Some(found) = surroundings.interface(argument) {
            addresses.extend(found);
        } else if argument.parse::<IpAddr>().is_ok() {
            // As it is written, for `except` compares texts.
            addresses.push(argument.to_owned());
        } else {
            return Err(dispenser.plain_err(format!(
                "not a valid IP address or interface name: {}",
                quote(argument)
            )));
        }
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use crate::corefile::MemorySurroundings;

    fn world() -> MemorySurroundings {
        MemorySurroundings::new().with_interface("lo", &["127.0.0.1", "::1"])
    }

    fn hosts(directives: &str) -> Vec<String> {
        let mut bench = Bench::new();
        bench.load(directives, &world()).unwrap();
        bench.block.hosts
    }

    #[test]
    fn lines_add_up_and_interfaces_become_their_addresses() {
        assert_eq!(
            hosts("bind 169.254.20.10 lo\nbind ::2 ::ffff:10.0.0.1"),
            ["169.254.20.10", "127.0.0.1", "::1", "::2", "::ffff:10.0.0.1"]
        );
    }

    #[test]
    fn except_takes_away_from_its_own_line() {
        assert_eq!(
            hosts("bind lo {\n except ::1 ::ffff:127.0.0.1\n}\nbind 10.0.0.1 ::1"),
            ["127.0.0.1", "10.0.0.1", "::1"]
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (text, error) in [
            ("bind", "at least one address or interface name is expected"),
            ("bind 999.1.1.1", "not a valid IP address or interface name: \"999.1.1.1\""),
            ("bind lo { foo\n}", "invalid option \"foo\""),
            ("bind nosuch {\n foo\n}", "invalid option \"foo\""),
            (
                "bind lo { except\n}",
                "at least one address or interface must be given to except subdirective",
            ),
            ("bind lo {\n except lo\n}", "except leaves no address to listen on"),
        ] {
            let found = Bench::new().load_error(text, &world());
            assert!(found.starts_with("Corefile:"), "{found}");
            assert!(found.ends_with(&format!(" - plugin/bind: {error}")), "{found}");
        }
    }
}
