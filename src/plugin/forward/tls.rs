//! The TLS settings of `tls://` upstreams, read from PEM files at setup (RFC 7858).
//!
//! Owns certificates, key and server name as bytes. The files come through the surroundings; the
//! system's own roots are `net::upstream`'s to load.

use crate::dns::Transport;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::hash::{Hash, Hasher};

/// The certificates and the key of a directive's `tls` option.
#[derive(Debug, Default)]
pub struct TlsFiles {
    /// The roots to trust, or `None` for the system's.
    pub roots: Option<Vec<CertificateDer<'static>>>,
    /// The client's certificate chain and key.
    pub identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    /// The content of all files, for comparison.
    content: Vec<Vec<u8>>,
}

/// How a query goes into an HTTPS request (RFC 8484 §4.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum DohMethod {
    /// As the body.
    #[default]
    Post,
    /// In the address, so that caches between may keep the response.
    Get,
}

/// What one upstream's TLS connections use.
#[derive(Debug)]
pub struct TlsSettings {
    /// What is carried: DNS itself ([`Transport::Tls`]), HTTPS or QUIC.
    pub over: Transport,
    /// The name that the certificate must have; `None` means the address.
    pub server_name: Option<String>,
    /// How queries go over HTTPS.
    pub method: DohMethod,
    /// Certificates and key.
    pub files: std::sync::Arc<TlsFiles>,
}

impl PartialEq for TlsSettings {
    fn eq(&self, other: &TlsSettings) -> bool {
        self.over == other.over
            && self.server_name == other.server_name
            && self.method == other.method
            && self.files.content == other.files.content
    }
}

impl Eq for TlsSettings {}

impl Hash for TlsSettings {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.over.hash(state);
        self.server_name.hash(state);
        self.method.hash(state);
        self.files.content.hash(state);
    }
}

impl TlsFiles {
    /// Reads the files of `tls [CA]`, `tls CERT KEY`, `tls CERT KEY CA`. `read` gives a file or
    /// Go's text for why not (`open a: no such file or directory`); so is the error.
    pub fn read(
        paths: &[&str],
        mut read: impl FnMut(&str) -> Result<Vec<u8>, String>,
    ) -> Result<TlsFiles, String> {
        let (identity, roots) = match *paths {
            [] => (None, None),
            [ca] => (None, Some(ca)),
            [certificate, key] => (Some((certificate, key)), None),
            [certificate, key, ca, ..] => (Some((certificate, key)), Some(ca)),
        };
        let mut files = TlsFiles::default();
        if let Some((certificate, key)) = identity {
            let wrong = |error: String| format!("could not load TLS cert: {error}");
            let certificate = read(certificate).map_err(wrong)?;
            let key = read(key).map_err(wrong)?;
            let chain = certificates(&certificate).ok_or_else(|| {
                wrong("tls: failed to find any PEM data in certificate input".into())
            })?;
            let private = PrivateKeyDer::from_pem_slice(&key)
                .map_err(|_| wrong("tls: failed to find any PEM data in key input".into()))?;
            files.identity = Some((chain, private));
            files.content.extend([certificate, key]);
        }
        if let Some(path) = roots {
            let bytes = read(path).map_err(|error| format!("error reading {path}: {error}"))?;
            let roots = certificates(&bytes)
                .ok_or_else(|| format!("could not read root certs: no certificate in {path}"))?;
            files.roots = Some(roots);
            files.content.push(bytes);
        }
        Ok(files)
    }
}

/// The certificates of a PEM file; `None` when there is none or one is broken.
fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().ok()?;
    (!certificates.is_empty()).then_some(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(path: &str) -> Result<Vec<u8>, String> {
        Err(format!("open {path}: no such file or directory"))
    }

    #[test]
    fn a_missing_file_is_named_as_coredns_names_it() {
        let error = |paths: &[&str]| TlsFiles::read(paths, missing).unwrap_err();
        assert_eq!(error(&["/ca"]), "error reading /ca: open /ca: no such file or directory");
        assert_eq!(
            error(&["/c", "/k"]),
            "could not load TLS cert: open /c: no such file or directory"
        );
    }

    #[test]
    fn a_file_without_certificates_is_refused() {
        let read = |_: &str| Ok(b"no pem here".to_vec());
        assert_eq!(
            TlsFiles::read(&["/ca"], read).unwrap_err(),
            "could not read root certs: no certificate in /ca"
        );
        assert!(TlsFiles::read(&["/c", "/k", "/ca"], read).unwrap_err().contains("TLS cert"));
    }

    #[test]
    fn settings_are_equal_when_their_files_and_names_are() {
        let settings = |name: &str, content: &[u8]| TlsSettings {
            over: Transport::Tls,
            server_name: Some(name.to_owned()),
            method: DohMethod::default(),
            files: std::sync::Arc::new(TlsFiles {
                content: vec![content.to_vec()],
                ..TlsFiles::default()
            }),
        };
        assert_eq!(settings("a", b"x"), settings("a", b"x"));
        assert_ne!(settings("a", b"x"), settings("b", b"x"));
        assert_ne!(settings("a", b"x"), settings("a", b"y"));
    }
}
