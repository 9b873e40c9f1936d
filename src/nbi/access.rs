//! The way in at the NBI: password and certificates, and the HTTP client that uses them; kept up to date while the worker runs.
//!
//! What comes from files is read again: at most once in [`LOOK_EVERY`] while requests are sent, and at once after the NBI refused what
//! the worker showed. So a changed password or certificate needs no restart. A new password counts from the next request on; new
//! certificates from the next connection on, as they come with a new client. Files that cannot be used (half written, or a
//! certificate whose key is not there yet) change nothing: what worked goes on, and they are looked at again.
//!
//! `http.rs` is the only caller.

use std::hash::{DefaultHasher, Hasher as _};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;
use reqwest::{Certificate, Client, Identity, redirect};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::setup::{HttpSettings, NbiSetupError, base_url};
use super::text::Mask;
use crate::telemetry::Telemetry;
use crate::{secret_file, tls};

/// How often files are looked at: less than the shortest time that a circuit stays open by default, so that whoever probes after a
/// refusal shows what the files hold by then.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long an unused connection is kept: less than the 60 s or more after which servers and balancers commonly close theirs, so
/// that a request seldom meets a connection that is just being closed.
const IDLE: Duration = Duration::from_secs(30);

/// What a request needs to be let in.
#[derive(Clone)]
pub(super) struct Access {
    pub(super) client: Client,
    pub(super) authorization: HeaderValue,
    /// Hides it in answers.
    pub(super) mask: Mask,
    /// What the client was built from, as a hash: a secret need not be kept to see that it changed.
    certificates: u64,
    password: u64,
}

impl Access {
    fn is_as(&self, other: &Self) -> bool {
        (self.certificates, self.password) == (other.certificates, other.password)
    }
}

/// The way in, and the files that it is made of.
pub(super) struct Door {
    settings: HttpSettings,
    access: RwLock<Arc<Access>>,
    /// When the files were looked at; held while somebody looks.
    looked: Mutex<Instant>,
}

impl Door {
    /// Reads the files and builds the client. Opens no connection.
    ///
    /// # Errors
    ///
    /// [`NbiSetupError`] names the key at fault and the remedy.
    pub(super) fn new(settings: HttpSettings) -> Result<Self, NbiSetupError> {
        let access = Files::read(&settings)?.access(&settings, None)?;
        Ok(Self {
            settings,
            access: RwLock::new(Arc::new(access)),
            looked: Mutex::new(Instant::now()),
        })
    }

    /// What lets a request in now. Looks at the files, if nobody did lately.
    pub(super) async fn access(&self, telemetry: Option<&Telemetry>) -> Arc<Access> {
        if self.settings.has_files()
            && let Ok(mut looked) = self.looked.try_lock()
            && looked.elapsed() >= LOOK_EVERY
        {
            self.look(telemetry).await;
            *looked = Instant::now();
        }
        self.current()
    }

    /// What lets a request in after the NBI refused it with `refused`; `None` if there is nothing better.
    pub(super) async fn better_than(
        &self,
        refused: &Access,
        telemetry: Option<&Telemetry>,
    ) -> Option<Arc<Access>> {
        self.settings.password_file.as_ref()?;
        let mut looked = self.looked.lock().await;
        if self.current().is_as(refused) {
            self.look(telemetry).await;
            *looked = Instant::now();
        }
        Some(self.current()).filter(|current| current.password != refused.password)
    }

    fn current(&self) -> Arc<Access> {
        Arc::clone(&self.access.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at the files and takes over what changed.
    async fn look(&self, telemetry: Option<&Telemetry>) {
        let (settings, current) = (self.settings.clone(), self.current());
        let before = Arc::clone(&current);
        // Files may lie on a network.
        let read = tokio::task::spawn_blocking(move || {
            Files::read(&settings)?.access(&settings, Some(&current))
        });
        let Ok(renewed) = read.await else {
            return;
        };
        match renewed {
            Ok(renewed) => {
                if let Some(telemetry) = telemetry {
                    telemetry.nbi_files_read();
                }
                if renewed.is_as(&before) {
                    return;
                }
                let what = match (
                    renewed.password != before.password,
                    renewed.certificates != before.certificates,
                ) {
                    (true, true) => "password and certificates",
                    (true, false) => "password",
                    (false, _) => "certificates",
                };
                *self.access.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(renewed);
                if let Some(telemetry) = telemetry {
                    telemetry.nbi_files_changed(what);
                }
            }
            Err(error) => {
                if let Some(telemetry) = telemetry {
                    telemetry.nbi_files_unusable(&text(&error));
                }
            }
        }
    }
}

/// An error with its causes.
fn text(error: &NbiSetupError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// What the files hold now.
struct Files {
    password: SecretString,
    ca: Option<Vec<u8>>,
    /// Certificate and key.
    client: Option<(Vec<u8>, Vec<u8>)>,
}

impl Files {
    fn read(settings: &HttpSettings) -> Result<Self, NbiSetupError> {
        let password = match &settings.password_file {
            Some(path) => secret_file::read(path).map_err(|source| NbiSetupError::File {
                key: "nbi.password_file",
                path: path.clone(),
                source,
            })?,
            None => settings.password.clone(),
        };
        let ca = settings.ca_file.as_deref();
        let ca = ca.map(|path| read("nbi.ca_file", path)).transpose()?;
        let client = match &settings.client_certificate {
            Some(client) => Some((
                read("nbi.client_cert_file", &client.cert_file)?,
                read("nbi.client_key_file", &client.key_file)?,
            )),
            None => None,
        };
        Ok(Self {
            password,
            ca,
            client,
        })
    }

    /// What lets requests in; the client of `current` goes on if its certificates are the same.
    fn access(
        &self,
        settings: &HttpSettings,
        current: Option<&Access>,
    ) -> Result<Access, NbiSetupError> {
        let certificates = hash((&self.ca, &self.client));
        let client = match current {
            Some(current) if current.certificates == certificates => current.client.clone(),
            _ => self.client(settings)?,
        };
        let authorization = basic(&settings.username, &self.password)?;
        Ok(Access {
            client,
            mask: Mask::of(authorization.as_bytes()),
            authorization,
            certificates,
            password: hash(self.password.expose_secret()),
        })
    }

    fn client(&self, settings: &HttpSettings) -> Result<Client, NbiSetupError> {
        let mut builder = Client::builder()
            .user_agent(concat!("nbi-upgrade/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .http1_only()
            .timeout(settings.timeout)
            .connect_timeout(settings.connect_timeout)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(settings.max_concurrency.max(1));
        if let Some((path, pem)) = settings.ca_file.as_deref().zip(self.ca.as_deref()) {
            let unusable = unusable("nbi.ca_file", path);
            tls::check_certificates(pem).map_err(&unusable)?;
            let roots = Certificate::from_pem_bundle(pem);
            builder = builder.tls_certs_only(roots.map_err(|error| unusable(error.to_string()))?);
        } else if base_url(settings)?.scheme() == "http" {
            // Redirects are not followed, so plain HTTP never needs a root; the system may then do without CA certificates.
            builder = builder.tls_certs_only([]);
        }
        let Some((paths, (cert, key))) = settings
            .client_certificate
            .as_ref()
            .zip(self.client.as_ref())
        else {
            return builder.build().map_err(NbiSetupError::Client);
        };
        tls::check_certificates(cert)
            .map_err(unusable("nbi.client_cert_file", &paths.cert_file))?;
        tls::check_key(key).map_err(unusable("nbi.client_key_file", &paths.key_file))?;
        let pem = [cert.as_slice(), key.as_slice()].join(&b'\n');
        let pair = |source| NbiSetupError::Pair {
            cert_file: paths.cert_file.clone(),
            key_file: paths.key_file.clone(),
            source,
        };
        // Whether they fit is found out when the client is built, and all the rest is known to be sound by then.
        let identity = Identity::from_pem(&pem).map_err(&pair)?;
        builder.identity(identity).build().map_err(pair)
    }
}

fn hash(value: impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, NbiSetupError> {
    std::fs::read(path).map_err(|source| NbiSetupError::File {
        key,
        path: path.to_owned(),
        source,
    })
}

fn unusable(key: &'static str, path: &Path) -> impl Fn(String) -> NbiSetupError {
    move |problem| NbiSetupError::Pem {
        key,
        path: path.to_owned(),
        problem,
    }
}

/// The `Authorization` header (RFC 7617), marked sensitive. The vendor's example encodes a newline at the end; that is an accident
/// of the page (inferred), the newline is left out.
fn basic(username: &str, password: &SecretString) -> Result<HeaderValue, NbiSetupError> {
    let fault = |key, reason| Err(NbiSetupError::Credentials { key, reason });
    if username.is_empty() {
        return fault("nbi.username", "is empty");
    }
    if username.contains(':') {
        return fault(
            "nbi.username",
            "contains a colon, which HTTP Basic cannot carry",
        );
    }
    for (key, text) in [
        ("nbi.username", username),
        ("nbi.password", password.expose_secret()),
    ] {
        if text.chars().any(char::is_control) {
            return fault(
                key,
                "contains a control character, perhaps a newline at its end",
            );
        }
    }
    let token =
        SecretString::from(STANDARD.encode(format!("{username}:{}", password.expose_secret())));
    let Ok(mut header) = HeaderValue::from_str(&format!("Basic {}", token.expose_secret())) else {
        return fault("nbi.password", "cannot be sent in a header");
    };
    header.set_sensitive(true);
    Ok(header)
}
