//! The format of a line: read once when the directive is, written straight into the journal's line.

use crate::dns::{
    Class, Edns, Query, ReplyLimits, Response, Transport, Written, flags, sizes, will_be_truncated,
};
use crate::plugin::{Context, Labels};
use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;
use std::time::Duration;

/// A format, read.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::plugin) struct Format {
    parts: Vec<Part>,
}

/// A piece of a format.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Field(Field),
    /// The label's name without `{/` and `}`.
    Label(String),
}

/// What a word in braces stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Type,
    Name,
    Class,
    Proto,
    Size,
    Remote,
    Local,
    Port,
    Id,
    Opcode,
    Do,
    BufferSize,
    Rcode,
    ResponseSize,
    Duration,
    ResponseFlags,
}

/// The words with their fields.
const FIELDS: &[(&str, Field)] = &[
    ("type", Field::Type),
    ("name", Field::Name),
    ("class", Field::Class),
    ("proto", Field::Proto),
    ("size", Field::Size),
    ("remote", Field::Remote),
    ("local", Field::Local),
    ("port", Field::Port),
    (">id", Field::Id),
    (">opcode", Field::Opcode),
    (">do", Field::Do),
    (">bufsize", Field::BufferSize),
    ("rcode", Field::Rcode),
    ("rsize", Field::ResponseSize),
    ("duration", Field::Duration),
    (">rflags", Field::ResponseFlags),
];

impl Format {
    /// Words are found from their closing brace backwards, so that `{ {name} }` works; an unknown
    /// word stays as it is.
    pub(in crate::plugin) fn read(text: &str) -> Format {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(close) = rest.find('}') {
            let (head, tail) = rest.split_at(close + 1);
            rest = tail;
            let part = head[..close].rfind('{').and_then(|open| {
                let word = &head[open + 1..close];
                let part = match word.strip_prefix('/') {
                    Some(label) => Part::Label(label.to_owned()),
                    None => Part::Field(FIELDS.iter().find(|(known, _)| *known == word)?.1),
                };
                Some((open, part))
            });
            match part {
                None => literal.push_str(head),
                Some((open, part)) => {
                    literal.push_str(&head[..open]);
                    if !literal.is_empty() {
                        parts.push(Part::Literal(std::mem::take(&mut literal)));
                    }
                    parts.push(part);
                }
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Format { parts }
    }

    /// The text while there is no response yet: what is asked of it is `-`.
    pub(in crate::plugin) fn of_query<'l>(
        &'l self,
        query: &'l Query<'_>,
        context: &'l Context<'_>,
    ) -> impl Display + 'l {
        Line { format: self, query, response: None, context }
    }
}

/// A line about to be written.
pub(super) struct Line<'l, 'q, 'c> {
    pub(super) format: &'l Format,
    pub(super) query: &'l Query<'q>,
    pub(super) response: Option<&'l Response>,
    pub(super) context: &'l Context<'c>,
}

impl Display for Line<'_, '_, '_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for part in &self.format.parts {
            match part {
                Part::Literal(text) => f.write_str(text)?,
                Part::Label(name) => f.write_str(label(self.context.labels, name))?,
                Part::Field(field) => self.field(*field, f)?,
            }
        }
        Ok(())
    }
}

fn label<'l>(labels: &'l Labels, name: &str) -> &'l str {
    labels.get(name).unwrap_or("-")
}

impl Line<'_, '_, '_> {
    fn field(&self, field: Field, f: &mut Formatter<'_>) -> fmt::Result {
        let Line { query, context, .. } = self;
        let client = context.client;
        let written = self.response.filter(|response| response.written == Written::Message);
        match field {
            Field::Type => write!(f, "{}", query.qtype()),
            Field::Name => write!(f, "{}", query.name()),
            // In Go's texts `ANY` is the type alone.
            Field::Class if query.qclass() == Class::ANY => f.write_str("CLASS255"),
            Field::Class => write!(f, "{}", query.qclass()),
            Field::Proto => f.write_str(client.transport.client_word()),
            Field::Size => write!(f, "{}", query.wire().len()),
            Field::Remote => write_address(f, client.address.ip()),
            Field::Local => write_address(f, client.local.ip()),
            Field::Port => write!(f, "{}", client.address.port()),
            Field::Id => write!(f, "{}", query.id()),
            Field::Opcode => write!(f, "{}", query.opcode().0),
            Field::Do => write!(f, "{}", query.wants_dnssec()),
            Field::BufferSize => write!(f, "{}", buffer_size(client.transport, query.edns())),
            Field::Rcode => match written.map(|response| (response.rcode, response.rcode.word())) {
                Some((_, Some(word))) => f.write_str(word),
                Some((rcode, None)) => write!(f, "{}", rcode.0),
                None => f.write_str("-"),
            },
            Field::ResponseFlags => match written {
                Some(response) => {
                    let limits = ReplyLimits::of(query, client.transport);
                    let truncated = will_be_truncated(query, response, limits);
                    write_flags(f, response.flags() | if truncated { flags::TC } else { 0 })
                }
                None => f.write_str("-"),
            },
            Field::ResponseSize | Field::Duration if self.response.is_none() => f.write_str("-"),
            Field::ResponseSize => {
                write!(f, "{}", written.map_or(0, Response::uncompressed_size))
            }
            Field::Duration => {
                let took = context.now.monotonic.saturating_sub(context.received.monotonic);
                write_seconds(f, took)
            }
        }
    }
}

/// The greatest response that the client takes, as CoreDNS reckons it.
fn buffer_size(transport: Transport, edns: Option<&Edns>) -> u16 {
    match transport {
        Transport::Udp => edns.map_or(sizes::UDP_LEAST, |edns| edns.udp_size.max(sizes::UDP_LEAST)),
        Transport::Tcp | Transport::Tls | Transport::Https | Transport::Quic => u16::MAX,
    }
}

/// IPv6 addresses stand in brackets.
fn write_address(f: &mut Formatter<'_>, address: IpAddr) -> fmt::Result {
    match address.to_canonical() {
        IpAddr::V4(address) => write!(f, "{address}"),
        IpAddr::V6(address) => write!(f, "[{address}]"),
    }
}

fn write_flags(f: &mut Formatter<'_>, word: u16) -> fmt::Result {
    let mut is_first = true;
    for (bit, name) in flags::WORDS {
        if word & bit != 0 {
            f.write_str(if is_first { "" } else { "," })?;
            f.write_str(name)?;
            is_first = false;
        }
    }
    Ok(())
}

/// Seconds with no more digits than needed and never an exponent, as Go's `FormatFloat(x, 'f', -1)`.
fn write_seconds(f: &mut Formatter<'_>, took: Duration) -> fmt::Result {
    write!(f, "{}s", took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_no_exponent_and_no_needless_digits() {
        struct Seconds(u64);
        impl Display for Seconds {
            fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
                write_seconds(f, Duration::from_nanos(self.0))
            }
        }
        assert_eq!(Seconds(1_591_380).to_string(), "0.00159138s");
        assert_eq!(Seconds(73).to_string(), "0.000000073s");
        assert_eq!(Seconds(2_000_000_000).to_string(), "2s");
    }
}
