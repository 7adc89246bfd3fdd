//! The JSON that `reload` hashes: Go's encoding of caddy's server blocks, octet by octet, so that
//! the hash of a Corefile is the one that CoreDNS shows. Line numbers are part of it.

use super::{Token, Tree};
use std::fmt::Write;

/// The JSON that `reload` hashes with SHA-512.
pub fn fingerprint(tree: &Tree) -> Vec<u8> {
    if tree.blocks.is_empty() {
        return b"null".to_vec();
    }
    let mut json = String::from("[");
    for (index, block) in tree.blocks.iter().enumerate() {
        separate(&mut json, index);
        json.push_str("{\"Keys\":[");
        for (index, key) in block.keys.iter().enumerate() {
            separate(&mut json, index);
            string(&mut json, &key.text);
        }
        json.push_str("],\"Tokens\":{");
        let mut directives: Vec<_> = block.directives.iter().collect();
        directives.sort_by(|one, other| one.word.cmp(&other.word));
        for (index, directive) in directives.into_iter().enumerate() {
            separate(&mut json, index);
            string(&mut json, &directive.word);
            json.push_str(":[");
            for (index, token) in directive.tokens.iter().enumerate() {
                separate(&mut json, index);
                write_token(&mut json, token);
            }
            json.push(']');
        }
        json.push_str("}}");
    }
    json.push(']');
    json.into_bytes()
}

fn separate(json: &mut String, index: usize) {
    if index > 0 {
        json.push(',');
    }
}

/// Only imported tokens carry their file.
fn write_token(json: &mut String, token: &Token) {
    json.push_str("{\"File\":");
    string(json, if token.imported { &token.file } else { "" });
    // Writing to a String cannot fail.
    let _ = write!(json, ",\"Line\":{},\"Text\":", token.line);
    string(json, &token.text);
    json.push('}');
}

/// A string as Go's `encoding/json` writes it, HTML characters escaped.
fn string(json: &mut String, text: &str) {
    json.push('"');
    for letter in text.chars() {
        match letter {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            '\u{8}' => json.push_str("\\b"),
            '\u{c}' => json.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                let _ = write!(json, "\\u{:04x}", u32::from(letter));
            }
            other => json.push(other),
        }
    }
    json.push('"');
}
