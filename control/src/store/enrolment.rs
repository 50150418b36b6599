use carnet_api::v1::DetectedFacts;
use carnet_core::ids::{AccountId, EdgeId, EnrolmentId};
use carnet_core::instant::UnixMillis;
use carnet_core::ledger::{Actor, Certificate, Event};
use carnet_core::permit::Fingerprint;

use super::{Store, StoreError, parsed, to_json};

impl Store {
    /// Makes a one-time token for an edge; those made before are good no more.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn create_enrolment_token(
        &self,
        id: EnrolmentId,
        edge: EdgeId,
        secret_hash: &[u8],
        expires_at: UnixMillis,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        sqlx::query("DELETE FROM enrolment_tokens WHERE edge = ?")
            .bind(edge.to_string())
            .execute(&mut *transaction)
            .await?;
        sqlx::query(
            "INSERT INTO enrolment_tokens (id, edge, secret_hash, expires_at) VALUES (?, ?, ?, ?)",
        )
        .bind(id.to_string())
        .bind(edge.to_string())
        .bind(secret_hash)
        .bind(expires_at.0)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await
    }

    /// The edge that a one-time token is for, if it is still good.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn enrolling_edge(
        &self,
        secret_hash: &[u8],
        now: UnixMillis,
    ) -> Result<Option<EdgeId>, StoreError> {
        sqlx::query(
            "SELECT edge FROM enrolment_tokens
             WHERE secret_hash = ? AND used_at IS NULL AND expires_at > ?",
        )
        .bind(secret_hash)
        .bind(now.0)
        .fetch_optional(&self.pool)
        .await?
        .map(|row| parsed(&row, "edge"))
        .transpose()
    }

    /// Trusts an edge's agent no more: its certificate is good for nothing from now on, until it
    /// enrols anew. Moves to it that have not been committed are stopped.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn disenrol(
        &self,
        edge: EdgeId,
        by: AccountId,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let done = sqlx::query(
            "UPDATE edges
             SET enrolled_at = NULL, certificate = NULL, certificate_expires_at = NULL,
                 pending_request = NULL, pending_certificate = NULL, pending_expires_at = NULL,
                 revoked_at = ?
             WHERE id = ? AND enrolled_at IS NOT NULL",
        )
        .bind(now.0)
        .bind(edge.to_string())
        .execute(&mut *transaction)
        .await?;
        sqlx::query("DELETE FROM enrolment_tokens WHERE edge = ?")
            .bind(edge.to_string())
            .execute(&mut *transaction)
            .await?;
        if done.rows_affected() > 0 {
            transaction.enter(Actor::Account(by), Event::EdgeRevoked { edge });
        }
        transaction.commit().await
    }

    /// Uses a token up, and marks its edge as enrolled with a certificate, which is good until
    /// `expires_at`; says whether the token was still good.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn enrol(
        &self,
        secret_hash: &[u8],
        detected: &DetectedFacts,
        certificate: Fingerprint,
        expires_at: UnixMillis,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.write().await?;
        let used = sqlx::query(
            "UPDATE enrolment_tokens SET used_at = ?1
             WHERE secret_hash = ?2 AND used_at IS NULL AND expires_at > ?1 RETURNING edge",
        )
        .bind(now.0)
        .bind(secret_hash)
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = used else { return Ok(false) };
        let edge: EdgeId = parsed(&row, "edge")?;
        sqlx::query(
            "UPDATE edges
             SET enrolled_at = ?, detected = ?, certificate = ?, certificate_expires_at = ?,
                 pending_request = NULL, pending_certificate = NULL, pending_expires_at = NULL,
                 revoked_at = NULL
             WHERE id = ?",
        )
        .bind(now.0)
        .bind(to_json(detected)?)
        .bind(certificate.to_string())
        .bind(expires_at.0)
        .bind(edge.to_string())
        .execute(&mut *transaction)
        .await?;
        let event = Event::Certificate(Certificate { edge, certificate });
        transaction.enter(Actor::Edge(edge), event);
        transaction.commit().await?;
        Ok(true)
    }
}
