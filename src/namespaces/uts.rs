//! Host and domain name of the container's UTS namespace.

use crate::error::{Context, Result};
use crate::sys;

/// Sets the host name (runtime-spec, "Hostname"); an empty one leaves what is there.
pub fn set_host_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Ok(());
    }
    nix::unistd::sethostname(name).with_context(|| format!("set the host name to {name}")).field(|| "/hostname")
}

/// Sets the domain name (runtime-spec, "Domainname"); an empty one leaves what is there.
pub fn set_domain_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Ok(());
    }
    sys::ns::set_domain_name(name).with_context(|| format!("set the domain name to {name}")).field(|| "/domainname")
}
