//! Reads the cluster out of the stores. Makes no request but to begin a watch; decides nothing, writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Secret};
use kube::ResourceExt;
use tokio::time::Instant;

use super::cache::Cache;
use super::cover::selector;
use super::silence::Silence;
use super::stores::{Nodes, Stores};
use super::world::{NodeFacts, World, versions};
use super::{Context, Error};
use crate::api::{AuditSetup, HOSTS_ANNOTATION, NodeAudit};
use crate::heartbeat;
use crate::validate::{Needs, References, SecretFacts, needs};

/// The cluster now, once every watch that it takes shows what there is.
pub(super) async fn fetch(context: &Context, stores: &mut Stores, silence: &mut Silence) -> Result<World, Error> {
    stores.setups.synced().await?;
    stores.audits.synced().await?;
    let (setups, audits) = (stores.setups.objects(), stores.audits.objects());
    let setups: Vec<_> = setups.into_values().collect();
    let needs: Vec<Needs> = setups.iter().map(|setup| needs(setup)).collect();
    stores.watch_services(&needs.iter().flat_map(|needs| needs.services.iter().cloned()).collect());
    let selectors: BTreeSet<_> = setups.iter().map(|setup| Nodes::Selected(selector(setup))).collect();
    let named = stores.nodes.keys().filter(|nodes| matches!(nodes, Nodes::Named(_))).cloned();
    stores.watch_nodes(&selectors.iter().cloned().chain(named).collect());
    stores.synced().await?;
    let mut nodes = nodes(stores, &selectors);
    let is_shown = |name: &String| nodes.values().any(|nodes| nodes.contains_key(name));
    // That have a NodeAudit, and are selected no more.
    let others: BTreeSet<_> = audits.keys().filter(|name| !is_shown(name)).cloned().map(Nodes::Named).collect();
    stores.watch_nodes(&selectors.union(&others).cloned().collect());
    stores.synced().await?;
    nodes.extend(self::nodes(stores, &others));
    Ok(world(context, stores, silence, setups, audits, nodes, &needs))
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
        let nodes = shown.get(&Nodes::Selected(selector(setup)));
        (setup.name_any(), nodes.into_iter().flat_map(BTreeMap::keys).cloned().collect())
    };
    let selected = setups.iter().map(selected).collect();
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
    World { setups, nodes, selected, audits, contacts, references, secrets, floor, versions }
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
        api_server: context.api_server,
    }
}
