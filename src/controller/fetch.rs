//! Reads the cluster out of the stores. Makes no request but to begin a watch; decides nothing, writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use audit_policy::is_dns_label;
use k8s_openapi::api::core::v1::{Node, Secret};
use kube::ResourceExt;
use tokio::time::Instant;

use super::cache::Cache;
use super::cover::selector;
use super::silence::Silence;
use super::stores::{Nodes, ServiceName, Stores, refused, with_endpoints};
use super::world::{NodeFacts, World, versions};
use super::{Context, Error};
use crate::api::{AuditSetup, HOSTS_ANNOTATION, NodeAudit, Reason};
use crate::error::chain;
use crate::heartbeat;
use crate::validate::{Needs, Problem, References, SecretFacts, check_selector, needs};

/// The cluster now, once every watch that it takes shows what there is. A Setup does not hold up the others: where a
/// watch that only it needs is refused, it is [`World::unknown`].
pub(super) async fn fetch(context: &Context, stores: &mut Stores, silence: &mut Silence) -> Result<World, Error> {
    stores.setups.synced().await?;
    stores.audits.synced().await?;
    let (setups, audits) = (stores.setups.objects(), stores.audits.objects());
    let setups: Vec<_> = setups.into_values().collect();
    let needs: Vec<Needs> = setups.iter().map(|setup| needs(setup)).collect();
    stores.watch_services(&watchable_services(&needs));
    let mut selectors: BTreeSet<_> = setups.iter().filter_map(|setup| selected(setup).ok()).collect();
    let named = stores.nodes.keys().filter(|nodes| matches!(nodes, Nodes::Named(_))).cloned();
    stores.watch_nodes(&selectors.iter().cloned().chain(named).collect());
    stores.synced().await?;
    let refused_services = refused(&stores.services).await?;
    let endpoints = with_endpoints(&stores.endpoints).await;
    let refused_nodes = refused(&stores.nodes).await?;
    let watched = selectors.clone();
    selectors.retain(|nodes| !refused_nodes.contains_key(nodes));
    let mut nodes = nodes(stores, &selectors);
    let is_shown = |name: &String| nodes.values().any(|nodes| nodes.contains_key(name));
    // That have a NodeAudit, and are selected no more.
    let others: BTreeSet<_> = audits.keys().filter(|name| !is_shown(name)).cloned().map(Nodes::Named).collect();
    stores.watch_nodes(&watched.union(&others).cloned().collect());
    for named in &others {
        stores.nodes[named].synced().await?;
    }
    nodes.extend(self::nodes(stores, &others));
    let unknown = setups
        .iter()
        .zip(&needs)
        .map(|(setup, needs)| (setup.name_any(), unknown(setup, needs, &refused_nodes, &refused_services)));
    let unknown = unknown.filter(|(_, problems)| !problems.is_empty()).collect();
    let mut world = world(context, stores, silence, setups, audits, nodes, &needs);
    world.references.endpoints = endpoints;
    Ok(World { unknown, ..world })
}

/// The Nodes that a Setup selects.
fn selected(setup: &AuditSetup) -> Result<Nodes, Problem> {
    check_selector(&setup.spec).map_or_else(|| Ok(Nodes::Selected(selector(setup))), Err)
}

/// The Services that can exist: a name that is none would be a part of the address of a request.
fn watchable_services(needs: &[Needs]) -> BTreeSet<ServiceName> {
    let services = needs.iter().flat_map(|needs| &needs.services);
    services.filter(|(namespace, name)| is_dns_label(namespace) && is_dns_label(name)).cloned().collect()
}

/// Why the nodes or the Services of a Setup are not known.
fn unknown(
    setup: &AuditSetup,
    needs: &Needs,
    refused_nodes: &BTreeMap<Nodes, Error>,
    refused_services: &BTreeMap<ServiceName, Error>,
) -> Vec<Problem> {
    let problem = |field: &str, object: String, error: &Error| Problem {
        field: field.into(),
        reason: Reason::Pending,
        message: format!("{object} cannot be watched: {}", chain(error)),
    };
    let of_nodes = match selected(setup) {
        Ok(nodes) => refused_nodes.get(&nodes).map(|error| problem("spec.nodeSelector", "its nodes".into(), error)),
        Err(problem) => Some(problem),
    };
    let of_services = needs.services.iter().filter_map(|service| {
        let (namespace, name) = service;
        Some(problem("spec.sinks", format!("the Service {namespace}/{name}"), refused_services.get(service)?))
    });
    of_nodes.into_iter().chain(of_services).collect()
}

/// The Nodes of each watch, by name.
type Shown = BTreeMap<Nodes, BTreeMap<String, NodeFacts>>;

fn nodes(stores: &Stores, of: &BTreeSet<Nodes>) -> Shown {
    let shown = |cache: &Cache<Node>| {
        let nodes = cache.objects();
        nodes.into_iter().map(|(name, node)| (name, NodeFacts::of(&node))).collect()
    };
    of.iter().filter_map(|nodes| Some((nodes.clone(), shown(stores.nodes.get(nodes)?)))).collect()
}

fn world(
    context: &Context,
    stores: &Stores,
    silence: &mut Silence,
    setups: Vec<Arc<AuditSetup>>,
    mut audits: BTreeMap<String, Arc<NodeAudit>>,
    shown: Shown,
    needs: &[Needs],
) -> World {
    let selected = |setup: &Arc<AuditSetup>| {
        let nodes = shown.get(&selected(setup).ok()?)?;
        Some((setup.name_any(), nodes.keys().cloned().collect()))
    };
    let selected = setups.iter().filter_map(selected).collect();
    let watched = shown.keys().cloned().collect();
    let nodes: BTreeMap<_, _> = shown.into_values().flatten().collect();
    let versions = versions(audits.values().map(Arc::as_ref));
    audits.retain(|name, _| nodes.contains_key(name));
    let leases = stores.leases.objects();
    let leases = leases.values().filter_map(|lease| Some((heartbeat::node(lease)?.into(), lease.resource_version()?)));
    let by_name = audits.iter().map(|(name, audit)| (name, audit.as_ref()));
    let contacts = silence.listen(by_name, &leases.collect(), context.outage.responds_since(), Instant::now());
    let secrets = stores.secrets.objects();
    let references = references(context, stores, needs, &secrets);
    let floor = context.floor.current();
    World {
        setups,
        nodes,
        selected,
        audits,
        contacts,
        references,
        secrets,
        floor,
        versions,
        watched,
        ..World::default()
    }
}

/// The objects that the Setups refer to; those that do not exist are left out.
fn references(
    context: &Context,
    stores: &Stores,
    needs: &[Needs],
    secrets: &BTreeMap<String, Arc<Secret>>,
) -> References {
    let facts = |secret: &Secret| SecretFacts {
        hosts: secret.annotations().get(HOSTS_ANNOTATION).cloned(),
        type_: secret.type_.clone().unwrap_or_default(),
        data: secret.data.iter().flatten().map(|(key, bytes)| (key.clone(), bytes.0.clone())).collect(),
    };
    let config_maps = stores.config_maps.objects();
    let secret = |name: &String| Some((name.clone(), facts(secrets.get(name)?)));
    let config_map = |name: &String| Some((name.clone(), config_maps.get(name)?.data.clone().unwrap_or_default()));
    let service = |service: &(String, String)| {
        let found = stores.services.get(service)?.objects().remove(&service.1)?;
        Some((service.clone(), Arc::unwrap_or_clone(found)))
    };
    References {
        secrets: needs.iter().flat_map(|needs| &needs.secrets).filter_map(secret).collect(),
        config_maps: needs.iter().flat_map(|needs| &needs.config_maps).filter_map(config_map).collect(),
        services: needs.iter().flat_map(|needs| &needs.services).filter_map(service).collect(),
        endpoints: BTreeMap::new(),
        api_server: context.api_server,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kube::core::Status;
    use kube::runtime::watcher;
    use serde_json::json;

    use super::*;

    fn setup(selector: serde_json::Value, service: &str) -> AuditSetup {
        serde_json::from_value(json!({
            "apiVersion": "audit-operator.io/v1alpha1", "kind": "AuditSetup", "metadata": {"name": "s"},
            "spec": {
                "nodeSelector": selector, "policy": {"preset": "metadata"},
                "sinks": [{"name": "siem", "webhook": {"service": {"namespace": "logs", "name": service, "port": 443}}}],
            },
        }))
        .unwrap()
    }

    fn problems(setup: &AuditSetup, refused: &[&str]) -> Vec<String> {
        let error = || Error::Watch {
            kind: "Service".into(),
            lasts: false,
            source: Some(Arc::new(watcher::Error::WatchError(
                Status::failure("no", "Forbidden").with_code(403).boxed(),
            ))),
        };
        let services = refused.iter().map(|name| (("logs".to_string(), name.to_string()), error())).collect();
        let nodes = refused.iter().map(|selector| (Nodes::Selected(selector.to_string()), error())).collect();
        unknown(setup, &needs(setup), &nodes, &services).into_iter().map(|problem| problem.field).collect()
    }

    #[test]
    fn nothing_that_cannot_exist_is_watched() {
        let needs = ["siem", "siem=a,metadata.name", "../../nodes", "Siem", "a b", ""]
            .map(|name| needs(&setup(json!({}), name)));
        assert_eq!(watchable_services(&needs), [("logs".to_string(), "siem".to_string())].into());
        for (selector, is_valid) in [
            (json!({}), true),
            (json!({"example.com/a": "b", "c": ""}), true),
            (json!({"a b": "c"}), false),
            (json!({"": "c"}), false),
            (json!({"a": "b,c"}), false),
            (json!({"a": "b c"}), false),
            (json!({"a": "x".repeat(64)}), false),
        ] {
            assert_eq!(selected(&setup(selector.clone(), "siem")).is_ok(), is_valid, "{selector}");
        }
    }

    #[test]
    fn a_watch_that_is_refused_concerns_the_setup_that_needs_it() {
        let refused = ["siem", "a=b"];
        assert_eq!(problems(&setup(json!({"a": "c"}), "other"), &refused), [""; 0]);
        assert_eq!(problems(&setup(json!({"a": "c"}), "siem"), &refused), ["spec.sinks"]);
        assert_eq!(problems(&setup(json!({"a": "b"}), "siem"), &refused), ["spec.nodeSelector", "spec.sinks"]);
        assert_eq!(problems(&setup(json!({"a": "b c"}), "other"), &refused), ["spec.nodeSelector"]);
    }
}
