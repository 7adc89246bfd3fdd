//! What `check` finds: one mistake, warning or note, with its place and what to do.
//!
//! Owns the order in which findings are told. Never prints.

use crate::corefile::{CorefileError, Place, Token};

/// The names of all that can be found. They stay the same from version to version.
pub const CODES: &[&str] = &[
    "bind-missing",
    "block-without-key",
    "cache-capacity-raised",
    "cache-ttl-below-minimum",
    "cache-zone-is-duration",
    "cache-zone-is-option",
    "comma-in-word",
    "directive",
    "errors-missing",
    "except-matches-nothing",
    "force-tcp-to-resolv-conf",
    "forward-loop",
    "forward-shadowed",
    "forward-unreachable",
    "hosts-line-ignored",
    "import",
    "key-capitals",
    "key-is-address",
    "key-is-number",
    "key-syntax",
    "key-within-key",
    "left-out-directive",
    "listener",
    "log-format-is-name",
    "metrics-on-all-addresses",
    "missing-brace",
    "name-of-another-block",
    "no-server-block",
    "not-on-this-machine",
    "read-timeout-cut",
    "reload-missing",
    "resolv-conf-loopback",
    "said-at-start",
    "server-key",
    "stray-brace",
    "syntax",
    "unclosed-quote",
    "unknown-directive",
    "upstream-port",
    "upstream-port-in-address",
    "upstream-silent",
    "upstream-twice",
    "upstream-without-tcp",
    "upstream-without-udp",
    "variable-left",
    "variable-unset",
    "word-passed-over",
    "zone-outside-block",
    "zone-shadowed",
];

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// nodens does not start with it.
    Error,
    /// It starts, and does something else than was meant.
    Warning,
    /// It does what it says; worth knowing all the same.
    Note,
}

impl Severity {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        }
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Its name, which stays the same from version to version (docs/check.md lists them).
    pub code: &'static str,
    /// The words it is about; `None` when it is about the whole file.
    pub place: Option<Place>,
    /// What is so.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

impl Finding {
    /// A warning about a word.
    pub(super) fn warning(
        code: &'static str,
        token: &Token,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Finding {
        let (message, hint, place) = (message.into(), hint.into(), Some(token.place()));
        Finding { severity: Severity::Warning, code, place, message, hint }
    }

    /// A note about a word.
    pub(super) fn note(
        code: &'static str,
        token: &Token,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Finding {
        Finding { severity: Severity::Note, ..Finding::warning(code, token, message, hint) }
    }

    /// What the loading code says is wrong.
    pub(super) fn error(
        code: &'static str,
        error: CorefileError,
        hint: impl Into<String>,
    ) -> Finding {
        let CorefileError { message, place, .. } = error;
        Finding { severity: Severity::Error, code, place, message, hint: hint.into() }
    }
}

/// In the order of the file, the whole file first; each once.
pub(super) fn in_order(mut findings: Vec<Finding>) -> Vec<Finding> {
    let key = |one: &Finding| (one.place.clone(), one.severity, one.code, one.message.clone());
    debug_assert!(findings.iter().all(|one| CODES.contains(&one.code)), "a name is not in CODES");
    findings.sort_by_key(key);
    findings.dedup_by(|one, other| key(one) == key(other));
    findings
}
