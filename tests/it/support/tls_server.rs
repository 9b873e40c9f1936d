//! A TLS server in front of a plain one: what it shows, and whom it lets in, can change while it runs.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::certificates::{Authority, Pair};

/// The server; it and its connections end with it.
pub(crate) struct TlsServer {
    address: SocketAddr,
    config: Arc<Mutex<Arc<ServerConfig>>>,
    handshakes: Arc<AtomicUsize>,
    serving: AbortHandle,
}

impl TlsServer {
    /// Shows this certificate; with `clients` only who has a certificate of that authority is let in. What comes through goes to `target`.
    pub(crate) async fn start(target: &str, shows: &Pair, clients: Option<&Authority>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = Arc::new(Mutex::new(config(shows, clients)));
        let handshakes = Arc::new(AtomicUsize::new(0));
        let serving = tokio::spawn(serve(
            listener,
            target.to_owned(),
            Arc::clone(&config),
            Arc::clone(&handshakes),
        ));
        Self {
            address,
            config,
            handshakes,
            serving: serving.abort_handle(),
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Handshakes that succeeded so far.
    pub(crate) fn handshakes(&self) -> usize {
        self.handshakes.load(Ordering::SeqCst)
    }

    /// From the next connection on: another certificate, another authority of clients.
    pub(crate) fn change(&self, shows: &Pair, clients: Option<&Authority>) {
        *self.config.lock().unwrap() = config(shows, clients);
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn config(shows: &Pair, clients: Option<&Authority>) -> Arc<ServerConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            let root = CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap();
            roots.add(root).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        }
        None => builder.with_no_client_auth(),
    };
    let chain = CertificateDer::pem_slice_iter(shows.cert.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .unwrap();
    let key = PrivateKeyDer::from_pem_slice(shows.key.as_bytes()).unwrap();
    Arc::new(builder.with_single_cert(chain, key).unwrap())
}

async fn serve(
    listener: TcpListener,
    target: String,
    config: Arc<Mutex<Arc<ServerConfig>>>,
    handshakes: Arc<AtomicUsize>,
) {
    // Aborted with this task, which drops both sockets of each.
    let mut pairs = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        while pairs.try_join_next().is_some() {}
        let acceptor = TlsAcceptor::from(Arc::clone(&config.lock().unwrap()));
        let (target, handshakes) = (target.clone(), Arc::clone(&handshakes));
        pairs.spawn(async move {
            let mut near = match acceptor.accept(near).into_fallible().await {
                Ok(near) => near,
                Err((_, mut refused)) => {
                    // Closed with something unread it would be reset, and the alert could be lost.
                    let _ = tokio::io::copy(&mut refused, &mut tokio::io::sink()).await;
                    return;
                }
            };
            handshakes.fetch_add(1, Ordering::SeqCst);
            if let Ok(mut far) = TcpStream::connect(target).await {
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            }
        });
    }
}
