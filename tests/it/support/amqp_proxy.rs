//! A TCP proxy in front of a broker that knows AMQP's frames: it can cut a connection or fall silent at an exact moment.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// `basic.publish`, as class and method.
pub(crate) const PUBLISH: (u16, u16) = (60, 40);
/// `basic.ack`: from the broker a confirm, from the client an acknowledgement.
pub(crate) const ACK: (u16, u16) = (60, 80);
/// `basic.consume`; the first of a worker reads the standing orders.
pub(crate) const CONSUME: (u16, u16) = (60, 20);
/// `queue.declare-ok`.
pub(crate) const DECLARED: (u16, u16) = (50, 11);
/// Bytes of the greeting that a client sends before its first frame.
const GREETING: usize = 8;
/// Type, channel and length before a frame's content, and the mark behind it.
const FRAME_HEAD: usize = 7;

/// Who sent something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    Client,
    Broker,
}

/// What becomes of every connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It ends.
    Cut,
    /// It falls silent for good, as if its host were gone; new ones are let through.
    Frozen,
}

/// When that happens, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// Instead of forwarding the next frame of this method.
    Before(From, (u16, u16)),
    /// After so many more bytes from this side, wherever that is.
    After(From, usize),
}

/// How the way is now.
#[derive(Debug, Clone, Copy, Default)]
struct Way {
    /// Connections of an earlier epoch are cut.
    epoch: usize,
    /// Connections up to this epoch are silent: nothing is read, nothing ends.
    frozen: Option<usize>,
    /// Each piece is held for this long.
    delay: Duration,
}

/// What the tasks share.
#[derive(Debug)]
struct Shared {
    way: watch::Sender<Way>,
    planned: Mutex<Option<(When, Fate)>>,
    accepted: AtomicU32,
}

/// The proxy; connections end with it.
pub(crate) struct AmqpProxy {
    port: u16,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

impl AmqpProxy {
    /// A proxy before this broker (`host:port`), open.
    pub(crate) async fn before(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let shared = Arc::new(Shared {
            way: watch::Sender::default(),
            planned: Mutex::default(),
            accepted: AtomicU32::new(0),
        });
        let serving = tokio::spawn(serve(listener, target, Arc::clone(&shared)));
        Self {
            port,
            shared,
            serving,
        }
    }

    /// The URL of this vhost by way of the proxy.
    pub(crate) fn url(&self, vhost: &str) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/{vhost}", self.port)
    }

    /// Cuts instead of forwarding the next frame of this method.
    pub(crate) fn cut_before(&self, from: From, method: (u16, u16)) {
        self.shared.plan(When::Before(from, method), Fate::Cut);
    }

    /// Falls silent instead of forwarding the next frame of this method.
    pub(crate) fn freeze_before(&self, from: From, method: (u16, u16)) {
        self.shared.plan(When::Before(from, method), Fate::Frozen);
    }

    /// Cuts after so many more bytes.
    pub(crate) fn cut_after(&self, from: From, bytes: usize) {
        self.shared.plan(When::After(from, bytes), Fate::Cut);
    }

    /// Falls silent after so many more bytes.
    pub(crate) fn freeze_after(&self, from: From, bytes: usize) {
        self.shared.plan(When::After(from, bytes), Fate::Frozen);
    }

    /// Whether what was planned has happened.
    pub(crate) fn has_struck(&self) -> bool {
        self.shared.planned.lock().expect("short").is_none()
    }

    /// How many connections have come in so far.
    pub(crate) fn accepted(&self) -> u32 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Lets every connection that stands now fall silent for good, as if its host were gone; new ones are let through.
    pub(crate) fn freeze(&self) {
        self.shared.strike(Fate::Frozen);
    }

    /// Holds each piece for this long.
    pub(crate) fn delay(&self, delay: Duration) {
        self.shared.way.send_modify(|way| way.delay = delay);
    }
}

impl Drop for AmqpProxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Shared {
    fn strike(&self, fate: Fate) {
        self.way.send_modify(|way| {
            if fate == Fate::Frozen {
                way.frozen = Some(way.epoch);
            }
            way.epoch += 1;
        });
    }

    fn plan(&self, when: When, fate: Fate) {
        *self.planned.lock().expect("short") = Some((when, fate));
    }

    /// How many bytes of a frame may pass, and what happens behind them.
    fn passes(&self, from: From, frame: &[u8]) -> (usize, Option<Fate>) {
        let mut planned = self.planned.lock().expect("short");
        let passing = match planned.as_mut() {
            Some((When::Before(side, method), _))
                if *side == from && Some(*method) == method_of(frame) =>
            {
                0
            }
            Some((When::After(side, left), _)) if *side == from => {
                let passing = frame.len().min(*left);
                *left -= passing;
                passing
            }
            _ => return (frame.len(), None),
        };
        let fate = if passing < frame.len() {
            planned.take().map(|(_, fate)| fate)
        } else {
            None
        };
        (passing, fate)
    }
}

/// Class and method of a frame, if it has them.
fn method_of(frame: &[u8]) -> Option<(u16, u16)> {
    let number = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    if *frame.first()? != 1 {
        return None;
    }
    Some((number(FRAME_HEAD)?, number(FRAME_HEAD + 2)?))
}

async fn serve(listener: TcpListener, target: String, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        shared.accepted.fetch_add(1, Ordering::Relaxed);
        let (target, shared) = (target.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            let Ok(broker) = TcpStream::connect(&target).await else {
                return;
            };
            connect(client, broker, &shared).await;
        });
    }
}

/// Forwards both ways until one ends or the way is cut.
async fn connect(client: TcpStream, broker: TcpStream, shared: &Shared) {
    let mut way = shared.way.subscribe();
    let epoch = way.borrow_and_update().epoch;
    let (from_client, to_client) = client.into_split();
    let (from_broker, to_broker) = broker.into_split();
    let is_cut = async {
        drop(
            way.wait_for(|way| way.epoch > epoch && way.frozen != Some(epoch))
                .await,
        );
    };
    let frozen = async {
        let mut way = shared.way.subscribe();
        drop(way.wait_for(|way| way.frozen == Some(epoch)).await);
    };
    let both = async {
        tokio::select! {
            () = forward(From::Client, from_client, to_broker, shared) => {}
            () = forward(From::Broker, from_broker, to_client, shared) => {}
        }
    };
    tokio::pin!(both);
    tokio::select! {
        biased;
        () = frozen => {
            // Both sockets stay open and nobody reads them.
            std::future::pending::<()>().await;
        }
        () = is_cut => {}
        () = &mut both => {}
    }
}

/// Forwards frame by frame.
async fn forward(from: From, mut source: OwnedReadHalf, mut sink: OwnedWriteHalf, shared: &Shared) {
    let mut buffer = Vec::new();
    let mut is_greeting = from == From::Client;
    loop {
        let read = source.read_buf(&mut buffer).await;
        if !matches!(read, Ok(1..)) {
            return;
        }
        let delay = shared.way.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        while let Some(length) = whole(&buffer, is_greeting) {
            is_greeting = false;
            let frame: Vec<u8> = buffer.drain(..length).collect();
            let (passing, fate) = shared.passes(from, &frame);
            if sink.write_all(&frame[..passing]).await.is_err() {
                return;
            }
            if let Some(fate) = fate {
                shared.strike(fate);
                // Whoever waits for this connection sees it.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// The length of the frame that the buffer begins with, once all of it is there.
fn whole(buffer: &[u8], is_greeting: bool) -> Option<usize> {
    let length = if is_greeting {
        GREETING
    } else {
        let size = buffer.get(3..FRAME_HEAD)?;
        let size = u32::from_be_bytes(size.try_into().ok()?);
        FRAME_HEAD + usize::try_from(size).ok()? + 1
    };
    (buffer.len() >= length).then_some(length)
}
