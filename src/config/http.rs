//! `[http]`: the worker's HTTP endpoint.

use std::net::{Ipv4Addr, SocketAddr};

use super::reader::Reader;

/// The worker's HTTP endpoint.
#[derive(Debug, Clone)]
pub struct Http {
    /// Where metrics and health are served.
    pub listen: SocketAddr,
}

impl Http {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let listen = reader.required("http.listen", |text| {
            text.parse::<SocketAddr>().map_err(|_| {
                (
                    "is not an address with a port".to_owned(),
                    "give e.g. \"0.0.0.0:9464\" or \"[::]:9464\"".to_owned(),
                )
            })
        });
        Self {
            listen: listen.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        }
    }
}
