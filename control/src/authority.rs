//! The control plane's certificate authority: whoever has a certificate of it is one of ours.
//!
//! ```text
//! DATA/authority.key   the authority's key, unless it is given from outside: see `key_place`
//! DATA/authority.pem   its certificate; clients pin it
//! ```
//!
//! The control plane's own certificate is made anew at each start, and before it expires, with a
//! key that is on no disk.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use carnet_api::tls::{Authority, CONTROL_NAME, Identity, SIGNING_NAME, TlsError, edge_name};
use carnet_core::ids::EdgeId;
use carnet_core::instant::UnixMillis;
use ed25519_dalek::VerifyingKey;
use ed25519_dalek::pkcs8::EncodePublicKey;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
    SubjectPublicKeyInfo,
};
use thiserror::Error;
use time::{Duration, OffsetDateTime};

use crate::key_place::{FileError, Place, Purpose, find, write};

/// How long the authority is good for.
const AUTHORITY_LIFE: Duration = Duration::days(10 * 365);
/// How long a certificate is good for.
const CERTIFICATE_LIFE: Duration = Duration::days(365);
/// Clocks of edges may be behind by so much.
const BACKDATED: Duration = Duration::hours(1);

/// When a certificate expires that is made at `now`.
pub fn expires_at(now: UnixMillis) -> UnixMillis {
    UnixMillis(now.0.saturating_add(millis(CERTIFICATE_LIFE)))
}

/// Whether a certificate is to be renewed: a third of its life is left, or less.
pub fn is_due(expires_at: UnixMillis, now: UnixMillis) -> bool {
    expires_at.0.saturating_sub(now.0) <= millis(CERTIFICATE_LIFE) / 3
}

fn millis(duration: Duration) -> i64 {
    duration.whole_seconds().saturating_mul(1_000)
}

/// Why there is no certificate.
#[derive(Debug, Error)]
pub enum AuthorityError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(
        "{place} holds no key that an authority can have (ECDSA P-256, PKCS #8, PEM): {problem}"
    )]
    Malformed { place: String, problem: String },
    #[error(
        "{certificate} is not the certificate of the key in {place}; give the key that belongs to it, or another data directory"
    )]
    Another { certificate: String, place: String },
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
    /// When the certificate expires that was made last for the control plane; 0: none was.
    control_expires_at: AtomicI64,
}

impl CertificateAuthority {
    /// The authority whose certificate is in `directory`, and whose key is there or given from
    /// outside. Where there is no key, both are made; where a key is given and there is no
    /// certificate, that is.
    ///
    /// The certificate is written first and the key last: a crash in between leaves no key, and
    /// both are made anew.
    ///
    /// # Errors
    /// Where the files cannot be read or written, or the certificate is of another key.
    pub fn open(directory: &Path) -> Result<Self, AuthorityError> {
        let (place, pem) = find(Purpose::Authority, directory)?;
        let path = directory.join("authority.pem");
        let key = match &pem {
            Some(pem) => {
                KeyPair::from_pem(pem.trim()).map_err(|error| AuthorityError::Malformed {
                    place: place.to_string(),
                    problem: error.to_string(),
                })?
            }
            None => KeyPair::generate()?,
        };
        let is_given = matches!(place, Place::Given(_));
        let certificate = match (&pem, fs::read_to_string(&path)) {
            (Some(_), Ok(certificate)) => certificate,
            // A key of its own without its certificate is half of what was there: to make another
            // certificate would make another authority of it, without anybody having asked.
            (Some(_), Err(source)) if !is_given || source.kind() != io::ErrorKind::NotFound => {
                return Err(FileError { path, source }.into());
            }
            _ => {
                let certificate = authority_params().self_signed(&key)?.pem();
                write(&path, &certificate, 0o644)?;
                certificate
            }
        };
        if let (Place::File(path), None) = (&place, &pem) {
            write(path, &key.serialize_pem(), 0o600)?;
        }
        // TLS compares the two.
        if let Err(error) = Identity::from_pem(&certificate, &key.serialize_pem()) {
            return Err(match error {
                TlsError::Rustls(_) => AuthorityError::Another {
                    certificate: path.display().to_string(),
                    place: place.to_string(),
                },
                unreadable => unreadable.into(),
            });
        }
        Ok(Self {
            issuer: Issuer::from_ca_cert_pem(&certificate, key)?,
            certificate,
            control_expires_at: AtomicI64::new(0),
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

    /// A certificate, made at `now`, for the control plane, which is reached by `names` too. The chain includes
    /// the authority's certificate, for agents that know no more than its fingerprint.
    ///
    /// # Errors
    /// Where a name cannot be in a certificate.
    pub fn control(&self, names: &[String], now: UnixMillis) -> Result<Identity, AuthorityError> {
        let mut all = vec![
            CONTROL_NAME.to_owned(),
            "localhost".to_owned(),
            "127.0.0.1".to_owned(),
            "::1".to_owned(),
        ];
        all.extend(names.iter().cloned());
        let key = KeyPair::generate()?;
        let mut params = certificate_params("Carnet control plane", now);
        for name in &all {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.as_str().try_into()?),
            });
        }
        let certificate = params.signed_by(&key, &self.issuer)?;
        let chain = format!("{}{}", certificate.pem(), self.certificate);
        let identity = Identity::from_pem(&chain, &key.serialize_pem())?;
        self.control_expires_at
            .store(expires_at(now).0, Ordering::Relaxed);
        Ok(identity)
    }

    /// When the certificate expires that was made last for the control plane; `None`: none was.
    pub fn control_expires_at(&self) -> Option<UnixMillis> {
        let expires_at = self.control_expires_at.load(Ordering::Relaxed);
        (expires_at != 0).then_some(UnixMillis(expires_at))
    }

    /// A certificate, made at `now`, for the agent of `edge`, PEM, over the key in its request. Nothing else of
    /// the request counts: its holder does not choose who it is.
    ///
    /// # Errors
    /// Where the request is not one.
    pub fn edge(
        &self,
        edge: EdgeId,
        request: &str,
        now: UnixMillis,
    ) -> Result<String, AuthorityError> {
        let mut request = CertificateSigningRequestParams::from_pem(request)?;
        request.params = certificate_params("Carnet agent", now);
        request
            .params
            .subject_alt_names
            .push(SanType::DnsName(edge_name(edge).as_str().try_into()?));
        Ok(request.signed_by(&self.issuer)?.pem())
    }
}

impl CertificateAuthority {
    /// A certificate, made at `now`, PEM, for the key with which the control plane signs statements.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn signing_key(
        &self,
        key: &VerifyingKey,
        now: UnixMillis,
    ) -> Result<String, AuthorityError> {
        let der = key
            .to_public_key_der()
            .map_err(|error| AuthorityError::Key(error.to_string()))?;
        let key = SubjectPublicKeyInfo::from_der(der.as_bytes())?;
        let mut params = certificate_params("Carnet signing key", now);
        params
            .subject_alt_names
            .push(SanType::DnsName(SIGNING_NAME.try_into()?));
        Ok(params.signed_by(&key, &self.issuer)?.pem())
    }
}

/// The control plane's own certificate, which is replaced before it expires.
#[derive(Debug)]
pub struct ControlCertificate {
    names: Vec<String>,
    identity: Identity,
    expires_at: UnixMillis,
}

impl ControlCertificate {
    /// Made at `now`, for a control plane that is reached by `names` too.
    ///
    /// # Errors
    /// As [`CertificateAuthority::control`].
    pub fn new(
        authority: &CertificateAuthority,
        names: Vec<String>,
        now: UnixMillis,
    ) -> Result<Self, AuthorityError> {
        Ok(Self {
            identity: authority.control(&names, now)?,
            names,
            expires_at: expires_at(now),
        })
    }

    /// What shows it; the same for good, whatever it shows.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Replaces it where it is time to, as of `now`; says whether it did.
    ///
    /// # Errors
    /// Where another cannot be made; then the old one stays.
    pub fn renew(
        &mut self,
        authority: &CertificateAuthority,
        now: UnixMillis,
    ) -> Result<bool, AuthorityError> {
        if !is_due(self.expires_at, now) {
            return Ok(false);
        }
        self.identity.replace(&authority.control(&self.names, now)?);
        self.expires_at = expires_at(now);
        Ok(true)
    }
}

fn authority_params() -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    let mut params = named("Carnet authority", now);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_after = now + AUTHORITY_LIFE;
    params
}

fn certificate_params(name: &str, now: UnixMillis) -> CertificateParams {
    let now = OffsetDateTime::UNIX_EPOCH.saturating_add(Duration::milliseconds(now.0));
    let mut params = named(name, now);
    params.not_after = now.saturating_add(CERTIFICATE_LIFE);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Both ends of Carnet's connections are server at times and client at others.
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params
}

fn named(name: &str, now: OffsetDateTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = now.saturating_sub(BACKDATED);
    params
}
