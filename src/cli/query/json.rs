//! A reply as an object, for programs.

use super::exchange::Answer;
use super::reply::{Reply, Row};
use serde_json::{Value, json};
use std::time::SystemTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The object of one question.
pub(super) fn object(reply: &Reply, answer: &Answer, when: SystemTime) -> Value {
    let question: Vec<Value> = reply
        .questions
        .iter()
        .map(|row| json!({"name": row.name, "class": row.class, "type": row.rtype}))
        .collect();
    let records = |rows: &[Row]| -> Vec<Value> { rows.iter().map(record).collect() };
    let [answers, authority, additional] = &reply.sections;
    let edns = reply.edns.as_ref().map(|edns| {
        let options: Vec<Value> = edns
            .options
            .iter()
            .map(|(name, value)| json!({"name": name, "value": value}))
            .collect();
        json!({
            "version": edns.version,
            "flags": if edns.dnssec { vec!["do"] } else { Vec::new() },
            "udp": edns.size,
            "options": options,
        })
    });
    json!({
        "server": {
            "name": answer.server.name,
            "address": answer.server.address.ip().to_string(),
            "port": answer.server.address.port(),
        },
        "transport": answer.carrier.to_lowercase(),
        "microseconds": u64::try_from(answer.elapsed.as_micros()).unwrap_or(u64::MAX),
        "when": OffsetDateTime::from(when).truncate_to_second().format(&Rfc3339).unwrap_or_default(),
        "octets": reply.size,
        "notes": answer.notes,
        "id": reply.id,
        "opcode": reply.opcode.to_string(),
        "rcode": reply.status(),
        "flags": reply.flags,
        "edns": edns,
        "question": question,
        "answer": records(answers),
        "authority": records(authority),
        "additional": records(additional),
    })
}

fn record(row: &Row) -> Value {
    json!({
        "name": row.name,
        "ttl": row.ttl,
        "class": row.class,
        "type": row.rtype,
        "data": row.data,
    })
}
