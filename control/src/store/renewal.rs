use carnet_core::ids::EdgeId;
use carnet_core::instant::UnixMillis;
use carnet_core::ledger::{Actor, Certificate, Event};
use carnet_core::permit::Fingerprint;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::migrations::{endpoint, fingerprint_of};
use super::{Store, StoreError};
use crate::agents::Endpoint;

/// An edge whose certificate is to be renewed.
#[derive(Debug, Clone)]
pub struct Expiring {
    pub endpoint: Endpoint,
    /// How far that has got; absent where it has not begun.
    pub pending: Option<Pending>,
}

/// A certificate that is signed, and has not been seen at the edge yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// What it was requested with, PEM.
    pub request: String,
    /// PEM.
    pub certificate: String,
    pub fingerprint: Fingerprint,
    pub expires_at: UnixMillis,
}

fn pending(row: &SqliteRow) -> Result<Option<Pending>, StoreError> {
    let (request, certificate, expires_at): (Option<String>, Option<String>, Option<i64>) = (
        row.try_get("pending_request")?,
        row.try_get("pending_certificate")?,
        row.try_get("pending_expires_at")?,
    );
    match (request, certificate, expires_at) {
        (Some(request), Some(certificate), Some(expires_at)) => Ok(Some(Pending {
            fingerprint: fingerprint_of(&certificate)?,
            request,
            certificate,
            expires_at: UnixMillis(expires_at),
        })),
        _ => Ok(None),
    }
}

impl Store {
    /// The enrolled edges whose certificates are `due`, by when they expire, and those whose
    /// renewal has begun. When one expires that was made before that was kept is not known: it is
    /// due.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn expiring(
        &self,
        due: impl Fn(UnixMillis) -> bool,
    ) -> Result<Vec<Expiring>, StoreError> {
        let rows = sqlx::query("SELECT * FROM edges WHERE enrolled_at IS NOT NULL")
            .fetch_all(&self.pool)
            .await?;
        let mut expiring = Vec::new();
        for row in &rows {
            let pending = pending(row)?;
            let expires_at: Option<i64> = row.try_get("certificate_expires_at")?;
            if pending.is_some() || expires_at.is_none_or(|instant| due(UnixMillis(instant))) {
                expiring.push(Expiring {
                    endpoint: endpoint(row)?,
                    pending,
                });
            }
        }
        Ok(expiring)
    }

    /// Keeps a certificate as the one that the edge is to have next, in place of one that was
    /// pending before; if the edge is in no move, and has the certificate still that `edge` says.
    /// Says whether it did.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn begin_renewal(
        &self,
        edge: &Endpoint,
        pending: &Pending,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.write().await?;
        let begun = sqlx::query(
            "UPDATE edges
             SET pending_request = ?, pending_certificate = ?, pending_expires_at = ?
             WHERE id = ? AND enrolled_at IS NOT NULL AND certificate IS ?
                 AND NOT EXISTS (SELECT 1 FROM migrations WHERE ended_at IS NULL
                                 AND (source = edges.id OR target = edges.id))",
        )
        .bind(&pending.request)
        .bind(&pending.certificate)
        .bind(pending.expires_at.0)
        .bind(edge.edge.to_string())
        .bind(edge.certificate.map(|certificate| certificate.to_string()))
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(begun.rows_affected() > 0)
    }

    /// The certificate that was pending is the edge's from now on, and in the ledger. The agent
    /// has not changed: its refusals count on. Says whether it was still pending: an edge that was
    /// disenrolled, or enrolled anew, meanwhile is left as it is.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn finish_renewal(
        &self,
        edge: EdgeId,
        pending: &Pending,
    ) -> Result<bool, StoreError> {
        let certificate = pending.fingerprint;
        let mut transaction = self.write().await?;
        let finished = sqlx::query(
            "UPDATE edges
             SET refusals_of = CASE WHEN refusals_of IS certificate THEN ?1 ELSE refusals_of END,
                 certificate = ?1, certificate_expires_at = pending_expires_at,
                 pending_request = NULL, pending_certificate = NULL, pending_expires_at = NULL
             WHERE id = ?2 AND enrolled_at IS NOT NULL AND pending_certificate = ?3",
        )
        .bind(certificate.to_string())
        .bind(edge.to_string())
        .bind(&pending.certificate)
        .execute(&mut *transaction)
        .await?;
        let is_finished = finished.rows_affected() > 0;
        if is_finished {
            let event = Event::Certificate(Certificate { edge, certificate });
            transaction.enter(Actor::Control, event);
        }
        transaction.commit().await?;
        Ok(is_finished)
    }
}
