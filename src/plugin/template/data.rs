//! What a template knows of a query: the fields of `{{ .Zone }}`, `{{ .Message.Id }}` and their like.
//!
//! Owns the names and types of CoreDNS's template data, and of the parts of miekg/dns's message that it
//! gives. Executes nothing.

use super::functions::Value;
use crate::dns::{Query, flags};
use std::collections::BTreeMap;
use std::rc::Rc;

/// What a template knows of a query.
pub(super) struct Data<'q> {
    /// The pattern that matched.
    pub(super) regex: &'q str,
    /// The zone that matched.
    pub(super) zone: String,
    /// The name asked for, lower-cased.
    pub(super) name: String,
    /// The class asked for, or empty when it has no name.
    pub(super) class: &'static str,
    /// The type asked for, or empty when it has no name.
    pub(super) qtype: &'static str,
    /// The groups of the regular expression, the whole match first.
    pub(super) groups: Vec<String>,
    /// The groups with their names.
    pub(super) named: Vec<(String, String)>,
    /// The client's address.
    pub(super) remote: String,
    /// The query.
    pub(super) query: &'q Query<'q>,
    /// Metadata by label.
    pub(super) meta: &'q dyn Fn(&str) -> Option<String>,
}

impl Data<'_> {
    /// What the field of a value is.
    ///
    /// # Errors
    ///
    /// Go's words, when the value has no such field.
    pub(super) fn field(&self, value: &Value, field: &str) -> Result<Value, String> {
        let query = self.query;
        let found = match (value, field) {
            (Value::Data, "Zone") => Value::text(&self.zone),
            (Value::Data, "Regex") => Value::text(self.regex),
            (Value::Data, "Name") => Value::text(&self.name),
            (Value::Data, "Class") => Value::text(self.class),
            (Value::Data, "Type") => Value::text(self.qtype),
            (Value::Data, "Remote") => Value::text(&self.remote),
            (Value::Data, "Match") => {
                Value::List(Rc::new(self.groups.iter().map(|group| Value::text(group)).collect()))
            }
            (Value::Data, "Group") => Value::Map(Rc::new(self.group_map())),
            (Value::Data, "Question") => Value::Question,
            (Value::Data, "Message") => Value::Message,
            (Value::Data, "Meta") => {
                return Err("wrong number of args for Meta: want 1 got 0".to_owned());
            }
            (Value::Question, "Name") => Value::text(&spelled(query)),
            (Value::Question, "Qtype") => Value::Integer(i128::from(query.qtype().0)),
            (Value::Question, "Qclass") => Value::Integer(i128::from(query.qclass().0)),
            (Value::Message, "MsgHdr") => Value::Message,
            // A query that gets here asks one question.
            (Value::Message, "Question") => Value::List(Rc::new(vec![Value::Question])),
            (Value::Message, field) => match HeaderField::named(field) {
                Some(known) => known.of(query),
                None => return Err(format!("can't evaluate field {field} in type *dns.Msg")),
            },
            (Value::Map(map), key) => map.get(key).cloned().unwrap_or(Value::Nothing),
            (Value::Data, other) => {
                return Err(format!("can't evaluate field {other} in type *template.templateData"));
            }
            (Value::Nothing | Value::Nil, other) => {
                return Err(format!("nil data; no entry for key {other:?}"));
            }
            (other, field) => {
                return Err(format!("can't evaluate field {field} in type {}", other.kind()));
            }
        };
        Ok(found)
    }

    /// Groups by number, then by name.
    fn group_map(&self) -> BTreeMap<String, Value> {
        let numbered = self.groups.iter().enumerate();
        let numbered = numbered.map(|(number, group)| (number.to_string(), Value::text(group)));
        let named = self.named.iter();
        let named = named.map(|(name, group)| (name.clone(), Value::text(group)));
        numbered.chain(named).collect()
    }
}

/// A field of `.Message`.
enum HeaderField {
    Id,
    Opcode,
    Rcode,
    /// One bit of the flags.
    Bit(u16),
}

impl HeaderField {
    /// The field that Go calls so.
    fn named(name: &str) -> Option<HeaderField> {
        Some(match name {
            "Id" => HeaderField::Id,
            "Opcode" => HeaderField::Opcode,
            "Rcode" => HeaderField::Rcode,
            "Response" => HeaderField::Bit(flags::QR),
            "Authoritative" => HeaderField::Bit(flags::AA),
            "Truncated" => HeaderField::Bit(flags::TC),
            "RecursionDesired" => HeaderField::Bit(flags::RD),
            "RecursionAvailable" => HeaderField::Bit(flags::RA),
            "Zero" => HeaderField::Bit(flags::Z),
            "AuthenticatedData" => HeaderField::Bit(flags::AD),
            "CheckingDisabled" => HeaderField::Bit(flags::CD),
            _ => return None,
        })
    }

    fn of(&self, query: &Query<'_>) -> Value {
        match self {
            HeaderField::Id => Value::Integer(i128::from(query.id())),
            HeaderField::Opcode => Value::Integer(i128::from(query.opcode().0)),
            HeaderField::Rcode => Value::Integer(i128::from(query.flags() & flags::RCODE)),
            HeaderField::Bit(bit) => Value::Bool(query.flags() & bit != 0),
        }
    }
}

/// Whether these fields of the data can be read: `.Message` is a whole DNS message in Go, here it is the
/// query's header and question.
///
/// # Errors
///
/// That they are not supported, where they are of something else in the message.
pub(super) fn check_message(fields: &[String]) -> Result<(), String> {
    let [first, rest @ ..] = fields else { return Ok(()) };
    if first != "Message" {
        return Ok(());
    }
    let rest = match rest {
        [header, rest @ ..] if header == "MsgHdr" => rest,
        [question] if question == "Question" => return Ok(()),
        rest => rest,
    };
    match rest {
        [field] if HeaderField::named(field).is_some() => Ok(()),
        _ => Err(format!(".{} is not supported", fields.join("."))),
    }
}

/// The name asked for, as the client spelled it. Without escapes it has the length of the
/// lower-cased text, octet for octet.
fn spelled(query: &Query<'_>) -> String {
    let lower = query.name().to_string();
    if lower.contains('\\') {
        return lower;
    }
    let mut text = String::with_capacity(lower.len());
    let mut rest = query.spelled_name();
    while let Some((&length, behind)) = rest.split_first().filter(|(length, _)| **length != 0) {
        let Some((label, behind)) = behind.split_at_checked(usize::from(length)) else { break };
        text.extend(label.iter().map(|octet| char::from(*octet)));
        text.push('.');
        rest = behind;
    }
    if text.is_empty() { lower } else { text }
}
