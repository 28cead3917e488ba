//! From a plan to a process: the fork, the conversation of its two halves, and the script of each.

mod build;
pub mod child;
pub mod dry_run;
pub mod exec;
pub mod exec_fifo;
mod fd_reply;
mod finish;
pub mod fork;
pub mod handshake;
pub mod host;
pub mod listener;
pub mod ns_helper;
pub mod sync;
