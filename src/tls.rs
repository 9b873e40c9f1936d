//! TLS in the words of an operator: what is wrong with a certificate file, and what a failed handshake means.
//!
//! Both TLS peers, broker and NBI, are explained here, so that the same fault has the same words. A remedy names the key and the file.
//! It reads nothing and connects to nothing; `nbi/` and `driver/amqp/` do.

use std::error::Error;
use std::io;
use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::{AlertDescription, CertificateError, InvalidMessage};

/// The keys of one peer, and the files that they name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer<'a> {
    /// `amqp` or `nbi`: the section of the keys.
    pub(crate) section: &'static str,
    /// Who it is, for sentences: `the broker`, `the NBI`.
    pub(crate) name: &'static str,
    /// The URL of a peer that does not speak TLS, for remedies.
    pub(crate) plain: &'static str,
    /// The authorities to trust.
    pub(crate) ca_file: Option<&'a Path>,
    /// Our certificate.
    pub(crate) cert_file: Option<&'a Path>,
}

/// Why a certificate file cannot be used.
///
/// # Errors
///
/// What is wrong with it, to be read after its name.
pub(crate) fn check_certificates(pem: &[u8]) -> Result<(), String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(found) if found.is_empty() => {
            Err("holds no certificate; it must have lines -----BEGIN CERTIFICATE-----".to_owned())
        }
        Ok(_) => Ok(()),
        Err(error) => Err(format!("is not valid PEM: {error}")),
    }
}

/// Why a file with a private key cannot be used.
///
/// # Errors
///
/// What is wrong with it, to be read after its name. Nothing of the key is repeated.
pub(crate) fn check_key(pem: &[u8]) -> Result<(), String> {
    if PrivateKeyDer::from_pem_slice(pem).is_ok() {
        return Ok(());
    }
    let is_encrypted = pem
        .windows(b"ENCRYPTED".len())
        .any(|window| window == b"ENCRYPTED");
    Err(if is_encrypted {
        "holds an encrypted key; write it without a passphrase and protect the file instead"
    } else {
        "holds no private key; it must have a line -----BEGIN PRIVATE KEY-----"
    }
    .to_owned())
}

/// What a failed handshake means and what to do about it; `None` if TLS is not what failed.
pub(crate) fn explain(error: &(dyn Error + 'static), peer: Peer<'_>) -> Option<String> {
    let Peer { section, name, .. } = peer;
    Some(match find(error)? {
        rustls::Error::InvalidCertificate(error) => certificate(error, peer),
        rustls::Error::AlertReceived(alert) => alerted(*alert, peer)?,
        rustls::Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => format!(
            "{name} does not speak TLS on this port: give the port that does, or write {}",
            peer.plain
        ),
        rustls::Error::PeerIncompatible(_) => {
            format!(
                "{name} and the worker have no TLS version or cipher in common: TLS 1.2 or newer is needed"
            )
        }
        rustls::Error::InconsistentKeys(_) => {
            format!(
                "{section}.client_key_file is not the key of {section}.client_cert_file: give the two that belong together"
            )
        }
        _ => return None,
    })
}

/// Whether the peer ended the handshake because of our certificate, or of none: then it took nothing in, whatever was sent already.
pub(crate) fn is_turned_away(error: &(dyn Error + 'static)) -> bool {
    matches!(
        find(error),
        Some(rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
                | AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
        ))
    )
}

/// The TLS library's error inside an error of others.
fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        // What an I/O error wraps is not its source, but stands in its place.
        next = match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// What is wrong with the certificate that the peer showed.
fn certificate(error: &CertificateError, peer: Peer<'_>) -> String {
    let Peer { section, name, .. } = peer;
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => match peer.ca_file {
            Some(path) => format!(
                "{name}'s certificate is signed by no authority in {section}.ca_file ({}): put the authority's certificate there",
                path.display()
            ),
            None => format!(
                "{name}'s certificate is signed by no authority of this system: set {section}.ca_file to the certificate of its authority"
            ),
        },
        CertificateError::Expired => {
            format!(
                "{name}'s certificate has expired: have it renewed, and check this machine's clock"
            )
        }
        CertificateError::ExpiredContext { not_after, .. } => format!(
            "{name}'s certificate expired on {}: have it renewed, and check this machine's clock",
            date(*not_after)
        ),
        CertificateError::NotValidYet => {
            format!("{name}'s certificate is not valid yet: check this machine's clock")
        }
        CertificateError::NotValidYetContext { not_before, .. } => format!(
            "{name}'s certificate is not valid before {}: check this machine's clock",
            date(*not_before)
        ),
        CertificateError::NotValidForName => {
            format!(
                "{name}'s certificate is for another host: name it in {section}.url as the certificate does"
            )
        }
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => format!(
            "{name}'s certificate is not for {:?} but for {}: name the host in {section}.url as the certificate does",
            expected.to_str(),
            names(presented),
        ),
        CertificateError::Revoked => {
            format!("{name}'s certificate is revoked: have a new one issued")
        }
        other => format!(
            "{name}'s certificate is not accepted ({other}): {section}.ca_file must hold the authority that signed it"
        ),
    }
}

/// What the peer had against us. Which alert it sends for what is its own choice, so the nearest cause is named.
fn alerted(alert: AlertDescription, peer: Peer<'_>) -> Option<String> {
    let Peer { section, name, .. } = peer;
    Some(match (alert, peer.cert_file) {
        (
            AlertDescription::CertificateRequired
            | AlertDescription::HandshakeFailure
            | AlertDescription::BadCertificate
            | AlertDescription::NoCertificate,
            None,
        ) => format!(
            "{name} asks for a client certificate: set {section}.client_cert_file and {section}.client_key_file"
        ),
        (
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRequired
            | AlertDescription::DecryptError
            | AlertDescription::AccessDenied,
            Some(path),
        ) => format!(
            "{name} does not accept our certificate in {section}.client_cert_file ({}): give one that is valid and signed by an authority that it trusts",
            path.display()
        ),
        _ => return None,
    })
}

/// The names in a certificate, a few of them. They come as `DnsName("…")` or `IpAddress(…)`.
fn names(presented: &[String]) -> String {
    const SHOWN: usize = 5;
    const NAME_MAX: usize = 40;
    if presented.is_empty() {
        return "no host at all".to_owned();
    }
    let shown: Vec<_> = presented
        .iter()
        .take(SHOWN)
        .map(|name| {
            let inner = name.split_once('(').map_or(name.as_str(), |(_, rest)| rest);
            let bare = inner.trim_end_matches(')').trim_matches('"');
            let shown = bare.chars().filter(|c| !c.is_control());
            shown.take(NAME_MAX).collect::<String>()
        })
        .collect();
    let more = if presented.len() > SHOWN { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

fn date(time: UnixTime) -> String {
    i64::try_from(time.as_secs())
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .map_or_else(|| "an unknown day".to_owned(), |time| time.to_string())
}
