//! Puts credentials where kube-apiserver reads them.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;

use super::{Agent, Error, Failed};
use crate::api::{NodeAuditSpec, Reason};
use crate::plan::Refusal;
use crate::revision::{Revision, credential, secret};
use crate::validate;

impl Agent {
    /// Puts the credentials of a Revision in place: those that it names, and only if all of them can be read. Others
    /// stay, because the running Revision may need them.
    pub(super) async fn place_credentials(&mut self, spec: &NodeAuditSpec, revision: &Revision) -> Result<(), Failed> {
        let refused = |message| Failed::from(Refusal { reason: Reason::RevisionUnreadable, message });
        let Some(wanted) = &spec.credentials else {
            // Without them kube-apiserver would not start.
            let missing = |path: &credential::Path| self.state.host.metadata(&path.on_node()).is_err();
            return match revision.credentials().iter().find(|path| missing(path)) {
                Some(path) => Err(refused(format!("the NodeAudit names no Secret for {}", path.on_node()))),
                None => Ok(()),
            };
        };
        if self.credentials.as_ref() == Some(&(wanted.clone(), revision.digest.clone())) {
            return Ok(());
        }
        // The agent reads no other Secret, no matter who names it.
        if wanted.name != secret::credentials_name(&spec.setup) {
            let message = format!(
                "the NodeAudit names the Secret {:?} for credentials, but the controller never uses that name",
                wanted.name
            );
            return Err(refused(message));
        }
        let object = format!("the Secret {}", wanted.name);
        let found = self.secrets.get(&wanted.name).await;
        let found = found.map_err(|source| Error::Fetch { object: object.clone(), source })?;
        if found.type_.as_deref() != Some(secret::CREDENTIALS_TYPE) {
            return Err(refused(format!(
                "{object} does not have the type {} that the controller gives it",
                secret::CREDENTIALS_TYPE
            )));
        }
        let mut data = found.data.unwrap_or_default();
        let mut files = BTreeMap::new();
        for path in revision.credentials() {
            let Some(ByteString(bytes)) = data.remove(&secret::credential_key(&path)) else {
                return Err(refused(format!("{object} has no {} for revision {}", path.file(), revision.id)));
            };
            files.insert(path, bytes);
        }
        validate::judge_credentials(&files).map_err(|why| {
            refused(format!("{object} cannot be used, and the credentials on the node were not changed: {why}"))
        })?;
        for (path, bytes) in &files {
            self.state.host.make_directory(&path.directory.path(), 0o700)?;
            if self.state.host.replace(&path.on_node(), bytes, 0o600)? {
                tracing::info!(file = path.on_node(), "credential replaced");
            }
        }
        self.credentials = Some((wanted.clone(), revision.digest.clone()));
        Ok(())
    }
}
