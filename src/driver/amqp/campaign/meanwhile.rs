//! What the leader publishes, and that it passes orders on meanwhile: nobody says for how long the broker takes no message.

use lapin::message::Delivery;

use super::super::error::BrokerError;
use super::super::outgoing::Outgoing;
use super::super::record::Record;
use super::super::stream::StreamReader;
use super::leader::Leader;
use super::outlet::acknowledge;
use crate::message::DeadLetter;

impl Leader<'_> {
    /// Publishes, as [`super::outlet::Outlet::publish`] does.
    pub(super) async fn publish(&mut self, messages: Vec<Outgoing>) -> Result<(), BrokerError> {
        let outlet = self.outlet;
        let mut published = Box::pin(async move { outlet.publish(messages).await });
        loop {
            tokio::select! {
                biased;
                done = &mut published => return done,
                order = next_order(&mut self.control) => self.take_order(&order?),
            }
        }
    }

    /// Puts a message to the dead letters, as [`super::outlet::Outlet::bury`] does.
    pub(super) async fn bury(
        &mut self,
        delivery: &Delivery,
        letter: &DeadLetter,
        queue: &str,
        mut along: Vec<Outgoing>,
    ) -> Result<(), BrokerError> {
        along.push(self.outlet.dead(delivery, letter, queue));
        self.publish(along).await?;
        acknowledge(delivery).await
    }
}

/// The next order, however long that takes.
pub(super) async fn next_order(control: &mut Option<StreamReader>) -> Result<Record, BrokerError> {
    match control {
        Some(control) => control.next().await,
        None => std::future::pending().await,
    }
}
