//! A vhost of a node, and a client of it beside the code under test.

use std::time::{Duration, Instant};

use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};

use super::rabbit::Ports;

/// A vhost of a node.
#[derive(Clone)]
pub(crate) struct Vhost {
    pub(super) name: String,
    pub(super) ports: Ports,
}

impl Vhost {
    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where the management API of its node listens.
    pub(crate) fn management(&self) -> String {
        format!("127.0.0.1:{}", self.ports.management)
    }

    /// Where its node listens.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.amqp)
    }

    /// The URL to come in by.
    pub(crate) fn url(&self) -> String {
        format!(
            "amqp://guest:guest@127.0.0.1:{}/{}",
            self.ports.amqp, self.name
        )
    }

    /// A client of its own, beside the code under test.
    pub(crate) async fn client(&self) -> Client {
        let connection = Connection::connect(&self.url(), ConnectionProperties::default())
            .await
            .expect("the broker is up");
        Client { connection }
    }
}

/// Looks at the broker and puts things there.
pub(crate) struct Client {
    connection: Connection,
}

/// A message as it lies in a queue.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) body: Vec<u8>,
    pub(crate) properties: BasicProperties,
}

impl Message {
    /// A header's text.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        match self.properties.headers().as_ref()?.inner().get(name)? {
            AMQPValue::LongString(text) => Some(text.to_string()),
            other => Some(format!("{other:?}")),
        }
    }
}

impl Client {
    async fn channel(&self) -> Channel {
        self.connection.create_channel().await.expect("a channel")
    }

    /// Declares a queue with integer and text arguments.
    pub(crate) async fn declare(&self, queue: &str, arguments: &[(&str, AMQPValue)]) {
        let mut table = FieldTable::default();
        for (name, value) in arguments {
            table.insert((*name).into(), value.clone());
        }
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        self.channel()
            .await
            .queue_declare(queue.into(), options, table)
            .await
            .expect("the queue can be declared");
    }

    /// Messages ready in a queue, at this moment.
    pub(crate) async fn depth(&self, queue: &str) -> u32 {
        self.depth_if_there(queue).await.expect("the queue stands")
    }

    /// The same of a queue that may not be there.
    pub(crate) async fn depth_if_there(&self, queue: &str) -> Option<u32> {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let channel = self.channel().await;
        let declared = channel.queue_declare(queue.into(), options, FieldTable::default());
        Some(declared.await.ok()?.message_count())
    }

    /// Publishes and awaits the confirm.
    pub(crate) async fn publish(
        &self,
        exchange: &str,
        key: &str,
        body: &[u8],
        properties: BasicProperties,
    ) {
        let channel = self.channel().await;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .expect("confirms");
        let options = BasicPublishOptions {
            mandatory: true,
            immediate: false,
        };
        let confirm = channel
            .basic_publish(exchange.into(), key.into(), options, body, properties)
            .await;
        let confirmation = confirm
            .expect("it is written")
            .await
            .expect("it is answered");
        assert_eq!(confirmation, Confirmation::Ack(None));
    }

    /// Takes a message off a queue.
    pub(crate) async fn take(&self, queue: &str) -> Option<Message> {
        let channel = self.channel().await;
        let got = channel
            .basic_get(queue.into(), BasicGetOptions::default())
            .await
            .expect("the queue stands")?;
        got.delivery
            .acker
            .ack(BasicAckOptions::default())
            .await
            .expect("it is ours");
        let delivery = got.delivery;
        Some(Message {
            body: delivery.data,
            properties: delivery.properties,
        })
    }

    /// Takes the first message of a queue and lets go of it with its channel, so often; every broker counts that.
    pub(crate) async fn give_back(&self, queue: &str, times: usize) {
        for _ in 0..times {
            let channel = self.channel().await;
            let deadline = Instant::now() + Duration::from_secs(20);
            // From 4.3 on it takes a moment until it is back.
            while channel
                .basic_get(queue.into(), BasicGetOptions::default())
                .await
                .expect("the queue stands")
                .is_none()
            {
                assert!(Instant::now() < deadline, "nothing came back to {queue}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let closed = channel.close(200, "let go".into());
            closed.await.expect("it is open");
        }
    }

    /// Waits for a message on a queue.
    pub(crate) async fn wait_for(&self, queue: &str) -> Message {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(message) = self.take(queue).await {
                return message;
            }
            assert!(Instant::now() < deadline, "nothing arrived on {queue}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Deletes a queue.
    pub(crate) async fn delete(&self, queue: &str) {
        let deleted = self
            .channel()
            .await
            .queue_delete(queue.into(), QueueDeleteOptions::default())
            .await;
        deleted.expect("the queue can be deleted");
    }
}
