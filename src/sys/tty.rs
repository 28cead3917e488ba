//! Terminals: the ioctls of a pty pair (ioctl_tty(2)).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{Errno, Result};

/// Unlocks the replica of a pty, which starts locked.
pub fn unlock(controller: BorrowedFd<'_>) -> Result<()> {
    let locked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int from the pointer, which is to a live local.
    let done = unsafe { libc::ioctl(controller.as_raw_fd(), libc::TIOCSPTLCK, &raw const locked) };
    Errno::result(done).map(drop)
}

/// Opens the replica of a pty through its controller: no path is involved that someone could have changed (Linux 4.13).
pub fn replica(controller: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags as its argument and touches no memory.
    let fd = Errno::result(unsafe { libc::ioctl(controller.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    // SAFETY: the call just made this descriptor for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes the terminal the controlling one of the calling session leader.
pub fn set_controlling(replica: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: TIOCSCTTY takes a number (0: do not steal it from another session) and touches no memory.
    Errno::result(unsafe { libc::ioctl(replica.as_raw_fd(), libc::TIOCSCTTY, 0) }).map(drop)
}

/// The size of a terminal in characters: rows and columns. ENOTTY: it is none.
pub fn size(terminal: BorrowedFd<'_>) -> Result<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one `winsize` to the pointer, which is to a live local.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) })?;
    Ok((size.ws_row, size.ws_col))
}

/// Sets the size of a terminal; its foreground process group gets SIGWINCH when it changed.
pub fn set_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one `winsize` from the pointer, which is to a live local.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }).map(drop)
}
