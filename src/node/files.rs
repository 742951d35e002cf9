//! Durable file operations below a host root. Everything that is written to a host goes through here.
//!
//! *Guarantees.* [`Host::replace`] leaves the old content or the new one, whole, whenever the machine stops: a dot file beside the
//! target (the kubelet ignores those), synced, renamed over it, the directory synced. Mode, owner and extended attributes of
//! a replaced file are kept, the SELinux label among them.
//!
//! *Caveats.* Hard links to a replaced file keep the old content. A symbolic link at the target is refused.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, XattrFlags};

use crate::api::Reason;

/// The kubelet's own limit for a manifest, and far above any file of ours (kubernetes@v1.36.3 pkg/kubelet/config/file.go, maxConfigLength).
const READ_LIMIT: u64 = 10 * 1024 * 1024;

/// A failed file operation, with its file.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}", path.display())]
pub struct Error {
    what: &'static str,
    path: PathBuf,
    #[source]
    pub source: io::Error,
}

impl Error {
    pub fn reason(&self) -> Reason {
        match self.source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Reason::DiskFull,
            io::ErrorKind::ReadOnlyFilesystem => Reason::ReadOnlyFileSystem,
            _ => Reason::FileError,
        }
    }
}

/// Names the failed step and its file.
fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error { what, path: path.into(), source }
}

/// A host's file system, seen below a directory: `/` for a shell on the node, `/host` in a pod.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
    /// The fault points; nothing happens at them outside of tests.
    #[cfg(test)]
    pub(super) faults: super::faults::Faults,
}

impl Host {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            #[cfg(test)]
            faults: super::faults::Faults::default(),
        }
    }

    /// A moment between two file operations at which a machine may stop, or an operation fail. `what` is about to be done to `path`.
    #[cfg_attr(not(test), expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "it is the tests' hook"))]
    fn point(&self, what: &'static str, path: &Path) -> Result<(), Error> {
        #[cfg(test)]
        self.faults.reached(what, path).map_err(failed(what, path))?;
        #[cfg(not(test))]
        let _ = (what, path);
        Ok(())
    }

    /// Where a path of the host lies for this process.
    pub fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Content of a file, or nothing where there is none.
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Error> {
        let path = self.at(path);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("open", &path)(error)),
        };
        let mut bytes = Vec::new();
        file.take(READ_LIMIT + 1).read_to_end(&mut bytes).map_err(failed("read", &path))?;
        if bytes.len() as u64 > READ_LIMIT {
            return Err(failed("read", &path)(io::Error::other("it is larger than 10 MiB")));
        }
        Ok(Some(bytes))
    }

    /// Makes `path` hold `bytes`. A file that is there keeps its mode, owner and attributes; a new one gets `mode`.
    /// Does nothing, and says so, where it holds them already.
    pub fn replace(&self, path: &str, bytes: &[u8], mode: u32) -> Result<bool, Error> {
        self.replace_like(path, bytes, mode, None)
    }

    /// The same; a new file is like `model`, if there is one.
    pub fn replace_like(&self, path: &str, bytes: &[u8], mode: u32, model: Option<&str>) -> Result<bool, Error> {
        if self.read(path)?.as_deref() == Some(bytes) {
            return Ok(false);
        }
        let target = self.at(path);
        let (directory, temporary) = beside(&target);
        let old = match std::fs::symlink_metadata(&target) {
            Ok(old) if !old.is_file() => {
                return Err(failed("replace", &target)(io::Error::other("it is not a regular file")));
            }
            Ok(old) => Some((target.clone(), old)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let model = model.map(|model| self.at(model));
                let metadata =
                    |model: PathBuf| std::fs::symlink_metadata(&model).ok().map(|metadata| (model, metadata));
                model.and_then(metadata).filter(|(_, metadata)| metadata.is_file())
            }
            Err(error) => return Err(failed("look at", &target)(error)),
        };
        // A temporary file that an earlier run left is ours and of no use.
        self.point("create", &temporary)?;
        remove_if_there(&temporary)?;
        let replaced = self
            .write_temporary(&temporary, old.as_ref(), bytes, mode)
            .and_then(|()| self.point("replace", &target))
            .and_then(|()| std::fs::rename(&temporary, &target).map_err(failed("replace", &target)));
        if replaced.is_err() {
            // The first error counts; a temporary file that cannot be removed is removed by the next run.
            drop(std::fs::remove_file(&temporary));
        }
        replaced?;
        self.point("sync", directory)?;
        sync_directory(directory)?;
        Ok(true)
    }

    /// Makes durable what lies at `path`, whoever put it there.
    pub fn sync(&self, path: &str) -> Result<(), Error> {
        let path = self.at(path);
        self.point("sync", &path)?;
        sync_directory(path.parent().expect("a file has a directory"))
    }

    /// Removes what an interrupted [`Host::replace`] of `path` left beside it.
    pub fn remove_temporary(&self, path: &str) -> Result<(), Error> {
        let (_, temporary) = beside(&self.at(path));
        self.point("remove", &temporary)?;
        remove_if_there(&temporary)?;
        Ok(())
    }

    /// Moves a file to another name in its directory.
    pub fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        let (from, to) = (self.at(from), self.at(to));
        self.point("rename", &from)?;
        std::fs::rename(&from, &to).map_err(failed("rename", &from))?;
        self.point("sync", &to)?;
        sync_directory(from.parent().expect("a file has a directory"))
    }

    /// Removes a file. It may be gone already.
    pub fn remove(&self, path: &str) -> Result<(), Error> {
        let path = self.at(path);
        self.point("remove", &path)?;
        if remove_if_there(&path)? {
            self.point("sync", &path)?;
            sync_directory(path.parent().expect("a file has a directory"))?;
        }
        Ok(())
    }

    /// Removes a directory of ours with everything in it. It may be gone already.
    pub fn remove_directory(&self, path: &str) -> Result<(), Error> {
        let path = self.at(path);
        self.point("remove", &path)?;
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    /// Removes a directory that has nothing in it. One that has is left alone, and so is a mount; it may be gone already.
    pub fn remove_empty_directory(&self, path: &str) -> Result<(), Error> {
        let path = self.at(path);
        match std::fs::remove_dir(&path) {
            Ok(()) => Ok(()),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound
                | io::ErrorKind::DirectoryNotEmpty
                | io::ErrorKind::ResourceBusy
                | io::ErrorKind::ReadOnlyFilesystem => Ok(()),
                _ => Err(failed("remove", &path)(error)),
            },
        }
    }

    /// Makes a directory and its parents, each synced into its own parent.
    pub fn make_directory(&self, path: &str, mode: u32) -> Result<(), Error> {
        let path = self.at(path);
        if path.is_dir() {
            return Ok(());
        }
        let parent = path.parent().expect("the root of the host exists");
        if !parent.is_dir() {
            let parent_on_host = parent.strip_prefix(&self.root).expect("a path of the host lies below its root");
            self.make_directory(&parent_on_host.to_string_lossy(), mode)?;
        }
        self.point("make directory", &path)?;
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("make directory", &path)(error));
            }
            _ => {}
        }
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).map_err(failed("set the mode of", &path))?;
        sync_directory(parent)
    }

    /// Whether there is a symbolic link.
    pub fn is_link(&self, path: &str) -> bool {
        self.at(path).is_symlink()
    }

    /// Names in a directory, sorted; none where there is no directory.
    pub fn list(&self, path: &str) -> Result<Vec<String>, Error> {
        let path = self.at(path);
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(failed("list", &path)(error)),
        };
        let names: io::Result<Vec<String>> =
            entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect();
        let mut names = names.map_err(failed("list", &path))?;
        names.sort();
        Ok(names)
    }

    /// Bytes that are free for root on the file system of the nearest directory that exists.
    pub fn free_bytes(&self, path: &str) -> Result<u64, Error> {
        let mut path = self.at(path);
        while !path.exists() && path.pop() {}
        let stat = rustix::fs::statvfs(&path).map_err(|error| failed("ask the free space of", &path)(error.into()))?;
        Ok(stat.f_bfree * stat.f_frsize)
    }

    fn write_temporary(
        &self,
        temporary: &Path,
        model: Option<&(PathBuf, std::fs::Metadata)>,
        bytes: &[u8],
        mode: u32,
    ) -> Result<(), Error> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(temporary)
            .map_err(failed("create", temporary))?;
        self.point("write", temporary)?;
        file.write_all(bytes).map_err(failed("write", temporary))?;
        if let Some((path, old)) = model {
            std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()))
                .map_err(failed("set the owner of", temporary))?;
            copy_attributes(path, &file).map_err(failed("copy the attributes to", temporary))?;
        }
        let mode = model.map_or(mode, |(_, old)| old.mode() & 0o7777);
        file.set_permissions(Permissions::from_mode(mode)).map_err(failed("set the mode of", temporary))?;
        self.point("sync", temporary)?;
        file.sync_all().map_err(failed("sync", temporary))
    }
}

/// The directory of a file, and the dot file beside it.
fn beside(target: &Path) -> (&Path, PathBuf) {
    let directory = target.parent().expect("a file has a directory");
    let name = target.file_name().expect("a file has a name").to_string_lossy();
    (directory, directory.join(format!(".{name}.audit-operator")))
}

/// Extended attributes, where the file system has them. Losing a label that it has would change who may read the file.
fn copy_attributes(from: &Path, to: &File) -> io::Result<()> {
    let mut names = vec![0u8; 64 * 1024];
    let length = match rustix::fs::llistxattr(from, &mut names[..]) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0u8; 64 * 1024];
        let length = rustix::fs::lgetxattr(from, name, &mut value[..])?;
        rustix::fs::fsetxattr(to, name, &value[..length], XattrFlags::empty())?;
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> Result<bool, Error> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("remove", path)(error)),
    }
}

fn sync_directory(path: &Path) -> Result<(), Error> {
    let directory = rustix::fs::openat(
        CWD,
        path,
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY,
        rustix::fs::Mode::empty(),
    );
    let synced = directory.and_then(|directory| rustix::fs::fsync(&directory));
    synced.map_err(|error| failed("sync", path)(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> (tempfile::TempDir, Host) {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::new(directory.path());
        (directory, host)
    }

    #[test]
    fn a_replaced_file_keeps_its_mode_and_leaves_nothing_beside_it() {
        let (directory, host) = host();
        host.make_directory("/etc/kubernetes/manifests", 0o700).unwrap();
        assert!(host.replace("/etc/kubernetes/manifests/a.yaml", b"one", 0o600).unwrap());
        let path = directory.path().join("etc/kubernetes/manifests/a.yaml");
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert!(host.replace("/etc/kubernetes/manifests/a.yaml", b"two", 0o600).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(host.list("/etc/kubernetes/manifests").unwrap(), ["a.yaml"]);
    }

    #[test]
    fn equal_content_is_not_written_again() {
        let (directory, host) = host();
        host.replace("/a", b"one", 0o600).unwrap();
        let inode = std::fs::metadata(directory.path().join("a")).unwrap().ino();
        assert!(!host.replace("/a", b"one", 0o600).unwrap());
        assert_eq!(std::fs::metadata(directory.path().join("a")).unwrap().ino(), inode);
    }

    #[test]
    fn what_an_interrupted_run_left_is_replaced() {
        let (directory, host) = host();
        std::fs::create_dir(directory.path().join("d")).unwrap();
        File::create(directory.path().join("d/.a.audit-operator")).unwrap().write_all(b"half").unwrap();
        host.replace("/d/a", b"whole", 0o600).unwrap();
        assert_eq!(host.list("/d").unwrap(), ["a"]);
    }

    #[test]
    fn a_symbolic_link_or_a_directory_at_the_target_is_refused() {
        let (directory, host) = host();
        File::create(directory.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", directory.path().join("link")).unwrap();
        std::fs::create_dir(directory.path().join("dir")).unwrap();
        assert!(host.replace("/link", b"x", 0o600).is_err());
        assert!(host.replace("/dir", b"x", 0o600).is_err());
        assert_eq!(host.read("/real").unwrap().unwrap(), b"");
    }

    #[test]
    fn a_file_that_is_not_there_reads_as_nothing_and_is_removed_in_peace() {
        let (_directory, host) = host();
        assert_eq!(host.read("/nothing").unwrap(), None);
        host.remove("/nothing").unwrap();
        assert_eq!(host.list("/nothing").unwrap(), Vec::<String>::new());
    }
}
