//! The control plane's certificate authority: whoever has a certificate of it is one of ours.
//!
//! ```text
//! DATA/authority.key   the authority's key; its owner alone can read it
//! DATA/authority.pem   its certificate; clients pin it
//! ```
//!
//! The control plane's own certificate is made anew at each start, with a key that is on no disk.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use carnet_api::tls::{Authority, CONTROL_NAME, Identity, SIGNING_NAME, TlsError, edge_name};
use carnet_core::ids::EdgeId;
use ed25519_dalek::VerifyingKey;
use ed25519_dalek::pkcs8::EncodePublicKey;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
    SubjectPublicKeyInfo,
};
use thiserror::Error;
use time::{Duration, OffsetDateTime};

/// How long the authority is good for.
const AUTHORITY_LIFE: Duration = Duration::days(10 * 365);
/// How long a certificate is good for.
const CERTIFICATE_LIFE: Duration = Duration::days(365);
/// Clocks of edges may be behind by so much.
const BACKDATED: Duration = Duration::hours(1);

/// Why there is no certificate.
#[derive(Debug, Error)]
pub enum AuthorityError {
    #[error("{path}: {source}", path = path.display())]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the key cannot be certified: {0}")]
    Key(String),
    #[error("a certificate cannot be made: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The authority, able to sign.
#[derive(Debug)]
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl CertificateAuthority {
    /// The authority whose key is in `directory`, made there if there is none.
    ///
    /// The certificate is written first and the key last: a crash in between leaves no key, and
    /// both are made anew.
    ///
    /// # Errors
    /// Where the files cannot be read or written.
    pub fn open(directory: &Path) -> Result<Self, AuthorityError> {
        let (key_path, certificate_path) = (
            directory.join("authority.key"),
            directory.join("authority.pem"),
        );
        if !key_path.exists() {
            let key = KeyPair::generate()?;
            let certificate = authority_params().self_signed(&key)?;
            write(&certificate_path, &certificate.pem(), 0o644)?;
            write(&key_path, &key.serialize_pem(), 0o600)?;
        }
        let certificate = read(&certificate_path)?;
        let key = KeyPair::from_pem(&read(&key_path)?)?;
        Ok(Self {
            issuer: Issuer::from_ca_cert_pem(&certificate, key)?,
            certificate,
        })
    }

    /// The authority's certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The authority, as those see it who trust it.
    ///
    /// # Errors
    /// Where its certificate cannot be read.
    pub fn authority(&self) -> Result<Authority, AuthorityError> {
        Ok(Authority::from_pem(&self.certificate)?)
    }

    /// A certificate for the control plane, which is reached by `names` too. The chain includes
    /// the authority's certificate, for agents that know no more than its fingerprint.
    ///
    /// # Errors
    /// Where a name cannot be in a certificate.
    pub fn control(&self, names: &[String]) -> Result<Identity, AuthorityError> {
        let mut all = vec![
            CONTROL_NAME.to_owned(),
            "localhost".to_owned(),
            "127.0.0.1".to_owned(),
            "::1".to_owned(),
        ];
        all.extend(names.iter().cloned());
        let key = KeyPair::generate()?;
        let mut params = certificate_params("Carnet control plane");
        for name in &all {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.as_str().try_into()?),
            });
        }
        let certificate = params.signed_by(&key, &self.issuer)?;
        let chain = format!("{}{}", certificate.pem(), self.certificate);
        Ok(Identity::from_pem(&chain, &key.serialize_pem())?)
    }

    /// A certificate for the agent of `edge`, PEM, over the key in its request. Nothing else of
    /// the request counts: its holder does not choose who it is.
    ///
    /// # Errors
    /// Where the request is not one.
    pub fn edge(&self, edge: EdgeId, request: &str) -> Result<String, AuthorityError> {
        let mut request = CertificateSigningRequestParams::from_pem(request)?;
        request.params = certificate_params("Carnet agent");
        request
            .params
            .subject_alt_names
            .push(SanType::DnsName(edge_name(edge).as_str().try_into()?));
        Ok(request.signed_by(&self.issuer)?.pem())
    }
}

impl CertificateAuthority {
    /// A certificate, PEM, for the key with which the control plane signs statements.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn signing_key(&self, key: &VerifyingKey) -> Result<String, AuthorityError> {
        let der = key
            .to_public_key_der()
            .map_err(|error| AuthorityError::Key(error.to_string()))?;
        let key = SubjectPublicKeyInfo::from_der(der.as_bytes())?;
        let mut params = certificate_params("Carnet signing key");
        params
            .subject_alt_names
            .push(SanType::DnsName(SIGNING_NAME.try_into()?));
        Ok(params.signed_by(&key, &self.issuer)?.pem())
    }
}

fn authority_params() -> CertificateParams {
    let mut params = named("Carnet authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_after = OffsetDateTime::now_utc() + AUTHORITY_LIFE;
    params
}

fn certificate_params(name: &str) -> CertificateParams {
    let mut params = named(name);
    params.not_after = OffsetDateTime::now_utc() + CERTIFICATE_LIFE;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Both ends of Carnet's connections are server at times and client at others.
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = OffsetDateTime::now_utc() - BACKDATED;
    params
}

fn read(path: &Path) -> Result<String, AuthorityError> {
    fs::read_to_string(path).map_err(|source| AuthorityError::File {
        path: path.to_owned(),
        source,
    })
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), AuthorityError> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .map_err(|source| AuthorityError::File {
            path: path.to_owned(),
            source,
        })
}
