//! What predecessor and successor say to each other, as octets.
//!
//! Owns the format and its version. A message is one line of words, and octets behind it where a
//! client's connection goes along; descriptors travel beside it. Reads what it is lent and judges it:
//! whatever is not as [`Message::encode`] would have left it is nothing.

use crate::corefile::KeyTransport;

/// The versions of the format that are spoken. What [`Message::Hello`] and [`Message::Refused`] look
/// like never changes.
pub(super) const VERSIONS: Versions = Versions { least: 1, most: 1 };

/// The most octets of a message: its line, and what a connection can hold back.
pub(super) const OCTETS_MOST: usize = 128 * 1024;

/// What every message begins with.
const FIRST: &str = "nodens-handover";

/// A range of versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Versions {
    pub(super) least: u16,
    pub(super) most: u16,
}

impl Versions {
    /// The greatest version that both speak.
    pub(super) fn common(self, other: Versions) -> Option<u16> {
        let most = self.most.min(other.most);
        (most >= self.least.max(other.least)).then_some(most)
    }
}

/// An address that is listened on, as the Corefile has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) transport: KeyTransport,
    /// `None` for all addresses.
    pub(super) host: Option<String>,
    pub(super) port: u16,
}

/// Why a predecessor hands nothing over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// No version in common.
    Version,
    /// The successor is in another network namespace: our sockets would be no use to it.
    Namespace,
    /// Another successor is being served.
    Busy,
    /// It holds more sockets than may be handed over, or cannot duplicate them.
    Sockets,
    /// The successor said something else than it should, or came too late.
    Order,
}

impl Reason {
    const ALL: [Reason; 5] =
        [Reason::Version, Reason::Namespace, Reason::Busy, Reason::Sockets, Reason::Order];

    /// The word that travels.
    pub(super) fn word(self) -> &'static str {
        match self {
            Reason::Version => "version",
            Reason::Namespace => "namespace",
            Reason::Busy => "busy",
            Reason::Sockets => "sockets",
            Reason::Order => "order",
        }
    }

    /// For people.
    pub(super) fn text(self) -> &'static str {
        match self {
            Reason::Version => "no version of the handover in common",
            Reason::Namespace => "another network namespace",
            Reason::Busy => "it is handing over to another process",
            Reason::Sockets => "it has too many sockets, or no descriptors left",
            Reason::Order => "what was said came too late or out of turn",
        }
    }
}

/// One message. S is the successor, P the predecessor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// S: who is there.
    Hello { versions: Versions, namespace: String, program: String },
    /// P: what follows is in this version.
    Welcome { version: u16, program: String },
    /// P: nothing is handed over.
    Refused(Reason),
    /// P: sockets of an address, first so many that listen for TCP.
    Sockets { place: Place, streams: usize },
    /// P: the socket of an HTTP address.
    Site { address: String },
    /// P: a stream with the cache.
    Cache,
    /// P: that was all for now.
    Offered,
    /// S: it reads the sockets.
    Commit,
    /// P: it reads them no more.
    Retired,
    /// P: a client's connection, and what was read of it.
    Connection { place: Place, octets: Vec<u8> },
    /// P: a stream with what came into the cache since.
    Fresh,
    /// P: nothing more comes.
    Done,
    /// S: it ends; P is to serve again if it can.
    Return,
    /// S: it ends, and somebody else serves.
    Farewell,
}

impl Message {
    /// As octets.
    pub(super) fn encode(&self) -> Vec<u8> {
        let line = match self {
            Message::Hello { versions: Versions { least, most }, namespace, program } => {
                format!("hello {least} {most} {} {}", word(namespace), word(program))
            }
            Message::Welcome { version, program } => format!("welcome {version} {}", word(program)),
            Message::Refused(reason) => format!("refused {}", reason.word()),
            Message::Sockets { place, streams } => format!("sockets {} {streams}", place.words()),
            Message::Site { address } => format!("site {}", word(address)),
            Message::Cache => "cache".to_owned(),
            Message::Offered => "offered".to_owned(),
            Message::Commit => "commit".to_owned(),
            Message::Retired => "retired".to_owned(),
            Message::Connection { place, .. } => format!("connection {}", place.words()),
            Message::Fresh => "fresh".to_owned(),
            Message::Done => "done".to_owned(),
            Message::Return => "return".to_owned(),
            Message::Farewell => "farewell".to_owned(),
        };
        let mut octets = format!("{FIRST} {line}\n").into_bytes();
        if let Message::Connection { octets: read, .. } = self {
            octets.extend_from_slice(read);
        }
        octets
    }

    /// From octets; words behind those that are known are a later version's, and are passed over.
    pub(super) fn decode(octets: &[u8]) -> Option<Message> {
        let end = octets.iter().position(|octet| *octet == b'\n')?;
        let line = std::str::from_utf8(&octets[..end]).ok()?;
        let mut words = line.split(' ');
        if words.next() != Some(FIRST) {
            return None;
        }
        let kind = words.next()?;
        let mut word = || words.next().map(str::to_owned);
        let message = match kind {
            "hello" => {
                let (least, most) = (word()?.parse().ok()?, word()?.parse().ok()?);
                let versions = Versions { least, most };
                Message::Hello { versions, namespace: word()?, program: word()? }
            }
            "welcome" => Message::Welcome { version: word()?.parse().ok()?, program: word()? },
            "refused" => {
                let word = word()?;
                // A reason that only a later version knows.
                let known = Reason::ALL.into_iter().find(|reason| reason.word() == word);
                Message::Refused(known.unwrap_or(Reason::Version))
            }
            "sockets" => {
                let place = Place::of_words(&mut word)?;
                Message::Sockets { place, streams: word()?.parse().ok()? }
            }
            "site" => Message::Site { address: word()? },
            "cache" => Message::Cache,
            "offered" => Message::Offered,
            "commit" => Message::Commit,
            "retired" => Message::Retired,
            "connection" => {
                let place = Place::of_words(&mut word)?;
                return Some(Message::Connection { place, octets: octets[end + 1..].to_vec() });
            }
            "fresh" => Message::Fresh,
            "done" => Message::Done,
            "return" => Message::Return,
            "farewell" => Message::Farewell,
            _ => return None,
        };
        (octets.len() == end + 1).then_some(message)
    }
}

impl Place {
    fn words(&self) -> String {
        let host = self.host.as_deref().unwrap_or("*");
        format!("{} {} {}", self.transport.word(), word(host), self.port)
    }

    fn of_words(word: &mut impl FnMut() -> Option<String>) -> Option<Place> {
        let transport = KeyTransport::of_word(&word()?)?;
        let host = word()?;
        let host = (host != "*").then_some(host);
        Some(Place { transport, host, port: word()?.parse().ok()? })
    }
}

/// A text as one word.
fn word(text: &str) -> String {
    text.replace(|character: char| character.is_whitespace(), "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all() -> Vec<Message> {
        let place =
            Place { transport: KeyTransport::Dns, host: Some("fe80::1%eth0".to_owned()), port: 53 };
        let everywhere = Place { transport: KeyTransport::Tls, host: None, port: 853 };
        vec![
            Message::Hello {
                versions: VERSIONS,
                namespace: "net:[4026531840]".to_owned(),
                program: "0.1.0".to_owned(),
            },
            Message::Welcome { version: 1, program: "0.2.0".to_owned() },
            Message::Refused(Reason::Busy),
            Message::Sockets { place: place.clone(), streams: 3 },
            Message::Sockets { place: everywhere, streams: 0 },
            Message::Site { address: ":9253".to_owned() },
            Message::Cache,
            Message::Offered,
            Message::Commit,
            Message::Retired,
            Message::Connection { place, octets: b"\0\x20\nhalf a message".to_vec() },
            Message::Fresh,
            Message::Done,
            Message::Return,
            Message::Farewell,
        ]
    }

    #[test]
    fn every_message_comes_back_as_it_was() {
        for message in all() {
            let octets = message.encode();
            assert_eq!(Message::decode(&octets).as_ref(), Some(&message));
            assert!(octets.len() < OCTETS_MOST);
        }
    }

    #[test]
    fn the_words_of_the_first_message_never_change() {
        let hello = b"nodens-handover hello 1 1 net:[4026531840] 0.1.0\n";
        assert_eq!(all()[0].encode(), hello);
        assert_eq!(
            Message::Refused(Reason::Version).encode(),
            b"nodens-handover refused version\n"
        );
    }

    #[test]
    fn later_versions_may_say_more() {
        let later = b"nodens-handover hello 1 7 net:[1] 0.9.0 and more\n";
        let Some(Message::Hello { versions, .. }) = Message::decode(later) else { panic!() };
        assert_eq!(VERSIONS.common(versions), Some(1));
        assert_eq!(
            Message::decode(b"nodens-handover refused tired\n"),
            Some(Message::Refused(Reason::Version))
        );
        for (other, common) in [((2, 9), None), ((1, 1), Some(1)), ((0, 0), None), ((9, 1), None)] {
            let other = Versions { least: other.0, most: other.1 };
            assert_eq!(VERSIONS.common(other), common, "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn any_octets_are_a_message_or_nothing(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::decode(&octets);
            let mut line = b"nodens-handover ".to_vec();
            line.extend(&octets);
            let _ = Message::decode(&line);
        }

        #[test]
        fn a_message_with_its_end_cut_off_is_none(which in 0..15_usize, cut in 1..200_usize) {
            let octets = all()[which].encode();
            let line = octets.iter().position(|octet| *octet == b'\n').unwrap();
            prop_assert_eq!(Message::decode(&octets[..line.saturating_sub(cut)]), None);
        }
    }
}
