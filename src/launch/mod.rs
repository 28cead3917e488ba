//! From a plan to a process: the fork, the conversation of its two halves, and the script of each.

mod answer;
pub mod beside;
mod build;
pub mod child;
pub mod exec;
mod finish;
pub mod fork;
pub mod gate;
pub mod host;
pub mod listener;
pub mod talk;
pub mod trial;
pub mod wire;
