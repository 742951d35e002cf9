//! The output: standard output, or a file that may be renamed at any time.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub(super) enum Output {
    Standard(io::Stdout),
    Appended { path: PathBuf, file: File },
}

impl Output {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::Standard(io::stdout()));
        }
        Ok(Self::Appended { path: path.into(), file: append(path)? })
    }

    /// Writes whole lines. After an error, a file has its old content.
    pub(super) fn write(&mut self, lines: &str) -> io::Result<()> {
        match self {
            Self::Standard(out) => {
                out.write_all(lines.as_bytes())?;
                out.flush()
            }
            Self::Appended { path, file } => {
                if !is_at(path, file)? {
                    // A rotation renames the file: the next line goes to a new one.
                    *file = append(path)?;
                }
                let length = file.metadata()?.len();
                file.write_all(lines.as_bytes()).inspect_err(|_| {
                    // Only the error of the write matters.
                    drop(file.set_len(length));
                })
            }
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).open(path)
}

fn is_at(path: &Path, file: &File) -> io::Result<bool> {
    let own = file.metadata()?;
    match path.metadata() {
        Ok(there) => Ok((there.dev(), there.ino()) == (own.dev(), own.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotated_file_is_opened_again() {
        let directory = tempfile::tempdir().unwrap();
        let (path, old) = (directory.path().join("log"), directory.path().join("log.1"));
        let mut output = Output::open(&path).unwrap();
        output.write("one\n").unwrap();
        std::fs::rename(&path, &old).unwrap();
        output.write("two\n").unwrap();
        std::fs::remove_file(&path).unwrap();
        output.write("three\n").unwrap();
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "one\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_error_at_once() {
        assert!(Output::open(Path::new("/nowhere/log")).is_err());
    }
}
