//! `tls`: the certificate and key of a block's `tls://`, `https://` and `quic://` servers.
//!
//! Owns the grammar and what is asked of clients. Files come through the surroundings, at setup and
//! at each reload; handshakes are for whoever has the connections.

mod config;
mod counted;
mod web;

pub use config::{ClientCertificates, ServerTls, server_config};
pub use counted::quic_connections;
pub use web::web_config;

use super::Setup;
use crate::corefile::{CorefileError, Dispenser, Surroundings, file_error_text};
use sha2::{Digest, Sha512};
use std::path::Path;

/// Where systems keep the certificates that they trust, the first that is there counts (Go's list).
const SYSTEM_ROOTS: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Reads the directive; with several in a block the last one counts.
///
/// # Errors
///
/// `Wrong argument count or unexpected line ending after '…'` (with `plugin/tls: ` twice, as CoreDNS's
/// has) unless there are two or three files; `unknown option '…'`; `unknown authentication type '…'`;
/// `could not load TLS cert: …`, `error reading …: …` or `could not read root certs: …` for a file;
/// and, ours, that `keylog` is not there.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    let dispenser = &mut setup.dispenser;
    while dispenser.next() {
        let paths = dispenser.remaining_args();
        let (certificate, key, authorities) = match paths.as_slice() {
            [certificate, key] => (*certificate, *key, None),
            [certificate, key, authorities] => (*certificate, *key, Some(*authorities)),
            // CoreDNS marks this one twice.
            _ => return Err(dispenser.arg_err().in_plugin("tls")),
        };
        let mut clients = ClientCertificates::No;
        while dispenser.next_block() {
            match dispenser.val() {
                "client_auth" => clients = client_auth(dispenser)?,
                // CoreDNS 1.14's.
                "keylog" => {
                    return Err(dispenser.err(
                        "keylog is not there, it would give the keys of all connections away: leave the \
                         line out, and look at the messages with `dnstap`",
                    ));
                }
                unknown => return Err(dispenser.err(format!("unknown option '{unknown}'"))),
            }
        }
        let files = Files { certificate, key, authorities };
        let settings = settings(&files, clients, setup.surroundings)
            .map_err(|error| dispenser.plain_err(error))?;
        let config = config(&settings).map_err(|error| dispenser.plain_err(error))?;
        // Over a reload that changes nothing of it, it is the same: sessions can be taken up again,
        // and endpoints that are made with it stay.
        let config = setup.carried.take_or_make(fingerprint(&settings), || config);
        setup.block.tls = Some(config);
    }
    Ok(())
}

/// The paths of one directive.
struct Files<'t> {
    certificate: &'t str,
    key: &'t str,
    authorities: Option<&'t str>,
}

fn client_auth(dispenser: &mut Dispenser<'_>) -> Result<ClientCertificates, CorefileError> {
    let words = dispenser.remaining_args();
    let [word] = words.as_slice() else { return Err(dispenser.arg_err()) };
    Ok(match *word {
        "nocert" => ClientCertificates::No,
        "request" => ClientCertificates::Asked,
        "require" => ClientCertificates::Required,
        "verify_if_given" => ClientCertificates::VerifiedIfGiven,
        "require_and_verify" => ClientCertificates::RequiredAndVerified,
        unknown => {
            return Err(dispenser.err(format!("unknown authentication type '{unknown}'")));
        }
    })
}

/// What the files hold, or what is wrong in the words that `forward` has for its `tls` too.
fn settings(
    files: &Files<'_>,
    clients: ClientCertificates,
    surroundings: &dyn Surroundings,
) -> Result<ServerTls, String> {
    let read = |path: &str| {
        surroundings.read(Path::new(path)).map_err(|error| file_error_text(Path::new(path), &error))
    };
    let certificate = read(files.certificate).map_err(|error| wrong(&error))?;
    let key = read(files.key).map_err(|error| wrong(&error))?;
    let authorities = match files.authorities {
        Some(path) => read(path).map_err(|error| format!("error reading {path}: {error}"))?,
        None => SYSTEM_ROOTS.iter().find_map(|path| read(path).ok()).unwrap_or_default(),
    };
    Ok(ServerTls { certificate, key, clients, authorities, only_tls13: false })
}

fn wrong(error: &str) -> String {
    format!("could not load TLS cert: {error}")
}

fn config(settings: &ServerTls) -> Result<rustls::ServerConfig, String> {
    server_config(settings).map_err(|error| match error.strip_prefix("client CA: ") {
        Some(error) => format!("could not read root certs: {error}"),
        None => wrong(&error),
    })
}

/// What the settings are known by over reloads.
fn fingerprint(settings: &ServerTls) -> String {
    let ServerTls { certificate, key, clients, authorities, only_tls13 } = settings;
    let mut hash = Sha512::new();
    for part in [certificate, key, authorities] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    format!("tls {clients:?} {only_tls13} {:?}", hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use crate::corefile::MemorySurroundings;
    use std::sync::Arc;

    const CERTIFICATE: &str = include_str!("../../net/upstream/testdata/up.pem");
    const KEY: &str = include_str!("../../net/upstream/testdata/up.key");
    const OTHER_KEY: &str = include_str!("../../net/upstream/testdata/other.key");

    fn node() -> MemorySurroundings {
        MemorySurroundings::new()
            .with_file("/c", CERTIFICATE)
            .with_file("/k", KEY)
            .with_file("/other", OTHER_KEY)
            .with_file("/empty", "")
    }

    #[test]
    fn certificate_and_key_are_read_with_every_way_to_ask_clients() {
        for options in [
            "",
            " /c",
            " /c {\n client_auth nocert\n}",
            " {\n client_auth request\n}",
            " {\n client_auth require\n}",
            " /c {\n client_auth verify_if_given\n}",
            " /c {\n client_auth require_and_verify\n}",
        ] {
            let mut bench = Bench::new();
            bench.load(&format!("tls /c /k{options}"), &node()).unwrap();
            assert!(bench.block.tls.is_some(), "{options}");
        }
        let trusting = node().with_file("/etc/ssl/cert.pem", CERTIFICATE);
        let directive = "tls /c /k {\n client_auth require_and_verify\n}";
        assert!(Bench::new().load(directive, &trusting).is_ok(), "the system's roots");
    }

    #[test]
    fn what_did_not_change_over_a_reload_is_the_same_configuration() {
        let mut bench = Bench::new();
        let mut configuration = |directive: &str, files: &MemorySurroundings| {
            bench.load(directive, files).unwrap();
            bench.block.tls.clone().unwrap()
        };
        let first = configuration("tls /c /k", &node());
        assert!(Arc::ptr_eq(&first, &configuration("tls /c /k", &node())));
        let asking = "tls /c /k {\n client_auth request\n}";
        assert!(!Arc::ptr_eq(&first, &configuration(asking, &node())));
        let renewed = node().with_file("/c", format!("{CERTIFICATE}\n"));
        assert!(!Arc::ptr_eq(&first, &configuration("tls /c /k", &renewed)));
    }

    #[test]
    fn mistakes_are_named_in_the_words_of_coredns() {
        let parsing = "Corefile:2 - Error during parsing: ";
        for (directive, error) in [
            (
                "tls /c",
                format!(
                    "plugin/tls: plugin/tls: {parsing}Wrong argument count or unexpected line \
                     ending after '/c'"
                ),
            ),
            (
                "tls /none /k",
                "Corefile:2 - plugin/tls: could not load TLS cert: open /none: no such file or \
                 directory"
                    .to_owned(),
            ),
            (
                "tls /c /k /none",
                "Corefile:2 - plugin/tls: error reading /none: open /none: no such file or \
                 directory"
                    .to_owned(),
            ),
            (
                "tls /empty /k",
                "Corefile:2 - plugin/tls: could not load TLS cert: tls: failed to find any PEM \
                 data in certificate input"
                    .to_owned(),
            ),
            (
                "tls /c /empty",
                "Corefile:2 - plugin/tls: could not load TLS cert: tls: failed to find any PEM \
                 data in key input"
                    .to_owned(),
            ),
            (
                "tls /c /other",
                "Corefile:2 - plugin/tls: could not load TLS cert: tls: private key does not \
                 match public key"
                    .to_owned(),
            ),
        ] {
            assert_eq!(Bench::new().load_error(directive, &node()), error);
        }
        let place = "plugin/tls: Corefile:3 - Error during parsing: ";
        for (option, error) in [
            ("client_auth maybe", "unknown authentication type 'maybe'"),
            ("clients all", "unknown option 'clients'"),
            (
                "keylog /tmp/keys",
                "keylog is not there, it would give the keys of all connections away: leave the line \
                 out, and look at the messages with `dnstap`",
            ),
            ("client_auth", "Wrong argument count or unexpected line ending after 'client_auth'"),
        ] {
            let directive = format!("tls /c /k {{\n {option}\n}}");
            let told = Bench::new().load_error(&directive, &node());
            assert_eq!(told, format!("{place}{error}"));
        }
    }
}
