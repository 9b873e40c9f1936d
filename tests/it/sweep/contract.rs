//! The contract of drivers, kept by the one over the model broker: what the sweep shows of it holds for the others.

use std::sync::Arc;

use nbi_upgrade::clock;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::broker::Broker;
use super::driver::{ModelDriver, Parts};
use super::faults::Faults;
use super::history::History;
use super::points::{Life, Plan, Points};
use crate::driver_contract::{Bench, codec, the_whole_contract};

struct Model {
    driver: ModelDriver,
    broker: Broker,
    intake: JoinHandle<()>,
}

impl Drop for Model {
    fn drop(&mut self) {
        self.intake.abort();
    }
}

impl Bench for Model {
    type Driver = ModelDriver;

    fn driver(&self) -> &ModelDriver {
        &self.driver
    }

    async fn publish(&self, body: &[u8]) {
        let job: Value = serde_json::from_slice(body).unwrap_or_default();
        let job = job["job_id"].as_str().unwrap_or_default();
        self.broker.submit(job, body.to_vec());
    }

    async fn dead(&self) -> usize {
        self.broker.dead().len()
    }
}

#[tokio::test]
async fn the_model_driver_keeps_the_contract() {
    let history = History::new(clock::system());
    let broker = Broker::new(Faults::default(), history.clone());
    let (deaths, _died) = mpsc::unbounded_channel();
    let life = Life::new(1, Points::new(Plan::default()), deaths, history);
    let parts = Parts::new(
        broker.clone(),
        Arc::clone(&life),
        codec(),
        clock::system(),
        None,
    );
    let (driver, intake) = ModelDriver::new(parts);
    let bench = Model {
        driver,
        broker,
        intake,
    };
    the_whole_contract(bench).await;
}
