//! TLS of an HTTP address: settings to a server configuration.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// What is asked of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Nothing.
    No,
    /// Asked for; neither required nor verified.
    Asked,
    /// Required; not verified.
    Required,
    /// Verified when given.
    VerifiedIfGiven,
    /// Required and verified.
    RequiredAndVerified,
}

/// The settings, files already read (PEM).
#[derive(Debug)]
pub struct TlsSettings {
    /// The server's certificate and its chain.
    pub certificate: Vec<u8>,
    /// The server's key.
    pub key: Vec<u8>,
    /// What is asked of clients.
    pub clients: ClientCertificates,
    /// The authorities of clients' certificates.
    pub authorities: Vec<u8>,
    /// Refuse TLS 1.2.
    pub only_tls13: bool,
}

/// The acceptor for `settings`; the error says what is wrong with them.
pub fn acceptor(settings: &TlsSettings) -> Result<TlsAcceptor, String> {
    let chain = certificates(&settings.certificate)?;
    if chain.is_empty() {
        return Err("tls: failed to find any PEM data in certificate input".to_owned());
    }
    let key = PrivateKeyDer::from_pem_slice(&settings.key)
        .map_err(|error| format!("tls: private key: {error}"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let both: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];
    let versions = if settings.only_tls13 { &both[..1] } else { both };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(|error| error.to_string())?;
    let verified = || -> Result<_, String> {
        let mut roots = RootCertStore::empty();
        for authority in certificates(&settings.authorities)? {
            roots.add(authority).map_err(|error| format!("client CA: {error}"))?;
        }
        Ok(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()))
    };
    let built = |result: Result<Arc<dyn ClientCertVerifier>, _>| {
        result.map_err(|error: rustls::server::VerifierBuilderError| format!("client CA: {error}"))
    };
    let unverified = |is_required| {
        let algorithms = provider.signature_verification_algorithms;
        Arc::new(Unverified { is_required, algorithms })
    };
    let builder = match settings.clients {
        ClientCertificates::No => builder.with_no_client_auth(),
        ClientCertificates::Asked => builder.with_client_cert_verifier(unverified(false)),
        ClientCertificates::Required => builder.with_client_cert_verifier(unverified(true)),
        ClientCertificates::VerifiedIfGiven => {
            builder.with_client_cert_verifier(built(verified()?.allow_unauthenticated().build())?)
        }
        ClientCertificates::RequiredAndVerified => {
            builder.with_client_cert_verifier(built(verified()?.build())?)
        }
    };
    let config = builder.with_single_cert(chain, key).map_err(|error| format!("tls: {error}"))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("tls: certificate: {error}"))
}

/// Takes any certificate whose key the client holds: Go's `RequestClientCert` and
/// `RequireAnyClientCert`.
#[derive(Debug)]
struct Unverified {
    is_required: bool,
    algorithms: rustls::crypto::WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for Unverified {
    fn client_auth_mandatory(&self) -> bool {
        self.is_required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_or_key_says_so() {
        let settings = TlsSettings {
            certificate: Vec::new(),
            key: Vec::new(),
            clients: ClientCertificates::No,
            authorities: Vec::new(),
            only_tls13: true,
        };
        let Err(why) = acceptor(&settings) else { panic!("accepted") };
        assert_eq!(why, "tls: failed to find any PEM data in certificate input");
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec();
        let Err(why) = acceptor(&TlsSettings { certificate: broken, ..settings }) else {
            panic!("accepted")
        };
        assert!(why.starts_with("tls: private key: "), "{why}");
    }
}
