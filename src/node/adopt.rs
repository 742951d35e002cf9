//! Makes the journal say what the node runs, where it does not know: only what was seen to serve.

use super::state::{self, LockedState};
use super::{probe, process};
use crate::journal::{Confirmed, Sha};
use crate::plan::{ORIGINAL, Unseen};

/// Whether kube-apiserver was seen to serve with the manifest that lies there; then the journal says so.
pub async fn adopt(state: &LockedState, unseen: &Unseen) -> Result<bool, state::Error> {
    let servers = process::called("kube-apiserver");
    let runs = !servers.is_empty() && servers.iter().all(|server| server.argv == unseen.argv);
    if !runs || !probe::is_serving(&unseen.probe).await {
        return Ok(false);
    }
    let mut journal = state.journal()?;
    let original = state.kept(ORIGINAL)?.map(|original| Sha::of(original.as_bytes()));
    let (revision, manifest) = (unseen.revision.clone(), unseen.manifest.clone());
    journal.adopt(Confirmed { revision, manifest, at: process::clock().wall }, original);
    state.record(&journal)?;
    tracing::info!(revision = %unseen.revision, "the manifest is as it shall be, and kube-apiserver serves with it");
    Ok(true)
}
