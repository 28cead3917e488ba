//! A process that is not made: what would become of it, as far as that can be told or tried without its files.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use super::{Process, loader, program};
use crate::error::Result;
use crate::sys::Errno;

use nix::unistd::chdir;

pub use super::program::Files;

/// How many interpreters may stand behind one another (`exec_binprm`).
const DEPTH: usize = 5;

/// The ids and the power with which a program is looked for, as the container names them.
pub struct Rights<'a> {
    /// Its user.
    pub user: u32,
    /// Its groups; `None` where they are the caller's.
    pub groups: Option<Vec<u32>>,
    /// It passes by modes (CAP_DAC_OVERRIDE); it at least searches directories (CAP_DAC_READ_SEARCH).
    pub overrides: (bool, bool),
    /// Where the walk of a relative path begins.
    pub directory: &'a Path,
}

impl Process {
    /// Who looks for the program.
    pub fn rights(&self) -> Rights<'_> {
        let (user, groups) = self.user.as_numbers();
        Rights { user, groups, overrides: self.capabilities.pass_by_modes(), directory: &self.cwd }
    }

    /// That it cannot enter its working directory.
    ///
    /// # Errors
    /// Always.
    pub fn refuse_cwd(&self, errno: Errno) -> Result<()> {
        Err(self.no_cwd(errno))
    }

    /// Finds the program among these files; what `create` would say.
    ///
    /// # Errors
    /// Those of `become_user`.
    pub fn find_program(&self, files: &dyn Files) -> Result<CString> {
        program::find_in(files, &self.args[0], self.environment.value("PATH"))
    }

    /// Looks whether a program that was found can be executed; what `start` would say.
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
            match files.judge(&needed) {
                Ok(()) if script => path = needed,
                Ok(()) => return Ok(()),
                // execve(2) has no word of its own for a directory.
                Err(errno) => {
                    let errno = if errno == Errno::EISDIR { Errno::EACCES } else { errno };
                    return Err(program::refused(files, found, errno));
                }
            }
        }
        Err(program::refused(files, found, Errno::ELOOP))
    }

    /// Looks whether the paths of the Landlock rules are there.
    ///
    /// # Errors
    /// Those of `prepare`.
    pub fn preflight_landlock(&self, is_there: &dyn Fn(&Path) -> bool) -> Result<()> {
        self.landlock.as_ref().map_or(Ok(()), |landlock| landlock.preflight(is_there))
    }

    /// In a process that is to end at once: becomes the container's user with its capabilities, and that is all.
    ///
    /// # Errors
    /// Those of `become_user`.
    pub fn try_user(&self) -> Result<()> {
        self.capabilities.bound()?;
        self.user.become_it(self.capabilities.outlive_root(), self.user_namespace)?;
        self.capabilities.apply()
    }

    /// The same with a seccomp filter in place: each call is made that `become_user` makes, with arguments that differ in
    /// nothing that a filter can look at.
    ///
    /// # Errors
    /// Those of `become_user`.
    pub fn try_user_filtered(&self) -> Result<()> {
        chdir("/").map_err(|errno| self.no_cwd(errno))?;
        self.try_user()?;
        self.ensure_inside()?;
        program::try_search(&self.args[0])
    }
}
