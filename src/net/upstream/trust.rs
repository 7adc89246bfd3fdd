//! Which certificates TLS upstreams may show: those that a trusted authority has signed and, as with
//! Go, those that the operator's own CA file holds.
//!
//! Owns that exception alone, which webpki does not make: `openssl req -x509` makes certificates that
//! call themselves authorities, and servers show them. Dates and names are checked like any other's.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::sync::Arc;

/// webpki's name for what is wrong with an authority that is shown as a server. It looks at the
/// dates before that.
pub(super) const AUTHORITY: &str = "CaUsedAsEndEntity";

/// Verifies by authorities, and knows the certificates of the operator's own file.
#[derive(Debug)]
pub(super) struct Trust {
    authorities: Arc<WebPkiServerVerifier>,
    own: Vec<CertificateDer<'static>>,
}

impl Trust {
    /// Trust in `authorities`, of which there must be one, and in the certificates `own` themselves.
    pub(super) fn new(
        authorities: Arc<RootCertStore>,
        own: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Trust, VerifierBuilderError> {
        let authorities =
            WebPkiServerVerifier::builder_with_provider(authorities, provider).build()?;
        Ok(Trust { authorities, own })
    }
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verdict = self.authorities.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verdict {
            Err(Error::InvalidCertificate(CertificateError::Other(why)))
                if why.to_string() == AUTHORITY && self.own.contains(end_entity) =>
            {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::pem::PemObject;
    use std::time::Duration;

    /// A certificate for `dns.test` that signed itself and calls itself an authority; from
    /// November 2026 for twenty years.
    fn itself() -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(include_bytes!("testdata/itself.pem")).unwrap()
    }

    fn verdict(own: Vec<CertificateDer<'static>>, name: &str, year: u64) -> Result<(), Error> {
        let mut store = RootCertStore::empty();
        store.add(itself()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let trust = Trust::new(Arc::new(store), own, provider).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs((year - 1970) * 31_556_952));
        trust.verify_server_cert(&itself(), &[], &name, &[], now).map(|_| ())
    }

    #[test]
    fn a_certificate_of_the_operators_file_is_trusted_itself() {
        assert_eq!(verdict(vec![itself()], "dns.test", 2030), Ok(()));
    }

    #[test]
    fn an_authority_that_is_trusted_as_such_alone_is_no_server() {
        let error = verdict(Vec::new(), "dns.test", 2030).unwrap_err();
        assert!(error.to_string().contains(AUTHORITY), "{error}");
    }

    #[test]
    fn its_name_and_its_dates_count() {
        use CertificateError::{ExpiredContext, NotValidForNameContext, NotValidYetContext};
        let error = |name, year| match verdict(vec![itself()], name, year).unwrap_err() {
            Error::InvalidCertificate(error) => error,
            other => panic!("{other}"),
        };
        assert!(matches!(error("other.test", 2030), NotValidForNameContext { .. }));
        assert!(matches!(error("dns.test", 2050), ExpiredContext { .. }));
        assert!(matches!(error("dns.test", 2020), NotValidYetContext { .. }));
    }
}
