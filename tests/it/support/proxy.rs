//! A TCP proxy between the program and a counterpart, to take that away and bring it back at the same address.

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::rabbit::free_port;

/// The proxy; connections end with it.
pub(crate) struct Proxy {
    port: u16,
    target: String,
    serving: Option<JoinHandle<()>>,
}

impl Proxy {
    /// A proxy that refuses connections until it is opened.
    pub(crate) fn closed(target: &str) -> Self {
        Self {
            port: free_port(),
            target: target.to_owned(),
            serving: None,
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Lets connections through.
    pub(crate) async fn open(&mut self) {
        let listener = TcpListener::bind(self.address())
            .await
            .expect("the port is still free");
        let target = self.target.clone();
        self.serving = Some(tokio::spawn(serve(listener, target)));
    }

    /// Cuts every connection and refuses new ones.
    pub(crate) async fn close(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            let _ = serving.await;
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

async fn serve(listener: TcpListener, target: String) {
    // Aborted with this task, which drops both sockets of each.
    let mut pairs = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        let target = target.clone();
        while pairs.try_join_next().is_some() {}
        pairs.spawn(async move {
            let mut near = near;
            if let Ok(mut far) = TcpStream::connect(target).await {
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            }
        });
    }
}
