//! Certificates that are made anew before they expire. Their time is passed in; what is lost, and
//! the control plane that is killed there, is written for each step.

use carnet_api::agent::Refused;
use carnet_api::tls::Identity;
use carnet_api::v1::MigrationState;
use carnet_control::authority::{ControlCertificate, expires_at, is_due};
use carnet_control::keys::PermitKey;
use carnet_control::{monitor, renewal};
use carnet_core::ids::EdgeId;
use carnet_core::instant::UnixMillis;
use carnet_core::ledger::{Actor, Auditor, Entry, Event};
use carnet_core::permit::{Fingerprint, Permit, Unverified};
use serde_json::json;

use crate::edges::{Ask, Fate, Lost, Renewing, When};
use crate::plane::{Plane, certificate_of, now, to_edge};

const DAY_MS: i64 = 24 * 3_600 * 1_000;

fn days_ago(days: i64) -> UnixMillis {
    UnixMillis(now().0 - days * DAY_MS)
}

impl Plane {
    /// An edge whose certificate was made so many days ago.
    async fn edge_of_days(&self, name: &str, days: i64) -> EdgeId {
        let edge = self.declared_edge(name, json!({})).await;
        let expires_at = expires_at(days_ago(days));
        self.enrol_with(edge, certificate_of(edge), expires_at)
            .await;
        self.share(edge).await;
        edge
    }

    async fn renew(&self) {
        self.renew_at(now()).await;
    }

    async fn renew_at(&self, now: UnixMillis) {
        renewal::edges(&self.store, &self.agents(), &self.authority, now)
            .await
            .unwrap();
    }

    /// The certificate that the control plane takes for the edge's.
    async fn certificate(&self, edge: EdgeId) -> Option<Fingerprint> {
        self.store.endpoint(edge).await.unwrap().certificate
    }

    async fn pending(&self, edge: EdgeId) -> Option<Fingerprint> {
        self.store.endpoint(edge).await.unwrap().pending
    }

    async fn events(&self) -> Vec<(Actor, Event)> {
        let entries = self.store.entries(0, 10_000).await.unwrap();
        let entries = entries
            .iter()
            .map(|entry| Entry::from_bytes(&entry.bytes).unwrap());
        entries.map(|entry| (entry.by, entry.event)).collect()
    }

    /// The certificates of the edge that the ledger tells of, and who entered each.
    async fn entered(&self, edge: EdgeId) -> Vec<(Actor, Fingerprint)> {
        let entered = self.events().await.into_iter();
        entered
            .filter_map(|(by, event)| match event {
                Event::Certificate(entered) if entered.edge == edge => {
                    Some((by, entered.certificate))
                }
                _ => None,
            })
            .collect()
    }

    /// The edge has one other certificate than at first: shown, kept, and entered once.
    async fn assert_renewed(&self, edge: EdgeId, what: &str) {
        let shown = self.edges.shown(edge);
        assert_ne!(shown, certificate_of(edge), "{what}");
        assert_eq!(self.certificate(edge).await, Some(shown), "{what}");
        assert_eq!(self.pending(edge).await, None, "{what}");
        let expected = [
            (Actor::Edge(edge), certificate_of(edge)),
            (Actor::Control, shown),
        ];
        assert_eq!(self.entered(edge).await, expected, "{what}");
    }

    /// Writes to `edges` of which `when` holds fail.
    async fn refuse_to_keep(&self, when: &str) {
        let trigger = format!(
            "CREATE TRIGGER disk_is_full BEFORE UPDATE ON edges WHEN {when}
             BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
        );
        sqlx::query(sqlx::AssertSqlSafe(trigger))
            .execute(&self.ledger)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_certificate_is_renewed_when_a_third_of_its_life_is_left() {
    let plane = Plane::new().await;
    let young = plane.edge_of_days("young", 240).await;
    let old = plane.edge_of_days("old", 300).await;
    plane.renew().await;
    plane.assert_renewed(old, "old").await;
    assert_eq!(plane.certificate(young).await, Some(certificate_of(young)));
    assert!(!plane.edges.has_requested(young));
    // And not again.
    plane.renew().await;
    plane.assert_renewed(old, "again").await;
    assert!(!plane.edges.has_requested(old));
    // In four days the other is due, and this one is not.
    plane.renew_at(UnixMillis(now().0 + 4 * DAY_MS)).await;
    plane.assert_renewed(young, "young").await;
    plane.assert_renewed(old, "later").await;
}

/// It was made before it was kept when it expires.
#[tokio::test]
async fn a_certificate_of_which_it_is_not_known_when_it_expires_is_renewed() {
    let plane = Plane::new().await;
    let edge = plane.edge("edge").await;
    sqlx::query("UPDATE edges SET certificate_expires_at = NULL")
        .execute(&plane.ledger)
        .await
        .unwrap();
    plane.renew().await;
    plane.assert_renewed(edge, "unknown").await;
}

#[tokio::test]
async fn a_renewal_that_broke_off_at_any_step_goes_on_at_the_next_look() {
    let lost = [Renewing::Request, Renewing::Give, Renewing::Show]
        .into_iter()
        .flat_map(|asked| [Lost::Request, Lost::Answer].map(|lost| (asked, lost)));
    for (asked, lost) in lost {
        for is_killed in [false, true] {
            let what = format!("{asked:?}: {lost:?} lost, killed: {is_killed}");
            let mut plane = Plane::new().await;
            let edge = plane.edge_of_days("edge", 300).await;
            plane.edges.lose(edge, asked, lost);
            plane.renew().await;
            assert_eq!(
                plane.certificate(edge).await,
                Some(certificate_of(edge)),
                "{what}"
            );
            if is_killed {
                plane.kill().await;
            }
            // Again, now at the beginning.
            plane.edges.lose(edge, Renewing::Request, Lost::Request);
            plane.edges.lose(edge, Renewing::Show, Lost::Request);
            for _ in 0..3 {
                plane.renew().await;
            }
            plane.assert_renewed(edge, &what).await;
        }
    }
}

/// A control plane that dies after it has signed, or before it enters what it has seen.
#[tokio::test]
async fn a_renewal_whose_step_was_not_kept_goes_on_at_the_next_look() {
    for when in [
        "NEW.pending_certificate IS NOT NULL",
        "OLD.pending_certificate IS NOT NULL",
    ] {
        let mut plane = Plane::new().await;
        let edge = plane.edge_of_days("edge", 300).await;
        plane.refuse_to_keep(when).await;
        let agents = plane.agents();
        renewal::edges(&plane.store, &agents, &plane.authority, now())
            .await
            .unwrap_err();
        assert_eq!(plane.certificate(edge).await, Some(certificate_of(edge)));
        assert_eq!(plane.entered(edge).await.len(), 1, "{when}");
        plane.kill().await;
        plane.save_again().await;
        plane.renew().await;
        plane.assert_renewed(edge, when).await;
    }
}

#[tokio::test]
async fn an_agent_that_lost_the_key_that_was_to_come_is_given_a_certificate_for_another() {
    let plane = Plane::new().await;
    let edge = plane.edge_of_days("edge", 300).await;
    plane.edges.lose(edge, Renewing::Give, Lost::Request);
    plane.renew().await;
    let first = plane.pending(edge).await.unwrap();
    plane.edges.forget_request(edge);
    plane.renew().await;
    plane.assert_renewed(edge, "another key").await;
    assert_ne!(plane.certificate(edge).await, Some(first));
}

#[tokio::test]
async fn disenrolling_in_the_midst_of_a_renewal_wins() {
    for (asked, lost) in [
        (Renewing::Give, Lost::Request),
        (Renewing::Give, Lost::Answer),
        (Renewing::Show, Lost::Request),
    ] {
        let plane = Plane::new().await;
        let edge = plane.edge_of_days("edge", 300).await;
        plane.edges.lose(edge, asked, lost);
        plane.renew().await;
        assert!(plane.pending(edge).await.is_some());
        plane
            .store
            .disenrol(edge, plane.lender, now())
            .await
            .unwrap();
        plane.renew().await;
        assert_eq!(plane.certificate(edge).await, None);
        assert_eq!(plane.pending(edge).await, None);
        assert_eq!(plane.entered(edge).await.len(), 1);
        // Enrolled anew, what was pending for the agent before it is not this one's.
        let another = Fingerprint::of(b"another");
        plane.enrol_with(edge, another, UnixMillis(i64::MAX)).await;
        plane.renew().await;
        assert_eq!(plane.certificate(edge).await, Some(another));
        assert_eq!(plane.entered(edge).await.len(), 2);
    }
}

/// While the look is under way, and not only before it.
#[tokio::test]
async fn what_was_seen_of_an_edge_that_was_disenrolled_meanwhile_is_not_kept() {
    let plane = Plane::new().await;
    let edge = plane.edge_of_days("edge", 300).await;
    plane.edges.lose(edge, Renewing::Show, Lost::Answer);
    plane.renew().await;
    let expiring = plane.store.expiring(|_| true).await.unwrap();
    let pending = expiring[0].pending.clone().unwrap();
    plane
        .store
        .disenrol(edge, plane.lender, now())
        .await
        .unwrap();
    let endpoint = &expiring[0].endpoint;
    assert!(!plane.store.finish_renewal(edge, &pending).await.unwrap());
    assert!(!plane.store.begin_renewal(endpoint, &pending).await.unwrap());
    assert_eq!(plane.certificate(edge).await, None);
    // Nor of one that was enrolled anew.
    let another = Fingerprint::of(b"another");
    plane.enrol_with(edge, another, UnixMillis(i64::MAX)).await;
    assert!(!plane.store.finish_renewal(edge, &pending).await.unwrap());
    assert!(!plane.store.begin_renewal(endpoint, &pending).await.unwrap());
    assert_eq!(plane.certificate(edge).await, Some(another));
}

#[tokio::test]
async fn no_renewal_begins_while_the_edge_is_in_a_move() {
    for is_source in [true, false] {
        let mut plane = Plane::new().await;
        let (source, target) = match is_source {
            true => (
                plane.edge_of_days("source", 300).await,
                plane.edge("target").await,
            ),
            false => (
                plane.edge("source").await,
                plane.edge_of_days("target", 300).await,
            ),
        };
        let edge = if is_source { source } else { target };
        let container = plane.container("web", source).await;
        plane
            .edges
            .script(When::Every(Ask::HandOver, source), Fate::Held);
        let id = plane.request(container, to_edge("target")).await;
        plane.edges.until_held(1).await;
        plane.renew().await;
        assert_eq!(plane.edges.shown(edge), certificate_of(edge));
        assert_eq!(plane.pending(edge).await, None);
        plane.edges.let_go();
        assert_eq!(plane.ended(id).await.state, MigrationState::Completed);
        assert_eq!(plane.edges.violations(), Vec::<String>::new());
        plane.renew().await;
        plane.assert_renewed(edge, "after the move").await;
    }
}

#[tokio::test]
async fn no_permit_is_made_while_a_renewal_is_pending_and_the_next_names_the_new_certificate() {
    for is_source in [true, false] {
        let mut plane = Plane::new().await;
        let public = plane.key.current().signer.public();
        plane
            .store
            .enter_key("permit", public.as_bytes())
            .await
            .unwrap();
        let source = plane.edge_of_days("source", 300).await;
        let target = plane.edge_of_days("target", 300).await;
        let container = plane.container("web", source).await;
        let edge = if is_source { source } else { target };
        plane.edges.lose(edge, Renewing::Show, Lost::Answer);
        plane.renew().await;
        let id = plane.request(container, to_edge("target")).await;
        let ended = plane.ended(id).await;
        assert_eq!(ended.state, MigrationState::Failed);
        let failure = ended.failure.unwrap();
        assert!(failure.contains("is being renewed"), "{failure}");
        assert_eq!(plane.edges.times(Ask::PrepareSource), 0);

        plane.renew().await;
        let id = plane.request(container, to_edge("target")).await;
        assert_eq!(plane.ended(id).await.state, MigrationState::Completed);
        let permit = plane
            .events()
            .await
            .into_iter()
            .find_map(|(_, event)| match event {
                Event::Permit { permit, .. } => Some(permit),
                _ => None,
            });
        let permit = Unverified::<Permit>::parse(&permit.unwrap()).unwrap();
        let claim = permit.into_unverified().claim;
        assert_eq!(claim.source.certificate, plane.edges.shown(source));
        assert_eq!(claim.target.certificate, plane.edges.shown(target));
        // Whoever audits the ledger finds nothing wrong with that.
        let mut auditor = Auditor::default();
        for entry in plane.store.entries(0, 10_000).await.unwrap() {
            auditor.take(&entry.bytes).unwrap();
        }
    }
}

/// It would refuse what names the certificate before it, for ever.
#[tokio::test]
async fn commits_and_aborts_name_the_certificate_of_an_edge_that_was_enrolled_anew() {
    for (held, enrolled_anew) in [(Ask::Restore, "target"), (Ask::Release, "source")] {
        let mut plane = Plane::new().await;
        let source = plane.edge("source").await;
        let target = plane.edge("target").await;
        let container = plane.container("web", source).await;
        let at = if held == Ask::Restore { target } else { source };
        plane.edges.script(When::NthOf(held, 0), Fate::Held);
        let id = plane.request(container, to_edge("target")).await;
        plane.edges.until_held(1).await;
        plane
            .enrol_with(at, Fingerprint::of(b"another"), UnixMillis(i64::MAX))
            .await;
        // What was under way is lost; it is asked again, on what fits the edge now.
        plane.kill().await;
        plane.edges.let_go();
        let ended = plane.ended(id).await;
        assert_eq!(ended.state, MigrationState::Completed, "{enrolled_anew}");
        assert!(plane.edges.times(held) > 1);
        assert_eq!(plane.edges.violations(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn refusals_are_entered_once_across_a_renewal() {
    let plane = Plane::new().await;
    let edge = plane.edge_of_days("edge", 300).await;
    let refused = |number, check: &str| Refused {
        number,
        check: check.to_owned(),
        asked: "source/prepare".to_owned(),
        migration: None,
        peer: None,
        refused_at_ms: UnixMillis(1),
    };
    let look = async || monitor::look(&plane.store, &plane.agents()).await.unwrap();
    plane.edges.set_forgets(edge, false);
    plane.edges.refuse(edge, refused(1, "a"));
    plane.edges.drop_refusals(edge, 5);
    look().await;
    look().await;
    plane.renew().await;
    plane.assert_renewed(edge, "refusals").await;
    plane.edges.refuse(edge, refused(2, "b"));
    plane.edges.drop_refusals(edge, 2);
    look().await;
    look().await;
    let found: Vec<String> = plane
        .events()
        .await
        .into_iter()
        .filter_map(|(by, event)| match event {
            Event::Refusal(refusal) => Some(refusal.check),
            Event::RefusalsDropped { edge: of, count } => {
                assert_eq!((by, of), (Actor::Edge(edge), edge));
                Some(count.to_string())
            }
            _ => None,
        })
        .collect();
    assert_eq!(found, ["a", "5", "b", "2"]);
    // The agent of an edge that was enrolled anew counts from the beginning.
    plane
        .enrol_with(edge, Fingerprint::of(b"another"), UnixMillis(i64::MAX))
        .await;
    look().await;
    let counts = plane
        .events()
        .await
        .into_iter()
        .filter_map(|(_, event)| match event {
            Event::RefusalsDropped { count, .. } => Some(count),
            _ => None,
        });
    assert_eq!(counts.collect::<Vec<_>>(), [5, 2, 7]);
}

#[tokio::test]
async fn the_control_planes_own_certificate_is_replaced_before_it_expires() {
    let plane = Plane::new().await;
    let made_at = days_ago(300);
    let mut own = ControlCertificate::new(&plane.authority, Vec::new(), made_at).unwrap();
    let shown = own.identity().clone();
    let first = shown.fingerprint();
    let early = UnixMillis(made_at.0 + 240 * DAY_MS);
    assert!(!own.renew(&plane.authority, early).unwrap());
    assert_eq!(shown.fingerprint(), first);
    assert!(own.renew(&plane.authority, now()).unwrap());
    // What is shown wherever it is in use.
    assert_ne!(shown.fingerprint(), first);
    assert!(!own.renew(&plane.authority, now()).unwrap());
}

#[tokio::test]
async fn the_signing_keys_certificate_is_made_anew_and_told_to_agents() {
    let plane = Plane::new().await;
    let edge = plane.edge("edge").await;
    let made_at = days_ago(300);
    let key = PermitKey::open(plane.directory(), plane.authority.clone(), made_at).unwrap();
    let first = key.current();
    let mut told = monitor::Told::default();
    let agents = plane.agents();
    let tell = async |told: &mut monitor::Told| {
        let before = plane.edges.times_told(edge);
        monitor::tell(&plane.store, &agents, &key, told)
            .await
            .unwrap();
        plane.edges.times_told(edge) - before
    };
    assert_eq!(tell(&mut told).await, 1);
    assert_eq!(tell(&mut told).await, 0);
    let early = UnixMillis(made_at.0 + 240 * DAY_MS);
    assert!(!key.renew(early).unwrap());
    assert!(key.renew(now()).unwrap());
    let second = key.current();
    assert_eq!(second.signer.public(), first.signer.public());
    assert_ne!(
        Identity::fingerprint_of(&second.certificate).unwrap(),
        Identity::fingerprint_of(&first.certificate).unwrap()
    );
    assert!(!is_due(second.expires_at, now()));
    assert_eq!(tell(&mut told).await, 1);
    assert_eq!(tell(&mut told).await, 0);
}
