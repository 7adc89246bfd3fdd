//! `chaos`: TXT queries of class CH for the server's version, name and authors.
//!
//! Owns the five names and the texts. Never answers another class or type.

use super::{Context, Flow, Handler, Setup};
use crate::corefile::CorefileError;
use crate::dns::{Class, Query, Rcode, RecordType, Response, Section};
use rand::seq::SliceRandom;

/// The most octets of one character string (RFC 1035 §3.3).
const LONGEST_TEXT: usize = 255;

/// What this program calls itself when the Corefile does not say.
const VERSION: &str = concat!("nodens-", env!("CARGO_PKG_VERSION"));

/// Its authors when the Corefile names none.
const AUTHORS: &str = "the nodens authors";

/// What a name asks for.
#[derive(Debug, Clone, Copy)]
enum Topic {
    Version,
    Host,
    Authors,
}

/// The names in wire form with what they ask for.
const NAMES: [(&[u8], Topic); 5] = [
    (b"\x07version\x04bind\0", Topic::Version),
    (b"\x07version\x06server\0", Topic::Version),
    (b"\x08hostname\x04bind\0", Topic::Host),
    (b"\x02id\x06server\0", Topic::Host),
    (b"\x07authors\x04bind\0", Topic::Authors),
];

/// The running part.
struct Chaos {
    version: String,
    host: String,
    authors: Vec<String>,
}

impl Chaos {
    /// The texts that answer a topic, authors in random order.
    fn texts(&self, topic: Topic, context: &mut Context<'_>) -> Vec<&str> {
        match topic {
            Topic::Version => vec![&self.version],
            Topic::Host => vec![&self.host],
            Topic::Authors => {
                let mut authors: Vec<&str> = self.authors.iter().map(String::as_str).collect();
                authors.shuffle(context.random);
                authors
            }
        }
    }
}

impl Handler for Chaos {
    fn word(&self) -> &'static str {
        "chaos"
    }

    fn query(
        &self,
        query: &mut Query<'_>,
        response: &mut Response,
        context: &mut Context<'_>,
    ) -> Flow {
        if query.qclass() != Class::CH || query.qtype() != RecordType::TXT {
            return Flow::Next;
        }
        let known = NAMES.iter().find(|(name, _)| *name == query.name().as_bytes());
        let Some((_, topic)) = known else { return Flow::Next };
        let mut writer = response.start_with_records(query, Rcode::NOERROR, 0, "chaos");
        let mut rdata = Vec::with_capacity(1 + LONGEST_TEXT);
        for text in self.texts(*topic, context) {
            rdata.clear();
            // Texts were cut when the directive was read.
            rdata.push(text.len() as u8);
            rdata.extend_from_slice(text.as_bytes());
            let owner = query.spelled_name();
            writer.raw_record(Section::Answer, owner, RecordType::TXT, Class::CH, 0, &rdata);
        }
        Flow::Answer
    }

    fn takes_any_class(&self) -> bool {
        true
    }
}

/// The text, cut to what one character string holds.
fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(LONGEST_TEXT)].to_owned()
}

/// Reads the directive: version, then authors. A second one in the same block has no effect.
///
/// # Errors
///
/// None: every text serves as a version or an author, what is too long is cut.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    setup.dispenser.next();
    let arguments = setup.dispenser.remaining_args();
    let (version, authors) = match arguments.as_slice() {
        [] => (VERSION, &[AUTHORS][..]),
        [version] => (*version, &[AUTHORS][..]),
        [version, authors @ ..] => (*version, authors),
    };
    let mut authors: Vec<String> = authors.iter().map(|author| cut(author)).collect();
    authors.sort();
    authors.dedup();
    setup.block.add(Chaos {
        version: cut(version),
        host: cut(&setup.surroundings.hostname()),
        authors,
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corefile::MemorySurroundings;
    use crate::plugin::testing::{Bench, always, name, nobody};

    fn ask(directive: &str, qname: &str) -> Vec<String> {
        let mut bench = Bench::new();
        let chain = bench.load(directive, &MemorySurroundings::new()).unwrap();
        assert!(chain.iter().any(|handler| handler.takes_any_class()));
        let query = Query::new(&name(qname), RecordType::TXT, Class::CH);
        bench.ask(&chain, query, nobody).records()
    }

    #[test]
    fn the_five_names_are_answered() {
        let directive = "chaos Version-7 me@example.org";
        let text = |name: &str, text: &str| vec![format!("{name} 0 CH TXT \"{text}\"")];
        for (qname, said) in [
            ("version.bind.", "Version-7"),
            ("version.server.", "Version-7"),
            ("hostname.bind.", "node"),
            ("id.server.", "node"),
            ("authors.bind.", "me@example.org"),
        ] {
            assert_eq!(ask(directive, qname), text(qname, said));
        }
    }

    #[test]
    fn what_the_corefile_does_not_say_is_ours() {
        let version = format!("\"nodens-{}\"", env!("CARGO_PKG_VERSION"));
        assert!(ask("chaos", "version.bind.")[0].ends_with(&version));
        assert!(ask("chaos v", "version.bind.")[0].ends_with("\"v\""));
        assert!(ask("chaos v", "authors.bind.")[0].ends_with("\"the nodens authors\""));
    }

    #[test]
    fn each_author_has_a_record_and_long_texts_are_cut() {
        let mut found = ask("chaos v b a b", "authors.bind.");
        found.sort();
        assert_eq!(found.len(), 2);
        let long = format!("chaos {}", "é".repeat(200));
        let expected = format!("\"{}\"", "é".repeat(127));
        assert!(ask(&long, "version.bind.")[0].ends_with(&expected));
    }

    #[test]
    fn other_questions_go_on() {
        let mut bench = Bench::new();
        let chain = bench.load("chaos", &MemorySurroundings::new()).unwrap();
        for (qname, qtype, qclass) in [
            ("version.bind.", RecordType::TXT, Class::IN),
            ("version.bind.", RecordType::A, Class::CH),
            ("a.bind.", RecordType::TXT, Class::CH),
        ] {
            let query = Query::new(&name(qname), qtype, qclass);
            let outcome = bench.ask(&chain, query, always(Rcode::NXDOMAIN, &[]));
            assert_eq!(outcome.response.rcode, Rcode::NXDOMAIN);
        }
    }
}
