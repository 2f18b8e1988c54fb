//! Finding the command inside and turning into it.
//!
//! As runc and Docker: a name without a slash must be an executable file in a directory of $PATH, or it is "not
//! found" (127); with a slash it is tried as it is, and what exists but cannot be executed is told apart (126).

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, FileType};
use rustix::io::Errno;

use crate::error::{Attempt, Cause, Error, Kind, Refusal, Step};
use crate::interpreter;

/// What Docker gives an image without a PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command, ready to be executed.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    arguments: Vec<CString>,
    environment: Vec<CString>,
    name: String,
    path: String,
}

impl Command {
    /// Checks the document's words.
    pub(crate) fn new(arguments: &[String], environment: &[String]) -> Result<Command, Error> {
        let Some(name) = arguments.first().filter(|name| !name.is_empty()) else {
            return Err(
                Error::new(Step::Exec, "", Refusal::EmptyCommand).of_kind(Kind::CommandNotFound)
            );
        };
        let strings = |strings: &[String], what: &str| -> Result<Vec<CString>, Error> {
            let strings = strings
                .iter()
                .map(|s| CString::new(s.as_str()).map_err(|_| Refusal::ZeroByte));
            strings.collect::<Result<_, _>>().at(Step::Exec, what)
        };
        Ok(Command {
            arguments: strings(arguments, "process.args")?,
            environment: strings(environment, "process.env")?,
            name: name.clone(),
            path: value(environment, "PATH")
                .unwrap_or(DEFAULT_PATH)
                .to_owned(),
        })
    }

    /// Gives the environment a HOME where it has none: `home`, or the root.
    pub(crate) fn with_home(mut self, home: Option<&str>) -> Result<Command, Error> {
        const NAME: &[u8] = b"HOME=";
        let is_set = |entry: &CString| {
            let value = entry.as_bytes().strip_prefix(NAME);
            value.is_some_and(|value| !value.is_empty())
        };
        if !self.environment.iter().any(is_set) {
            self.environment.retain(|entry| entry.as_bytes() != NAME);
            let home = home.filter(|home| !home.is_empty()).unwrap_or("/");
            let entry = CString::new(format!("HOME={home}")).map_err(|_| Refusal::ZeroByte);
            self.environment.push(entry.at(Step::Exec, "HOME")?);
        }
        Ok(self)
    }

    /// Executes the command in the process's own root and directory. Returns only when that failed.
    pub(crate) fn execute(&self) -> Error {
        let path = match self.find() {
            Ok(path) => path,
            Err(error) => return error,
        };
        let Ok(file) = CString::new(path.as_os_str().as_bytes()) else {
            return Error::new(Step::Exec, self.name.as_str(), Refusal::ZeroByte);
        };
        let error = sys::fork::execve(&file, &self.arguments, &self.environment);
        if error.raw_os_error() == Some(libc::ENOENT)
            && let Some(missing) = interpreter::missing(&path)
        {
            let subject = format!("{} of {}", missing.display(), self.name);
            return Error::new(Step::Interpreter, subject, error).of_kind(Kind::CommandNotFound);
        }
        self.failure(error)
    }

    fn failure(&self, cause: impl Into<Cause>) -> Error {
        let cause = cause.into();
        let kind = match cause {
            Cause::Os(libc::ENOENT | libc::ENOTDIR) | Cause::Refused(Refusal::NotInPath) => {
                Kind::CommandNotFound
            }
            _ => Kind::CommandNotExecutable,
        };
        Error::new(Step::Exec, self.name.as_str(), cause).of_kind(kind)
    }

    fn find(&self) -> Result<PathBuf, Error> {
        if self.name.contains('/') {
            let path = PathBuf::from(&self.name);
            return check(&path)
                .map(|()| path)
                .map_err(|cause| self.failure(cause));
        }
        for directory in self.path.as_bytes().split(|&byte| byte == b':') {
            let path = match directory {
                b"" => Path::new(".").join(&self.name),
                directory => Path::new(OsStr::from_bytes(directory)).join(&self.name),
            };
            match check(&path) {
                Ok(()) => return Ok(path),
                // That it could not be looked for does not mean that it is not there.
                Err(cause @ Cause::Os(libc::EIO | libc::ENOMEM)) => {
                    return Err(self.failure(cause));
                }
                Err(_) => {}
            }
        }
        Err(self.failure(Refusal::NotInPath))
    }
}

/// The last value of a variable.
fn value<'e>(environment: &'e [String], name: &str) -> Option<&'e str> {
    let entries = environment.iter().rev();
    let mut entries = entries.filter_map(|entry| entry.split_once('='));
    entries.find(|entry| entry.0 == name).map(|entry| entry.1)
}

/// Whether the process may execute a file.
fn check(path: &Path) -> Result<(), Cause> {
    let stat = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(Refusal::IsADirectory.into());
    }
    match rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
        // A seccomp program that does not know faccessat2: execve will tell.
        Err(Errno::NOSYS | Errno::PERM) => Ok(()),
        result => Ok(result?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &[&str], environment: &[&str], home: Option<&str>) -> Command {
        let owned = |words: &[&str]| words.iter().map(|w| w.to_string()).collect::<Vec<_>>();
        let command = Command::new(&owned(words), &owned(environment)).unwrap();
        command.with_home(home).unwrap()
    }

    #[test]
    fn home_comes_from_the_image_where_the_environment_has_none() {
        let has = |command: Command, entry: &str| {
            command
                .environment
                .iter()
                .any(|e| e.to_bytes() == entry.as_bytes())
        };
        assert!(has(command(&["x"], &[], Some("/home/x")), "HOME=/home/x"));
        assert!(has(command(&["x"], &["HOME="], None), "HOME=/"));
        assert!(!has(
            command(&["x"], &["HOME=/mine"], Some("/home/x")),
            "HOME=/home/x"
        ));
    }

    #[test]
    fn an_empty_command_is_not_found_and_says_so() {
        for words in [&[][..], &[String::new()], &[String::new(), "x".into()]] {
            let error = Command::new(words, &[]).unwrap_err();
            assert_eq!(error.kind, Kind::CommandNotFound);
            assert_eq!(error.to_string(), "cannot execute");
            assert_eq!(error.cause.to_string(), "the command is empty");
        }
    }

    #[test]
    fn not_found_and_not_executable_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("plain");
        std::fs::write(&file, "x").unwrap();
        let path = format!("PATH={}", dir.path().display());
        let kind = |name: &str| {
            command(&[name], &[path.as_str()], None)
                .find()
                .unwrap_err()
                .kind
        };
        assert_eq!(kind("nothing"), Kind::CommandNotFound);
        assert_eq!(kind("plain"), Kind::CommandNotFound);
        assert_eq!(kind(file.to_str().unwrap()), Kind::CommandNotExecutable);
        assert_eq!(
            kind(dir.path().to_str().unwrap()),
            Kind::CommandNotExecutable
        );
        assert_eq!(kind("/nothing/at/all"), Kind::CommandNotFound);
        assert_eq!(
            command(&["sh"], &[], None).find().unwrap(),
            Path::new("/usr/bin/sh")
        );
    }
}
