//! The Secrets between the controller and the agents: their types, names, keys and content. Only this module writes and
//! reads them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::credential;
use super::{Content, Digest, Revision, RevisionId};

/// Type of the Secrets that hold a Revision.
pub const REVISION_TYPE: &str = "audit-operator.io/revision";
/// Type of the Secrets that hold credentials.
pub const CREDENTIALS_TYPE: &str = "audit-operator.io/credentials";
/// Key of a Revision in its Secret.
const REVISION_KEY: &str = "revision.json";
/// Kubernetes accepts no larger Secret (kubernetes@v1.36.3 pkg/apis/core/types.go, MaxSecretSize).
pub const MAX_BYTES: usize = 1024 * 1024;

/// Name of the Secret with a Revision.
pub fn revision_name(id: &str) -> String {
    format!("revision-{id}")
}

/// Name of the Secret with the credentials of a Setup.
pub fn credentials_name(setup: &str) -> String {
    format!("credentials-{setup}")
}

/// Why the data of a Secret is not the wanted Revision.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("it has no key {REVISION_KEY}")]
    Missing,
    /// Without the parser's message, which repeats the content: it may be a secret.
    #[error("its content is not the settings of a Revision (line {line}, column {column})")]
    Malformed { line: usize, column: usize },
    #[error("its content has the digest {found}, not {wanted}")]
    Digest { found: Digest, wanted: String },
    #[error("its content is the Revision {found}, not {wanted}")]
    Id { found: RevisionId, wanted: String },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    digest: Digest,
    content: Content,
}

/// The data of a Revision's Secret.
pub fn to_data(revision: &Revision) -> BTreeMap<String, Vec<u8>> {
    let stored = Stored { digest: revision.digest.clone(), content: revision.content.clone() };
    let json = serde_json::to_vec(&stored).expect("a Revision consists of strings and numbers");
    BTreeMap::from([(REVISION_KEY.to_string(), json)])
}

/// Reads a Revision. Digest and id are computed from the content by this program's own rendering; those in the Secret
/// are only compared. [`crate::validate::judge`] decides whether a node may run it.
pub fn from_data<B: AsRef<[u8]>>(data: &BTreeMap<String, B>) -> Result<Revision, Error> {
    let json = data.get(REVISION_KEY).ok_or(Error::Missing)?;
    let Stored { digest, content } = serde_json::from_slice(json.as_ref())
        .map_err(|error| Error::Malformed { line: error.line(), column: error.column() })?;
    let revision = Revision::new(content);
    if revision.digest != digest {
        return Err(Error::Digest { found: revision.digest, wanted: digest.0 });
    }
    Ok(revision)
}

/// Reads the Revision of this id and digest.
pub fn from_data_of<B: AsRef<[u8]>>(data: &BTreeMap<String, B>, id: &str, digest: &str) -> Result<Revision, Error> {
    let revision = from_data(data)?;
    if revision.id.as_str() != id {
        return Err(Error::Id { found: revision.id, wanted: id.into() });
    }
    if revision.digest.as_str() != digest {
        return Err(Error::Digest { found: revision.digest, wanted: digest.into() });
    }
    Ok(revision)
}

/// Key of a file of credentials in its Secret: `<directory>.<file>`.
pub fn credential_key(path: &credential::Path) -> String {
    format!("{}.{}", path.directory, path.file())
}

/// The file of a key; `None` for a key that no controller writes. The name of a directory has no dot.
pub fn credential_path(key: &str) -> Option<credential::Path> {
    let (directory, file) = key.split_once('.')?;
    credential::Path::new(directory.to_string().try_into().ok()?, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision() -> Revision {
        let log = serde_json::from_value(serde_json::json!({})).unwrap();
        Revision::new(Content {
            policy: "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Metadata\n".into(),
            log: Some(log),
            webhook: None,
            shutdown_delay_seconds: 2,
            drain_watches_seconds: 3,
        })
    }

    #[test]
    fn a_revision_is_read_as_it_was_written() {
        let revision = revision();
        let data = to_data(&revision);
        assert_eq!(from_data_of(&data, revision.id.as_str(), revision.digest.as_str()).unwrap(), revision);
    }

    #[test]
    fn what_is_not_the_revision_that_was_asked_for_is_refused() {
        let revision = revision();
        let (id, digest) = (revision.id.as_str(), revision.digest.as_str());
        let with = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut json: serde_json::Value = serde_json::from_slice(&to_data(&revision)[REVISION_KEY]).unwrap();
            change(&mut json);
            BTreeMap::from([(REVISION_KEY.to_string(), serde_json::to_vec(&json).unwrap())])
        };
        let other = Revision::new(Content { shutdown_delay_seconds: 5, ..revision.content.clone() });
        assert!(matches!(from_data(&BTreeMap::<String, Vec<u8>>::new()), Err(Error::Missing)));
        assert!(matches!(from_data_of(&to_data(&other), id, digest), Err(Error::Id { .. })));
        assert!(matches!(from_data_of(&to_data(&revision), id, other.digest.as_str()), Err(Error::Digest { .. })));
        let edited = with(&|json| json["content"]["policy"] = "x".into());
        assert!(matches!(from_data(&edited), Err(Error::Digest { .. })));
        for key in ["files", "flags", "mounts"] {
            let forged = with(&|json| json["content"][key] = serde_json::json!({}));
            assert!(matches!(from_data(&forged), Err(Error::Malformed { .. })), "{key}");
        }
    }

    #[test]
    fn a_key_of_credentials_is_a_file_that_a_webhook_has() {
        for key in ["w-2cdc7443.token", "w-2cdc7443.ca.crt", "a-b-00000000.tls.key"] {
            assert_eq!(credential_path(key).map(|path| credential_key(&path)).as_deref(), Some(key));
        }
        for key in [
            "w-2cdc7443.tokens.csv",
            "x.../../manifests/evil.yaml",
            "..",
            "w-2cdc7443.",
            "w-2cdc7443./token",
            "a.token",
        ] {
            assert_eq!(credential_path(key), None, "{key}");
        }
    }
}
