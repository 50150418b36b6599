//! A plain model of a migration: two edges with one container between them, the control plane's
//! row of it, and the requests that are still on their way.

use carnet_core::migration::{Effect, Event, Phase, State, Strategy, step};
use carnet_core::permit::Part;

use crate::steps::plan;

/// An order of the control plane to one edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Order {
    PrepareSource,
    PrepareTarget,
    CopyAhead,
    HandOver,
    Restore,
    Settle,
    Release,
    Clean,
    Resume,
    Discard,
    /// `Discard` under the generation with which the container was taken back: also a copy that
    /// has run.
    DiscardTakenBack,
}

/// What an edge answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Done,
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Process {
    Running,
    Frozen,
    /// It does not run, and whoever may can start it.
    Stopped,
    /// It was stopped for a cold move, and nobody can start it.
    Held,
    Gone,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Source {
    pub process: Process,
    /// It did not run when it was made ready.
    pub prepared_stopped: bool,
    /// How the hand-over ended here, once it has.
    pub ended: Option<Order>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    pub prepared: bool,
    pub images: bool,
    pub running: bool,
    /// The container has run here: it may have answered clients.
    pub has_run: bool,
    /// What the source has said of it: it is not to be started here.
    pub stays_stopped: bool,
    /// All of its memory is here.
    pub settled: bool,
    /// Memory that was to follow never will be here.
    pub lost_memory: bool,
    pub ended: Option<Order>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    Source,
    Target,
}

/// What the edges promise. Each can be broken, to see that the exploration would notice.
#[derive(Debug, Clone, Copy)]
pub struct Promises {
    /// An agent remembers that a hand-over has ended.
    pub remember_the_end: bool,
    /// A copy that has run at the target is not discarded.
    pub keep_what_has_run: bool,
    /// The runner tells a lost answer from a refusal.
    pub unclear_is_not_failed: bool,
    /// A copy whose memory will never be whole is killed.
    pub kill_what_lost_memory: bool,
    /// `settle` is answered as done only once all memory is there.
    pub wait_for_memory: bool,
    /// The commit is refused once somebody was told that the move is cancelled.
    pub compare_the_cancel: bool,
    /// What is to be done at an edge that was declared lost is kept until it is there again.
    pub keep_what_is_owed: bool,
    /// Nobody can start at the source what was stopped there for a cold move.
    pub hold_what_is_stopped: bool,
    /// The source writes down whether it ran before it stops it.
    pub remember_that_it_ran: bool,
    /// What has been started, or has ended, since it was made ready is not handed over.
    pub compare_the_state: bool,
}

impl Promises {
    pub const ALL_KEPT: Self = Self {
        remember_the_end: true,
        keep_what_has_run: true,
        unclear_is_not_failed: true,
        kill_what_lost_memory: true,
        wait_for_memory: true,
        compare_the_cancel: true,
        keep_what_is_owed: true,
        hold_what_is_stopped: true,
        remember_that_it_ran: true,
        compare_the_state: true,
    };

    /// All but the one of this name, which is its field's; `None` where there is no such promise.
    pub fn without(name: &str) -> Option<Self> {
        let mut promises = Self::ALL_KEPT;
        let promise = match name {
            "remember_the_end" => &mut promises.remember_the_end,
            "keep_what_has_run" => &mut promises.keep_what_has_run,
            "unclear_is_not_failed" => &mut promises.unclear_is_not_failed,
            "kill_what_lost_memory" => &mut promises.kill_what_lost_memory,
            "wait_for_memory" => &mut promises.wait_for_memory,
            "compare_the_cancel" => &mut promises.compare_the_cancel,
            "keep_what_is_owed" => &mut promises.keep_what_is_owed,
            "hold_what_is_stopped" => &mut promises.hold_what_is_stopped,
            "remember_that_it_ran" => &mut promises.remember_that_it_ran,
            "compare_the_state" => &mut promises.compare_the_state,
            _ => return None,
        };
        *promise = false;
        Some(promises)
    }
}

#[derive(Debug, Clone)]
pub struct World {
    pub state: State,
    pub strategy: Strategy,
    /// The container runs, as far as those know who use it: it was started, and not ended by them.
    pub is_to_run: bool,
    /// It did not run in the beginning.
    pub was_stopped: bool,
    /// Which of the effect's orders is next. Not saved: a crash begins the effect again.
    pub position: usize,
    pub generation: u64,
    pub place: Place,
    /// Somebody wanted the move to be cancelled, and was told that it will be. Saved.
    pub cancel: bool,
    /// What an operator has declared lost. Saved.
    pub lost: (bool, bool),
    /// What edges that were declared lost are still to be told. Saved.
    pub owed: Vec<Order>,
    pub source: Source,
    pub target: Target,
    /// Requests given up by the control plane that have not arrived yet.
    pub on_their_way: Vec<Order>,
}

/// A [`World`] for comparing: the texts of causes are left out.
pub type Key = (
    (Strategy, bool, Phase, Option<(Phase, bool)>, usize),
    (usize, bool, (bool, bool), Vec<Order>),
    u64,
    Place,
    Source,
    Target,
    Vec<Order>,
);

impl World {
    pub fn new(strategy: Strategy) -> Self {
        Self {
            state: State::Admitting,
            strategy,
            is_to_run: true,
            was_stopped: false,
            position: 0,
            generation: plan().generation(),
            place: Place::Source,
            cancel: false,
            lost: (false, false),
            owed: Vec::new(),
            source: Source {
                process: Process::Running,
                prepared_stopped: false,
                ended: None,
            },
            target: Target {
                prepared: false,
                images: false,
                running: false,
                has_run: false,
                stays_stopped: false,
                settled: false,
                lost_memory: false,
                ended: None,
            },
            on_their_way: Vec::new(),
        }
    }

    /// With a container that is stopped.
    pub fn stopped() -> Self {
        let mut world = Self::new(Strategy::Cold);
        (world.is_to_run, world.was_stopped) = (false, true);
        world.source.process = Process::Stopped;
        world
    }

    /// Somebody starts a container that is stopped where it can be started.
    pub fn start_by_hand(&mut self) {
        assert_eq!(self.source.process, Process::Stopped);
        self.source.process = Process::Running;
        self.is_to_run = true;
    }

    pub fn key(&self) -> Key {
        let failures = match &self.state {
            State::Restoring { failures, .. } => failures.len(),
            _ => 0,
        };
        (
            (
                self.strategy,
                self.is_to_run,
                self.state.phase(),
                self.state
                    .cause()
                    .map(|cause| (cause.phase, cause.cancelled)),
                failures,
            ),
            (self.position, self.cancel, self.lost, self.owed.clone()),
            self.generation,
            self.place,
            self.source.clone(),
            self.target.clone(),
            self.on_their_way.clone(),
        )
    }

    /// The orders that make up the state's effect; none where the control plane does it itself.
    pub fn orders(&self) -> &'static [Order] {
        match self.state.effect() {
            Some(Effect::Prepare(_)) => &[Order::PrepareSource, Order::PrepareTarget],
            Some(Effect::CopyAhead(_)) => &[Order::CopyAhead],
            Some(Effect::HandOver(_)) => &[Order::HandOver],
            Some(Effect::Restore(_)) => &[Order::Restore],
            Some(Effect::Settle(_)) => &[Order::Settle],
            Some(Effect::Release(_)) => &[Order::Release, Order::Clean],
            Some(Effect::DiscardTarget(plan))
                if self.state.generation() == Some(plan.taken_back_generation()) =>
            {
                &[Order::DiscardTakenBack]
            }
            Some(Effect::WithdrawTarget(_) | Effect::DiscardTarget(_)) => &[Order::Discard],
            Some(Effect::ResumeSource(_)) => &[Order::Resume],
            Some(Effect::Admit | Effect::Commit(_) | Effect::TakeBack(_)) | None => &[],
        }
    }

    /// Feeds `event` to `step` and saves what it says.
    pub fn feed(&mut self, event: Event) {
        self.state = step(self.state.clone(), event).unwrap();
        self.position = 0;
    }

    /// The control plane's transaction: compare, raise, and the new state, or nothing.
    pub fn commit(&mut self) {
        let plan = self.state.plan().unwrap();
        assert_eq!(
            (self.generation, self.place),
            (plan.generation(), Place::Source)
        );
        (self.generation, self.place) = (plan.committed_generation(), Place::Target);
        self.feed(Event::Done);
    }

    /// The control plane's transaction: the wish is saved, if the commit has not been.
    pub fn ask_to_cancel(&mut self) {
        assert!(self.state.phase().is_before_the_commit());
        self.cancel = true;
    }

    /// An operator says so; what remains to be done there is kept.
    pub fn lose_an_edge(&mut self, part: Part, promises: Promises) {
        if self.state.is_owed() && promises.keep_what_is_owed {
            self.owed.extend_from_slice(self.orders());
            self.owed.sort_unstable();
        }
        match part {
            Part::Source => self.lost.0 = true,
            Part::Target => self.lost.1 = true,
        }
        self.feed(match part {
            Part::Source => Event::SourceLost,
            Part::Target => Event::TargetLost,
        });
    }

    /// The target was declared lost while it may have had a copy, and has not been reached since.
    fn target_is_on_its_own(&self) -> bool {
        self.lost.1 && self.target.ended.is_none()
    }

    pub fn take_back(&mut self) {
        let plan = self.state.plan().unwrap();
        assert_eq!(
            (self.generation, self.place),
            (plan.committed_generation(), Place::Target)
        );
        (self.generation, self.place) = (plan.taken_back_generation(), Place::Source);
        self.feed(Event::Done);
    }

    /// An order arrives at its edge and is carried out as agents promise.
    pub fn arrive(&mut self, order: Order, promises: Promises) -> Answer {
        let (ended, at_source) = match order {
            Order::PrepareSource
            | Order::CopyAhead
            | Order::HandOver
            | Order::Release
            | Order::Resume => (self.source.ended, true),
            Order::PrepareTarget
            | Order::Restore
            | Order::Settle
            | Order::Clean
            | Order::Discard
            | Order::DiscardTakenBack => (self.target.ended, false),
        };
        if let Some(ended) = ended
            && promises.remember_the_end
        {
            let order = match order {
                Order::DiscardTakenBack => Order::Discard,
                order => order,
            };
            return if ended == order {
                Answer::Done
            } else {
                Answer::Refused
            };
        }
        if order == Order::Discard
            && self.target.has_run
            && !self.target.lost_memory
            && promises.keep_what_has_run
        {
            return Answer::Refused;
        }
        let is_cold = self.strategy == Strategy::Cold;
        let (source, target) = (&mut self.source, &mut self.target);
        match order {
            // It is written down already whether it ran.
            Order::PrepareSource if source.process == Process::Held => return Answer::Refused,
            Order::PrepareSource => source.prepared_stopped = source.process == Process::Stopped,
            Order::PrepareTarget => target.prepared = true,
            Order::CopyAhead if !target.prepared => return Answer::Refused,
            Order::CopyAhead => {}
            Order::HandOver if source.process == Process::Gone => return Answer::Refused,
            Order::HandOver if is_cold => {
                let is_stopped = source.process == Process::Stopped;
                if source.process != Process::Held
                    && is_stopped != source.prepared_stopped
                    && promises.compare_the_state
                {
                    return Answer::Refused;
                }
                if !target.prepared || target.ended.is_some() && promises.remember_the_end {
                    return Answer::Refused;
                }
                target.stays_stopped = source.prepared_stopped;
                source.process = match promises.hold_what_is_stopped {
                    true => Process::Held,
                    false => Process::Stopped,
                };
                target.images = true;
            }
            Order::HandOver => {
                source.process = Process::Frozen;
                if !target.prepared || target.ended.is_some() && promises.remember_the_end {
                    return Answer::Refused;
                }
                target.images = true;
            }
            Order::Restore if target.has_run => {}
            Order::Restore if !target.images => return Answer::Refused,
            Order::Restore => (target.running, target.has_run) = (!target.stays_stopped, true),
            Order::Settle if !target.has_run || target.lost_memory => return Answer::Refused,
            Order::Settle => target.settled = promises.wait_for_memory,
            Order::Release => source.process = Process::Gone,
            Order::Clean => target.images = false,
            Order::Resume if source.process == Process::Gone => return Answer::Refused,
            // Nobody has stopped it.
            Order::Resume if is_cold && source.process == Process::Running => {}
            Order::Resume if is_cold => {
                let ran = !source.prepared_stopped && promises.remember_that_it_ran;
                if source.process == Process::Held || !promises.hold_what_is_stopped {
                    source.process = match ran {
                        true => Process::Running,
                        false => Process::Stopped,
                    };
                }
            }
            Order::Resume => source.process = Process::Running,
            Order::Discard | Order::DiscardTakenBack => {
                (target.prepared, target.images, target.running) = (false, false, false);
            }
        }
        if matches!(
            order,
            Order::Release
                | Order::Resume
                | Order::Clean
                | Order::Discard
                | Order::DiscardTakenBack
        ) {
            let ended = if at_source {
                &mut source.ended
            } else {
                &mut target.ended
            };
            *ended = Some(match order {
                Order::DiscardTakenBack => Order::Discard,
                order => order,
            });
        }
        Answer::Done
    }

    /// Whether memory of a copy that runs can still be lost.
    pub fn can_lose_memory(&self) -> bool {
        self.strategy == Strategy::PostCopy
            && self.target.running
            && !self.target.settled
            && !self.target.lost_memory
    }

    /// The link breaks, an agent or the source dies, while pages are still coming.
    pub fn lose_memory(&mut self, promises: Promises) {
        self.target.lost_memory = true;
        self.target.running = !promises.kill_what_lost_memory;
    }

    /// The order is carried out in part, and the edge says that it failed. `None` where the
    /// promises leave no way to fail half done.
    pub fn arrive_half(&mut self, order: Order, promises: Promises) -> Option<()> {
        match order {
            // Stopped, and its files are not all there.
            Order::HandOver
                if self.strategy == Strategy::Cold
                    && self.source.ended.is_none()
                    && !self.target.images =>
            {
                if self.arrive(order, promises) == Answer::Refused {
                    return None;
                }
                self.target.images = false;
            }
            // Frozen, and the images never came or are not whole.
            Order::HandOver if self.source.ended.is_none() && !self.target.images => {
                self.source.process = Process::Frozen;
            }
            // A directory is there, the network is not.
            Order::PrepareTarget if self.target.ended.is_none() => self.target.prepared = true,
            // Thawed, but not back on the network; killed, but its files are still there.
            Order::Resume | Order::Release | Order::Clean => {
                if self.arrive(order, promises) == Answer::Refused {
                    return None;
                }
            }
            // The images are gone, the rest is not.
            Order::Discard if self.target.ended.is_none() && !self.target.has_run => {
                self.target.images = false;
            }
            _ => return None,
        }
        Some(())
    }

    /// Every invariant, by name; the one that does not hold.
    pub fn violated(&self) -> Option<&'static str> {
        [
            (
                "never two running copies",
                self.invariant_never_two_running_copies(),
            ),
            (
                "never none that can be brought back",
                self.invariant_one_can_be_brought_back(),
            ),
            (
                "no freeze without a plan",
                self.invariant_no_freeze_without_a_plan(),
            ),
            (
                "the target runs only after the commit",
                self.invariant_target_runs_only_after_the_commit(),
            ),
            (
                "the source never runs stale",
                self.invariant_source_never_runs_stale(),
            ),
            (
                "nobody runs but where the control plane says",
                self.invariant_runs_where_control_says(),
            ),
            (
                "the source is killed only once the target has run and all memory is there",
                self.invariant_source_killed_only_after_all_is_over(),
            ),
            (
                "nothing runs without its memory",
                !(self.target.running && self.target.lost_memory),
            ),
            (
                "what is cancelled is not committed",
                !self.cancel || self.generation == plan().generation(),
            ),
            ("it ends as it says", self.invariant_ends_as_it_says()),
        ]
        .into_iter()
        .find_map(|(name, holds)| (!holds).then_some(name))
    }

    fn invariant_never_two_running_copies(&self) -> bool {
        // An operator's word stands for it until then.
        self.target_is_on_its_own()
            || !(self.source.process == Process::Running && self.target.running)
    }

    /// Whether the target is the container: it runs there, or stays stopped there.
    fn target_has_it(&self) -> bool {
        self.target.running || self.target.has_run && self.target.stays_stopped
    }

    fn invariant_one_can_be_brought_back(&self) -> bool {
        self.source.process != Process::Gone || self.target_has_it()
    }

    fn invariant_no_freeze_without_a_plan(&self) -> bool {
        // Or one that was declared lost, and is to resume when it is there again.
        !matches!(self.source.process, Process::Frozen | Process::Held)
            || self.state.plan().is_some()
            || self.owed.contains(&Order::Resume)
    }

    fn invariant_target_runs_only_after_the_commit(&self) -> bool {
        !self.target.running || self.generation > plan().generation()
    }

    /// But where memory was lost on its way, which its owner has accepted, or the target was declared
    /// lost.
    fn invariant_source_never_runs_stale(&self) -> bool {
        self.source.process != Process::Running
            || !self.target.has_run
            || self.target.lost_memory
            || self.lost.1
    }

    fn invariant_runs_where_control_says(&self) -> bool {
        match self.place {
            Place::Source => !self.target.running || self.target_is_on_its_own(),
            Place::Target => self.source.process != Process::Running,
        }
    }

    fn invariant_source_killed_only_after_all_is_over(&self) -> bool {
        self.source.process != Process::Gone || self.target.has_run && self.target.settled
    }

    fn invariant_ends_as_it_says(&self) -> bool {
        let before = plan().generation();
        let owes = |orders: &[Order]| orders.iter().any(|order| self.owed.contains(order));
        let discarded = !self.target.running && !self.target.images && !self.target.prepared;
        let as_it_was = match self.is_to_run {
            true => Process::Running,
            false => Process::Stopped,
        };
        let untouched = (self.source.process == as_it_was || owes(&[Order::Resume]))
            && (discarded || owes(&[Order::Discard, Order::DiscardTakenBack]))
            && self.place == Place::Source;
        match self.state {
            State::Completed { .. } => {
                self.target_has_it()
                    && self.target.running == self.is_to_run
                    && (!self.target.images || owes(&[Order::Clean]))
                    && (self.source.process == Process::Gone || owes(&[Order::Release]))
                    && (self.generation, self.place) == (before + 1, Place::Target)
            }
            State::Denied => untouched && self.generation == before,
            State::Cancelled { .. } => untouched && self.cancel && self.generation == before,
            State::Failed { .. } => untouched && [before, before + 2].contains(&self.generation),
            _ => true,
        }
    }
}
