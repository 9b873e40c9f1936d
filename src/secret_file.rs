//! A secret in a file: its text without the line ends at its end.
//!
//! Read when the program starts and again whenever the secret is about to be used anew, so that a secret can be changed without a
//! restart. Orchestrators put a new file in place by renaming a symbolic link; a path that is opened anew sees it at once.

use std::io::{Error, ErrorKind, Result};
use std::path::Path;

use secrecy::SecretString;

/// Reads it.
///
/// # Errors
///
/// The file cannot be read, is not text, or holds nothing.
pub(crate) fn read(path: &Path) -> Result<SecretString> {
    let text = std::fs::read_to_string(path)?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err(Error::new(ErrorKind::InvalidData, "it is an empty file"));
    }
    Ok(SecretString::from(secret))
}
