//! The edges, as the control plane asks them.

use carnet_api::agent::{
    Container, CopiedAhead, CopyAhead, Described, Facts, HandOver, HandedOver, MAKING_SURE, Order,
    PlacedClaim, PrepareTarget, Prepared, Reading, Refusals, Restored, SentSoFar,
};
use carnet_api::tls::Identity;
use carnet_api::v1::{ContainerState, Problem};
use carnet_control::agents::{AgentError, AgentFault, Agents, Asked, Command, Endpoint};
use carnet_core::ids::MigrationId;
use carnet_core::migration::Strategy;
use carnet_core::permit::Fingerprint;
use ed25519_dalek::VerifyingKey;
use rcgen::{CertificateParams, KeyPair};

use super::{
    Ask, BYTES_PER_S, Edges, FROZEN_MS, IMAGE_BYTES, Lost, MEMORY_AHEAD, MEMORY_BYTES, Machine,
    Process, ROOTFS_AHEAD_BYTES, ROOTFS_DIFFERENCE_BYTES, Renewing, timed,
};

impl Edges {
    /// Something that is not scripted: it is lost where the edge cannot be reached.
    async fn aside<T>(
        &self,
        endpoint: &Endpoint,
        asked: &'static str,
        answer: impl FnOnce(&mut Machine) -> T,
    ) -> Result<T, AgentError> {
        let answered = self.change(|inside| {
            let machine = inside.machines.get_mut(&endpoint.edge).unwrap();
            machine.reachable.then(|| answer(machine))
        });
        answered.ok_or_else(|| AgentError {
            edge: endpoint.name.clone(),
            address: endpoint.address.clone(),
            asked,
            fault: AgentFault::Unreachable("the connection broke".to_owned()),
        })
    }
}

impl Edges {
    /// Something of a renewal: the edge refuses where `answer` does.
    async fn renewing<T>(
        &self,
        endpoint: &Endpoint,
        asked: Renewing,
        words: &'static str,
        answer: impl FnOnce(&mut Machine) -> Result<T, &'static str>,
    ) -> Result<T, AgentError> {
        let edge = endpoint.edge;
        let fault = |fault| AgentError {
            edge: endpoint.name.clone(),
            address: endpoint.address.clone(),
            asked: words,
            fault,
        };
        let lost = self.change(|inside| {
            let at = inside.lose.iter().position(|l| (l.0, l.1) == (edge, asked));
            at.map(|at| inside.lose.remove(at).2)
        });
        let unreachable = || AgentFault::Unreachable("the connection broke".to_owned());
        if lost == Some(Lost::Request) {
            return Err(fault(unreachable()));
        }
        let shown = self.shown(edge);
        if ![endpoint.certificate, endpoint.pending].contains(&Some(shown)) {
            return Err(fault(unreachable()));
        }
        let answered = self.aside(endpoint, words, answer).await?;
        if lost == Some(Lost::Answer) {
            return Err(fault(unreachable()));
        }
        answered.map_err(|why| {
            fault(AgentFault::Refused(Problem {
                kind: "urn:carnet:problem:statement-refused".to_owned(),
                title: "refused".to_owned(),
                status: 403,
                detail: Some(why.to_owned()),
                faults: Vec::new(),
            }))
        })
    }
}

impl Agents for Edges {
    fn tell_signing_key<'a>(&'a self, edge: &'a Endpoint, certificate: &'a str) -> Asked<'a, ()> {
        let key = self.authority.signing_key(certificate).unwrap();
        let key = VerifyingKey::from_bytes(&key).unwrap();
        Box::pin(self.aside(edge, "take the signing key", move |machine| {
            machine.told += 1;
            if machine.keys.last() != Some(&key) {
                machine.keys.push(key);
            }
        }))
    }

    fn shown_certificate<'a>(&'a self, edge: &'a Endpoint) -> Asked<'a, Fingerprint> {
        let asked = "show its certificate";
        Box::pin(self.renewing(edge, Renewing::Show, asked, |machine| Ok(machine.shown)))
    }

    fn certificate_request<'a>(&'a self, edge: &'a Endpoint) -> Asked<'a, String> {
        let asked = "request its next certificate";
        Box::pin(self.renewing(edge, Renewing::Request, asked, |machine| {
            let next = machine.next.get_or_insert_with(|| {
                let key = KeyPair::generate().unwrap();
                let request = CertificateParams::default().serialize_request(&key);
                (request.unwrap().pem().unwrap(), key.serialize_pem())
            });
            Ok(next.0.clone())
        }))
    }

    fn give_certificate<'a>(&'a self, edge: &'a Endpoint, certificate: &'a str) -> Asked<'a, ()> {
        let asked = "take its next certificate";
        Box::pin(self.renewing(edge, Renewing::Give, asked, move |machine| {
            let given = Identity::fingerprint_of(certificate).unwrap();
            if given == machine.shown {
                return Ok(());
            }
            let (_, key) = machine.next.as_ref().ok_or("none was requested")?;
            Identity::from_pem(certificate, key).map_err(|_| "it is for another key")?;
            machine.shown = given;
            machine.next = None;
            Ok(())
        }))
    }

    fn refusals<'a>(&'a self, edge: &'a Endpoint) -> Asked<'a, Refusals> {
        Box::pin(
            self.aside(edge, "list what it refused", |machine| Refusals {
                refusals: machine.refusals.clone(),
                dropped: machine.dropped,
            }),
        )
    }

    fn forget_refusals<'a>(&'a self, edge: &'a Endpoint, through: u64) -> Asked<'a, ()> {
        Box::pin(self.aside(edge, "forget what it refused", move |machine| {
            if machine.forgets {
                machine.refusals.retain(|refused| refused.number > through);
            }
        }))
    }

    fn facts<'a>(&'a self, edge: &'a Endpoint) -> Asked<'a, Facts> {
        Box::pin(self.aside(edge, "describe its machine", |machine| {
            machine.described += 1;
            Facts {
                edge: edge.edge,
                detected: machine.detected.clone(),
            }
        }))
    }

    fn sent<'a>(&'a self, edge: &'a Endpoint, _: MigrationId) -> Asked<'a, SentSoFar> {
        Box::pin(
            self.aside(edge, "tell how much it has sent", |_| SentSoFar {
                bytes: 0,
            }),
        )
    }

    fn claim<'a>(&'a self, _: &'a Endpoint, _: &'a str) -> Asked<'a, PlacedClaim> {
        unimplemented!("nothing under test asks for a claim")
    }

    fn reading<'a>(&'a self, edge: &'a Endpoint) -> Asked<'a, Reading> {
        Box::pin(self.ask(edge, Ask::Reading, None, |inside| {
            inside.machines[&edge.edge].reading.clone()
        }))
    }

    fn containers<'a>(&'a self, edge: &'a Endpoint) -> Asked<'a, Vec<Container>> {
        Box::pin(self.ask(edge, Ask::Containers, None, |inside| {
            let here = inside.copies.iter().filter(|((at, _), _)| *at == edge.edge);
            here.map(|((_, name), process)| Container {
                name: name.clone(),
                state: match process {
                    Process::Running => ContainerState::Running,
                    Process::Frozen => ContainerState::Frozen,
                    Process::Stopped => ContainerState::Stopped,
                },
            })
            .collect()
        }))
    }

    fn prepare_source<'a>(&'a self, edge: &'a Endpoint, order: &'a Order) -> Asked<'a, Described> {
        Box::pin(
            self.ask(edge, Ask::PrepareSource, Some(order), |inside| Described {
                description: serde_json::json!({ "container": order.container }),
                memory_bytes: MEMORY_BYTES,
                rootfs_bytes: 1 << 24,
                post_copy_problems: inside.post_copy_problems(edge.edge),
                pre_copy_problems: inside.pre_copy_problems(),
                is_stopped: inside.is_stopped(edge.edge, &order.container),
                live_problems: inside.live_problems(edge.edge),
            }),
        )
    }

    fn prepare_target<'a>(
        &'a self,
        edge: &'a Endpoint,
        order: &'a PrepareTarget,
    ) -> Asked<'a, Prepared> {
        Box::pin(
            self.ask(edge, Ask::PrepareTarget, Some(&order.order), |inside| {
                Prepared {
                    post_copy_problems: inside.post_copy_problems(edge.edge),
                    pre_copy_problems: Vec::new(),
                    live_problems: inside.live_problems(edge.edge),
                }
            }),
        )
    }

    fn copy_ahead<'a>(
        &'a self,
        edge: &'a Endpoint,
        asked: &'a CopyAhead,
    ) -> Asked<'a, CopiedAhead> {
        Box::pin(
            self.ask(edge, Ask::CopyAhead, Some(&asked.order), |_| CopiedAhead {
                bytes: ROOTFS_AHEAD_BYTES,
                passes: 2,
                bytes_per_s: Some(BYTES_PER_S),
                memory: (asked.strategy == Strategy::PreCopy).then_some(MEMORY_AHEAD),
            }),
        )
    }

    fn hand_over<'a>(&'a self, edge: &'a Endpoint, asked: &'a HandOver) -> Asked<'a, HandedOver> {
        self.change_strategies(asked.strategy);
        Box::pin(
            self.ask(edge, Ask::HandOver, Some(&asked.order), |_| HandedOver {
                rootfs_difference_bytes: ROOTFS_DIFFERENCE_BYTES,
                image_bytes: IMAGE_BYTES,
                frozen_ms: FROZEN_MS,
                steps: vec![timed("dumping", 1.0, 9.0)],
            }),
        )
    }

    fn restore<'a>(&'a self, edge: &'a Endpoint, order: &'a Order) -> Asked<'a, Restored> {
        Box::pin(self.ask(edge, Ask::Restore, Some(order), |_| Restored {
            running_ms: 0.0,
            steps: vec![timed(MAKING_SURE, -0.2, -0.1), timed("running", -0.1, 0.0)],
        }))
    }

    fn command<'a>(
        &'a self,
        edge: &'a Endpoint,
        command: Command,
        order: &'a Order,
    ) -> Asked<'a, ()> {
        let ask = match command {
            Command::Settle => Ask::Settle,
            Command::Release => Ask::Release,
            Command::Clean => Ask::Clean,
            Command::Resume => Ask::Resume,
            Command::Discard => Ask::Discard,
        };
        Box::pin(self.ask(edge, ask, Some(order), |_| ()))
    }
}
