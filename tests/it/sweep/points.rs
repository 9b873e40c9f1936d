//! Where a worker can die: numbered in the order in which a run comes by, over all workers. The plan says at which numbers it does.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use super::history::History;

/// Who dies when.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    /// The numbers at which the worker that comes by dies, from 1.
    pub(crate) at: BTreeSet<usize>,
    /// A seed, the chance of a death at any other point, and the most of them.
    pub(crate) chance: Option<(u64, f64, usize)>,
}

impl Plan {
    /// Death at these points.
    pub(crate) fn at(points: &[usize]) -> Self {
        Self {
            at: points.iter().copied().collect(),
            chance: None,
        }
    }
}

#[derive(Debug)]
struct State {
    reached: usize,
    crashes: usize,
    plan: Plan,
    rng: fastrand::Rng,
}

/// The points of one run.
#[derive(Debug)]
pub(crate) struct Points {
    state: Mutex<State>,
}

impl Points {
    /// No point reached yet.
    pub(crate) fn new(plan: Plan) -> Arc<Self> {
        let rng = fastrand::Rng::with_seed(plan.chance.map_or(0, |(seed, _, _)| seed));
        Arc::new(Self {
            state: Mutex::new(State {
                reached: 0,
                crashes: 0,
                plan,
                rng,
            }),
        })
    }

    /// Points reached, and crashes.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.reached, state.crashes)
    }

    /// The number of the next point, and whether to die there.
    fn reach(&self) -> (usize, bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.reached += 1;
        let number = state.reached;
        let by_chance = match state.plan.chance {
            Some((_, chance, most)) if state.crashes < most => state.rng.f64() < chance,
            Some(_) | None => false,
        };
        let dies = by_chance || state.plan.at.contains(&number);
        state.crashes += usize::from(dies);
        (number, dies)
    }
}

/// The life of one worker process.
pub(crate) struct Life {
    /// Its number, from 1; a process that takes its place has another.
    pub(crate) worker: usize,
    dead: AtomicBool,
    points: Arc<Points>,
    deaths: mpsc::UnboundedSender<usize>,
    pub(crate) history: History,
}

impl Life {
    /// A life that begins.
    pub(crate) fn new(
        worker: usize,
        points: Arc<Points>,
        deaths: mpsc::UnboundedSender<usize>,
        history: History,
    ) -> Arc<Self> {
        Arc::new(Self {
            worker,
            dead: AtomicBool::new(false),
            points,
            deaths,
            history,
        })
    }

    /// A point: goes on, or never does anything again, as when another task of the same process has died before.
    pub(crate) async fn point(&self, what: impl FnOnce() -> String) {
        if !self.dead.load(Ordering::Relaxed) {
            let (number, dies) = self.points.reach();
            if !dies {
                return;
            }
            self.dead.store(true, Ordering::Relaxed);
            self.history.note(
                self.worker,
                format!("*** DIES at point {number}: {}", what()),
            );
            // The run may be over: then nobody has to be told.
            let _ = self.deaths.send(self.worker);
        }
        std::future::pending::<()>().await;
    }

    /// Adds a line.
    pub(crate) fn note(&self, what: impl Into<String>) {
        self.history.note(self.worker, what);
    }
}
