//! A reply as dig shows it.
//!
//! Owns columns, headings and colours. Scripts read this: a line that dig has is written as dig
//! writes it.

use super::exchange::{Answer, shown};
use super::reply::{Extension, Reply, Row};
use super::settings::Shown;
use crate::dns::Rcode;
use std::fmt::Write as _;
use std::time::SystemTime;
use time::OffsetDateTime;
use time::macros::format_description;

/// Where the columns of a record begin: TTL, class, type, data.
const COLUMNS: [usize; 4] = [24, 32, 40, 48];

/// Whether escape sequences are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paint {
    /// Text alone.
    Plain,
    /// Comments are dim, good ends green and bad ones red.
    Colour,
}

/// What is told of one question.
pub(super) struct Told<'a> {
    /// The reply.
    pub(super) reply: &'a Reply,
    /// How it came.
    pub(super) answer: &'a Answer,
    /// When.
    pub(super) when: SystemTime,
    /// The words of the line, for its first question.
    pub(super) words: Option<&'a [String]>,
}

/// The data of the answer section, a record a line.
pub(super) fn short(reply: &Reply) -> String {
    reply.sections[0].iter().map(|row| format!("{}\n", row.data)).collect()
}

/// All that `parts` asks for.
pub(super) fn whole(told: &Told<'_>, parts: &Shown, paint: Paint) -> String {
    let mut text = Lines { text: String::new(), paint };
    let Told { reply, answer, .. } = told;
    if parts.comments {
        for note in &answer.notes {
            text.comment(&format!(";; {note}"));
        }
    }
    if parts.command
        && let Some(words) = told.words
    {
        let words = words.join(" ");
        text.comment(&format!("\n; <<>> nodens {} <<>> {words}", env!("CARGO_PKG_VERSION")));
    }
    if parts.comments {
        text.comment(";; Got answer:");
        text.header(reply);
        if reply.flags.contains(&"rd") && !reply.flags.contains(&"ra") {
            text.comment(";; WARNING: recursion requested but not available");
        }
        if reply.extra > 0 {
            let extra = reply.extra;
            text.comment(&format!(";; WARNING: Message has {extra} extra bytes at end"));
        }
        text.line("");
        if let Some(edns) = &reply.edns {
            text.extension(edns);
        }
    }
    if parts.question {
        text.section("QUESTION", &reply.questions, parts, Kind::Question);
    }
    let sections = [
        ("ANSWER", parts.answer),
        ("AUTHORITY", parts.authority),
        ("ADDITIONAL", parts.additional),
    ];
    for ((title, is_wanted), rows) in sections.into_iter().zip(&reply.sections) {
        if is_wanted {
            text.section(title, rows, parts, Kind::Record);
        }
    }
    if parts.statistics {
        text.statistics(told, parts);
    }
    text.text
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Question,
    Record,
}

struct Lines {
    text: String,
    paint: Paint,
}

impl Lines {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn painted(&mut self, colour: &str, words: &str) {
        match self.paint {
            Paint::Plain => self.text.push_str(words),
            // Writing to a String does not fail.
            Paint::Colour => {
                let _ = write!(self.text, "\x1b[{colour}m{words}\x1b[0m");
            }
        }
    }

    fn comment(&mut self, line: &str) {
        self.painted("2", line);
        self.text.push('\n');
    }

    fn header(&mut self, reply: &Reply) {
        let colour = if reply.rcode == Rcode::NOERROR { "32" } else { "31" };
        self.painted("2", &format!(";; ->>HEADER<<- opcode: {}, status: ", reply.opcode));
        self.painted(colour, &reply.status());
        self.painted("2", &format!(", id: {}", reply.id));
        let flags: String = reply.flags.iter().map(|flag| format!(" {flag}")).collect();
        let [answer, authority, additional] = &reply.sections;
        let additional = additional.len() + usize::from(reply.edns.is_some());
        self.line("");
        self.comment(&format!(
            ";; flags:{flags}; QUERY: {}, ANSWER: {}, AUTHORITY: {}, ADDITIONAL: {additional}",
            reply.questions.len(),
            answer.len(),
            authority.len(),
        ));
    }

    fn extension(&mut self, edns: &Extension) {
        self.comment(";; OPT PSEUDOSECTION:");
        let flags = if edns.dnssec { " do" } else { "" };
        let Extension { version, size, .. } = edns;
        self.comment(&format!("; EDNS: version: {version}, flags:{flags}; udp: {size}"));
        for (name, value) in &edns.options {
            self.comment(format!("; {name}: {value}").trim_end());
        }
    }

    fn section(&mut self, title: &str, rows: &[Row], parts: &Shown, kind: Kind) {
        if rows.is_empty() {
            return;
        }
        if parts.comments {
            self.comment(&format!(";; {title} SECTION:"));
        }
        for row in rows {
            match kind {
                Kind::Question => self.comment(&format!(";{}", record(row, parts, kind))),
                Kind::Record => self.line(&record(row, parts, kind)),
            }
        }
        if parts.comments {
            self.line("");
        }
    }

    fn statistics(&mut self, told: &Told<'_>, parts: &Shown) {
        let elapsed = told.answer.elapsed;
        let time = match parts.microseconds {
            true => format!("{} usec", elapsed.as_micros()),
            false => format!("{} msec", elapsed.as_millis()),
        };
        let Answer { server, carrier, .. } = told.answer;
        self.comment(&format!(";; Query time: {time}"));
        self.comment(&format!(";; SERVER: {}({}) ({carrier})", shown(server), server.name));
        self.comment(&format!(";; WHEN: {}", date(told.when)));
        self.comment(&format!(";; MSG SIZE  rcvd: {}", told.reply.size));
        self.line("");
    }
}

/// `Sun Nov  6 08:49:37 UTC 1994`, as dig does.
fn date(time: SystemTime) -> String {
    let format = format_description!(
        "[weekday repr:short] [month repr:short] [day padding:space] [hour]:[minute]:[second] UTC [year]"
    );
    OffsetDateTime::from(time).format(&format).unwrap_or_default()
}

/// A record in dig's columns: what is not shown leaves its column to the next word.
fn record(row: &Row, parts: &Shown, kind: Kind) -> String {
    let ttl = row.ttl.to_string();
    let is_record = kind == Kind::Record;
    let words = [
        // A question keeps the column of the TTL that it does not have.
        (parts.ttl || !is_record, if is_record { ttl.as_str() } else { "" }),
        (parts.class, row.class.as_str()),
        (true, row.rtype.as_str()),
        (is_record, row.data.as_str()),
    ];
    let mut line = row.name.clone();
    // The semicolon before a question does not count.
    let mut width = line.chars().count();
    let shown = words.into_iter().filter(|(is_shown, _)| *is_shown).map(|(_, word)| word);
    for (column, word) in COLUMNS.into_iter().zip(shown).filter(|(_, word)| !word.is_empty()) {
        indent(&mut line, width, column);
        line.push_str(word);
        width = column.max(width + 1) + word.chars().count();
    }
    line
}

/// Goes from a column to another, one at least: by tabs as far as they reach.
fn indent(line: &mut String, from: usize, to: usize) {
    const TAB: usize = 8;
    let to = to.max(from + 1);
    let tabs = to / TAB - from / TAB;
    let blanks = if tabs > 0 { to % TAB } else { to - from };
    line.extend(std::iter::repeat_n('\t', tabs));
    line.extend(std::iter::repeat_n(' ', blanks));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn a_moment_reads_as_dig_writes_it() {
        let text = |seconds: u64| date(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(text(784_111_777), "Sun Nov  6 08:49:37 UTC 1994");
        assert_eq!(text(951_782_399), "Mon Feb 28 23:59:59 UTC 2000");
    }
}
