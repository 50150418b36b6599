use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use carnet_core::permit::Fingerprint;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SignatureScheme};
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
    #[error("`{0}` is no name that a certificate can have")]
    Name(String),
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

    /// Whether this authority has issued `certificate`, for `name`, and it is good now.
    pub(super) fn check(
        &self,
        certificate: &CertificateDer<'_>,
        name: &str,
    ) -> Result<(), TlsError> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let name = ServerName::try_from(name).map_err(|_| TlsError::Name(name.to_owned()))?;
        WebPkiServerVerifier::builder_with_provider(self.roots()?, provider())
            .build()?
            .verify_server_cert(
                certificate,
                &[],
                &name,
                &[],
                UnixTime::since_unix_epoch(now),
            )?;
        Ok(())
    }

    pub(super) fn roots(&self) -> Result<Arc<RootCertStore>, TlsError> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        Ok(Arc::new(roots))
    }
}

/// A certificate with its private key, which can be replaced: servers and clients that were set up
/// with it show the new one from the next handshake on. Connections that are open stay.
#[derive(Debug, Clone)]
pub struct Identity {
    shown: Arc<RwLock<Arc<Shown>>>,
}

#[derive(Debug)]
struct Shown {
    key: Arc<CertifiedKey>,
    fingerprint: Fingerprint,
}

impl Identity {
    /// From a certificate chain and a private key, both PEM.
    ///
    /// # Errors
    /// Where one of them cannot be read, or the key is not the certificate's.
    pub fn from_pem(chain: &str, key: &str) -> Result<Self, TlsError> {
        let chain = CertificateDer::pem_slice_iter(chain.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| TlsError::Pem {
                what: "certificate",
                source,
            })?;
        let certificate = chain.first().ok_or(TlsError::Empty("certificate file"))?;
        let fingerprint = Fingerprint::of(certificate);
        let key =
            PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|source| TlsError::Pem {
                what: "private key",
                source,
            })?;
        let key = Arc::new(CertifiedKey::from_der(chain, key, &provider())?);
        Ok(Self {
            shown: Arc::new(RwLock::new(Arc::new(Shown { key, fingerprint }))),
        })
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

    /// SHA-256 of the certificate (DER) that is shown now.
    pub fn fingerprint(&self) -> Fingerprint {
        self.now().fingerprint
    }

    /// Shows what `newer` shows from now on, here and wherever this identity is in use.
    pub fn replace(&self, newer: &Self) {
        let newer = newer.now();
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = newer;
    }

    /// Whether `authority` has issued the certificate, for `name`, and it is good now.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, authority: &Authority, name: &str) -> Result<(), TlsError> {
        let shown = self.now();
        authority.check(shown.key.end_entity_cert()?, name)
    }

    fn now(&self) -> Arc<Shown> {
        self.shown
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.now().key.clone())
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.now().key.clone())
    }

    fn has_certs(&self) -> bool {
        true
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
    let mut config = builder.with_cert_resolver(Arc::new(identity.clone()));
    // Nothing is resumed: a session would go on with a certificate that was replaced since, or
    // has expired.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
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
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(identity.clone())),
        None => builder.with_no_client_auth(),
    };
    // As for servers.
    config.resumption = Resumption::disabled();
    Ok(config)
}
