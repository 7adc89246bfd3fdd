//! `hosts`: lines that name no host, among them misspelt options.

use super::super::finding::Finding;
use super::super::syntax::{nearest, options_of};
use super::{Facts, lines};
use std::net::IpAddr;

/// Lines of the block that are neither options nor hosts.
pub(super) fn lines_that_name_no_host(facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    let options = options_of("hosts");
    for (_, directive) in facts.directives("hosts") {
        for line in lines(&directive.tokens).iter().filter(|line| line.depth > 0) {
            let first = line.first();
            let text = first.text.as_str();
            if options.contains(&text) {
                continue;
            }
            let address = text.split('%').next().unwrap_or_default();
            let is_address = address.parse::<IpAddr>().is_ok();
            if is_address && line.tokens.len() > 1 {
                continue;
            }
            let (message, hint) = if is_address {
                let message = format!("`{text}` has no name behind it: the line is ignored");
                (message, "a line is an address and its names".to_owned())
            } else {
                let hint = match nearest(text, options.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!(
                        "a line is an address and its names, or one of: {}",
                        options.join(", ")
                    ),
                };
                let message = format!(
                    "`{text}` is neither an option nor an address: it is read as a line of a hosts \
                     file, and ignored"
                );
                (message, hint)
            };
            findings.push(Finding::warning("hosts-line-ignored", first, message, hint));
        }
    }
}
