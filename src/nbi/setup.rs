//! [`HttpSettings`]: where the NBI is and how it is spoken to; and [`NbiSetupError`], why that cannot be.
//!
//! Values arrive checked for form by `config/`; what files hold is looked at by `access.rs`.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use crate::tls;

/// Where the NBI is and how it is spoken to.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// `nbi.url`: scheme, host, port and, behind a proxy, a path prefix. No credentials, query or fragment.
    pub url: String,
    /// `nbi.username`.
    pub username: String,
    /// `nbi.password`, without a newline at its end.
    pub password: SecretString,
    /// `nbi.password_file`: if it is given, the password is read from it, at once and whenever it may have changed.
    pub password_file: Option<PathBuf>,
    /// `nbi.timeout`: the whole request, from connecting to the last byte of the body; `Request::timeout` goes before.
    pub timeout: Duration,
    /// `nbi.connect_timeout`: until TCP and TLS stand.
    pub connect_timeout: Duration,
    /// `nbi.ca_file`: PEM; trusted *instead of* the system's roots.
    pub ca_file: Option<PathBuf>,
    /// The certificate that the worker shows, if the NBI asks for one.
    pub client_certificate: Option<ClientCertificate>,
    /// `nbi.allow_http`: whether credentials may cross the network in the clear.
    pub allow_http: bool,
    /// `nbi.max_response_bytes`.
    pub max_response_bytes: usize,
    /// `nbi.max_concurrency`: so many connections are kept for reuse.
    pub max_concurrency: usize,
}

impl HttpSettings {
    /// Whether anything comes from files that may change.
    pub(super) fn has_files(&self) -> bool {
        self.password_file.is_some() || self.ca_file.is_some() || self.client_certificate.is_some()
    }

    /// The keys and files of TLS, for explanations.
    pub(super) fn peer(&self) -> tls::Peer<'_> {
        let client = self.client_certificate.as_ref();
        tls::Peer {
            section: "nbi",
            name: "the NBI",
            plain: "http:// (with nbi.allow_http)",
            ca_file: self.ca_file.as_deref(),
            cert_file: client.map(|client| client.cert_file.as_path()),
        }
    }
}

/// A client certificate with its key.
#[derive(Debug, Clone)]
pub struct ClientCertificate {
    /// `nbi.client_cert_file`: PEM, with its chain.
    pub cert_file: PathBuf,
    /// `nbi.client_key_file`: PEM.
    pub key_file: PathBuf,
}

/// Why the transport cannot be built: wrong configuration, found before anything is sent.
#[derive(Debug, thiserror::Error)]
pub enum NbiSetupError {
    /// `nbi.url` is no URL. The value is not repeated, as it may hold credentials.
    #[error("`nbi.url` is not an absolute URL such as \"https://acs.example.net\"")]
    Url(#[source] url::ParseError),
    /// `nbi.url` has parts that it may not have, or a scheme that is not HTTP.
    #[error("`nbi.url` {reason}")]
    UrlPart {
        /// What is wrong and what to do.
        reason: &'static str,
    },
    /// Plain HTTP would show the credentials to the network.
    #[error(
        "`nbi.url` is {url:?}: over plain http the password crosses the network in the clear; use https, or set \
         `nbi.allow_http = true`"
    )]
    PlainHttp {
        /// The value, known to hold no credentials.
        url: String,
    },
    /// HTTP Basic cannot carry this user name or password (RFC 7617).
    #[error("`{key}` {reason}")]
    Credentials {
        /// The key.
        key: &'static str,
        /// What is wrong.
        reason: &'static str,
    },
    /// A file cannot be read.
    #[error("`{key}`: cannot read {path:?}")]
    File {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file holds no usable PEM.
    #[error("`{key}`: {path:?} {problem}")]
    Pem {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Certificate and key are fine each, and not together.
    #[error(
        "`nbi.client_cert_file` {cert_file:?} and `nbi.client_key_file` {key_file:?} do not belong together"
    )]
    Pair {
        /// The certificate.
        cert_file: PathBuf,
        /// The key.
        key_file: PathBuf,
        /// Why.
        source: reqwest::Error,
    },
    /// The HTTP client cannot be built, e.g. because the system has no CA certificates.
    #[error(
        "cannot set up HTTP to the NBI; has the system CA certificates? else set `nbi.ca_file`"
    )]
    Client(#[source] reqwest::Error),
}

/// Checks `nbi.url`.
pub(super) fn base_url(settings: &HttpSettings) -> Result<Url, NbiSetupError> {
    let url = Url::parse(settings.url.trim()).map_err(NbiSetupError::Url)?;
    let fault = |reason| Err(NbiSetupError::UrlPart { reason });
    if !url.username().is_empty() || url.password().is_some() {
        return fault("holds credentials: set `nbi.username` and `nbi.password` instead");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return fault("has a query or fragment: give scheme, host, port and path prefix only");
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if settings.allow_http => Ok(url),
        "http" => Err(NbiSetupError::PlainHttp { url: url.into() }),
        _ => fault("is neither https nor http"),
    }
}
