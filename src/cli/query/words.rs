//! The words behind `nodens query`, as dig takes them: `@server`, `-p 53`, `+short`, name, type, class
//! in any order, several questions on a line.
//!
//! Owns the grammar and what a line becomes: lookups, complete and checked. A pure function of the
//! words: no file is read and nobody is asked before the whole line is known to be good. The options
//! themselves are in `options`.

use super::name;
use super::options::{self, DASHES, Given, PLUSES, Plus, Value};
use super::settings::Settings;
use crate::dns::{Class, RecordType};
use hickory_proto::rr::Name;

/// The most questions of a line.
const LOOKUPS_MOST: usize = 1000;

/// What is asked, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lookup {
    /// The name as it stands; what the search list makes of it is decided later.
    pub(super) name: Name,
    /// Whether the search list may be put behind the name: it ends in no dot.
    pub(super) is_relative: bool,
    /// The type.
    pub(super) qtype: RecordType,
    /// The class.
    pub(super) qclass: Class,
    /// How it is asked and shown.
    pub(super) settings: Settings,
}

/// How results are told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Format {
    /// As dig does.
    #[default]
    Text,
    /// One object a question.
    Json,
}

/// The whole line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// At least one, in order.
    pub(super) lookups: Vec<Lookup>,
    /// Text or JSON.
    pub(super) format: Format,
}

/// A lookup while words may still change it.
#[derive(Debug, Clone, Default)]
struct Draft {
    name: Option<Asked>,
    qtype: Option<RecordType>,
    qclass: Option<Class>,
    settings: Settings,
}

#[derive(Debug, Clone)]
enum Asked {
    Name(String),
    /// Of an address: its type is PTR unless another is asked for.
    Reverse(Name),
}

/// Reads the words. The error is one line.
pub(super) fn parse(words: &[String]) -> Result<Line, String> {
    let mut reader = Reader::default();
    let mut rest = words;
    while let Some((word, behind)) = rest.split_first() {
        rest = behind;
        if let Some(server) = word.strip_prefix('@') {
            if server.is_empty() {
                return Err("'@' needs a server: @127.0.0.1".to_owned());
            }
            reader.current().settings.server = Some(server.to_owned());
        } else if let Some(option) = word.strip_prefix('+') {
            let (plus, given) = plus(option)?;
            (plus.set)(&mut reader.current().settings, given)
                .map_err(|why| format!("+{}: {why}", plus.name))?;
        } else if word.len() > 1 && word.starts_with('-') {
            rest = reader.dash(word, rest)?;
        } else {
            reader.bare(word)?;
        }
    }
    reader.finish()
}

#[derive(Default)]
struct Reader {
    /// What stood before the first name holds for all.
    defaults: Draft,
    drafts: Vec<Draft>,
    format: Format,
    /// After `-t` or `-c` bare words are names, as for dig.
    takes_names_alone: bool,
}

impl Reader {
    fn current(&mut self) -> &mut Draft {
        self.drafts.last_mut().unwrap_or(&mut self.defaults)
    }

    fn begin(&mut self, asked: Asked) -> Result<(), String> {
        if self.drafts.len() == LOOKUPS_MOST {
            return Err(format!("more than {LOOKUPS_MOST} names"));
        }
        self.drafts.push(Draft { name: Some(asked), ..self.defaults.clone() });
        Ok(())
    }

    /// A type, a class or a name.
    fn bare(&mut self, word: &str) -> Result<(), String> {
        if !self.takes_names_alone {
            let upper = word.to_ascii_uppercase();
            if let Ok(qtype) = upper.parse() {
                return self.set_type(qtype);
            }
            if let Ok(qclass) = upper.parse() {
                self.current().qclass = Some(qclass);
                return Ok(());
            }
        }
        self.begin(Asked::Name(word.to_owned()))
    }

    fn set_type(&mut self, qtype: RecordType) -> Result<(), String> {
        if matches!(qtype, RecordType::AXFR | RecordType::IXFR) {
            return Err("zone transfers are not for a cache: use dig".to_owned());
        }
        self.current().qtype = Some(qtype);
        Ok(())
    }

    /// One option with a dash, its value in the same word or the next; gives the words behind it.
    fn dash<'w>(&mut self, word: &str, rest: &'w [String]) -> Result<&'w [String], String> {
        let body = word.strip_prefix("--").map_or(&word[1..], |long| match long {
            "output" => "o",
            other => other.strip_prefix("output=").map_or(long, |_| "o"),
        });
        let joined = word.strip_prefix("--output=");
        let unknown = || format!("unknown option '{word}'");
        let dash = DASHES.iter().find(|dash| body.starts_with(dash.letter)).ok_or_else(unknown)?;
        let letter = dash.letter;
        let is_letter_alone = body == letter || joined.is_some();
        if word.starts_with("--") && letter != "o" {
            return Err(unknown());
        }
        if dash.value.is_none() {
            if !is_letter_alone {
                return Err(unknown());
            }
            self.apply(letter, "")?;
            return Ok(rest);
        }
        let (value, rest) = match (joined, is_letter_alone) {
            (Some(value), _) => (value, rest),
            (None, false) => (&body[letter.len()..], rest),
            (None, true) => match rest.split_first() {
                Some((value, behind)) => (value.as_str(), behind),
                None => return Err(format!("'{word}' needs a value")),
            },
        };
        self.apply(letter, value)?;
        Ok(rest)
    }

    fn apply(&mut self, letter: &str, value: &str) -> Result<(), String> {
        let upper = value.to_ascii_uppercase();
        match letter {
            "q" => self.begin(Asked::Name(value.to_owned()))?,
            "x" => {
                let address =
                    value.parse().map_err(|_| format!("-x needs an address, not '{value}'"))?;
                self.begin(Asked::Reverse(name::reverse(address)))?;
            }
            "t" => {
                let qtype = upper.parse().map_err(|_| format!("'{value}' is no type"))?;
                self.set_type(qtype)?;
                self.takes_names_alone = true;
            }
            "c" => {
                let qclass = upper.parse().map_err(|_| format!("'{value}' is no class"))?;
                self.current().qclass = Some(qclass);
                self.takes_names_alone = true;
            }
            "o" => {
                self.format = match value {
                    "text" => Format::Text,
                    "json" => Format::Json,
                    _ => return Err(format!("-o takes text or json, not '{value}'")),
                }
            }
            _ => options::set_dash(&mut self.current().settings, letter, value)?,
        }
        Ok(())
    }

    fn finish(self) -> Result<Line, String> {
        let mut drafts = self.drafts;
        if drafts.is_empty() {
            // As dig: without a name, the servers of the root.
            let name = Some(Asked::Name(".".to_owned()));
            drafts.push(Draft { name, qtype: Some(RecordType::NS), ..self.defaults });
        }
        let lookups = drafts.into_iter().map(Draft::finish).collect::<Result<_, _>>()?;
        Ok(Line { lookups, format: self.format })
    }
}

impl Draft {
    fn finish(self) -> Result<Lookup, String> {
        let (name, is_relative, usual) = match self.name {
            Some(Asked::Reverse(name)) => (name, false, RecordType::PTR),
            Some(Asked::Name(text)) => {
                let parsed = name::parse(&text).map_err(|why| format!("'{text}': {why}"))?;
                (parsed, !text.ends_with('.'), RecordType::A)
            }
            None => (Name::root(), false, RecordType::NS),
        };
        Ok(Lookup {
            name,
            is_relative,
            qtype: self.qtype.unwrap_or(usual),
            qclass: self.qclass.unwrap_or(Class::IN),
            settings: self.settings,
        })
    }
}

/// The option that a word behind `+` means: its name, a beginning that fits no other, `no` before it.
fn plus(option: &str) -> Result<(&'static Plus, Given<'_>), String> {
    let (word, value) = match option.split_once('=') {
        Some((word, value)) => (word, Some(value)),
        None => (option, None),
    };
    let lower = word.to_ascii_lowercase();
    let (found, is_negated) = match find(&lower) {
        Found::One(plus) => (plus, false),
        Found::Several(names) => {
            return Err(format!("'+{option}' may be {}", names.join(", ")));
        }
        Found::None => match lower.strip_prefix("no").map(find) {
            Some(Found::One(plus)) => (plus, true),
            Some(Found::Several(names)) => {
                let names: Vec<String> = names.iter().map(|name| format!("no{name}")).collect();
                return Err(format!("'+{option}' may be {}", names.join(", ")));
            }
            _ => return Err(unknown(option, &lower)),
        },
    };
    if is_negated {
        if value.is_some() || !found.can_be_off {
            return Err(format!("'+{option}' has no meaning"));
        }
        return Ok((found, Given::Off));
    }
    match (found.value, value) {
        (Value::None, Some(_)) => Err(format!("'+{word}' takes no value")),
        (Value::Needed(what), None) => Err(format!("'+{word}' needs a value: +{word}={what}")),
        (_, None | Some("")) if !matches!(found.value, Value::Needed(_)) => {
            Ok((found, Given::On(None)))
        }
        (_, value) => Ok((found, Given::On(value))),
    }
}

enum Found {
    One(&'static Plus),
    Several(Vec<&'static str>),
    None,
}

fn find(word: &str) -> Found {
    let names = |plus: &Plus| [plus.name].into_iter().chain(plus.aliases.iter().copied());
    if let Some(plus) = PLUSES.iter().find(|plus| names(plus).any(|name| name == word)) {
        return Found::One(plus);
    }
    let fitting: Vec<&Plus> = match word.is_empty() {
        true => Vec::new(),
        false => PLUSES.iter().filter(|p| names(p).any(|name| name.starts_with(word))).collect(),
    };
    match fitting.as_slice() {
        [] => Found::None,
        [plus] => Found::One(plus),
        several => Found::Several(several.iter().map(|plus| plus.name).collect()),
    }
}

/// Options of dig that are not here, with what is.
fn unknown(option: &str, lower: &str) -> String {
    let instead = match lower {
        "yaml" => "; '-o json' is for programs",
        "trace" | "nssearch" | "sigchase" | "topdown" => "; this asks one server: use dig",
        "multiline" | "nomultiline" => "; records stand on one line each",
        _ => "",
    };
    format!("unknown option '+{option}'{instead}")
}

#[cfg(test)]
mod tests {
    use super::super::settings::{Authority, Family, Shown, Way};
    use super::*;
    use std::time::Duration;

    fn line(text: &str) -> Result<Line, String> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        parse(&words)
    }

    fn one(text: &str) -> Lookup {
        let mut line = line(text).unwrap_or_else(|why| panic!("{text}: {why}"));
        assert_eq!(line.lookups.len(), 1, "{text}");
        line.lookups.remove(0)
    }

    fn question(lookup: &Lookup) -> String {
        format!("{} {} {}", lookup.name, lookup.qclass, lookup.qtype)
    }

    #[test]
    fn words_may_come_in_any_order() {
        for text in [
            "@192.0.2.1 -p 1053 www.example.com AAAA CH +short",
            "www.example.com AAAA @192.0.2.1 CH +short -p 1053",
            "+short CH AAAA www.example.com -p1053 @192.0.2.1",
            "-q www.example.com -t aaaa -c ch @192.0.2.1 -p 1053 +short",
        ] {
            let lookup = one(text);
            assert_eq!(question(&lookup), "www.example.com. CH AAAA", "{text}");
            assert_eq!(lookup.settings.server.as_deref(), Some("192.0.2.1"), "{text}");
            assert_eq!(lookup.settings.port, Some(1053), "{text}");
            assert!(lookup.settings.shown.is_short, "{text}");
        }
    }

    #[test]
    fn what_is_not_said_is_as_with_dig() {
        assert_eq!(question(&one("example.com")), "example.com. IN A");
        assert_eq!(question(&one("")), ". IN NS");
        assert_eq!(question(&one("MX")), ". IN NS");
        assert_eq!(question(&one("-x 192.0.2.1")), "1.2.0.192.in-addr.arpa. IN PTR");
        assert_eq!(question(&one("-x 192.0.2.1 any")), "1.2.0.192.in-addr.arpa. IN ANY");
        assert_eq!(question(&one("type65280 example.com")), "example.com. IN TYPE65280");
        let settings = one("example.com").settings;
        assert_eq!((settings.time, settings.tries), (Duration::from_secs(5), 3));
        assert_eq!((settings.way, settings.edns.map(|edns| edns.size)), (Way::Udp, Some(1232)));
    }

    #[test]
    fn a_word_that_is_a_type_too_is_a_name_where_it_is_said_so() {
        assert_eq!(question(&one("-q mx")), "mx. IN A");
        assert_eq!(question(&one("-t a mx")), "mx. IN A");
        assert_eq!(question(&one("mx.")), "mx. IN A");
    }

    #[test]
    fn what_stands_before_the_first_name_holds_for_all() {
        let line = line("+tcp MX a.test b.test TXT +short -x ::1").unwrap();
        let all: Vec<String> = line.lookups.iter().map(question).collect();
        assert_eq!(all[..2], ["a.test. IN MX", "b.test. IN TXT"]);
        assert!(all[2].ends_with("ip6.arpa. IN MX"), "{all:?}");
        assert!(line.lookups.iter().all(|lookup| lookup.settings.way == Way::Tcp));
        let short: Vec<bool> = line.lookups.iter().map(|one| one.settings.shown.is_short).collect();
        assert_eq!(short, [false, true, false]);
    }

    #[test]
    fn options_may_be_cut_short_and_turned_off() {
        let shown = one("a +noall +ans").settings.shown;
        assert_eq!(shown, Shown { answer: true, ..Shown::NOTHING });
        assert_eq!(one("a +vc").settings.way, Way::Tcp);
        assert_eq!(one("a +tcp +notcp").settings.way, Way::Udp);
        assert_eq!(one("a +tls +tls-host=x.test").settings.tls_name.as_deref(), Some("x.test"));
        assert_eq!(one("a +tls-ca").settings.authority, Some(Authority::System));
        assert_eq!(one("a +noedns").settings.edns, None);
        assert_eq!(one("a -6").settings.family, Some(Family::V6));
        assert_eq!(one("a +retry=0").settings.tries, 1);
        assert_eq!(line("a -o json").unwrap().format, Format::Json);
        assert_eq!(line("--output=json a").unwrap().format, Format::Json);
        assert_eq!(line("--output json a").unwrap().format, Format::Json);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, why) in [
            ("a +", "unknown option '+'"),
            ("a +frobnicate", "unknown option '+frobnicate'"),
            ("a +trace", "unknown option '+trace'; this asks one server: use dig"),
            ("a +yaml", "unknown option '+yaml'; '-o json' is for programs"),
            ("a +t", "'+t' may be tcp, tls, tls-hostname, tls-ca, time, tries, ttlid"),
            ("a +tries", "'+tries' needs a value: +tries=N"),
            ("a +tries=0", "+tries: '0' is not from 1 to 100"),
            ("a +time=x", "+time: 'x' is not from 1 to 300"),
            ("a +bufsize=1", "+bufsize: '1' is not from 512 to 65535"),
            ("a +notries", "'+notries' has no meaning"),
            ("a +short=1", "'+short' takes no value"),
            ("a +subnet=x", "+subnet: 'x' is no address with a prefix length"),
            ("a -p 0", "-p: '0' is not from 1 to 65535"),
            ("a -p", "'-p' needs a value"),
            ("a -z", "unknown option '-z'"),
            ("a --short", "unknown option '--short'"),
            ("a -46", "unknown option '-46'"),
            ("a -o yaml", "-o takes text or json, not 'yaml'"),
            ("a -t nonsense", "'nonsense' is no type"),
            ("a -c nonsense", "'nonsense' is no class"),
            ("-x example.com", "-x needs an address, not 'example.com'"),
            ("-b host a", "-b: 'host' is no address"),
            ("@ a", "'@' needs a server: @127.0.0.1"),
            ("a..b", "'a..b': an empty label"),
            ("example.com axfr", "zone transfers are not for a cache: use dig"),
        ] {
            assert_eq!(line(text).map(drop), Err(why.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_line_has_a_bound() {
        let words = vec!["a.test".to_owned(); LOOKUPS_MOST + 1];
        assert_eq!(parse(&words), Err("more than 1000 names".to_owned()));
    }
}
