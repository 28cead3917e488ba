//! The entry point, without the start of the standard library.
//!
//! What that does before `main` (it reads `/proc/self/maps` for its guard page, maps a stack for signals, names the thread)
//! is a fifth of a start. Of all this a command line program needs what `start::begin` does. The arguments are there all
//! the same: std for GNU takes them from `.init_array`.

/// Makes `main` of the binary what the C library calls, around a function that returns the exit code.
#[macro_export]
macro_rules! start_with {
    ($main:path) => {
        /// What the C library calls.
        #[cfg_attr(not(test), unsafe(export_name = "main"))]
        #[cfg_attr(test, allow(dead_code, reason = "the test harness starts itself"))]
        extern "C" fn start(_count: std::ffi::c_int, words: *const *const std::ffi::c_char) -> std::ffi::c_int {
            $crate::sys::start::begin(words);
            // Whoever prints has flushed, and nothing else waits for the end of the program.
            $crate::sys::pid::exit_now($main().into())
        }
    };
}
