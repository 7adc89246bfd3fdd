//! Encrypted transports against other people's programs: Unbound as upstream, kdig as client,
//! certificates by openssl. Says what is missing and passes, unless `NODENS_TEST_ALL=1`.

// A test may panic, and why it did not run is for whoever runs it.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // A test may panic, and says what it lacks.

mod missing;
mod peers;

use peers::{Lab, PATIENCE, free_port};
use std::process::Command;
use std::time::{Duration, Instant};

/// The programs that these tests need.
const TOOLS: &[&str] = &["openssl", "unbound", "kdig"];

fn lab() -> Option<Lab> {
    Lab::with_certificates(TOOLS)
}

impl Lab {
    /// What kdig prints, errors included.
    fn kdig(&self, port: u16, options: &[&str]) -> String {
        let output = Command::new("kdig")
            .args(["@127.0.0.1", "-p", &port.to_string(), "+retry=0", "+time=8"])
            .args(options)
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        String::from_utf8_lossy(&output.stdout).into_owned() + &errors
    }
}

/// Verifies the server's certificate against the lab's authority.
const VERIFY: [&str; 2] = ["+tls-ca=ca.pem", "+tls-hostname=dns.test"];

#[test]
fn kdig_is_answered_over_tls_and_https_from_unbound_over_tls_and_https() {
    let Some(mut lab) = lab() else { return };
    let (tls_up, https_up) = lab.unbound("own");
    let (tls, https, https_too) = (free_port(), free_port(), free_port());
    let block = |keys: &str, upstream: &str| {
        format!(
            "{keys} {{\n    bind 127.0.0.1\n    errors\n    tls {folder}/own.pem {folder}/own.key\n    \
             forward . {upstream} {{\n        tls {folder}/ca.pem\n        \
             tls_servername dns.test\n    }}\n}}\n",
            folder = lab.folder.path().display()
        )
    };
    let corefile =
        block(&format!("tls://.:{tls} https://.:{https}"), &format!("tls://127.0.0.1:{tls_up}"))
            + &block(&format!("https://.:{https_too}"), &format!("https://127.0.0.1:{https_up}"));
    lab.nodens(&corefile, https_too);
    for (port, how) in [
        (tls, &["+tls"][..]),
        (https, &["+https"]),
        (https, &["+https-get"]),
        (https_too, &["+https"]),
        (https_too, &["+https", "+https-get"]),
    ] {
        let answer = lab.kdig(port, &[&VERIFY, how, &["www.test", "A"]].concat());
        let log = lab.text("nodens.log");
        assert!(answer.contains("status: NOERROR"), "{how:?} {answer}\n{log}");
        assert!(answer.contains("192.0.2.80"), "{how:?} {answer}\n{log}");
        let negative = lab.kdig(port, &[&VERIFY, how, &["none.test", "A"]].concat());
        assert!(negative.contains("status: NXDOMAIN"), "{how:?} {negative}\n{log}");
    }
}

/// What nodens says of an upstream with `certificate` when it must be called `name` and be signed by
/// `authority`: over TLS and HTTPS the client gets SERVFAIL, and the line names the upstream's address
/// and `name` before `why`, and ends with `end`.
fn is_not_believed(certificate: &str, authority: &str, name: &str, why: &str, end: &str) {
    let Some(mut lab) = lab() else { return };
    let (tls_up, https_up) = lab.unbound(certificate);
    let folder = lab.folder.path().display().to_string();
    for (scheme, upstream) in [("tls", tls_up), ("https", https_up)] {
        let port = free_port();
        let corefile = format!(
            ".:{port} {{\n    bind 127.0.0.1\n    errors\n    forward . \
             {scheme}://127.0.0.1:{upstream} {{\n        tls {folder}/{authority}.pem\n        \
             tls_servername {name}\n    }}\n}}\n"
        );
        lab.nodens(&corefile, port);
        let answer = lab.kdig(port, &["www.test", "A"]);
        assert!(answer.contains("status: SERVFAIL"), "{answer}");
        let line = format!(
            "[ERROR] plugin/errors: 2 www.test. A: 127.0.0.1:{upstream} ({name}): tls: failed to \
             verify certificate: x509: {why}"
        );
        let began = Instant::now();
        let is_it = |said: &str| said.starts_with(&line) && said.ends_with(end);
        while !lab.text("nodens.log").lines().any(is_it) {
            let log = lab.text("nodens.log");
            assert!(began.elapsed() < PATIENCE, "no {line} … {end} in\n{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn an_upstream_with_the_wrong_name_is_not_believed_and_the_line_says_which() {
    let why = "certificate is valid for dns.test";
    is_not_believed("own", "ca", "wrong.test", why, ", not wrong.test");
}

#[test]
fn an_upstream_of_an_unknown_authority_is_not_believed_and_the_line_says_which() {
    let why = "certificate signed by unknown authority";
    is_not_believed("own", "stranger", "dns.test", why, why);
}

#[test]
fn an_upstream_with_an_expired_certificate_is_not_believed_and_the_line_says_which() {
    let why = "certificate has expired or is not yet valid: current time 20";
    is_not_believed("expired", "ca", "dns.test", why, "Z is after 2024-02-01T00:00:00Z");
}

#[test]
fn an_upstream_is_found_by_its_name_and_must_have_it() {
    let Some(mut lab) = lab() else { return };
    let (tls_up, _) = lab.unbound("own");
    let resolver = free_port();
    let port = free_port();
    let folder = lab.folder.path().display().to_string();
    let first = format!(
        ".:{resolver} {{\n    bind 127.0.0.1\n    hosts {{\n        127.0.0.1 dns.test\n    }}\n}}\n"
    );
    lab.nodens(&first, resolver);
    let corefile = format!(
        ".:{port} {{\n    bind 127.0.0.1\n    errors\n    forward . tls://dns.test:{tls_up} {{\n        \
         tls {folder}/ca.pem\n        resolver 127.0.0.1:{resolver}\n    }}\n}}\n"
    );
    lab.nodens(&corefile, port);
    let answer = lab.kdig(port, &["www.test", "A"]);
    assert!(answer.contains("192.0.2.80"), "{answer}\n{}", lab.text("nodens.log"));
}
