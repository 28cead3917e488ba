//! CRIU: its protocol, what it is asked for, and what is made of its answers.
//!
//! CRIU does the work; what it is told is worked out here from configuration, mount table and options, without a side
//! effect, and it is spoken to over `criu swrk`.

mod criu;
pub mod dump;
pub mod mounts;
mod protobuf;
mod reason;
pub mod restore;
mod rpc;

pub use criu::{Criu, CriuContext, Failure, Notification, PRE_RESUME, find};
pub use reason::explain;
pub use rpc::{CgroupMode, Features, NetworkLock, RequestType, RpcOptions};
