//! The rules between fields of a configuration, one function a rule.

use oci_spec::runtime::Spec;

use crate::error::{Error, Result};
use crate::namespaces::{Namespaces, Origin};
use crate::sys::ns;

/// Refuses a configuration that cannot be applied as written.
pub fn validate(spec: &Spec, namespaces: &Namespaces) -> Result<()> {
    version(spec)?;
    names(spec, namespaces)
}

/// `ociVersion` is SemVer; a newer minor version only adds (runtime-spec, "Specification version"), another major one
/// may mean other things by the same words.
fn version(spec: &Spec) -> Result<()> {
    let version = spec.version();
    let numbers = version.split(['-', '+']).next().unwrap_or_default();
    let mut parts = numbers.split('.').map(str::parse::<u32>);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(Ok(1)), Some(Ok(_)), Some(Ok(_)), None) => Ok(()),
        (Some(Ok(major)), Some(Ok(_)), Some(Ok(_)), None) => Err(Error::new(format!(
            "version {version} of the runtime-spec is not supported: it must be 1.x.y, not {major}.x.y"
        ))
        .field("/ociVersion")),
        _ => Err(Error::new(format!("{version:?} is not a version of the runtime-spec"))
            .field("/ociVersion")
            .hint("use for example \"1.2.0\"")),
    }
}

/// A host or domain name without a UTS namespace would rename the host.
fn names(spec: &Spec, namespaces: &Namespaces) -> Result<()> {
    let own = namespaces.origin(ns::Flags::UTS) != Origin::Host;
    for (field, name) in [("/hostname", spec.hostname()), ("/domainname", spec.domainname())] {
        let set = name.as_ref().is_some_and(|name| !name.is_empty());
        if set && !own {
            return Err(Error::new("needs a uts namespace, or the host would be renamed")
                .field(field)
                .hint("add {\"type\": \"uts\"} to linux.namespaces"));
        }
        if name.as_ref().is_some_and(|name| name.len() > 64) {
            return Err(Error::new("is longer than 64 bytes").field(field));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str) -> Result<()> {
        let spec: Spec = serde_json::from_str(json).unwrap();
        let namespaces = Namespaces::plan(spec.linux().as_ref())?;
        validate(&spec, &namespaces)
    }

    #[test]
    fn a_newer_minor_version_is_accepted_and_another_major_one_is_not() {
        for good in ["1.0.0", "1.2.1", "1.9.9", "1.3.0+dev", "1.0.2-dev"] {
            check(&format!(r#"{{"ociVersion":"{good}"}}"#)).unwrap();
        }
        for bad in ["2.0.0", "0.9.0", "", "x", "1", "1.0", "1.0.0.0"] {
            let error = check(&format!(r#"{{"ociVersion":"{bad}"}}"#)).unwrap_err();
            assert_eq!(error.field_name(), Some("/ociVersion"), "{bad}");
        }
        assert!(check("{}").is_err());
    }

    #[test]
    fn names_need_a_uts_namespace() {
        for field in ["hostname", "domainname"] {
            let error = check(&format!(r#"{{"ociVersion":"1.0.0","{field}":"x"}}"#)).unwrap_err();
            assert_eq!(error.field_name(), Some(&*format!("/{field}")));
        }
        check(r#"{"ociVersion":"1.0.0","hostname":"x","linux":{"namespaces":[{"type":"uts"}]}}"#).unwrap();
    }
}
