//! Our state on a node: the journal and the files that belong to it, under one lock.
//!
//! Reading needs no lock: every file is replaced as a whole. Writing all but the count of lost events needs
//! [`LockedState`], so that agent, guard and
//! command line never write at the same time. While a Change is in progress, its directory has a copy of the journal,
//! which replaces one that is lost or damaged.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;

use super::files::{self, Host};
use super::{MANIFEST, STATE_DIR};
use crate::api::Reason;
use crate::health::loss::Losses;
use crate::journal::{self, Journal};
use crate::plan::JOURNAL_COPY;

pub(super) const JOURNAL: &str = "journal.json";
pub(super) const LOCK: &str = "lock";
/// The count of lost events.
pub(super) const LOSSES: &str = "losses.json";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    File(#[from] files::Error),
    #[error(transparent)]
    Root(#[from] files::RootError),
    #[error("{STATE_DIR}/journal.json is missing")]
    JournalMissing,
    #[error("{STATE_DIR}/{name} is damaged; move it away, and the agent rebuilds it from the node")]
    JournalUnreadable { name: &'static str, source: serde_json::Error },
    #[error(
        "{STATE_DIR}/{name} is of version {version}, which is newer than this program; install the newer version again"
    )]
    JournalTooNew { name: &'static str, version: u32 },
    #[error("cannot lock {STATE_DIR}/lock")]
    Lock(#[source] io::Error),
}

impl Error {
    pub fn reason(&self) -> Reason {
        match self {
            Error::File(error) => error.reason(),
            _ => Reason::FileError,
        }
    }
}

/// Our state, to be read.
#[derive(Clone, Debug)]
pub struct State {
    pub host: Host,
}

/// Our state, to be written by one process.
#[derive(Debug)]
pub struct LockedState {
    state: State,
    /// Held for the lifetime of the value; the kernel releases it however the process ends.
    _lock: File,
}

impl State {
    pub fn new(host: Host) -> Self {
        Self { host }
    }

    /// The journal; an empty one if there is none.
    pub fn journal(&self) -> Result<Journal, Error> {
        Ok(self.journal_or_copy()?.0)
    }

    /// The journal, or its copy with the damage of the journal. Only where both are missing was no Change begun.
    pub(super) fn journal_or_copy(&self) -> Result<(Journal, Option<Error>), Error> {
        let damage = match self.read_journal(JOURNAL) {
            Ok(journal) => return Ok((journal, None)),
            // An older program must not continue with the copy either.
            Err(error @ Error::JournalTooNew { .. }) => return Err(error),
            Err(error) => error,
        };
        match (self.read_journal(JOURNAL_COPY), damage) {
            (Ok(copy), damage) => Ok((copy, Some(damage))),
            (Err(Error::JournalMissing), Error::JournalMissing) => Ok((Journal::default(), None)),
            (Err(copy), Error::JournalMissing) => Err(copy),
            (Err(_), damage) => Err(damage),
        }
    }

    fn read_journal(&self, name: &'static str) -> Result<Journal, Error> {
        let bytes = self.host.read(&path(name))?.ok_or(Error::JournalMissing)?;
        Journal::read(&bytes).map_err(|error| match error {
            journal::Error::Unreadable(source) => Error::JournalUnreadable { name, source },
            journal::Error::TooNew(version) => Error::JournalTooNew { name, version },
        })
    }

    /// A file that we kept, as text.
    pub fn kept(&self, name: &str) -> Result<Option<String>, Error> {
        Ok(self.host.read(&path(name))?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The count of lost events. One that cannot be read begins again: it decides nothing.
    pub(super) fn losses(&self) -> Losses {
        let bytes = self.host.read(&path(LOSSES)).ok().flatten().unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Keeps the count of lost events. Only the agent writes it, and nothing is decided by it: it needs no lock, and a
    /// guard or a pass must not wait for it.
    pub(super) fn keep_losses(&self, losses: &Losses) -> Result<(), files::Error> {
        let json = serde_json::to_string(losses).expect("counts by name");
        self.host.replace(&path(LOSSES), json.as_bytes(), 0o600).map(drop)
    }

    /// The manifest of kube-apiserver.
    pub fn manifest(&self) -> Result<Option<Vec<u8>>, files::Error> {
        self.host.read(MANIFEST)
    }

    /// Whether our directory exists. A directory that was removed under a pod stays mounted there, and takes no file
    /// any more.
    pub fn is_there(&self) -> bool {
        self.host.metadata(STATE_DIR).is_ok_and(|directory| directory.nlink() > 0)
    }

    /// The log directory that was removed under a pod, if there is one: a new one of that name is not the mounted one.
    pub(super) fn removed_log_directory<'a>(&self, logs: impl Iterator<Item = &'a str>) -> Option<&'a str> {
        let mut directories = logs.filter_map(|path| path.rsplit_once('/')).map(|(directory, _)| directory);
        directories.find(|directory| self.host.follow(directory).is_ok_and(|place| place.is_removed))
    }

    /// Takes the lock if nobody else has it.
    pub fn try_lock(&self) -> Result<Option<LockedState>, Error> {
        // Before anything is made: a wrong root must not get a state directory.
        self.host.must_be_node()?;
        self.host.make_directory(STATE_DIR, 0o700)?;
        let lock = self.host.open_lock(&path(LOCK))?;
        match lock.try_lock() {
            // The file was removed by the program that has left the node meanwhile; the next one locks another file.
            Ok(()) if !self.host.is_at(&lock, &path(LOCK)) => Ok(None),
            Ok(()) => Ok(Some(LockedState { state: self.clone(), _lock: lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(Error::Lock(error)),
        }
    }
}

#[cfg(test)]
impl State {
    /// Takes the lock. A process that another test has just forked holds it too, until its exec.
    pub(super) fn lock(&self) -> Result<LockedState, Error> {
        for _ in 0..10_000 {
            if let Some(locked) = self.try_lock()? {
                return Ok(locked);
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        panic!("somebody else holds the lock");
    }
}

impl std::ops::Deref for LockedState {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl LockedState {
    /// Makes the journal durable, and its copy before it: the copy is never behind.
    pub fn record(&self, journal: &Journal) -> Result<(), Error> {
        let json = journal.to_json();
        if journal.under_way().is_some() {
            self.keep(JOURNAL_COPY, &json)?;
        }
        if !self.host.replace(&path(JOURNAL), json.as_bytes(), 0o600)? {
            // The program that wrote it may have been stopped before this.
            self.host.sync(&path(JOURNAL))?;
        }
        Ok(())
    }

    /// Keeps a file of our state.
    pub fn keep(&self, name: &str, content: &str) -> Result<(), Error> {
        let path = path(name);
        self.host.make_directory(parent(&path), 0o700)?;
        self.host.replace(&path, content.as_bytes(), 0o600)?;
        Ok(())
    }

    /// Removes a file that we kept.
    pub fn forget(&self, name: &str) -> Result<(), Error> {
        Ok(self.host.remove(&path(name))?)
    }
}

/// The directory of a path on the host.
pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("/", |(directory, _)| directory)
}

/// Path on the host of a file of our state.
pub(super) fn path(name: &str) -> String {
    format!("{STATE_DIR}/{name}")
}
