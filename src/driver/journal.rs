//! The journal of a run without a broker: a file that holds every job, so that a killed process loses none.
//!
//! A record is on the disk before [`Journal::write`] returns; many writers share one flush. Opening reads what is there, drops a last line
//! that a crash cut short, and begins a shorter file with what still counts, which takes the old one's place in one step. The file is
//! locked while it is open: two processes on one journal would upgrade devices twice. What records mean is `message/journal.rs`'s.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc as threads;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::message::journal::{Jobs, RecordError};

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another process works on it.
    #[error("another process works on the journal {0}: wait for it or stop it, then run again")]
    InUse(PathBuf),
    /// The file cannot be read or written.
    #[error("failed to {action} the journal {path}: {error}")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A line in the middle is no record.
    #[error(
        "line {line} of the journal {path} cannot be read: {error}; something else has changed the file: restore it, or name another with --journal once no device of it is under way"
    )]
    Record {
        /// The line, from 1.
        line: usize,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: RecordError,
    },
}

/// A record to write, and who waits for it.
type Entry = (Vec<u8>, oneshot::Sender<Result<(), String>>);

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    entries: threads::Sender<Entry>,
    broken: CancellationToken,
}

impl Journal {
    /// Opens or creates the file; what it says so far.
    ///
    /// # Errors
    ///
    /// [`JournalError`] names the file and the remedy.
    pub fn open(path: &Path) -> Result<(Self, Jobs), JournalError> {
        let failed = |action| {
            move |error| JournalError::File {
                action,
                path: path.to_owned(),
                error,
            }
        };
        let mut old = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .map_err(failed("open"))?;
        lock(&old, path)?;
        // What a link leads to is replaced, and not the link.
        let place = std::fs::canonicalize(path).map_err(failed("find"))?;
        // Between opening and locking another process may have put its shorter file in this one's place.
        let now = std::fs::metadata(path).map_err(failed("open"))?;
        let opened = old.metadata().map_err(failed("open"))?;
        if (now.dev(), now.ino()) != (opened.dev(), opened.ino()) {
            return Err(JournalError::InUse(path.to_owned()));
        }
        if !opened.is_file() {
            let error = io::Error::other("it is no regular file");
            return Err(failed("use")(error));
        }
        let mut bytes = Vec::new();
        old.read_to_end(&mut bytes).map_err(failed("read"))?;
        let jobs = read(&bytes, path)?;
        let file = begin_again(&place, opened.permissions(), &jobs).map_err(failed("write"))?;
        lock(&file, path)?;
        let at = place_of(&place);
        std::fs::rename(shorter(&place), &place)
            .and_then(|()| File::open(at)?.sync_all())
            .map_err(failed("replace"))?;
        let (entries, received) = threads::channel();
        let broken = CancellationToken::new();
        let fails = broken.clone();
        std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || write_all(file, &received, &fails))
            .map_err(failed("start writing"))?;
        let journal = Self {
            path: path.to_owned(),
            entries,
            broken,
        };
        Ok((journal, jobs))
    }

    /// Writes a record; it is on the disk when this returns.
    ///
    /// # Errors
    ///
    /// What the system says. The journal takes nothing more then.
    pub async fn write(&self, record: Vec<u8>) -> Result<(), String> {
        let gone = || format!("the journal {} is closed", self.path.display());
        let (sender, written) = oneshot::channel();
        self.entries.send((record, sender)).map_err(|_| gone())?;
        written
            .await
            .map_err(|_| gone())?
            .map_err(|error| format!("the journal {}: {error}", self.path.display()))
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Cancelled when a record could not be written: nothing can go on.
    #[must_use]
    pub fn broken(&self) -> CancellationToken {
        self.broken.clone()
    }
}

fn lock(file: &File, path: &Path) -> Result<(), JournalError> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => JournalError::InUse(path.to_owned()),
        TryLockError::Error(error) => JournalError::File {
            action: "lock",
            path: path.to_owned(),
            error,
        },
    })
}

/// Every record; a last line without its end was cut by a crash and never counted.
fn read(bytes: &[u8], path: &Path) -> Result<Jobs, JournalError> {
    let mut jobs = Jobs::default();
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let Some(line) = line.strip_suffix(b"\n") else {
            break;
        };
        jobs.take(line).map_err(|error| JournalError::Record {
            line: index + 1,
            path: path.to_owned(),
            error,
        })?;
    }
    Ok(jobs)
}

/// The shorter file beside the journal, complete and on the disk, for those to read who may read the old one.
fn begin_again(path: &Path, permissions: Permissions, jobs: &Jobs) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(shorter(path))?;
    file.set_permissions(permissions)?;
    let mut writer = BufWriter::new(&file);
    for job in jobs.list() {
        writer.write_all(&job.record())?;
    }
    writer.flush()?;
    drop(writer);
    file.sync_all()?;
    Ok(file)
}

fn shorter(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

fn place_of(path: &Path) -> &Path {
    match path.parent() {
        Some(place) if !place.as_os_str().is_empty() => place,
        _ => Path::new("."),
    }
}

/// Writes what comes, all that waits in one go, until nobody can send any more. After a failure nothing more is written: what
/// stands behind a gap could not be trusted.
fn write_all(mut file: File, entries: &threads::Receiver<Entry>, broken: &CancellationToken) {
    let mut failure: Option<Arc<str>> = None;
    while let Ok(first) = entries.recv() {
        let batch: Vec<Entry> = std::iter::once(first).chain(entries.try_iter()).collect();
        if failure.is_none() {
            let bytes: Vec<u8> = batch
                .iter()
                .flat_map(|(record, _)| record)
                .copied()
                .collect();
            if let Err(error) = file.write_all(&bytes).and_then(|()| file.sync_data()) {
                failure = Some(error.to_string().into());
                broken.cancel();
            }
        }
        for (_, waiting) in batch {
            let answer = failure
                .as_ref()
                .map_or(Ok(()), |error| Err(error.to_string()));
            // Whoever gave up waiting does not need it.
            drop(waiting.send(answer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(job: &str) -> Vec<u8> {
        crate::message::journal::of_request(job, format!(r#"{{"job_id":"{job}"}}"#).as_bytes())
    }

    fn ids(jobs: &Jobs) -> Vec<&str> {
        jobs.list().iter().map(|job| job.job_id.as_str()).collect()
    }

    #[tokio::test]
    async fn what_was_written_is_there_whatever_came_after_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("j");
        let (journal, jobs) = Journal::open(&path).unwrap();
        assert!(jobs.list().is_empty());
        journal.write(record("a")).await.unwrap();
        journal.write(record("b")).await.unwrap();
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        let second = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        // Cut at every byte, as a crash could.
        for end in 0..=whole.len() {
            let path = directory.path().join(format!("cut-{end}"));
            std::fs::write(&path, &whole[..end]).unwrap();
            let (_journal, jobs) = Journal::open(&path).unwrap();
            let expected: &[&str] = match end {
                end if end < second => &[],
                end if end < whole.len() => &["a"],
                _ => &["a", "b"],
            };
            assert_eq!(ids(&jobs), expected, "cut at {end}");
        }
    }

    #[test]
    fn a_link_and_the_rights_of_the_file_behind_it_stay() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("j"), directory.path().join("link"));
        std::fs::write(&file, record("a")).unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        symlink(&file, &link).unwrap();
        let (_journal, jobs) = Journal::open(&link).unwrap();
        assert_eq!(ids(&jobs), ["a"]);
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_line_that_something_else_wrote_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("j");
        let text = [record("a"), b"oops\n".to_vec(), record("b")].concat();
        std::fs::write(&path, &text).unwrap();
        let error = Journal::open(&path).unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), text, "it was left as it is");
    }

    #[tokio::test]
    async fn a_journal_is_open_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("j");
        let (journal, _) = Journal::open(&path).unwrap();
        assert!(matches!(Journal::open(&path), Err(JournalError::InUse(_))));
        journal.write(record("a")).await.unwrap();
        drop(journal);
    }

    #[tokio::test]
    async fn a_journal_that_cannot_be_written_says_so_and_takes_nothing_more() {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (entries, received) = threads::channel();
        let broken = CancellationToken::new();
        let fails = broken.clone();
        std::thread::spawn(move || write_all(full, &received, &fails));
        let journal = Journal {
            path: "/dev/full".into(),
            entries,
            broken,
        };
        let said = journal.write(record("a")).await.unwrap_err();
        assert!(
            said.contains("/dev/full") && said.contains("space"),
            "{said}"
        );
        assert!(journal.broken().is_cancelled());
        journal.write(record("b")).await.unwrap_err();
    }
}
