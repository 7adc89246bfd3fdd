//! The weight file of `loadbalance weighted`: names, and below each its addresses with weights.
//!
//! Owns the weights that count now and the digest of the file they came from. A file that cannot
//! be read leaves them as they are.

use super::order::Piece;
use crate::corefile::{Surroundings, file_error_text, format_duration, quote};
use crate::dns::{Message, Name};
use crate::plugin::{Journal, Level};
use arc_swap::ArcSwap;
use rand::RngExt;
use rand::rngs::StdRng;
use sha2::{Digest, Sha512};
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Why a weight file gives no weights: CoreDNS's texts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum WeightsError {
    /// It is not there, or not readable.
    #[error("weight file open error")]
    Open,
    /// A line is wrong, or it is a folder.
    #[error("{0}")]
    Line(String),
}

/// The length in octets at which Go's scanner gives a line up.
const LONGEST_LINE: usize = 65_536;

/// Weights by owner name. An address that is not listed weighs 1.
type Domains = HashMap<Name, Vec<(IpAddr, u8)>>;

/// The weights of one directive.
pub(super) struct Weights {
    file: String,
    reload: Duration,
    domains: ArcSwap<Domains>,
    digest: Mutex<Option<[u8; 64]>>,
}

impl Weights {
    /// No weights yet. A `reload` of zero means that the file is read once.
    pub(super) fn new(file: String, reload: Duration) -> Weights {
        Weights { file, reload, domains: ArcSwap::default(), digest: Mutex::default() }
    }

    /// How often to read the file again.
    pub(super) fn reload(&self) -> Option<Duration> {
        (!self.reload.is_zero()).then_some(self.reload)
    }

    /// Reads the file; says so when it holds something new.
    pub(super) fn read(
        &self,
        surroundings: &dyn Surroundings,
        journal: &dyn Journal,
    ) -> Result<(), WeightsError> {
        // No name at all is the folder that the process is in, as to Go.
        let path = if self.file.is_empty() { "." } else { self.file.as_str() };
        let path: PathBuf = Path::new(path).components().collect();
        let content = surroundings.read(&path).map_err(|error| unread(&path, &error))?;
        let digest: [u8; 64] = Sha512::digest(&content).into();
        let mut known = self.digest.lock().unwrap_or_else(PoisonError::into_inner);
        if *known == Some(digest) {
            return Ok(());
        }
        // A wrong file is complained about once, not at every look.
        *known = Some(digest);
        let domains = parse(&String::from_utf8_lossy(&content), &self.file)?;
        self.domains.store(domains.into());
        journal.line(
            Level::Info,
            format_args!("plugin/loadbalance: Successfully reloaded weight file {}", self.file),
        );
        Ok(())
    }

    /// At the start: the file may come later.
    pub(super) fn warn_of_absence(&self, error: &WeightsError, journal: &dyn Journal) {
        journal.line(
            Level::Warning,
            format_args!(
                "plugin/loadbalance: Failed to open weight file:{error}. Will try again in {}",
                format_duration(self.reload)
            ),
        );
    }

    /// Later: the weights stay as they are.
    pub(super) fn complain(&self, error: &WeightsError, journal: &dyn Journal) {
        journal.line(Level::Error, format_args!("plugin/loadbalance: {error}"));
    }

    /// The index of the address that comes first; 0 when there is none.
    pub(super) fn choose(
        &self,
        message: &Message<'_>,
        addresses: &[Piece],
        random: &mut StdRng,
    ) -> usize {
        let domains = self.domains.load();
        let weight = |piece: &Piece| {
            let address = piece.address(message.wire()).map(|address| address.to_canonical());
            piece
                .owner(message)
                .and_then(|owner| domains.get(&owner))
                .and_then(|weights| weights.iter().find(|(known, _)| Some(*known) == address))
                .map_or(1, |(_, weight)| u32::from(*weight))
        };
        let sum: u32 = addresses.iter().map(weight).sum();
        let mut ticket = random.random_range(0..sum.max(1));
        addresses
            .iter()
            .position(|piece| {
                let weight = weight(piece);
                let is_it = ticket < weight;
                ticket = ticket.saturating_sub(weight);
                is_it
            })
            .unwrap_or(0)
    }
}

/// Why a file was not read. One that may come later is not there; a folder stays one.
fn unread(path: &Path, error: &io::Error) -> WeightsError {
    match error.kind() {
        io::ErrorKind::IsADirectory => WeightsError::Line(file_error_text(path, error)),
        _ => WeightsError::Open,
    }
}

/// Reads a weight file.
fn parse(text: &str, file: &str) -> Result<Domains, WeightsError> {
    let mut domains = Domains::new();
    // A name that cannot be one is taken, and never matches.
    let mut current: Option<Option<Name>> = None;
    for line in text.lines() {
        if line.len() >= LONGEST_LINE {
            let why = "bufio.Scanner: token too long";
            return Err(WeightsError::Line(format!("weight file {file} parsing error:{why}")));
        }
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let wrong = |text: String| Err(WeightsError::Line(text));
        match words[..] {
            [name] => {
                if name.parse::<IpAddr>().is_ok() {
                    return wrong(format!(
                        "wrong domain name:{} in weight file {file}. (Maybe a missing weight value?)",
                        quote(name)
                    ));
                }
                current = Some(name.parse().ok());
            }
            [address, weight] => {
                let Ok(ip) = address.parse::<IpAddr>() else {
                    let address = quote(address);
                    return wrong(format!("wrong IP address:{address} in weight file {file}"));
                };
                let Some(weight) = parse_weight(weight) else {
                    let weight = quote(weight);
                    return wrong(format!("wrong weight value:{weight} in weight file {file}"));
                };
                match &current {
                    None => return wrong(format!("missing domain name in weight file {file}")),
                    Some(None) => {}
                    Some(Some(name)) => {
                        let of_name = domains.entry(name.clone()).or_default();
                        of_name.push((ip.to_canonical(), weight));
                    }
                }
            }
            _ => {
                let line = quote(line);
                return wrong(format!("could not parse weight line:{line} in weight file {file}"));
            }
        }
    }
    Ok(domains)
}

/// 1 to 255, digits alone.
fn parse_weight(text: &str) -> Option<u8> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|weight| is_number && *weight > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_no_file_that_may_come_later() {
        let why = |kind: io::ErrorKind| unread(Path::new("."), &kind.into()).to_string();
        assert_eq!(why(io::ErrorKind::IsADirectory), "read .: is a directory");
        assert_eq!(why(io::ErrorKind::NotFound), "weight file open error");
    }

    #[test]
    fn names_and_addresses_with_weights_are_read() {
        let domains =
            parse("# c\nW.test\n 192.0.2.3 8\n\n::1\t255\nb.test.\n10.0.0.1 1\nw.test 1", "f");
        assert_eq!(
            domains.unwrap_err().to_string(),
            "wrong IP address:\"w.test\" in weight file f"
        );
        let domains = parse("# c\nW.test\n 192.0.2.3 8\n\n::1\t255\nb.test.", "f").unwrap();
        assert_eq!(
            domains[&"w.test.".parse().unwrap()],
            [("192.0.2.3".parse().unwrap(), 8), ("::1".parse().unwrap(), 255)]
        );
        assert_eq!(domains.len(), 1);
    }

    #[test]
    fn a_name_that_cannot_be_one_never_matches() {
        let domains = parse("a..b\n192.0.2.1 2\nc\n::ffff:192.0.2.1 3", "f").unwrap();
        assert_eq!(domains.len(), 1);
        assert_eq!(domains[&"c.".parse().unwrap()], [("192.0.2.1".parse().unwrap(), 3)]);
    }

    #[test]
    fn mistakes_are_named_as_coredns_names_them() {
        for (text, error) in [
            (
                "1.2.3.4",
                "wrong domain name:\"1.2.3.4\" in weight file f. (Maybe a missing weight value?)",
            ),
            ("a\n1.2.3.4 0", "wrong weight value:\"0\" in weight file f"),
            ("a\n1.2.3.4 256", "wrong weight value:\"256\" in weight file f"),
            ("1.2.3.4 1", "missing domain name in weight file f"),
            (
                &"x".repeat(LONGEST_LINE),
                "weight file f parsing error:bufio.Scanner: token too long",
            ),
            ("a b c", "could not parse weight line:\"a b c\" in weight file f"),
        ] {
            assert_eq!(parse(text, "f").unwrap_err().to_string(), error);
        }
    }
}
