//! The proof by crashes: every accepted request reaches one outcome, no device is upgraded twice, no rule stays armed, whatever dies when.
//!
//! Real worker, real core, real NBI client and simulator, over a model of the broker, in virtual time. A run is named by its scenario and
//! by the numbers of the crash points at which the worker in question dies; the same name gives the same run, event for event.
//!
//! - `NBI_UPGRADE_REPLAY=scenario:point[:point]` runs one case and prints its history.
//! - `NBI_UPGRADE_SWEEP_PAIRS=all` crashes at every pair of points (some hours), a number at so many sampled pairs a scenario; with
//!   either, late redeliveries are tried at every point too.
//! - `NBI_UPGRADE_SWEEP_ONLY=text` takes the scenarios whose name contains it.
//! - `NBI_UPGRADE_SWEEP_PART=2/8` takes the second, tenth, eighteenth … scenario, for processes that share the work.
//! - `NBI_UPGRADE_SWEEP_SEED=S` draws other jitter (0 in the default run).
//! - `NBI_UPGRADE_STORMS=N` runs N storms, `NBI_UPGRADE_STORM_SEED=S` one, with its history.

mod history; // what happened in a run, in order; printed when it is wrong

mod points; // where a worker can die, and the plan that says where it does

mod message; // what the model broker holds

mod copies; // how often a job was there

mod broker; // the model of RabbitMQ: outlives workers, loses nothing, repeats much

mod faults; // what the broker does wrong, by seed

mod driver; // the worker's seam over the model broker, with a crash point at every await

mod intake; // what comes in of it

mod contract; // the seam's contract, which this driver keeps as well

mod nbi; // the way to the simulator, with a crash point on either side of every effect

mod run; // one scenario with one plan: processes are born, die and are replaced

mod again; // what may have a device flashed twice
mod check; // the properties that hold in any run
mod effects; // what a run did to the NBI and to devices
mod judged;
mod outcomes; // what its events must say
mod verdicts; // what must have happened where one says so // each of these rules, shown a run that breaks it

mod scenarios; // what is run

mod crashes; // a crash at every point, once and twice

mod storm; // everything at once, by seed

mod stops; // workers that are told to stop in the middle

mod broken; // workers that are wrong, and are found out
