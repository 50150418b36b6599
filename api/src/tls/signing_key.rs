use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::SIGNING_NAME;
use super::identity::{Authority, TlsError};

/// What stands before the 32 bytes of an Ed25519 public key in a certificate (RFC 8410, section
/// 4): a sequence of the algorithm's identifier and a bit string.
const ED25519_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

impl Authority {
    /// The Ed25519 public key with which the control plane signs statements, from the certificate
    /// (PEM) that this authority has issued for it.
    ///
    /// # Errors
    /// Where the certificate is not this authority's, is for something else, or is not good now.
    pub fn signing_key(&self, certificate: &str) -> Result<[u8; 32], TlsError> {
        let certificate =
            CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|source| {
                TlsError::Pem {
                    what: "signing key's certificate",
                    source,
                }
            })?;
        self.check(&certificate, SIGNING_NAME)?;
        let parsed =
            webpki::EndEntityCert::try_from(&certificate).map_err(|_| TlsError::NotSigningKey)?;
        let key = parsed.subject_public_key_info();
        key.strip_prefix(&ED25519_PREFIX)
            .and_then(|key| key.try_into().ok())
            .ok_or(TlsError::NotSigningKey)
    }
}
