//! Resolves a path of a host below the host's root, as the host itself does: an absolute link starts again at that
//! root, and `..` never leaves it.
//!
//! The kernel does this where it can (`openat2`, Linux 5.6). Linux 4.18 of RHEL 8 cannot, and some seccomp profiles
//! forbid the call: there [`Root::walk`] goes one name at a time. A property test holds the two against each other.
//! Nothing here changes a file.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;

/// Links that the kernel follows in one path (linux@v6.12 include/linux/namei.h, MAXSYMLINKS).
const MAX_LINKS: usize = 40;
/// Tries while names are moved under a path with `..` in it: the kernel then answers EAGAIN (openat2(2)).
const TRIES: usize = 16;

const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// The opened root of a host.
#[derive(Debug)]
pub(super) struct Root {
    directory: OwnedFd,
    has_openat2: bool,
}

/// A symbolic link, and the text in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub path: PathBuf,
    pub target: PathBuf,
}

/// A path that was followed to its end.
#[derive(Debug)]
pub(super) struct Walked {
    way: Vec<Step>,
    /// The last link on the way.
    pub(super) link: Option<Link>,
}

/// A path that could not be followed.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) error: Errno,
    way: Vec<Step>,
    /// The next name on the way, all links resolved.
    pub(super) at: PathBuf,
    /// The last link on the way.
    pub(super) link: Option<Link>,
    /// Whether the missing name is part of that link, and not of the path itself.
    pub(super) is_in_link: bool,
}

#[derive(Debug)]
struct Step {
    name: OsString,
    file: OwnedFd,
    is_directory: bool,
}

struct Name {
    name: OsString,
    is_in_link: bool,
}

impl Root {
    pub(super) fn open(path: &Path) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
        // Asked once, with a path that is surely there: every error says that the call itself is not to be had.
        let has_openat2 = rustix::fs::openat2(&directory, ".", flags, Mode::empty(), IN_ROOT).is_ok();
        Ok(Self { directory, has_openat2 })
    }

    /// Opens the file at `path`, links followed.
    pub(super) fn resolve(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC;
        for _ in 0..if self.has_openat2 { TRIES } else { 0 } {
            // An empty path is the root, as a walk has it.
            let path = if path.is_empty() { "/" } else { path };
            match rustix::fs::openat2(&self.directory, path, flags, Mode::empty(), IN_ROOT) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                resolved => return resolved,
            }
        }
        self.walk(path).map_err(|lost| lost.error)?.open(self, flags)
    }

    /// Follows `path` one name at a time.
    pub(super) fn walk(&self, path: &str) -> Result<Walked, Lost> {
        // `..` goes back on this way instead of asking the file system, so that nobody who moves a directory meanwhile
        // can lead out.
        let mut way: Vec<Step> = Vec::new();
        let mut names = Vec::new();
        push(&mut names, OsStr::new(path), false);
        let mut link: Option<Link> = None;
        let mut links = 0;
        while let Some(Name { name, is_in_link }) = names.pop() {
            let is_below_file = way.last().is_some_and(|step| !step.is_directory);
            let found = match name.as_bytes() {
                _ if is_below_file => Err(Errno::NOTDIR),
                b"." => continue,
                b".." => {
                    way.pop();
                    continue;
                }
                _ => look(end(&self.directory, &way), &name),
            };
            let error = match found {
                Ok(Found::File { file, is_directory }) => {
                    way.push(Step { name, file, is_directory });
                    continue;
                }
                Ok(Found::Link(target)) if links < MAX_LINKS => {
                    links += 1;
                    link = Some(Link { path: shown(&way).join(&name), target: PathBuf::from(&target) });
                    if target.as_bytes().starts_with(b"/") {
                        way.clear();
                    }
                    push(&mut names, &target, true);
                    continue;
                }
                Ok(Found::Link(_)) => Errno::LOOP,
                Err(error) => error,
            };
            // The file in the way, or the name that is not there with all that comes after it.
            let mut at = shown(&way);
            if !is_below_file {
                at.push(&name);
                at.extend(names.iter().rev().map(|next| &next.name));
            }
            return Err(Lost { error, way, at, link, is_in_link });
        }
        Ok(Walked { way, link })
    }
}

impl Walked {
    /// The end of the path, all links resolved.
    pub(super) fn resolved(&self) -> PathBuf {
        shown(&self.way)
    }

    pub(super) fn is_directory(&self) -> bool {
        self.way.last().is_none_or(|step| step.is_directory)
    }

    /// The file at the end.
    pub(super) fn end<'a>(&'a self, root: &'a Root) -> BorrowedFd<'a> {
        end(&root.directory, &self.way)
    }

    fn open(mut self, root: &Root, flags: OFlags) -> Result<OwnedFd, Errno> {
        match self.way.pop_if(|step| !step.is_directory) {
            Some(step) if flags.contains(OFlags::PATH) && !flags.contains(OFlags::DIRECTORY) => Ok(step.file),
            // By its name, since a descriptor of O_PATH cannot be read. A link that has come there meanwhile is not
            // followed.
            Some(step) => {
                let directory = end(&root.directory, &self.way);
                rustix::fs::openat(directory, &step.name, flags | OFlags::NOFOLLOW, Mode::empty())
            }
            None => rustix::fs::openat(self.end(root), ".", flags, Mode::empty()),
        }
    }
}

impl Lost {
    /// The last directory that exists.
    pub(super) fn nearest<'a>(&'a self, root: &'a Root) -> BorrowedFd<'a> {
        let directories = self.way.iter().rev().filter(|step| step.is_directory);
        directories.map(|step| step.file.as_fd()).next().unwrap_or(root.directory.as_fd())
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// Whether two files are on the same mount. Before Linux 5.8 mounts have no number, and the file system has to do.
pub(super) fn is_same_mount(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mount = |file: BorrowedFd<'_>| {
        let stat = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
        let has_number = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::MNT_ID);
        Ok((stat.stx_dev_major, stat.stx_dev_minor, has_number.then_some(stat.stx_mnt_id)))
    };
    Ok(mount(one)? == mount(other)?)
}

fn end<'a>(root: &'a OwnedFd, way: &'a [Step]) -> BorrowedFd<'a> {
    way.last().map_or(root.as_fd(), |step| step.file.as_fd())
}

enum Found {
    File { file: OwnedFd, is_directory: bool },
    Link(OsString),
}

/// The file with this name. The kind and the text of a link are those of the very file that was opened: a name can be
/// given to another one in between.
fn look(directory: BorrowedFd<'_>, name: &OsStr) -> Result<Found, Errno> {
    let file = rustix::fs::openat(directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(&file, "", Vec::new())?;
            Ok(Found::Link(OsString::from_vec(target.into_bytes())))
        }
        kind => Ok(Found::File { file, is_directory: kind == FileType::Directory }),
    }
}

/// Puts the names of a path on top of those that are still to be followed.
fn push(names: &mut Vec<Name>, path: &OsStr, is_in_link: bool) {
    // What ends with a slash has to be a directory, as what ends with a dot.
    let is_directory = path.as_bytes().ends_with(b"/");
    let parts = path.as_bytes().split(|byte| *byte == b'/').filter(|part| !part.is_empty());
    let parts = parts.chain(is_directory.then_some(&b"."[..])).map(OsStr::from_bytes);
    let at = names.len();
    names.extend(parts.map(|part| Name { name: part.into(), is_in_link }));
    names[at..].reverse();
}

fn shown(way: &[Step]) -> PathBuf {
    Path::new("/").join(way.iter().map(|step| &step.name).collect::<PathBuf>())
}

#[cfg(test)]
mod tests;
