use std::sync::Arc;

use carnet_core::permit::Fingerprint;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// A certificate or key that cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    #[error("the {what} is not valid PEM: {source}")]
    Pem {
        what: &'static str,
        source: rustls::pki_types::pem::Error,
    },
    #[error("the {0} holds no certificate")]
    Empty(&'static str),
    #[error("TLS refuses the certificate or key: {0}")]
    Rustls(#[from] rustls::Error),
    #[error("the certificate is not that of a signing key")]
    NotSigningKey,
    #[error("TLS refuses the authority's certificate: {0}")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
}

/// The certificate authority that both sides trust: the control plane's, and no other.
#[derive(Debug, Clone)]
pub struct Authority {
    certificate: CertificateDer<'static>,
}

impl Authority {
    /// From the authority's certificate, PEM.
    ///
    /// # Errors
    /// Where `pem` holds no certificate.
    pub fn from_pem(pem: &str) -> Result<Self, TlsError> {
        let certificate =
            CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|source| TlsError::Pem {
                what: "authority's certificate",
                source,
            })?;
        Ok(Self { certificate })
    }

    /// SHA-256 of the certificate (DER), in lower-case hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        hex::encode(Sha256::digest(&self.certificate))
    }

    pub(super) fn from_der(certificate: CertificateDer<'static>) -> Self {
        Self { certificate }
    }

    pub(super) fn roots(&self) -> Result<Arc<RootCertStore>, TlsError> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        Ok(Arc::new(roots))
    }
}

/// A certificate with its private key.
#[derive(Debug)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// From a certificate chain and a private key, both PEM.
    ///
    /// # Errors
    /// Where one of them cannot be read.
    pub fn from_pem(chain: &str, key: &str) -> Result<Self, TlsError> {
        let chain = CertificateDer::pem_slice_iter(chain.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| TlsError::Pem {
                what: "certificate",
                source,
            })?;
        if chain.is_empty() {
            return Err(TlsError::Empty("certificate file"));
        }
        let key =
            PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|source| TlsError::Pem {
                what: "private key",
                source,
            })?;
        Ok(Self { chain, key })
    }

    /// SHA-256 of a certificate (DER) that is given as PEM.
    ///
    /// # Errors
    /// Where `pem` holds no certificate.
    pub fn fingerprint_of(pem: &str) -> Result<Fingerprint, TlsError> {
        CertificateDer::from_pem_slice(pem.as_bytes())
            .map(|certificate| Fingerprint::of(&certificate))
            .map_err(|source| TlsError::Pem {
                what: "certificate",
                source,
            })
    }

    /// SHA-256 of the certificate (DER).
    ///
    /// # Errors
    /// Where there is no certificate.
    pub fn fingerprint(&self) -> Result<Fingerprint, TlsError> {
        self.chain
            .first()
            .map(|certificate| Fingerprint::of(certificate))
            .ok_or(TlsError::Empty("certificate file"))
    }
}

/// Whether a server asks its clients for certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuthentication {
    /// Agents: nobody gets in without a certificate of the authority.
    Required,
    /// The public API: people and programs show tokens instead.
    None,
}

pub(super) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What a server of Carnet's needs to speak TLS 1.3.
///
/// # Errors
/// Where TLS cannot use the certificates.
pub fn server_config(
    authority: &Authority,
    identity: &Identity,
    clients: ClientAuthentication,
) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    let builder = match clients {
        ClientAuthentication::Required => builder.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(authority.roots()?, provider()).build()?,
        ),
        ClientAuthentication::None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(identity.chain.clone(), identity.key.clone_key())?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// What a client of Carnet's needs to speak TLS 1.3 to holders of the authority's certificates,
/// with a certificate of its own where it has one.
///
/// # Errors
/// Where TLS cannot use the certificates.
pub fn client_config(
    authority: &Authority,
    identity: Option<&Identity>,
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(authority.roots()?);
    Ok(match identity {
        Some(identity) => {
            builder.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())?
        }
        None => builder.with_no_client_auth(),
    })
}
