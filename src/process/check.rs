//! The dry run of a process: what can be checked or tried without its files.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use super::{Process, loader, program};
use crate::error::Result;
use crate::sys::Errno;

use nix::unistd::chdir;

pub use super::program::Files;

/// How deep interpreters may be nested (`exec_binprm`).
const DEPTH: usize = 5;

/// The credentials with which the program is looked up, as ids of the container.
pub struct Rights<'a> {
    /// Its user.
    pub user: u32,
    /// Its groups; `None` where they are the caller's.
    pub groups: Option<Vec<u32>>,
    /// Whether it has CAP_DAC_OVERRIDE; whether it may search all directories (CAP_DAC_READ_SEARCH).
    pub overrides: (bool, bool),
    /// The directory at which relative paths start.
    pub directory: &'a Path,
}

impl Process {
    /// The credentials of the process.
    pub fn rights(&self) -> Rights<'_> {
        let (user, groups) = self.user.as_numbers();
        Rights { user, groups, overrides: self.capabilities.dac_override(), directory: &self.cwd }
    }

    /// The error of a working directory that cannot be entered.
    ///
    /// # Errors
    /// Always.
    pub fn refuse_cwd(&self, errno: Errno) -> Result<()> {
        Err(self.no_cwd(errno))
    }

    /// Finds the program among these files, as `create` does.
    ///
    /// # Errors
    /// Those of `drop_privileges`.
    pub fn find_program(&self, files: &dyn Files) -> Result<CString> {
        program::find_in(files, &self.args[0], self.environment.value("PATH"))
    }

    /// Checks whether the program can be executed, as `start` does.
    ///
    /// # Errors
    /// Those of `execute`.
    pub fn preflight_program(&self, found: &CString, files: &dyn Files) -> Result<()> {
        let mut path = found.clone();
        for _ in 0..DEPTH {
            let Some(head) = files.head(&path, loader::HEAD) else { return Ok(()) };
            let needed: PathBuf = match loader::needed(&head) {
                Ok(Some(needed)) => needed,
                Ok(None) => return Ok(()),
                Err(_) if loader::others_may_run() => return Ok(()),
                Err(errno) => return Err(program::refused(files, found, errno)),
            };
            let script = head.starts_with(b"#!");
            let Ok(needed) = CString::new(needed.into_os_string().into_encoded_bytes()) else { return Ok(()) };
            match files.check_executable(&needed) {
                Ok(()) if script => path = needed,
                Ok(()) => return Ok(()),
                // execve(2) returns EACCES for a directory.
                Err(errno) => {
                    let errno = if errno == Errno::EISDIR { Errno::EACCES } else { errno };
                    return Err(program::refused(files, found, errno));
                }
            }
        }
        Err(program::refused(files, found, Errno::ELOOP))
    }

    /// Checks whether the paths of the Landlock rules exist.
    ///
    /// # Errors
    /// Those of `prepare`.
    pub fn preflight_landlock(&self, is_there: &dyn Fn(&Path) -> bool) -> Result<()> {
        self.landlock.as_ref().map_or(Ok(()), |landlock| landlock.preflight(is_there))
    }

    /// In a process that exits afterwards: sets the credentials of the container's user, and nothing else.
    ///
    /// # Errors
    /// Those of `drop_privileges`.
    pub fn try_credentials(&self) -> Result<()> {
        self.capabilities.drop_bounding()?;
        self.user.set_credentials(self.capabilities.need_keepcaps(), self.user_namespace)?;
        self.capabilities.apply()
    }

    /// The same with a seccomp filter loaded: it makes each call of `drop_privileges`, with arguments that are the same to a
    /// filter.
    ///
    /// # Errors
    /// Those of `drop_privileges`.
    pub fn try_credentials_filtered(&self) -> Result<()> {
        chdir("/").map_err(|errno| self.no_cwd(errno))?;
        self.try_credentials()?;
        self.ensure_inside()?;
        program::try_search(&self.args[0])
    }
}
