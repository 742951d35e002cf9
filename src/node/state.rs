//! Our state on a node: the journal, and the files that belong to it, below one lock.
//!
//! Reading needs no lock: every file is replaced as a whole. Writing needs [`LockedState`], so that agent, guard and command line
//! are never two writers at once.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;

use super::files::{self, Host};
use super::{MANIFEST, STATE_DIR};
use crate::api::Reason;
use crate::journal::Journal;

pub(super) const JOURNAL: &str = "journal.json";
pub(super) const LOCK: &str = "lock";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    File(#[from] files::Error),
    #[error(transparent)]
    Root(#[from] files::RootError),
    #[error("{STATE_DIR}/journal.json is damaged; move it away, and the node is looked at anew")]
    JournalUnreadable(#[source] serde_json::Error),
    #[error("{STATE_DIR}/journal.json is of version {0}, which is newer than this program")]
    JournalTooNew(u32),
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
    /// Held for the lifetime of the value; the kernel lets go of it however the process ends.
    _lock: File,
}

impl State {
    pub fn new(host: Host) -> Self {
        Self { host }
    }

    /// The journal; an empty one where there is none.
    pub fn journal(&self) -> Result<Journal, Error> {
        let Some(bytes) = self.host.read(&path(JOURNAL))? else {
            return Ok(Journal { version: Journal::VERSION, ..Journal::default() });
        };
        // The version is looked at first: an older program must not guess at what a newer one wrote.
        #[derive(serde::Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } = serde_json::from_slice(&bytes).map_err(Error::JournalUnreadable)?;
        if version > Journal::VERSION {
            return Err(Error::JournalTooNew(version));
        }
        serde_json::from_slice(&bytes).map_err(Error::JournalUnreadable)
    }

    /// A file that was kept, as text.
    pub fn kept(&self, name: &str) -> Result<Option<String>, Error> {
        Ok(self.host.read(&path(name))?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The manifest of kube-apiserver as it lies there.
    pub fn manifest(&self) -> Result<Option<Vec<u8>>, files::Error> {
        self.host.read(MANIFEST)
    }

    /// Whether our directory is there. One that was removed under a pod stays mounted there, and takes no file any more.
    pub fn is_there(&self) -> bool {
        self.host.metadata(STATE_DIR).is_ok_and(|directory| directory.nlink() > 0)
    }

    /// The log directory that was removed under a pod, if one was: a new one of that name is not the one that is mounted.
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
            // Whoever left the node meanwhile has removed the file, and the next one locks another.
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
    /// Makes the journal durable.
    pub fn record(&self, journal: &Journal) -> Result<(), Error> {
        let mut json = serde_json::to_vec_pretty(journal).expect("a journal is plain data");
        json.push(b'\n');
        if !self.host.replace(&path(JOURNAL), &json, 0o600)? {
            // Whoever wrote it may have been stopped before this.
            self.host.sync(&path(JOURNAL))?;
        }
        Ok(())
    }

    /// Keeps a file of our state.
    pub fn keep(&self, name: &str, content: &str) -> Result<(), Error> {
        let path = path(name);
        let directory = path.rsplit_once('/').expect("our state lies in a directory").0;
        self.host.make_directory(directory, 0o700)?;
        self.host.replace(&path, content.as_bytes(), 0o600)?;
        Ok(())
    }

    /// Forgets a file that was kept.
    pub fn forget(&self, name: &str) -> Result<(), Error> {
        Ok(self.host.remove(&path(name))?)
    }
}

/// Path on the host of a file of our state.
pub(super) fn path(name: &str) -> String {
    format!("{STATE_DIR}/{name}")
}
