//! What an edge does when an order arrives, and the invariants that hold whatever it is.

use carnet_api::agent::Order;
use carnet_core::ids::EdgeId;

use super::{Ask, Inside, Process};
impl Inside {
    pub(super) fn post_copy_problems(&self, edge: EdgeId) -> Vec<String> {
        self.post_copy_problems
            .get(&edge)
            .into_iter()
            .cloned()
            .collect()
    }

    pub(super) fn pre_copy_problems(&self) -> Vec<String> {
        match self.can_send_memory_ahead {
            true => Vec::new(),
            false => vec!["nothing tells what is written to".to_owned()],
        }
    }

    pub(super) fn live_problems(&self, edge: EdgeId) -> Vec<String> {
        self.live_problems.get(&edge).into_iter().cloned().collect()
    }

    pub(super) fn is_stopped(&self, edge: EdgeId, container: &str) -> bool {
        self.copies.get(&(edge, container.to_owned())) == Some(&Process::Stopped)
    }

    /// An order arrives at its edge and is carried out as agents promise.
    pub(super) fn arrive(&mut self, edge: EdgeId, ask: Ask, order: &Order) -> Result<(), String> {
        let done = self.carry_out(edge, ask, order);
        self.look_after_invariants(ask, order);
        done
    }

    pub(super) fn carry_out(
        &mut self,
        edge: EdgeId,
        ask: Ask,
        order: &Order,
    ) -> Result<(), String> {
        let refused = |why: &str| Err(why.to_owned());
        let here = (edge, order.container.clone());
        let target = (order.target, order.migration);
        let to = self.parts.get(&target).copied().unwrap_or_default();
        let cannot = self.machines[&edge].cannot.contains(&ask);
        let source = (order.source, order.migration);
        let was_stopped = self.parts.get(&source).is_some_and(|from| from.is_stopped);
        let as_it_was = match was_stopped {
            true => Process::Stopped,
            false => Process::Running,
        };
        let is_stopped = self.is_stopped(edge, &order.container);
        let part = self.parts.entry((edge, order.migration)).or_default();
        match part.ended {
            Some(ended) if ended == ask => return Ok(()),
            Some(_) => return refused("the hand-over has ended here"),
            None => {}
        }
        let taken_back = order.generation > part.ran_as;
        if ask == Ask::Discard && part.has_run && !part.lost && !taken_back {
            return refused("the container has run here");
        }
        if ask == Ask::Restore && part.has_run {
            return Ok(());
        }
        match ask {
            Ask::HandOver if !self.copies.contains_key(&here) => {
                return refused("there is no such container");
            }
            Ask::HandOver if !was_stopped => {
                self.copies.insert(here.clone(), Process::Frozen);
            }
            _ => {}
        }
        if ask == Ask::Settle && (cannot || part.lost) {
            part.lost = true;
            self.copies.remove(&here);
            return refused("memory of it was lost on its way, and it was killed");
        }
        if cannot {
            return refused("it cannot");
        }
        match ask {
            Ask::Reading | Ask::Containers => {}
            Ask::PrepareSource if !self.copies.contains_key(&here) => {
                return refused("there is no such container");
            }
            Ask::PrepareSource => part.is_stopped = is_stopped,
            Ask::PrepareTarget => part.prepared = true,
            Ask::CopyAhead | Ask::HandOver if !to.prepared || to.ended.is_some() => {
                return refused("the target is not prepared");
            }
            Ask::CopyAhead => {}
            Ask::HandOver => self.parts.get_mut(&target).unwrap().images = true,
            Ask::Restore if !part.images => return refused("there are no images"),
            Ask::Restore => {
                (part.has_run, part.ran_as) = (true, order.generation);
                self.copies.insert(here, as_it_was);
            }
            Ask::Settle if !part.has_run => return refused("it does not run"),
            Ask::Settle => part.settled = true,
            Ask::Release => {
                self.copies.remove(&here);
            }
            Ask::Clean => part.images = false,
            Ask::Resume => match self.copies.get_mut(&here) {
                Some(process) => {
                    *process = as_it_was;
                    part.ran_as = order.generation;
                }
                None => return refused("there is no such container"),
            },
            Ask::Discard => {
                if part.has_run {
                    self.copies.remove(&here);
                }
                (part.prepared, part.images) = (false, false);
            }
        }
        if matches!(ask, Ask::Release | Ask::Resume | Ask::Clean | Ask::Discard) {
            self.parts.get_mut(&(edge, order.migration)).unwrap().ended = Some(ask);
        }
        Ok(())
    }

    /// The order is carried out in part, in the ways that the promises leave open.
    pub(super) fn arrive_half(&mut self, edge: EdgeId, ask: Ask, order: &Order) {
        let here = (edge, order.container.clone());
        let images = self.parts.get(&(order.target, order.migration));
        let images = images.is_some_and(|part| part.images);
        let part = self.parts.entry((edge, order.migration)).or_default();
        match ask {
            // Frozen, and the images never came or are not whole.
            Ask::HandOver if part.ended.is_none() && !images && !part.is_stopped => {
                if let Some(process) = self.copies.get_mut(&here) {
                    *process = Process::Frozen;
                }
            }
            // A directory is there, the network is not.
            Ask::PrepareTarget if part.ended.is_none() => part.prepared = true,
            // Thawed, but not back on the network; killed, but its files are still there.
            Ask::Resume | Ask::Release | Ask::Clean => {
                let _ = self.carry_out(edge, ask, order);
            }
            // The images are gone, the rest is not.
            Ask::Discard if part.ended.is_none() && !part.has_run => part.images = false,
            _ => {}
        }
        self.look_after_invariants(ask, order);
    }

    pub(super) fn look_after_invariants(&mut self, ask: Ask, order: &Order) {
        let of = |process| {
            let copies = self.copies.iter();
            copies
                .filter(|((edge, name), is)| {
                    *name == order.container && **is == process && !self.lost.contains(edge)
                })
                .count()
        };
        let source = (order.source, order.container.clone());
        let to = self
            .parts
            .get(&(order.target, order.migration))
            .copied()
            .unwrap_or_default();
        let from = self
            .parts
            .get(&(order.source, order.migration))
            .copied()
            .unwrap_or_default();
        // Memory was lost, or all of the target, and a newer generation says that the source goes on.
        let is_lost = to.lost || self.declared_lost.contains(&order.target);
        let is_taken_back = is_lost && from.ran_as > to.ran_as;
        let invariants = [
            ("never two running copies", of(Process::Running) <= 1),
            (
                "never none that can be brought back",
                self.copies.iter().any(|((_, name), process)| {
                    *name == order.container && (*process != Process::Stopped || from.is_stopped)
                }),
            ),
            (
                "the source never runs stale",
                !(to.has_run
                    && !is_taken_back
                    && from.ended != Some(Ask::Release)
                    && self.copies.get(&source) == Some(&Process::Running)),
            ),
            (
                "the source is killed only once the target has run and all memory is there",
                from.ended != Some(Ask::Release) || to.has_run && to.settled,
            ),
        ];
        for (name, holds) in invariants {
            if !holds {
                self.violations.push(format!("{ask:?}: {name}"));
            }
        }
    }
}
