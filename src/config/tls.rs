//! TLS files, the same three keys in `[amqp]` and `[nbi]`.

use std::path::PathBuf;

use super::reader::Reader;

/// Certificates for one TLS peer; PEM files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Certificate authorities to trust; for the NBI instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Our certificate and its private key.
    pub client: Option<ClientCertificate>,
}

/// A client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The chain.
    pub cert_file: PathBuf,
    /// The private key.
    pub key_file: PathBuf,
}

impl Tls {
    pub(super) fn read(
        reader: &mut Reader,
        ca_file: &'static str,
        cert_file: &'static str,
        key_file: &'static str,
    ) -> Self {
        let ca = reader.file(ca_file);
        let (cert, key) = (reader.file(cert_file), reader.file(key_file));
        for (given, missing) in [(cert_file, key_file), (key_file, cert_file)] {
            if reader.is_set(given) && !reader.is_set(missing) {
                reader.fault(
                    given,
                    format!("is given without {missing}"),
                    format!("give {missing} too"),
                );
            }
        }
        let client = cert
            .zip(key)
            .map(|(cert_file, key_file)| ClientCertificate {
                cert_file,
                key_file,
            });
        Self {
            ca_file: ca,
            client,
        }
    }
}
