//! What a scraper asks for in `Accept` and `Accept-Encoding`, taken as Prometheus' Go client takes it.
//!
//! Owns the choice of the content type and of gzip. Never fails: who asks for what is not there gets
//! the text as it is.

use hyper::HeaderMap;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, HeaderValue};

/// The content type of the text exposition format where nothing else is asked for.
pub(super) const METRICS_TYPE: &str =
    "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

/// The content types that tell of other ways to escape names. No name here needs any.
const OTHER_ESCAPING: [(&str, &str); 3] = [
    ("allow-utf-8", "text/plain; version=0.0.4; charset=utf-8; escaping=allow-utf-8"),
    ("dots", "text/plain; version=0.0.4; charset=utf-8; escaping=dots"),
    ("values", "text/plain; version=0.0.4; charset=utf-8; escaping=values"),
];

/// The most kinds of `Accept` that are looked at: scrapers name five.
const MOST_KINDS: usize = 12;

/// The content type of /metrics: text, with the `escaping` that the kinds up to the first plain text
/// name last.
pub(super) fn metrics_type(headers: &HeaderMap) -> &'static str {
    let mut found = METRICS_TYPE;
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    for kind in kinds(accept) {
        match OTHER_ESCAPING.iter().find(|(word, _)| *word == kind.escaping) {
            Some((_, content_type)) => found = content_type,
            None if kind.escaping == "underscores" => found = METRICS_TYPE,
            None => {}
        }
        if (kind.main, kind.sub) == ("text", "plain") && ["", "0.0.4"].contains(&kind.version) {
            break;
        }
    }
    found
}

/// One kind of `Accept`.
#[derive(Debug, Clone, Copy)]
struct Kind<'h> {
    main: &'h str,
    sub: &'h str,
    weight: f32,
    version: &'h str,
    escaping: &'h str,
}

/// The kinds that are asked for, the most wished for first, and of equals the first; what stands for
/// all comes behind what is named.
fn kinds(accept: &str) -> Vec<Kind<'_>> {
    let mut kinds: Vec<Kind<'_>> = accept.split(',').filter_map(kind).take(MOST_KINDS).collect();
    kinds.sort_by(|one, other| {
        let wildcards = |kind: &Kind<'_>| u8::from(kind.main == "*") + u8::from(kind.sub == "*");
        wildcards(one).cmp(&wildcards(other)).then(other.weight.total_cmp(&one.weight))
    });
    kinds
}

fn kind(part: &str) -> Option<Kind<'_>> {
    let mut parts = part.split(';');
    let (main, sub) = match parts.next()?.split_once('/') {
        Some((main, sub)) if !sub.is_empty() && !sub.contains('/') => (main, sub),
        Some(_) => return None,
        None => ("*", "*"),
    };
    let (main, sub) = (main.trim_matches(' '), sub.trim_matches(' '));
    let mut kind = Kind { main, sub, weight: 1.0, version: "", escaping: "" };
    for (word, value) in parts.filter_map(|part| part.split_once('=')) {
        match word.trim_matches(' ') {
            "q" => kind.weight = value.parse().unwrap_or(0.0),
            "version" => kind.version = value.trim_matches(' '),
            "escaping" => kind.escaping = value.trim_matches(' '),
            _ => {}
        }
    }
    Some(kind)
}

/// Whether gzip is wished for more than plain text.
pub(super) fn prefers_gzip(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(ACCEPT_ENCODING).iter().map(HeaderValue::as_bytes);
    let wishes: Vec<(&str, f64)> =
        lines.filter_map(|line| str::from_utf8(line).ok()).flat_map(codings).collect();
    let weight = |coding: &str| {
        let of_it = wishes.iter().filter(|(word, _)| *word == coding || *word == "*");
        of_it.map(|(_, weight)| *weight).fold(-1.0, f64::max)
    };
    weight("gzip") > weight("identity").max(0.0)
}

/// The codings of one line with their weights, up to what is none.
fn codings(line: &str) -> Vec<(&str, f64)> {
    let mut found = Vec::new();
    for part in line.split(',') {
        let part = part.trim_matches([' ', '\t']);
        let (word, weight) = match part.split_once(';') {
            None => (part, Some(1.0)),
            Some((word, weight)) => (
                word.trim_end_matches([' ', '\t']),
                weight.trim_matches([' ', '\t']).strip_prefix("q=").and_then(quality),
            ),
        };
        match weight {
            Some(weight) if !word.is_empty() => found.push((word, weight)),
            _ => break,
        }
    }
    found
}

/// A weight: 0 or 1 with a fraction (RFC 9110 §12.4.2).
fn quality(text: &str) -> Option<f64> {
    let is_one = text.starts_with(['0', '1']) && !text[1..].starts_with(|next| next != '.');
    text.parse().ok().filter(|_| is_one)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: hyper::header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn gzip_is_sent_only_to_who_wishes_for_it_more_than_for_plain_text() {
        for (value, is_zipped) in [
            ("gzip", true),
            (" gzip", true),
            ("gzip ;q=1", true),
            ("deflate, gzip;q=0.5", true),
            ("identity;q=0.5, gzip", true),
            ("zstd, gzip", true),
            ("*;q=0.5, gzip", true),
            ("", false),
            ("GZIP", false),
            ("x-gzip", false),
            ("*", false),
            ("gzip;q=0", false),
            ("gzip;q=foo", false),
            ("gzip;q=2", false),
            ("gzip;level=1", false),
            ("gzip, identity", false),
            ("gzip;q=0.1, identity", false),
            ("identity;q=0, *;q=0", false),
        ] {
            assert_eq!(prefers_gzip(&headers(ACCEPT_ENCODING, value)), is_zipped, "{value}");
        }
    }

    #[test]
    fn the_escaping_that_a_scraper_names_is_told_in_the_content_type() {
        for (value, escaping) in [
            ("", "underscores"),
            ("*/*", "underscores"),
            ("text/html", "underscores"),
            ("text/plain;escaping=foo", "underscores"),
            ("text/plain;escaping=dots", "dots"),
            ("text/plain; version=0.0.4; escaping=values", "values"),
            ("text/plain;version=1.0.0;escaping=allow-utf-8", "allow-utf-8"),
            ("text/plain, text/plain;escaping=dots", "underscores"),
            ("text/plain;q=0.5, text/html;escaping=dots", "dots"),
            ("application/openmetrics-text;escaping=allow-utf-8", "allow-utf-8"),
            // What Prometheus 3 sends.
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,\
                 text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                 text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                "allow-utf-8",
            ),
        ] {
            let found = metrics_type(&headers(ACCEPT, value));
            let expected = format!("text/plain; version=0.0.4; charset=utf-8; escaping={escaping}");
            assert_eq!(found, expected, "{value}");
        }
    }
}
