//! The way in at the NBI: password and certificates, and the HTTP client that uses them; kept up to date while the worker runs.
//!
//! What comes from files is read again: at most once in [`LOOK_EVERY`] while requests are sent, and at once after the NBI refused what
//! the worker showed. So a changed password or certificate needs no restart. A new password counts from the next request on; new
//! certificates from the next connection on, as they come with a new client. Files that cannot be used (half written, or a
//! certificate whose key is not there yet) change nothing: what worked goes on, and they are looked at again. Nor do files that cannot be
//! read in time, as on a network that hangs: requests go on, and what they hold counts once it is read.
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
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::setup::{HttpSettings, NbiSetupError, base_url};
use super::text::Mask;
use crate::telemetry::Telemetry;
use crate::{secret_file, tls};

/// How often files are looked at: less than the shortest time that a circuit stays open by default, so that whoever probes after a
/// refusal shows what the files hold by then.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a request waits for a look at the files: many times what a file needs that can be read at all, and well within the time that the
/// request may take itself.
const LOOK_MAX: Duration = Duration::from_secs(5);

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
    /// Held while somebody looks.
    looks: Mutex<Looks>,
}

/// The looks at the files.
struct Looks {
    /// When the last one ended, or was left to itself.
    last: Instant,
    /// The one that is under way, and since when; no other begins beside it.
    under_way: Option<(Instant, Look)>,
}

type Look = JoinHandle<Result<Access, NbiSetupError>>;

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
            looks: Mutex::new(Looks {
                last: Instant::now(),
                under_way: None,
            }),
        })
    }

    /// What lets a request in now. Looks at the files, if nobody did lately.
    pub(super) async fn access(&self, telemetry: Option<&Telemetry>) -> Arc<Access> {
        if self.settings.has_files()
            && let Ok(mut looks) = self.looks.try_lock()
            && looks.last.elapsed() >= LOOK_EVERY
        {
            self.look(&mut looks, telemetry).await;
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
        let mut looks = self.looks.lock().await;
        if self.current().is_as(refused) {
            self.look(&mut looks, telemetry).await;
        }
        Some(self.current()).filter(|current| current.password != refused.password)
    }

    fn current(&self) -> Arc<Access> {
        Arc::clone(&self.access.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at the files and takes over what changed. A look that takes too long goes on by itself, and a later call takes over what it saw.
    async fn look(&self, looks: &mut Looks, telemetry: Option<&Telemetry>) {
        let before = self.current();
        let (begun, look) = looks.under_way.get_or_insert_with(|| {
            let (settings, current) = (self.settings.clone(), Arc::clone(&before));
            // Files may lie on a network.
            let look = tokio::task::spawn_blocking(move || {
                Files::read(&settings)?.access(&settings, Some(&current))
            });
            (Instant::now(), look)
        });
        let read = timeout(LOOK_MAX.saturating_sub(begun.elapsed()), look).await;
        looks.last = Instant::now();
        let Ok(read) = read else {
            if let Some(telemetry) = telemetry {
                telemetry.nbi_files_unusable(TAKES_TOO_LONG);
            }
            return;
        };
        looks.under_way = None;
        let Ok(renewed) = read else {
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

/// What is said of files that cannot be read in time.
const TAKES_TOO_LONG: &str = "reading the files of `nbi.password_file`, `nbi.ca_file`, `nbi.client_cert_file` and `nbi.client_key_file` takes longer than 5 s: is the file system that holds them there?";

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

#[cfg(test)]
mod tests {
    use super::*;

    /// A read of a fifo waits for a writer, as one of a file on a network that hangs waits for the network.
    #[tokio::test]
    async fn a_file_that_cannot_be_read_in_time_holds_no_request_up_and_counts_once_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "first").unwrap();
        let door = Door::new(HttpSettings {
            url: "http://127.0.0.1:9".to_owned(),
            username: "worker".to_owned(),
            password: "unused".into(),
            password_file: Some(file.clone()),
            timeout: LOOK_MAX,
            connect_timeout: LOOK_MAX,
            ca_file: None,
            client_certificate: None,
            allow_http: true,
            max_response_bytes: 64,
            max_concurrency: 4,
        })
        .unwrap();
        let telemetry = Telemetry::default();
        let first = door.access(Some(&telemetry)).await;
        std::fs::remove_file(&file).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&file).status();
        assert!(made.unwrap().success());
        door.looks.lock().await.last -= LOOK_EVERY;

        let begun = Instant::now();
        let hung = timeout(2 * LOOK_MAX, door.access(Some(&telemetry))).await;
        let beside = timeout(LOOK_MAX, door.better_than(&first, Some(&telemetry))).await;
        let took = begun.elapsed();
        let written = {
            let file = file.clone();
            tokio::task::spawn_blocking(move || std::fs::write(file, "second"))
        };
        written.await.unwrap().unwrap();
        assert!(hung.is_ok_and(|access| access.is_as(&first)));
        assert!(beside.is_ok_and(|better| better.is_none()));
        // The second did not wait as the first did, nor begin another look.
        assert!(took < LOOK_MAX + LOOK_EVERY, "{took:?}");
        let better = loop {
            if let Some(better) = door.better_than(&first, Some(&telemetry)).await {
                break better;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert!(!better.is_as(&first));
        assert!(door.looks.lock().await.under_way.is_none());
    }
}
