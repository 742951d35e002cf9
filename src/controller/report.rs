//! Writes the status of a Setup where it changed, and publishes the Events that the change is worth.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{self, EventType};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;

use super::judge::{Judged, Ruling};
use super::pass::Decided;
use super::stores::Stores;
use super::world::World;
use super::{Context, Error};
use crate::api::{AuditSetup, AuditSetupStatus, FIELD_MANAGER, NodeAudit};
use crate::rollout::Decision;
use crate::status::{Event, Facts, Judgement, Related, differs, events, rolled_out, status};

/// Reports on a Setup; returns its name and status. There is nothing to report on one that is gone.
pub(super) async fn report(
    context: &Context,
    stores: &Stores,
    world: &World,
    decided: &Decided<'_>,
    now: Timestamp,
) -> Result<Option<(String, AuditSetupStatus)>, Error> {
    let Decided { judged: Judged::Setup { setup, ruling, .. }, claim, decision } = decided else { return Ok(None) };
    let name = setup.name_any();
    let nodes = decided.judged.shown(world, claim);
    let judgement = judgement(ruling, decision);
    let new = status(Facts { setup, nodes: &nodes, judgement, now });
    let old = setup.status.clone().unwrap_or_default();
    if !differs(&old, &new) {
        return Ok(Some((name, new)));
    }
    let patch = status_patch(setup, &new);
    // The fields that a status leaves out are removed, because no other manager has them.
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let api = Api::<AuditSetup>::all(context.client.clone());
    let patched = api.patch_status(&name, &params, &Patch::Apply(&patch)).await;
    stores.setups.wrote(patched.map_err(Error::request("write the status of", format!("AuditSetup {name}")))?);
    if let Some(took) = rolled_out(&old, &new) {
        context.metrics.rolled_out(&name, took);
    }
    // After the status: an Event that is lost is better than one that comes at each retry.
    for event in events(&old, &new) {
        publish(context, setup, &event).await;
    }
    Ok(Some((name, new)))
}

/// With the uid: the status of one Setup must not become that of a later one of its name.
fn status_patch(setup: &AuditSetup, status: &AuditSetupStatus) -> serde_json::Value {
    json!({
        "apiVersion": AuditSetup::api_version(&()), "kind": AuditSetup::kind(&()),
        "metadata": {"name": setup.name_any(), "uid": setup.uid()}, "status": status,
    })
}

fn judgement<'a>(ruling: &'a Ruling, decision: &'a Decision) -> Judgement<'a> {
    match ruling {
        Ruling::Rendered { rendered, change } => Judgement::Rendered {
            target: rendered.revision.id.as_str(),
            change: change.as_deref(),
            policy: &rendered.policy,
            findings: &rendered.findings,
            progress: &decision.progress,
        },
        Ruling::Rejected(problems) => Judgement::Rejected(problems),
        Ruling::Conflict { older, node } => Judgement::Conflict { older, node },
        Ruling::NoNodes => Judgement::NoNodes,
        Ruling::Deleted => Judgement::Restoring(&decision.progress),
    }
}

/// An Event that cannot be published is only a line in the log: nothing depends on it.
pub(super) async fn publish(context: &Context, setup: &AuditSetup, event: &Event) {
    let setup_name = setup.name_any();
    let (reason, action, note) = (event.reason, &event.action, &event.note);
    match event.is_warning {
        true => tracing::warn!(setup = setup_name, %reason, action, note, "event"),
        false => tracing::info!(setup = setup_name, %reason, action, note, "event"),
    }
    let secondary = match &event.related {
        Related::Nothing => None,
        Related::Node(name) => Some(ObjectReference {
            api_version: Some(NodeAudit::api_version(&()).into()),
            kind: Some(NodeAudit::kind(&()).into()),
            name: Some(name.clone()),
            ..ObjectReference::default()
        }),
        Related::Revision(id) => Some(ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Secret".into()),
            name: Some(crate::revision::secret::revision_name(id)),
            namespace: Some(context.namespace.clone()),
            ..ObjectReference::default()
        }),
    };
    let event = events::Event {
        type_: if event.is_warning { EventType::Warning } else { EventType::Normal },
        reason: event.reason.to_string(),
        note: Some(event.note.clone()),
        action: event.action.clone(),
        secondary,
    };
    if let Err(error) = context.recorder.publish(&event, &setup.object_ref(&())).await {
        tracing::warn!(%error, setup = setup_name, reason = event.reason, "cannot publish an Event");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_written_only_to_the_setup_that_was_judged() {
        let setup: AuditSetup = serde_json::from_value(json!({
            "apiVersion": "audit-operator.io/v1alpha1", "kind": "AuditSetup", "metadata": {"name": "s", "uid": "u"},
            "spec": {"policy": {"preset": "metadata"}, "sinks": [{"name": "local", "log": {}}]},
        }))
        .unwrap();
        let patch = status_patch(&setup, &AuditSetupStatus::default());
        assert_eq!(patch["metadata"], json!({"name": "s", "uid": "u"}));
    }
}
