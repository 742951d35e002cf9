//! Durable file operations below a host root. Everything that is written to a host goes through here.
//!
//! *Flow.* A path is resolved below the root as the host itself does ([`resolve`]). Each file is written through its
//! opened directory, by name and without following a link: no link, and nobody who replaces a directory meanwhile,
//! leads out of the root.
//!
//! *Guarantees.* [`Host::replace`] leaves the old content or the new one, whole, whenever the machine stops: a dot file
//! beside the target (the kubelet ignores those), synced, renamed over it, the directory synced. Mode, owner and
//! extended attributes of a replaced file are kept, the SELinux label among them.
//!
//! *Caveats.* Hard links to a replaced file keep the old content. A symbolic link at the target is refused.
//!
//! *Errors* name the path as the node's own shell does.

mod resolve;

use std::ffi::{CStr, CString};
use std::fs::{File, Metadata, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, XattrFlags};
use rustix::io::Errno;

use super::MANIFESTS_DIR;
use crate::api::Reason;
pub use resolve::Link;
use resolve::Root;

/// The kubelet's own limit for a manifest, and far above any file of ours (kubernetes@v1.36.3
/// pkg/kubelet/config/file.go, maxConfigLength).
const READ_LIMIT: u64 = 10 * 1024 * 1024;

/// To read. Neither a pipe nor a terminal holds up who opens it.
const TO_READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);
/// A directory to work in and to sync.
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A failed file operation, with its file.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} {}", path.display())]
pub struct Error {
    step: &'static str,
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

/// A directory that cannot be the root of a node.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    #[error("--host-root {}: cannot open this directory", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "--host-root {}: there is no directory {MANIFESTS_DIR} below it, so this is not the root of a control-plane node",
        path.display()
    )]
    NotANode { path: PathBuf },
}

/// Names the failed step and its file.
fn failed<E: Into<io::Error>>(step: &'static str, path: &Path) -> impl FnOnce(E) -> Error {
    move |source| Error { step, path: path.into(), source: source.into() }
}

/// A host's file system, seen below a directory: `/` for a shell on the node, `/host` in a pod.
#[derive(Clone, Debug)]
pub struct Host {
    root: Arc<Root>,
    path: PathBuf,
    view: View,
    /// The fault points; nothing happens at them outside of tests.
    #[cfg(test)]
    pub(super) faults: super::faults::Faults,
}

/// The part of the host that a root shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    /// Some directory: messages name the whole path.
    Directory,
    /// All of a node.
    Node,
    /// Directories of a node, each a mount below a root that is the pod's own.
    Mounts,
}

/// Where a path leads.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) end: End,
    /// With all links resolved.
    pub(super) resolved: PathBuf,
    /// The last link on the way.
    pub(super) link: Option<Link>,
    /// Whether the file, or else its nearest existing directory, belongs to the node, and not to the pod of this
    /// process.
    pub(super) is_of_node: bool,
    /// Whether that directory was removed. It stays mounted in a pod, and the node may have a new one of that name.
    pub(super) is_removed: bool,
    /// Bytes that are free for root on that file system.
    pub(super) free_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Directory,
    Other,
    /// It can be made.
    Missing,
    /// A link leads nowhere: nothing can be made at the path.
    Dangling,
    /// One of its directories is a file: [`Place::resolved`].
    BelowFile,
    /// Its links lead in a circle.
    Circle,
}

impl Host {
    /// Any directory. It is there.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = directory.into();
        let root = Root::open(&path).map_err(failed("open", &path))?;
        Ok(Self::new(root, path, View::Directory))
    }

    /// The root of a control-plane node, as a shell on it has it.
    pub fn of_node(root: impl Into<PathBuf>) -> Result<Self, RootError> {
        let host = Self::of(root.into(), View::Node)?;
        host.must_be_node()?;
        Ok(host)
    }

    /// A pod's directory with mounts of the node in it. That its manifests are missing is for the agent to report.
    pub fn of_mounts(root: impl Into<PathBuf>) -> Result<Self, RootError> {
        Self::of(root.into(), View::Mounts)
    }

    fn of(path: PathBuf, view: View) -> Result<Self, RootError> {
        match Root::open(&path) {
            Ok(root) => Ok(Self::new(root, path, view)),
            Err(error) => Err(RootError::Open { path, source: error.into() }),
        }
    }

    fn new(root: Root, path: PathBuf, view: View) -> Self {
        Self {
            root: Arc::new(root),
            path,
            view,
            #[cfg(test)]
            faults: super::faults::Faults::default(),
        }
    }

    /// Whether the kubelet's manifests are here. Nothing of ours is made where they are not.
    pub(super) fn must_be_node(&self) -> Result<(), RootError> {
        if self.is_dir(MANIFESTS_DIR) { Ok(()) } else { Err(RootError::NotANode { path: self.path.clone() }) }
    }

    /// A moment between two file operations at which a machine may stop, or an operation fail. `step` is the next one,
    /// with its file.
    #[cfg_attr(not(test), expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "it is the tests' hook"))]
    fn point(&self, step: &'static str, path: &Path) -> Result<(), Error> {
        #[cfg(test)]
        self.faults.reached(step, path).map_err(failed(step, path))?;
        #[cfg(not(test))]
        let _ = (step, path);
        Ok(())
    }

    /// A path of the host, for people.
    fn shown(&self, path: &str) -> PathBuf {
        match self.view {
            View::Directory => self.path.join(path.trim_start_matches('/')),
            View::Node | View::Mounts => path.into(),
        }
    }

    /// The opened directory of a file, for operations on the file.
    fn directory_of(&self, path: &str) -> Result<Entry<'_>, Error> {
        let shown = self.shown(path);
        let trimmed = path.trim_end_matches('/');
        let (parent, name) = trimmed.rsplit_once('/').unwrap_or(("", trimmed));
        if matches!(name, "" | "." | "..") {
            return Err(failed("use", &shown)(io::Error::other("it does not name a file")));
        }
        match self.root.resolve(parent, DIRECTORY) {
            Ok(directory) => Ok(Entry { host: self, directory: directory.into(), name: name.into(), shown }),
            Err(error) => Err(failed("open the directory of", &shown)(error)),
        }
    }

    /// The same; `None` if there is no such directory.
    fn directory_of_if_there(&self, path: &str) -> Result<Option<Entry<'_>>, Error> {
        match self.directory_of(path) {
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// Opens a file to read it, links followed. A plain error, for callers that judge its kind.
    pub fn open_file(&self, path: &str) -> io::Result<File> {
        Ok(self.root.resolve(path, TO_READ)?.into())
    }

    /// Metadata of a file, links followed.
    pub fn metadata(&self, path: &str) -> io::Result<Metadata> {
        File::from(self.root.resolve(path, OFlags::PATH)?).metadata()
    }

    pub fn is_dir(&self, path: &str) -> bool {
        self.root.resolve(path, OFlags::PATH | OFlags::DIRECTORY).is_ok()
    }

    /// The kind of file that has this name, which may be a link; `None` if there is none.
    pub(super) fn kind(&self, path: &str) -> Result<Option<FileType>, Error> {
        let Some(entry) = self.directory_of_if_there(path)? else { return Ok(None) };
        Ok(entry.stat()?.map(|stat| FileType::from_raw_mode(stat.st_mode)))
    }

    /// Whether there is a symbolic link.
    pub fn is_link(&self, path: &str) -> bool {
        matches!(self.kind(path), Ok(Some(FileType::Symlink)))
    }

    /// Follows a path to its end.
    pub(super) fn follow(&self, path: &str) -> Result<Place, Error> {
        let shown = self.shown(path);
        let root: &Root = &self.root;
        let (walked, lost);
        let (end, resolved, link, nearest) = match root.walk(path) {
            Ok(found) => {
                walked = found;
                let end = if walked.is_directory() { End::Directory } else { End::Other };
                (end, walked.resolved(), walked.link.clone(), walked.end(root))
            }
            Err(found) => {
                lost = found;
                let end = match lost.error {
                    Errno::NOENT if lost.is_in_link => End::Dangling,
                    Errno::NOENT => End::Missing,
                    Errno::NOTDIR => End::BelowFile,
                    Errno::LOOP => End::Circle,
                    error => return Err(failed("look at", &shown)(error)),
                };
                (end, lost.at.clone(), lost.link.clone(), lost.nearest(root))
            }
        };
        let is_own = |nearest| resolve::is_same_mount(nearest, root.as_fd()).map_err(failed("look at", &shown));
        let is_of_node = self.view != View::Mounts || !is_own(nearest)?;
        let stat = rustix::fs::fstatvfs(nearest).map_err(failed("read the free space of", &shown))?;
        let is_removed = rustix::fs::fstat(nearest).map_err(failed("look at", &shown))?.st_nlink == 0;
        Ok(Place { end, resolved, link, is_of_node, is_removed, free_bytes: stat.f_bfree * stat.f_frsize })
    }

    /// Content of a file; `None` if there is none.
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Error> {
        let shown = self.shown(path);
        match self.open_file(path) {
            Ok(file) => read(&file, &shown).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("open", &shown)(error)),
        }
    }

    /// The last bytes of a file, as text.
    pub(super) fn tail(&self, path: &str, bytes: u64) -> io::Result<String> {
        let mut file = self.open_file(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
        let mut tail = Vec::new();
        file.take(bytes).read_to_end(&mut tail)?;
        Ok(String::from_utf8_lossy(&tail).into_owned())
    }

    /// Gives `path` the content `bytes`. An existing file keeps its mode, owner and attributes; a new one gets `mode`.
    /// Does nothing, and returns false, if it has that content already.
    pub fn replace(&self, path: &str, bytes: &[u8], mode: u32) -> Result<bool, Error> {
        self.replace_like(path, bytes, mode, None)
    }

    /// The same; a new file is like `model`, if there is one.
    pub fn replace_like(&self, path: &str, bytes: &[u8], mode: u32, model: Option<&str>) -> Result<bool, Error> {
        let target = self.directory_of(path)?;
        let model = match target.open_regular("replace")? {
            Some(old) => {
                if read(&old, &target.shown)? == bytes {
                    return Ok(false);
                }
                Some(old)
            }
            // Without a model that can be read, the file is as a new one.
            None => model.and_then(|model| self.directory_of(model).ok()?.open_regular("read").ok()?),
        };
        let temporary = target.beside();
        // A temporary file that an earlier run left is ours and of no use.
        self.point("create", &temporary.shown)?;
        temporary.unlink()?;
        let replaced = temporary
            .write(model.as_ref(), bytes, mode)
            .and_then(|()| self.point("replace", &target.shown))
            .and_then(|()| temporary.rename_to(&target, "replace", &target.shown));
        if replaced.is_err() {
            // The first error counts; a temporary file that cannot be removed is removed by the next run.
            drop(temporary.unlink());
        }
        replaced?;
        self.point("sync", target.shown.parent().unwrap_or(&target.shown))?;
        target.sync_directory()?;
        Ok(true)
    }

    /// Makes the file at `path` durable, no matter who wrote it.
    pub fn sync(&self, path: &str) -> Result<(), Error> {
        self.point("sync", &self.shown(path))?;
        self.directory_of(path)?.sync_directory()
    }

    /// Removes the temporary file that an interrupted [`Host::replace`] of `path` left beside it.
    pub fn remove_temporary(&self, path: &str) -> Result<(), Error> {
        self.point("remove", &self.shown(path))?;
        if let Some(entry) = self.directory_of_if_there(path)? {
            entry.beside().unlink()?;
        }
        Ok(())
    }

    /// Moves a file to another name in its directory.
    pub fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        self.point("rename", &self.shown(from))?;
        let (from, to) = (self.directory_of(from)?, self.directory_of(to)?);
        from.rename_to(&to, "rename", &from.shown)?;
        self.point("sync", &to.shown)?;
        to.sync_directory()
    }

    /// Removes a file. It may be gone already.
    pub fn remove(&self, path: &str) -> Result<(), Error> {
        self.point("remove", &self.shown(path))?;
        let Some(entry) = self.directory_of_if_there(path)? else { return Ok(()) };
        if entry.unlink()? {
            self.point("sync", &entry.shown)?;
            entry.sync_directory()?;
        }
        Ok(())
    }

    /// Removes a directory of ours with everything in it. It may be gone already. No link is followed: a link in its
    /// place, or in it, goes by itself.
    pub fn remove_directory(&self, path: &str) -> Result<(), Error> {
        self.point("remove", &self.shown(path))?;
        let Some(entry) = self.directory_of_if_there(path)? else { return Ok(()) };
        if entry.stat()?.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink) {
            return entry.unlink().map(drop);
        }
        let name = CString::new(entry.name).map_err(failed("remove", &entry.shown))?;
        remove_tree(entry.directory.as_fd(), &name).map_err(failed("remove", &entry.shown))
    }

    /// Removes a directory that has nothing in it. One that has is left alone, and so is a mount; it may be gone
    /// already.
    pub fn remove_empty_directory(&self, path: &str) -> Result<(), Error> {
        let Some(entry) = self.directory_of_if_there(path)? else { return Ok(()) };
        match rustix::fs::unlinkat(&entry.directory, entry.name.as_str(), AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY | Errno::ROFS) => Ok(()),
            Err(error) => Err(failed("remove", &entry.shown)(error)),
        }
    }

    /// Makes a directory and its parents, each synced into its own parent.
    pub fn make_directory(&self, path: &str, mode: u32) -> Result<(), Error> {
        let path = path.trim_end_matches('/');
        if self.is_dir(path) {
            return Ok(());
        }
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.make_directory(parent, mode)?;
        }
        let entry = self.directory_of(path)?;
        self.point("make directory", &entry.shown)?;
        match rustix::fs::mkdirat(&entry.directory, entry.name.as_str(), Mode::from_raw_mode(mode)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(failed("make directory", &entry.shown)(error)),
        }
        let made = entry.open(DIRECTORY).map_err(failed("make directory", &entry.shown))?;
        // The requested mode, whatever the umask.
        rustix::fs::fchmod(&made, Mode::from_raw_mode(mode)).map_err(failed("set the mode of", &entry.shown))?;
        entry.sync_directory()
    }

    /// Opens a file to be locked, and makes it where there is none. To be read, where it is there: a guard that starts
    /// on a read-only disk finds its work once that can be written again.
    pub fn open_lock(&self, path: &str) -> Result<File, Error> {
        let entry = self.directory_of(path)?;
        let opened = match entry.open(TO_READ) {
            Err(Errno::NOENT) => entry.create(OFlags::empty()),
            opened => opened,
        };
        opened.map(File::from).map_err(failed("open", &entry.shown))
    }

    /// Whether an open file is the one that has this name.
    pub fn is_at(&self, file: &File, path: &str) -> bool {
        let Ok(Some(stat)) = self.directory_of(path).and_then(|entry| entry.stat()) else { return false };
        file.metadata().is_ok_and(|open| (open.dev(), open.ino()) == (stat.st_dev, stat.st_ino))
    }

    /// Names in a directory, sorted; none where there is no directory.
    pub fn list(&self, path: &str) -> Result<Vec<String>, Error> {
        let listed = match self.root.resolve(path, DIRECTORY) {
            Ok(directory) => names(directory),
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
            Err(error) => Err(error),
        };
        let listed = listed.map_err(failed("list", &self.shown(path)))?;
        let mut names: Vec<String> = listed.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        Ok(names)
    }
}

/// A name in an opened directory. It is never followed.
struct Entry<'a> {
    host: &'a Host,
    directory: Arc<OwnedFd>,
    name: String,
    shown: PathBuf,
}

impl Entry<'_> {
    /// The dot file beside it.
    fn beside(&self) -> Self {
        let name = format!(".{}.audit-operator", self.name);
        Self { host: self.host, directory: self.directory.clone(), shown: self.shown.with_file_name(&name), name }
    }

    fn open(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        rustix::fs::openat(&self.directory, self.name.as_str(), flags | OFlags::NOFOLLOW, Mode::empty())
    }

    fn create(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | flags;
        rustix::fs::openat(&self.directory, self.name.as_str(), flags, Mode::RUSR | Mode::WUSR)
    }

    fn stat(&self) -> Result<Option<Stat>, Error> {
        match rustix::fs::statat(&self.directory, self.name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(failed("look at", &self.shown)(error)),
        }
    }

    /// Opens it to read it; nothing where there is none. Fails, as a step of this name, where it is not a regular file.
    fn open_regular(&self, step: &'static str) -> Result<Option<File>, Error> {
        let is_regular =
            |kind| if kind == FileType::RegularFile { Ok(()) } else { Err(not_regular(step, &self.shown)) };
        // Before it is opened: opening a device may do something.
        let Some(stat) = self.stat()? else { return Ok(None) };
        is_regular(FileType::from_raw_mode(stat.st_mode))?;
        match self.open(TO_READ) {
            Ok(file) => {
                let stat = rustix::fs::fstat(&file).map_err(failed("look at", &self.shown))?;
                is_regular(FileType::from_raw_mode(stat.st_mode))?;
                Ok(Some(file.into()))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(failed("open", &self.shown)(error)),
        }
    }

    /// Writes a new file, durable but for its name.
    fn write(&self, model: Option<&File>, bytes: &[u8], mode: u32) -> Result<(), Error> {
        let path = &self.shown;
        let mut file = File::from(self.create(OFlags::EXCL).map_err(failed("create", path))?);
        self.host.point("write", path)?;
        file.write_all(bytes).map_err(failed("write", path))?;
        let mut mode = mode;
        if let Some(model) = model {
            let old = model.metadata().map_err(failed("look at", path))?;
            std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()))
                .map_err(failed("set the owner of", path))?;
            copy_attributes(model, &file).map_err(failed("copy the attributes to", path))?;
            mode = old.mode() & 0o7777;
        }
        file.set_permissions(Permissions::from_mode(mode)).map_err(failed("set the mode of", path))?;
        self.host.point("sync", path)?;
        file.sync_all().map_err(failed("sync", path))
    }

    fn rename_to(&self, to: &Self, step: &'static str, shown: &Path) -> Result<(), Error> {
        rustix::fs::renameat(&self.directory, self.name.as_str(), &to.directory, to.name.as_str())
            .map_err(failed(step, shown))
    }

    /// Whether it was there.
    fn unlink(&self) -> Result<bool, Error> {
        match rustix::fs::unlinkat(&self.directory, self.name.as_str(), AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(failed("remove", &self.shown)(error)),
        }
    }

    fn sync_directory(&self) -> Result<(), Error> {
        rustix::fs::fsync(&self.directory).map_err(failed("sync the directory of", &self.shown))
    }
}

fn not_regular(step: &'static str, path: &Path) -> Error {
    failed(step, path)(io::Error::other("it is not a regular file"))
}

fn read(file: &File, path: &Path) -> Result<Vec<u8>, Error> {
    if !file.metadata().map_err(failed("look at", path))?.is_file() {
        return Err(not_regular("read", path));
    }
    let mut bytes = Vec::new();
    file.take(READ_LIMIT + 1).read_to_end(&mut bytes).map_err(failed("read", path))?;
    if bytes.len() as u64 > READ_LIMIT {
        return Err(failed("read", path)(io::Error::other("it is larger than 10 MiB")));
    }
    Ok(bytes)
}

/// Names in a directory, but for itself and its parent.
fn names(directory: impl AsFd) -> Result<Vec<CString>, Errno> {
    let names = Dir::read_from(directory)?.map(|entry| Ok(entry?.file_name().to_owned()));
    let is_own = |name: &CString| !matches!(name.as_bytes(), b"." | b"..");
    names.filter(|name| name.as_ref().map_or(true, is_own)).collect()
}

/// Removes a directory with its content. A link in it is removed, not its target, and a file that somebody else removes
/// meanwhile is no error.
fn remove_tree(parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let is_gone = |outcome| if outcome == Err(Errno::NOENT) { Ok(()) } else { outcome };
    let directory = match rustix::fs::openat(parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    for name in names(&directory)? {
        match rustix::fs::unlinkat(&directory, &name, AtFlags::empty()) {
            Err(Errno::ISDIR) => remove_tree(directory.as_fd(), &name)?,
            removed => is_gone(removed)?,
        }
    }
    is_gone(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR))
}

/// Extended attributes, where the file system has them. Losing a label that it has would change who may read the file.
fn copy_attributes(from: &File, to: &File) -> Result<(), Errno> {
    let mut names = vec![0u8; 64 * 1024];
    let length = match rustix::fs::flistxattr(from, &mut names[..]) {
        Err(Errno::NOTSUP) => return Ok(()),
        listed => listed?,
    };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0u8; 64 * 1024];
        let length = rustix::fs::fgetxattr(from, name, &mut value[..])?;
        rustix::fs::fsetxattr(to, name, &value[..length], XattrFlags::empty())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn host() -> (tempfile::TempDir, Host) {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::open(directory.path()).unwrap();
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
        symlink("real", directory.path().join("link")).unwrap();
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
    /// A host beside files of the machine that its links try to lead to.
    fn host_with_links() -> (tempfile::TempDir, Host) {
        let directory = tempfile::tempdir().unwrap();
        for made in ["etc", "root/etc", "root/data/audit"] {
            std::fs::create_dir_all(directory.path().join(made)).unwrap();
        }
        File::create(directory.path().join("etc/secret")).unwrap().write_all(b"the machine's").unwrap();
        File::create(directory.path().join("root/etc/secret")).unwrap().write_all(b"the node's").unwrap();
        let machine = directory.path().to_str().unwrap();
        for (link, target) in [
            ("absolute", "/etc"),
            ("up", "../../../../etc"),
            ("out", machine),
            ("log", "/data/audit"),
            ("nowhere", "/not/there"),
            ("circle", "circle"),
        ] {
            symlink(target, directory.path().join("root").join(link)).unwrap();
        }
        let host = Host::open(directory.path().join("root")).unwrap();
        (directory, host)
    }

    #[test]
    fn links_lead_where_the_node_itself_has_them() {
        let (directory, host) = host_with_links();
        for path in ["/etc/secret", "/absolute/secret", "/up/secret", "/../../etc/secret", "etc/secret"] {
            assert_eq!(host.read(path).unwrap().as_deref(), Some(&b"the node's"[..]), "{path}");
        }
        assert_eq!(host.read("/out/etc/secret").unwrap(), None);
        assert!(!host.is_dir("/out") && host.is_dir("/log") && host.is_link("/log"));
        host.replace("/log/a", b"new", 0o600).unwrap();
        host.make_directory("/up/made", 0o700).unwrap();
        assert!(
            directory.path().join("root/data/audit/a").is_file() && directory.path().join("root/etc/made").is_dir()
        );
        host.remove("/absolute/secret").unwrap();
        assert!(!directory.path().join("root/etc/secret").exists());
        assert_eq!(std::fs::read(directory.path().join("etc/secret")).unwrap(), b"the machine's");
        assert!(
            host.make_directory("/nowhere/made", 0o700).is_err() && host.make_directory("/circle/made", 0o700).is_err()
        );
        assert!(!directory.path().join("not").exists() && !directory.path().join("root/not").exists());
    }

    #[test]
    fn a_path_says_where_it_leads() {
        let (_directory, host) = host_with_links();
        for (path, end, resolved, link) in [
            ("/", End::Directory, "/", None),
            ("/etc/secret", End::Other, "/etc/secret", None),
            ("/log", End::Directory, "/data/audit", Some("/log")),
            ("/log/a/b", End::Missing, "/data/audit/a/b", Some("/log")),
            ("/new/a", End::Missing, "/new/a", None),
            ("/nowhere/a", End::Dangling, "/not/there/a", Some("/nowhere")),
            ("/etc/secret/a", End::BelowFile, "/etc/secret", None),
            ("/circle", End::Circle, "/circle", Some("/circle")),
        ] {
            let place = host.follow(path).unwrap();
            let found = (place.end, place.resolved.to_str().unwrap(), place.link.map(|link| link.path));
            assert_eq!(found, (end, resolved, link.map(PathBuf::from)), "{path}");
        }
    }

    #[test]
    fn a_root_that_was_removed_says_so() {
        let (directory, _host) = host_with_links();
        let root = directory.path().join("root/data/audit");
        let host = Host::of_mounts(&root).unwrap();
        assert!(!host.follow("/a").unwrap().is_removed);
        std::fs::remove_dir(&root).unwrap();
        std::fs::create_dir(&root).unwrap();
        assert!(host.follow("/a").unwrap().is_removed);
    }

    #[test]
    fn a_directory_is_removed_without_following_a_link() {
        let (directory, host) = host_with_links();
        std::fs::create_dir_all(directory.path().join("root/ours/a/b")).unwrap();
        symlink("/data", directory.path().join("root/ours/a/link")).unwrap();
        symlink("../../data", directory.path().join("root/ours/relative")).unwrap();
        File::create(directory.path().join("root/ours/a/b/file")).unwrap();
        host.remove_directory("/ours").unwrap();
        host.remove_directory("/log").unwrap();
        host.remove_directory("/not/there").unwrap();
        assert!(host.is_dir("/data/audit") && !host.is_dir("/ours") && !host.is_link("/log"));
        assert!(host.remove_directory("/etc/secret").is_err(), "a file is no directory of ours");
        assert!(host.read("/etc/secret").unwrap().is_some());
    }

    #[test]
    fn a_pipe_is_no_file_and_holds_nobody_up() {
        let (directory, host) = host_with_links();
        let pipe = directory.path().join("root/pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert!(host.read("/pipe").is_err() && host.replace("/pipe", b"x", 0o600).is_err());
        assert_eq!(host.kind("/pipe").unwrap(), Some(FileType::Fifo));
        assert_eq!((host.kind("/log").unwrap(), host.kind("/none/a").unwrap()), (Some(FileType::Symlink), None));
    }

    #[test]
    fn an_error_names_the_path_as_the_node_has_it() {
        let (directory, host) = host_with_links();
        let root = directory.path().join("root");
        let said = |host: &Host| host.replace("/etc", b"x", 0o600).unwrap_err().to_string();
        assert_eq!(said(&host), format!("cannot replace {}/etc", root.display()));
        assert_eq!(said(&Host::of_mounts(&root).unwrap()), "cannot replace /etc");
        let refused = Host::of_node(&root).unwrap_err().to_string();
        let want =
            "there is no directory /etc/kubernetes/manifests below it, so this is not the root of a control-plane node";
        assert_eq!(refused, format!("--host-root {}: {want}", root.display()));
        host.make_directory(MANIFESTS_DIR, 0o700).unwrap();
        assert_eq!(said(&Host::of_node(&root).unwrap()), "cannot replace /etc");
        assert!(Host::of_node("/typo").unwrap_err().to_string().starts_with("--host-root /typo: cannot open"));
    }
}
