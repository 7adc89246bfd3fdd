//! The kube-dns ConfigMap: stub domains and upstreams of the cluster's operator.
//!
//! Owns the reading of its two keys and the rules for their values. A set of values is taken whole
//! or not at all. Touches no file.

use crate::corefile::{parse_integer, quote};
use crate::plugin::split_host_port;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The greatest number of upstreams that the ConfigMap may name.
const MOST_UPSTREAMS: usize = 3;

/// The greatest length of a stub domain in octets (RFC 1123 §2.1, without the final dot).
const LONGEST_DOMAIN: usize = 253;

/// The values of the kube-dns ConfigMap.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KubeDns {
    /// `stubDomains`: the nameservers of some domains.
    pub stub_domains: BTreeMap<String, Vec<String>>,
    /// `upstreamNameservers`: in place of `/etc/resolv.conf`.
    pub upstream_nameservers: Vec<String>,
}

impl KubeDns {
    /// Reads the ConfigMap's keys and their texts; other keys (`federations` of old clusters, a
    /// Corefile) are passed over. The error says which value is wrong; all are to be ignored then.
    pub fn read(keys: &BTreeMap<String, String>) -> Result<KubeDns, String> {
        let json = |key: &str| -> Result<Value, String> {
            match keys.get(key) {
                None => Ok(Value::Null),
                Some(text) => serde_json::from_str(text)
                    .map_err(|why| format!("{key}: invalid JSON {}: {why}", quote(text))),
            }
        };
        let config = KubeDns {
            stub_domains: stub_domains(json("stubDomains")?)?,
            upstream_nameservers: texts(json("upstreamNameservers")?)
                .ok_or("upstreamNameservers: not a list of strings")?,
        };
        config.validate()?;
        Ok(config)
    }

    fn validate(&self) -> Result<(), String> {
        for (domain, servers) in &self.stub_domains {
            if !is_subdomain(domain) {
                return Err(format!("stubDomains: invalid domain name: {}", quote(domain)));
            }
            // Host names pass here and fail in `check_nameservers`, which is counted.
            if let Some(odd) =
                servers.iter().find(|text| !is_subdomain(text) && !is_nameserver(text))
            {
                return Err(format!("stubDomains: invalid nameserver: {}", quote(odd)));
            }
        }
        if self.upstream_nameservers.len() > MOST_UPSTREAMS {
            return Err(format!("upstreamNameservers: more than {MOST_UPSTREAMS} entries"));
        }
        match self.upstream_nameservers.iter().find(|text| !is_nameserver(text)) {
            Some(odd) => Err(format!("upstreamNameservers: invalid nameserver: {}", quote(odd))),
            None => Ok(()),
        }
    }

    /// Whether `forward` takes every nameserver. The error is node-cache's line, counted as a
    /// `configmap` error.
    pub fn check_nameservers(&self) -> Result<(), String> {
        for (domain, servers) in &self.stub_domains {
            let shown = servers.join(" ");
            let fault = match servers.iter().find(|text| !is_nameserver(text)) {
                Some(odd) => format!("not an IP address or file: {}", quote(odd)),
                None if servers.is_empty() => "no nameservers found".to_owned(),
                None => continue,
            };
            return Err(format!(
                "Invalid config: invalid nameservers [{shown}] for the stub domain {domain}: {fault}"
            ));
        }
        Ok(())
    }
}

fn stub_domains(json: Value) -> Result<BTreeMap<String, Vec<String>>, String> {
    let wrong = || "stubDomains: not an object of lists of strings".to_owned();
    match json {
        Value::Null => Ok(BTreeMap::new()),
        Value::Object(domains) => domains
            .into_iter()
            .map(|(domain, servers)| Ok((domain, texts(servers).ok_or_else(wrong)?)))
            .collect(),
        _ => Err(wrong()),
    }
}

/// A list of strings; `null` is an empty one.
fn texts(json: Value) -> Option<Vec<String>> {
    match json {
        Value::Null => Some(Vec::new()),
        Value::Array(items) => items
            .into_iter()
            .map(|item| match item {
                Value::String(text) => Some(text),
                _ => None,
            })
            .collect(),
        _ => None,
    }
}

/// An IP address, or one with a port.
fn is_nameserver(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
        || split_host_port(text).is_ok_and(|(host, port)| {
            host.parse::<IpAddr>().is_ok()
                && parse_integer(port).is_ok_and(|port| (1..=65535).contains(&port))
        })
}

/// A DNS-1123 subdomain as Kubernetes defines it: lower case, no final dot.
fn is_subdomain(text: &str) -> bool {
    text.len() <= LONGEST_DOMAIN
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|octet| {
                    octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'-'
                })
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(keys: &[(&str, &str)]) -> Result<KubeDns, String> {
        KubeDns::read(&keys.iter().map(|&(key, text)| (key.into(), text.into())).collect())
    }

    #[test]
    fn both_keys_are_read_and_others_passed_over() {
        let config = read(&[
            ("stubDomains", r#"{"acme.local": ["1.1.1.1", "[2001:db8::2]:53"], "10.in-addr.arpa": ["1.1.1.2:1053"]}"#),
            ("upstreamNameservers", r#"["8.8.8.8", "2001:db8::1"]"#),
            ("federations", "nonsense"),
            ("Corefile", ".:53 {"),
        ])
        .unwrap();
        assert_eq!(config.stub_domains.len(), 2);
        assert_eq!(config.upstream_nameservers, ["8.8.8.8", "2001:db8::1"]);
        assert_eq!(config.check_nameservers(), Ok(()));
        assert_eq!(read(&[]), Ok(KubeDns::default()));
        assert_eq!(
            read(&[("stubDomains", "{}"), ("upstreamNameservers", "null")]),
            Ok(KubeDns::default())
        );
    }

    #[test]
    fn a_wrong_value_spoils_the_whole_set() {
        for (key, text) in [
            ("stubDomains", r#"{"acme.local": ["1.1.1.1""#),
            ("stubDomains", r#"{"acme.local": "1.1.1.1"}"#),
            ("stubDomains", r#"{"under_score.local": ["1.1.1.1"]}"#),
            ("stubDomains", r#"{"acme.local.": ["1.1.1.1"]}"#),
            ("stubDomains", r#"{"acme.local": ["1.1.1.1:99999"]}"#),
            ("stubDomains", r#"{"acme.local": ["1.1.1.1:0"]}"#),
            ("stubDomains", ""),
            ("upstreamNameservers", r#"["not an ip"]"#),
            ("upstreamNameservers", r#"["ns.example.org"]"#),
            ("upstreamNameservers", r#"["1.1.1.1","1.1.1.2","1.1.1.3","1.1.1.4"]"#),
            ("upstreamNameservers", r#"[1]"#),
        ] {
            assert!(read(&[(key, text)]).is_err_and(|error| error.starts_with(key)), "{text}");
        }
    }

    #[test]
    fn three_upstreams_and_domains_of_253_octets_are_the_most() {
        let most = r#"["1.1.1.1", "1.1.1.2:53", "[2001:db8::1]:65535"]"#;
        assert_eq!(read(&[("upstreamNameservers", most)]).map(drop), Ok(()));
        let label = |octets: usize| "x".repeat(octets);
        let long = |rest: usize| [label(63), label(63), label(63), label(rest)].join(".");
        for (domain, is_valid) in [
            (long(61), true),
            (long(62), false),
            (label(63), true),
            (label(64), false),
            ("a-b.local".to_owned(), true),
            ("-a.local".to_owned(), false),
            ("a-.local".to_owned(), false),
            ("a..local".to_owned(), false),
        ] {
            let text = format!(r#"{{"{domain}": ["1.1.1.1"]}}"#);
            let told = match is_valid {
                true => Ok(()),
                false => Err(format!("stubDomains: invalid domain name: \"{domain}\"")),
            };
            assert_eq!(read(&[("stubDomains", &text)]).map(drop), told);
        }
        let named = read(&[("upstreamNameservers", r#"["ns.test:53"]"#)]).map(drop);
        let told = "upstreamNameservers: invalid nameserver: \"ns.test:53\"";
        assert_eq!(named, Err(told.to_owned()));
    }

    #[test]
    fn host_names_of_stub_domains_are_refused_by_forward() {
        let config = read(&[("stubDomains", r#"{"acme.local": ["some.name.test"]}"#)]).unwrap();
        assert_eq!(
            config.check_nameservers(),
            Err("Invalid config: invalid nameservers [some.name.test] for the stub domain acme.local: not an IP address or file: \"some.name.test\"".to_owned())
        );
        let config = read(&[("stubDomains", r#"{"bad.local": ["300.1.1.1"]}"#)]).unwrap();
        assert!(config.check_nameservers().is_err());
        let config = read(&[("stubDomains", r#"{"empty.local": []}"#)]).unwrap();
        assert!(config.check_nameservers().unwrap_err().ends_with("no nameservers found"));
    }
}
