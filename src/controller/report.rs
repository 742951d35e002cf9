//! Writes the status of a Setup where it changed, and publishes the Events that the change is worth.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{self, EventType};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;

use super::{Context, Error};
use crate::api::{AuditSetup, FIELD_MANAGER, NodeAudit};
use crate::rollout::Node;
use crate::status::{Event, Facts, Judgement, Related, differs, events, rolled_out, status};

/// Returns whether anything changed.
pub(super) async fn report(
    context: &Context,
    setup: &AuditSetup,
    nodes: &[Node<'_>],
    judgement: Judgement<'_>,
) -> Result<bool, Error> {
    let name = setup.name_any();
    let new = status(Facts { setup, nodes, judgement, now: super::now() });
    context.metrics.observe(&name, &new);
    let old = setup.status.clone().unwrap_or_default();
    if !differs(&old, &new) {
        return Ok(false);
    }
    let patch = json!({
        "apiVersion": AuditSetup::api_version(&()), "kind": AuditSetup::kind(&()),
        "metadata": {"name": name}, "status": new,
    });
    // The fields that a status leaves out are removed, because no other manager has them.
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let api = Api::<AuditSetup>::all(context.client.clone());
    let patched = api.patch_status(&name, &params, &Patch::Apply(&patch)).await;
    patched.map_err(Error::request("write the status of", format!("AuditSetup {name}")))?;
    if let Some(took) = rolled_out(&old, &new) {
        context.metrics.rolled_out(&name, took);
    }
    // After the status: an Event that is lost is better than one that comes at each try.
    for event in events(&old, &new) {
        publish(context, setup, &event).await;
    }
    Ok(true)
}

/// An Event that cannot be published is a line in the log: nothing depends on it.
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
