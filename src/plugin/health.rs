//! `health`: /health over HTTP, and how long to serve on after SIGTERM.
//!
//! Owns the grammar; the app runs the endpoint, the self-poll and the lameduck wait.

use super::address::{look_at, split_host_port, url_authority};
use super::{Part, Service, Setup};
use crate::corefile::{CorefileError, parse_duration, quote};
use std::time::Duration;

/// Where to listen when no address is given.
const DEFAULT_ADDRESS: &str = ":8080";

/// Reads the directive; the last address and the last `lameduck` of a block win.
///
/// # Errors
///
/// `Wrong argument count or unexpected line ending after '…'`; for the address Go's text about host,
/// port or URL (`address …: missing port in address`, `parse "http://…": invalid port … after host`,
/// `listen tcp: …`); `unable to parse lameduck duration value: '…' : …`; `unknown part to be strict
/// about: '…', expected some of …` (`strict` is ours).
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    let dispenser = &mut setup.dispenser;
    let mut address = DEFAULT_ADDRESS;
    let mut lameduck = Duration::ZERO;
    let mut strict = Vec::new();
    // What only listening would find comes after what the words say, at the address.
    let mut address_at = dispenser.clone();
    while dispenser.next() {
        match dispenser.remaining_args().as_slice() {
            [] => {}
            [given] => {
                split_host_port(given).map_err(|why| dispenser.plain_err(why))?;
                (address, address_at) = (given, dispenser.clone());
            }
            _ => return Err(dispenser.arg_err()),
        }
        while dispenser.next_block() {
            let word = dispenser.val();
            if !["lameduck", "strict"].contains(&word) {
                return Err(dispenser.arg_err());
            }
            let arguments = dispenser.remaining_args();
            match (word, arguments.as_slice()) {
                ("lameduck", [text]) => {
                    let nanos = parse_duration(text).map_err(|why| {
                        dispenser.plain_err(format!(
                            "unable to parse lameduck duration value: '{text}' : {why}"
                        ))
                    })?;
                    // A negative time is no time.
                    lameduck = Duration::from_nanos(u64::try_from(nanos).unwrap_or(0));
                }
                ("strict", []) => strict = Part::ALL.to_vec(),
                ("strict", words) => {
                    strict = words
                        .iter()
                        .map(|word| part(word).map_err(|why| dispenser.plain_err(why)))
                        .collect::<Result<_, _>>()?;
                }
                _ => return Err(dispenser.arg_err()),
            }
        }
    }
    url_authority(address).map_err(|why| {
        let url = quote(&format!("http://{address}"));
        address_at.start_err(format!("parse {url}: {why}"))
    })?;
    look_at(address).map_err(|why| address_at.start_err(why))?;
    setup.services.push(Service::Health { address: address.to_owned(), lameduck, strict });
    Ok(())
}

fn part(word: &str) -> Result<Part, String> {
    let part = Part::ALL.into_iter().find(|part| part.word() == word);
    part.ok_or_else(|| {
        let all = Part::ALL.map(Part::word).join(", ");
        format!("unknown part to be strict about: '{word}', expected some of {all}")
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;
    use crate::corefile::MemorySurroundings;

    fn service(text: &str) -> (String, Duration) {
        let mut bench = Bench::new();
        bench.load(text, &MemorySurroundings::new()).unwrap();
        match bench.services.as_slice() {
            [Service::Health { address, lameduck, strict }] if strict.is_empty() => {
                (address.clone(), *lameduck)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn address_and_lameduck_have_defaults() {
        assert_eq!(service("health"), (":8080".to_owned(), Duration::ZERO));
        assert_eq!(
            service("health 127.0.0.1:8081 {\n lameduck 5s\n}\nhealth :1"),
            (":1".to_owned(), Duration::from_secs(5))
        );
        assert_eq!(service("health {\n lameduck -5s\n}").1, Duration::ZERO);
    }

    #[test]
    fn strict_is_about_the_parts_that_it_names_or_all() {
        for (text, parts) in [
            ("health {\n strict\n}", &Part::ALL[..]),
            ("health {\n strict rules listeners\n}", &[Part::Rules, Part::Listeners]),
            ("health {\n strict\n lameduck 1s\n strict upstreams\n}", &[Part::Upstreams]),
        ] {
            let mut bench = Bench::new();
            bench.load(text, &MemorySurroundings::new()).unwrap();
            let [Service::Health { strict, .. }] = &bench.services[..] else { panic!("{text}") };
            assert_eq!(strict, parts, "{text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, error) in [
            (
                "health {\n strict dns\n}",
                "Corefile:3 - plugin/health: unknown part to be strict about: 'dns', expected some of listeners, interface, rules, upstreams",
            ),
            ("health 8080", "Corefile:2 - plugin/health: address 8080: missing port in address"),
            ("health :99999", "Corefile:2 - listen tcp: address 99999: invalid port"),
            (
                "health 127.0.0.1:http",
                "Corefile:2 - parse \"http://127.0.0.1:http\": invalid port \":http\" after host",
            ),
            (
                "health :99999 {\n foo\n}",
                "plugin/health: Corefile:3 - Error during parsing: Wrong argument count or unexpected line ending after 'foo'",
            ),
            (
                "health [localhost]:80 {\n lameduck 1s\n}",
                "Corefile:2 - parse \"http://[localhost]:80\": invalid IP-literal",
            ),
            (
                "health {\n lameduck 5\n}",
                "Corefile:3 - plugin/health: unable to parse lameduck duration value: '5' : time: missing unit in duration \"5\"",
            ),
            (
                "health {\n foo\n}",
                "plugin/health: Corefile:3 - Error during parsing: Wrong argument count or unexpected line ending after 'foo'",
            ),
            (
                "health a b",
                "plugin/health: Corefile:2 - Error during parsing: Wrong argument count or unexpected line ending after 'b'",
            ),
        ] {
            assert_eq!(Bench::new().load_error(text, &MemorySurroundings::new()), error);
        }
    }
}
