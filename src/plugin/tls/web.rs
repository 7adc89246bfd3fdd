//! Prometheus's web configuration file, as far as it is about TLS: `tls_server_config` with the
//! paths of certificate and key.
//!
//! Owns the part of YAML that such files use: keys with indentation, plain and quoted text,
//! comments. What it does not know is an error: nothing of what an operator asks for is dropped in
//! silence.

use super::{ClientCertificates, ServerTls, server_config};
use crate::corefile::{Surroundings, file_error_text};
use std::path::{Path, PathBuf};

/// The settings of the file's one section.
#[derive(Debug, Default, PartialEq, Eq)]
struct Section {
    certificate: String,
    key: String,
    authorities: Option<String>,
    client_auth: Option<String>,
    least_version: Option<String>,
}

/// The TLS configuration that the file at `path` asks for. Paths in it are relative to its folder.
///
/// # Errors
///
/// A file that cannot be read or is no such configuration, with its path.
pub fn web_config(
    path: &Path,
    surroundings: &dyn Surroundings,
) -> Result<rustls::ServerConfig, String> {
    let read = |path: &Path| surroundings.read(path).map_err(|error| file_error_text(path, &error));
    let text = String::from_utf8_lossy(&read(path)?).into_owned();
    let section = section(&text).map_err(|why| format!("{}: {why}", path.display()))?;
    let beside = |name: &str| path.parent().map_or_else(|| PathBuf::from(name), |at| at.join(name));
    let clients = match section.client_auth.as_deref() {
        None | Some("NoClientCert") => ClientCertificates::No,
        Some("RequestClientCert") => ClientCertificates::Asked,
        Some("RequireAnyClientCert") => ClientCertificates::Required,
        Some("VerifyClientCertIfGiven") => ClientCertificates::VerifiedIfGiven,
        Some("RequireAndVerifyClientCert") => ClientCertificates::RequiredAndVerified,
        Some(other) => return Err(format!("invalid ClientAuth: {other}")),
    };
    let only_tls13 = match section.least_version.as_deref() {
        // Versions before 1.2 are not spoken.
        None | Some("TLS10" | "TLS11" | "TLS12") => false,
        Some("TLS13") => true,
        Some(other) => return Err(format!("unknown TLS version: {other}")),
    };
    server_config(&ServerTls {
        certificate: read(&beside(&section.certificate))?,
        key: read(&beside(&section.key))?,
        clients,
        authorities: match &section.authorities {
            Some(authorities) => read(&beside(authorities))?,
            None => Vec::new(),
        },
        only_tls13,
    })
}

fn section(text: &str) -> Result<Section, String> {
    let mut section = Section::default();
    let mut is_inside = false;
    for (number, line) in text.lines().enumerate() {
        let wrong = |what: &str| format!("line {}: {what}", number + 1);
        let content = without_comment(line);
        if content.trim().is_empty() || content.trim_end() == "---" {
            continue;
        }
        let (key, value) = content.split_once(':').ok_or_else(|| wrong("not `key: value`"))?;
        let value = unquoted(value.trim()).ok_or_else(|| wrong("not a plain text"))?;
        let is_top = !key.starts_with([' ', '\t']);
        let key = key.trim();
        if is_top {
            is_inside = key == "tls_server_config" && value.is_empty();
            if !is_inside {
                return Err(wrong(&format!("{key} is not supported")));
            }
            continue;
        }
        if !is_inside {
            return Err(wrong("indented without a section"));
        }
        match key {
            "cert_file" => section.certificate = value.to_owned(),
            "key_file" => section.key = value.to_owned(),
            "client_ca_file" => section.authorities = Some(value.to_owned()),
            "client_auth_type" => section.client_auth = Some(value.to_owned()),
            "min_version" => section.least_version = Some(value.to_owned()),
            other => return Err(wrong(&format!("{other} is not supported"))),
        }
    }
    match (section.certificate.is_empty(), section.key.is_empty()) {
        (true, _) => Err("missing cert_file".to_owned()),
        (_, true) => Err("missing key_file".to_owned()),
        _ => Ok(section),
    }
}

/// A `#` begins a comment at the start or behind white space; a quoted path with ` #` in it is
/// nothing that such a file has.
fn without_comment(line: &str) -> &str {
    match line.starts_with('#') {
        true => "",
        false => line.split(" #").next().unwrap_or_default(),
    }
}

/// A scalar without its quotes; `None` for lists, anchors and other YAML.
fn unquoted(text: &str) -> Option<&str> {
    for quote in ['"', '\''] {
        if let Some(rest) = text.strip_prefix(quote) {
            let inner = rest.strip_suffix(quote)?;
            return (!inner.contains([quote, '\\'])).then_some(inner);
        }
    }
    (!text.starts_with(['[', '{', '&', '*', '!', '|', '>', '-'])).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corefile::MemorySurroundings;

    #[test]
    fn the_settings_of_the_section_are_read() {
        let text = "# of ours\n---\ntls_server_config: # TLS\n  cert_file: server.crt\n  key_file: \
                    'server.key'\n\n  client_ca_file: \"ca.crt\" # theirs\n  client_auth_type: \
                    RequestClientCert\n  min_version: TLS13\n";
        let expected = Section {
            certificate: "server.crt".to_owned(),
            key: "server.key".to_owned(),
            authorities: Some("ca.crt".to_owned()),
            client_auth: Some("RequestClientCert".to_owned()),
            least_version: Some("TLS13".to_owned()),
        };
        assert_eq!(section(text), Ok(expected));
    }

    #[test]
    fn what_is_not_known_is_named_with_its_line() {
        for (text, why) in [
            ("", "missing cert_file"),
            ("tls_server_config:\n  cert_file: a", "missing key_file"),
            ("basic_auth_users:\n  a: b", "line 1: basic_auth_users is not supported"),
            ("tls_server_config:\n  cipher_suites: [a]", "line 2: not a plain text"),
            (
                "tls_server_config:\n  prefer_server_cipher_suites: true",
                "line 2: prefer_server_cipher_suites is not supported",
            ),
            ("tls_server_config:\n  what", "line 2: not `key: value`"),
            ("  cert_file: a", "line 1: indented without a section"),
        ] {
            assert_eq!(section(text), Err(why.to_owned()), "{text}");
        }
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let testdata = |name: &str| match name {
            "crt" => include_str!("../../net/upstream/testdata/up.pem"),
            _ => include_str!("../../net/upstream/testdata/up.key"),
        };
        let text = "tls_server_config:\n  cert_file: a.crt\n  key_file: /k/a.key\n";
        let files = MemorySurroundings::new()
            .with_file("/w/web.yml", text)
            .with_file("/w/a.crt", testdata("crt"))
            .with_file("/k/a.key", testdata("key"));
        assert!(web_config("/w/web.yml".as_ref(), &files).is_ok());
        files.remove("/k/a.key");
        assert_eq!(
            web_config("/w/web.yml".as_ref(), &files).err().as_deref(),
            Some("open /k/a.key: no such file or directory")
        );
    }
}
