use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use rustls::pki_types::{CertificateDer, ServerName};

use super::{CONTROL_NAME, TlsListener, edge_name};
use carnet_core::ids::EdgeId;
use carnet_core::permit::Fingerprint;

/// Who is at the other end of a connection: axum's `ConnectInfo` on a [`TlsListener`].
#[derive(Debug, Clone, Default)]
pub struct Peer {
    certificate: Option<CertificateDer<'static>>,
}

impl Peer {
    pub(super) fn new(certificate: Option<CertificateDer<'static>>) -> Self {
        Self { certificate }
    }

    /// Whether the peer showed the control plane's certificate.
    pub fn is_control(&self) -> bool {
        self.is_named(CONTROL_NAME)
    }

    /// Whether the peer showed `edge`'s certificate.
    pub fn is_edge(&self, edge: EdgeId) -> bool {
        self.is_named(&edge_name(edge))
    }

    /// SHA-256 of the certificate (DER) that the peer showed, where it showed one.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.certificate
            .as_ref()
            .map(|certificate| Fingerprint::of(certificate))
    }

    fn is_named(&self, name: &str) -> bool {
        let Some(certificate) = &self.certificate else {
            return false;
        };
        let Ok(name) = ServerName::try_from(name) else {
            return false;
        };
        webpki::EndEntityCert::try_from(certificate)
            .is_ok_and(|parsed| parsed.verify_is_valid_for_subject_name(&name).is_ok())
    }
}

impl Connected<IncomingStream<'_, TlsListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        let certificates = stream.io().get_ref().1.peer_certificates();
        Self::new(
            certificates.and_then(|chain| chain.first().cloned().map(CertificateDer::into_owned)),
        )
    }
}
