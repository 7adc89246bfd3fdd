//! From PEM to a server's TLS configuration, with Go's five ways to ask clients for certificates.
//!
//! Owns what is asked of clients. Reads no file: certificates and keys come as octets.

use super::counted;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
};
use std::sync::Arc;

/// What is asked of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
pub struct ServerTls {
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

/// The configuration for `settings`; the error says what is wrong with them, in Go's words where Go
/// has some.
pub fn server_config(settings: &ServerTls) -> Result<ServerConfig, String> {
    let chain = certificates(&settings.certificate)?;
    if chain.is_empty() {
        return Err("tls: failed to find any PEM data in certificate input".to_owned());
    }
    let key = PrivateKeyDer::from_pem_slice(&settings.key)
        .map_err(|_| "tls: failed to find any PEM data in key input".to_owned())?;
    let provider = Arc::new(counted::provider());
    let both: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];
    let versions = if settings.only_tls13 { &both[..1] } else { both };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(|error| error.to_string())?;
    let verified = || -> Result<_, String> {
        let mut roots = RootCertStore::empty();
        // One that cannot be read is left out, as Go does; that none is left is an error.
        roots.add_parsable_certificates(certificates(&settings.authorities)?);
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
    builder.with_single_cert(chain, key).map_err(|error| match error {
        Error::InconsistentKeys(_) => "tls: private key does not match public key".to_owned(),
        error => format!("tls: {error}"),
    })
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
        let settings = ServerTls {
            certificate: Vec::new(),
            key: Vec::new(),
            clients: ClientCertificates::No,
            authorities: Vec::new(),
            only_tls13: true,
        };
        let Err(why) = server_config(&settings) else { panic!("accepted") };
        assert_eq!(why, "tls: failed to find any PEM data in certificate input");
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec();
        let Err(why) = server_config(&ServerTls { certificate: broken, ..settings }) else {
            panic!("accepted")
        };
        assert_eq!(why, "tls: failed to find any PEM data in key input");
    }
}
