use std::sync::Arc;

use carnet_core::permit::Fingerprint;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, PeerIncompatible, SignatureScheme,
};

use super::identity::{Authority, Identity, TlsError, client_config, provider};

/// Trusts the one authority whose certificate has a known SHA-256, before its certificate itself
/// is known: an agent that enrols has only the fingerprint, from its one-time token. The server
/// sends the authority's certificate in its chain.
#[derive(Debug)]
struct PinnedAuthority {
    fingerprint: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = intermediates
            .iter()
            .map(|der| Authority::from_der(der.clone().into_owned()))
            .find(|authority| authority.fingerprint() == self.fingerprint)
            .ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let roots = authority
            .roots()
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        WebPkiServerVerifier::builder_with_provider(roots, self.provider.clone())
            .build()
            .map_err(|_| Error::InvalidCertificate(CertificateError::UnknownIssuer))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    /// Never called: TLS 1.3 is the only version offered.
    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(
            PeerIncompatible::Tls13RequiredForQuic,
        ))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Trusts some certificates of the authority, and no others.
#[derive(Debug)]
struct PinnedPeer {
    certificates: Vec<Fingerprint>,
    authority: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for PinnedPeer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.certificates.contains(&Fingerprint::of(end_entity)) {
            return Err(Error::InvalidCertificate(
                CertificateError::ApplicationVerificationFailure,
            ));
        }
        self.authority.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authority.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authority.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authority.supported_verify_schemes()
    }
}

/// What a client needs to speak TLS 1.3, with a certificate of its own, to the holder of one of
/// `certificates`: whoever else answers is sent nothing.
///
/// # Errors
/// Where TLS cannot use the certificates.
pub fn client_config_for_peer(
    authority: &Authority,
    identity: &Identity,
    certificates: Vec<Fingerprint>,
) -> Result<ClientConfig, TlsError> {
    let mut config = client_config(authority, Some(identity))?;
    let verifier =
        WebPkiServerVerifier::builder_with_provider(authority.roots()?, provider()).build()?;
    config
        .dangerous()
        .set_certificate_verifier(Arc::new(PinnedPeer {
            certificates,
            authority: verifier,
        }));
    Ok(config)
}

/// What a client needs to speak TLS 1.3 to a server of the authority whose certificate has the
/// SHA-256 `fingerprint` (lower-case hexadecimal digits).
///
/// # Errors
/// Where TLS cannot be set up.
pub fn pinned_client_config(fingerprint: &str) -> Result<ClientConfig, TlsError> {
    let provider = provider();
    Ok(ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedAuthority {
            fingerprint: fingerprint.to_owned(),
            provider,
        }))
        .with_no_client_auth())
}
