//! Reads the Revision that this node is assigned, and judges it.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;

use super::{Agent, Error, Failed};
use crate::api::Reason;
use crate::floor::Floor;
use crate::plan::Refusal;
use crate::revision::{Revision, secret};
use crate::validate;

impl Agent {
    /// Reads the Revision, and judges it: the agent does not trust the controller, nor the name of the Revision. The
    /// node keeps running its present Revision until another one is permitted.
    pub(super) async fn fetch_revision(
        &mut self,
        name: &str,
        digest: Option<&str>,
        floor: &Floor,
    ) -> Result<Revision, Failed> {
        let refused = |reason, message| Failed::from(Refusal { reason, message });
        let Some(digest) = digest else {
            let message =
                "the NodeAudit has no revisionDigest. A controller of this version writes it: update the controller"
                    .to_string();
            return Err(refused(Reason::RevisionUnreadable, message));
        };
        let is_known = |known: &&Revision| known.id.as_str() == name && known.digest.as_str() == digest;
        let revision = match self.revision.as_ref().filter(is_known) {
            Some(known) => known.clone(),
            None => {
                let secret_name = secret::revision_name(name);
                let object = format!("the Secret {secret_name}");
                let found = self.secrets.get(&secret_name).await;
                let found = found.map_err(|source| Error::Fetch { object: object.clone(), source })?;
                let data: BTreeMap<String, Vec<u8>> =
                    found.data.unwrap_or_default().into_iter().map(|(key, ByteString(bytes))| (key, bytes)).collect();
                secret::from_data_of(&data, name, digest).map_err(|error| {
                    let message = format!(
                        "{object} does not have the Revision that the NodeAudit names: {}; nothing on the node was changed. If somebody wrote the \
                         Secret by hand, delete it, and the controller writes it again",
                        crate::error::chain(&error)
                    );
                    refused(Reason::RevisionUnreadable, message)
                })?
            }
        };
        // Again whenever the floor changes: it may have risen.
        if self.judged.as_ref().is_some_and(|(judged, by)| *judged == revision.digest && by == floor) {
            return Ok(revision);
        }
        if let Err(problems) = validate::judge(&revision.content, floor) {
            // A forged Revision may have many and long problems.
            let problems: Vec<String> =
                problems.iter().take(8).map(|problem| shortened(&problem.to_string())).collect();
            let message = format!(
                "revision {name} may not run on this node: {}; nothing on the node was changed",
                problems.join("; ")
            );
            return Err(refused(Reason::RevisionUnreadable, message));
        }
        self.judged = Some((revision.digest.clone(), floor.clone()));
        self.revision = Some(revision.clone());
        Ok(revision)
    }
}

/// For a status that everybody reads.
fn shortened(message: &str) -> String {
    const MAX_CHARS: usize = 300;
    let mut short: String = message.chars().take(MAX_CHARS).collect();
    if short.len() < message.len() {
        short.push('…');
    }
    short
}
