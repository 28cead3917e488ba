//! The program: found as execvp(3) finds it, in the container's PATH and with the container's rights.
//!
//! Engines turn the words of these errors into exit codes 126 and 127, so each kind of failure has its fixed words.

use std::ffi::{CStr, CString};

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::stat;
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{AccessFlags, execve, faccessat};

use crate::error::{Error, Result};
use crate::sys::Errno;

/// What the C library searches when the environment has no PATH (`confstr(_CS_PATH)`).
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";

/// What an entry of PATH may answer without being the last.
const IN_VAIN: [Errno; 9] = [
    Errno::EACCES,
    Errno::EISDIR,
    Errno::ELOOP,
    Errno::ENAMETOOLONG,
    Errno::ENODEV,
    Errno::ENOENT,
    Errno::ENOTDIR,
    Errno::ESTALE,
    Errno::ETIMEDOUT,
];

/// Files among which a program is looked for.
pub trait Files {
    /// Whether it may be executed, and is a file.
    ///
    /// # Errors
    /// Those of execve(2), and `EISDIR`.
    fn check_executable(&self, path: &CStr) -> Result<(), Errno>;
    /// Whether something is there.
    fn exists(&self, path: &CStr) -> bool;
    /// Whether nothing can be executed where it lies.
    fn is_no_exec(&self, path: &CStr) -> bool;
    /// The first bytes of it; `None` where they cannot be read.
    fn head(&self, path: &CStr, length: u64) -> Option<Vec<u8>>;
}

/// The files that this process sees, by the rights that it has now.
struct Here;

impl Files for Here {
    fn check_executable(&self, path: &CStr) -> Result<(), Errno> {
        check_executable(path)
    }

    fn exists(&self, path: &CStr) -> bool {
        exists(path)
    }

    fn is_no_exec(&self, path: &CStr) -> bool {
        statvfs(path).is_ok_and(|fs| fs.flags().contains(FsFlags::ST_NOEXEC))
    }

    fn head(&self, _: &CStr, _: u64) -> Option<Vec<u8>> {
        None
    }
}

/// A file that was found before, of which nothing more may be asked.
struct Found;

impl Files for Found {
    fn check_executable(&self, _: &CStr) -> Result<(), Errno> {
        Ok(())
    }

    fn exists(&self, _: &CStr) -> bool {
        true
    }

    fn is_no_exec(&self, _: &CStr) -> bool {
        false
    }

    fn head(&self, _: &CStr, _: u64) -> Option<Vec<u8>> {
        None
    }
}

/// Makes the calls of [`find`].
pub(super) fn try_search(name: &CStr) -> Result<()> {
    match check_executable(c"/") {
        Ok(()) | Err(Errno::EISDIR | Errno::EACCES) => Ok(()),
        Err(errno) => Err(explain(&Found, quoted(name), name, errno)),
    }
}

/// Finds the program that `name` means for a process with this PATH, by the rights the caller has now.
pub(super) fn find(name: &CStr, path: Option<&[u8]>) -> Result<CString> {
    find_in(&Here, name, path)
}

/// The same among other files.
pub(super) fn find_in(files: &dyn Files, name: &CStr, path: Option<&[u8]>) -> Result<CString> {
    if name.to_bytes().contains(&b'/') {
        return match files.check_executable(name) {
            Ok(()) => Ok(name.to_owned()),
            Err(errno) => Err(explain(files, quoted(name), name, errno)),
        };
    }
    let mut refused = None;
    for directory in path.unwrap_or(DEFAULT_PATH).split(|&byte| byte == b':') {
        // An empty entry is the working directory (execvp(3)).
        let separator: &[u8] = if directory.is_empty() { b"" } else { b"/" };
        let Ok(candidate) = CString::new([directory, separator, name.to_bytes()].concat()) else { continue };
        match files.check_executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::EACCES) if files.exists(&candidate) => refused = refused.or(Some(candidate)),
            Err(errno) if IN_VAIN.contains(&errno) => {}
            // What went wrong is not that there is none.
            Err(errno) => return Err(explain(files, quoted(name), &candidate, errno)),
        }
    }
    match refused {
        Some(candidate) => Err(explain(files, quoted(name), &candidate, Errno::EACCES)),
        None => Err(Error::from(Errno::ENOENT)
            .context("executable file not found in $PATH")
            .context(quoted(name))
            .hint("check that it is in the image, and its directory in PATH of process.env")),
    }
}

/// May we execute it, and is it a file? The effective rights count, capabilities included, as they do for execve.
fn check_executable(path: &CStr) -> Result<(), Errno> {
    let unsure = match faccessat(AT_FDCWD, path, AccessFlags::X_OK, AtFlags::AT_EACCESS) {
        Ok(()) => false,
        // A filter that does not know faccessat2; then execve has the last word.
        Err(Errno::EPERM | Errno::ENOSYS) => true,
        Err(errno) => return Err(errno),
    };
    let stat = stat(path)?;
    match stat.st_mode & libc::S_IFMT {
        libc::S_IFDIR => Err(Errno::EISDIR),
        libc::S_IFREG if !unsure || stat.st_mode & 0o111 != 0 => Ok(()),
        _ => Err(Errno::EACCES),
    }
}

fn exists(path: &CStr) -> bool {
    faccessat(AT_FDCWD, path, AccessFlags::F_OK, AtFlags::AT_EACCESS).is_ok()
}

/// The calls by which [`execute`] looks for the reason of a failure.
pub(super) const LOOKS: [libc::c_long; 3] = [libc::SYS_faccessat2, libc::SYS_statfs, libc::SYS_newfstatat];

/// Replaces this process by the program, which was found; returns only when the kernel refuses. Where it may not `look`,
/// no other call is made.
pub(super) fn execute(path: &CStr, arguments: &[CString], environment: &[CString], look: bool) -> Error {
    let Err(errno) = execve(path, arguments, environment);
    match errno {
        errno if !look => refused(&Found, path, errno),
        Errno::EACCES if stat(path).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFDIR) => {
            refused(&Here, path, Errno::EISDIR)
        }
        errno => refused(&Here, path, errno),
    }
}

/// That execve(2) refuses a program which was found.
pub(super) fn refused(files: &dyn Files, path: &CStr, errno: Errno) -> Error {
    explain(files, format!("exec {}", path.to_string_lossy()), path, errno)
}

fn explain(files: &dyn Files, what: String, path: &CStr, errno: Errno) -> Error {
    let error = Error::from(errno).context(what);
    match errno {
        Errno::EACCES if files.is_no_exec(path) => error.hint("its file system is mounted noexec"),
        Errno::EACCES => error.hint("chmod a+x the file in the image, or let the user search its directories"),
        Errno::EISDIR => error.hint("name a program in this directory"),
        Errno::ENOENT if files.exists(path) => {
            error.hint("the file exists, but its interpreter or loader is not in the container")
        }
        Errno::ENOENT => {
            error.hint("the path is looked up in the container: check that the image has it and no mount hides it")
        }
        Errno::ENOEXEC => error.hint("the file is neither a program for this machine nor a script that begins with #!"),
        Errno::E2BIG => error.hint("arguments and environment together are too large for the kernel"),
        _ => error,
    }
}

fn quoted(name: &CStr) -> String {
    format!("exec: \"{}\"", name.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    /// A directory with files of the given modes, and directories where the mode is 0.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str, files: &[(&str, &str, u32)]) -> Scratch {
            let root = std::env::temp_dir().join(format!("corten-program-{}-{name}", std::process::id()));
            for (path, text, mode) in files {
                let path = root.join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, text).unwrap();
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(*mode)).unwrap();
            }
            Scratch(root)
        }

        fn path(&self, directories: &[&str]) -> Vec<u8> {
            let list: Vec<String> =
                directories.iter().map(|entry| self.0.join(entry).to_str().unwrap().to_owned()).collect();
            list.join(":").into_bytes()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn look(name: &str, path: Option<&[u8]>) -> Result<String, String> {
        let name = CString::new(name).unwrap();
        let found = find(&name, path).map_err(|error| error.to_string())?;
        Ok(found.into_string().unwrap())
    }

    #[test]
    fn a_directory_of_the_same_name_is_passed_over() {
        let scratch = Scratch::new("dir", &[("d/ls/x", "", 0o644), ("bin/ls", "", 0o755)]);
        let found = look("ls", Some(&scratch.path(&["d", "bin"]))).unwrap();
        assert!(found.ends_with("/bin/ls"), "{found}");
    }

    #[test]
    fn a_name_that_begins_with_a_dot_is_found() {
        let scratch = Scratch::new("dot", &[("bin/.hid", "", 0o755)]);
        assert!(look(".hid", Some(&scratch.path(&["none", "bin"]))).unwrap().ends_with("/bin/.hid"));
    }

    #[test]
    fn a_missing_command_has_the_words_that_engines_look_for() {
        for (name, path, words) in [
            (
                "nosuch",
                Some(&b"/nowhere:/etc/passwd"[..]),
                "executable file not found in $PATH: no such file or directory",
            ),
            ("", Some(b"/bin"), "executable file not found in $PATH: no such file or directory"),
            ("/no/such", None, "no such file or directory"),
        ] {
            let said = look(name, path).unwrap_err();
            assert!(said.starts_with(&format!("exec: {name:?}: {words} (")), "{said}");
        }
    }

    #[test]
    fn a_directory_and_a_file_that_may_not_run_say_so() {
        assert_eq!(
            look("/etc", None).unwrap_err(),
            "exec: \"/etc\": is a directory (name a program in this directory)"
        );
        let scratch = Scratch::new("mode", &[("bin/none", "", 0)]);
        let path = scratch.path(&["bin"]);
        let whole = format!("{}/none", String::from_utf8(path.clone()).unwrap());
        for said in [look("none", Some(&path)).unwrap_err(), look(&whole, None).unwrap_err()] {
            assert!(said.contains("none\": permission denied (chmod a+x the file"), "{said}");
        }
    }

    #[test]
    fn a_file_that_may_run_later_in_the_path_beats_one_that_may_not() {
        let scratch = Scratch::new("later", &[("a/x", "", 0o644), ("b/x", "", 0o755)]);
        assert!(look("x", Some(&scratch.path(&["a", "b"]))).unwrap().ends_with("/b/x"));
    }

    #[test]
    fn without_a_path_the_standard_one_is_searched() {
        assert!(look("sh", None).is_ok());
    }

    #[test]
    fn a_script_without_its_interpreter_says_more_than_the_errno() {
        let scratch = Scratch::new("script", &[("s", "#!/no/interpreter\n", 0o755), ("empty", "", 0o755)]);
        let run = |name: &str| {
            let path = CString::new(scratch.0.join(name).to_str().unwrap()).unwrap();
            execute(&path, &[c"name".to_owned()], &[], true).to_string()
        };
        let begins = |name: &str, words: &str| {
            run(name).starts_with(&format!("exec {}: {words}", scratch.0.join(name).display()))
        };
        assert!(begins("s", "no such file or directory (the file exists"), "{}", run("s"));
        assert!(begins("empty", "exec format error ("), "{}", run("empty"));
    }
}
