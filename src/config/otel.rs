//! `[otel]`: spans for a collector.

use url::Url;

use super::reader::Reader;

/// Spans for a collector.
#[derive(Debug, Clone)]
pub struct Otel {
    /// The collector's base address; without one no span is written.
    pub endpoint: Option<Url>,
    /// The share of traces that are kept where the requester has not decided.
    pub sample_ratio: f64,
}

impl Otel {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let otel = Self {
            endpoint: reader.optional("otel.endpoint", endpoint),
            sample_ratio: reader.number("otel.sample_ratio", 0.0..=1.0),
        };
        if otel.endpoint.is_some() && !cfg!(feature = "otel") {
            reader.fault(
                "otel.endpoint",
                "is set, and this program was built without tracing",
                "use a program built with `--features otel`, or do not set it",
            );
        }
        otel
    }
}

fn endpoint(text: &str) -> Result<Url, (String, String)> {
    let remedy = || {
        "give the collector's address for OTLP over HTTP without a path, e.g. \"http://otel-collector:4318\"".to_owned()
    };
    let url = Url::parse(text).map_err(|error| (format!("is not a URL: {error}"), remedy()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err((format!("has the scheme {:?}", url.scheme()), remedy()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(("has credentials in it".to_owned(), remedy()));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(("has a query or a fragment".to_owned(), remedy()));
    }
    Ok(url)
}
