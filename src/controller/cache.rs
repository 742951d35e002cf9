//! The objects of one kind, as a watch shows them, with our own writes on top until the watch shows those too.
//!
//! *Guarantees.* A pass sees no object older than the one that this controller wrote last. Before the first list is
//! complete there are no objects at all ([`Cache::synced`]).
//!
//! *Caveats.* The writes of others are as old as the watch: two and a half minutes where its connection died
//! ([`crate::client`]). A decision that must not be made on such a state is compared with the API first, as
//! [`super::apply`] does before it gives a slot.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{Store, store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::{Error, RETRY_MAX, RETRY_MIN};
use crate::client::is_outage_status;
use crate::error::LastError;

/// A list takes no longer than this, unless the API is away.
const SYNC_TIMEOUT: Duration = Duration::from_secs(10);

/// The objects of one kind while they are watched. The watch ends with the last handle.
pub(super) struct Cache<K: Resource<DynamicType = ()> + Clone + 'static> {
    shared: Arc<Shared<K>>,
    watch: Arc<AbortOnDropHandle<()>>,
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), watch: Arc::clone(&self.watch) }
    }
}

/// The objects themselves.
pub(super) struct Shared<K: Resource<DynamicType = ()> + Clone + 'static> {
    store: Store<K>,
    /// Our writes that the watch has not shown yet, by the name of the object.
    own: Mutex<BTreeMap<String, Own<K>>>,
    /// Why the watch is interrupted, if it is.
    error: Mutex<Option<Arc<watcher::Error>>>,
}

/// A write of ours.
struct Own<K> {
    write: Write<K>,
    /// It was made before the list began that is being read, so the list shows it, or what came after it.
    is_listed: bool,
}

enum Write<K> {
    Object(Arc<K>),
    Deletion { uid: String },
}

/// What is true of an object, given what the watch shows and what we wrote.
#[derive(Debug, PartialEq, Eq)]
enum Current {
    /// The watch is at least as new as our write.
    Stored,
    Written,
}

fn current<K: ResourceExt>(stored: Option<&K>, write: &Write<K>) -> Current {
    match (stored, write) {
        (Some(stored), Write::Object(written)) => match (version(stored), version(written.as_ref())) {
            (Some(stored), Some(written)) if stored < written => Current::Written,
            _ => Current::Stored,
        },
        // It is not shown yet. Had somebody deleted it since, that event would have ended our write.
        (None, Write::Object(_)) => Current::Written,
        (Some(stored), Write::Deletion { uid }) if stored.uid().as_ref() == Some(uid) => Current::Written,
        (_, Write::Deletion { .. }) => Current::Stored,
    }
}

/// A number that grows with each write of a kind: promised since 1.35 (KEP-5504), and true of etcd since there is
/// Kubernetes. An object without one is taken from the watch.
fn version<K: ResourceExt>(object: &K) -> Option<u64> {
    object.resource_version()?.parse().ok()
}

impl<K> Shared<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    pub(super) fn new() -> (Arc<Self>, Writer<K>) {
        let (store, writer) = store();
        (Arc::new(Self { store, own: Mutex::default(), error: Mutex::default() }), writer)
    }

    /// All objects, by name.
    pub(super) fn objects(&self) -> BTreeMap<String, Arc<K>> {
        let mut own = self.own.lock().expect("nobody panics with this lock");
        let mut objects: BTreeMap<_, _> =
            self.store.state().into_iter().map(|object| (object.name_any(), object)).collect();
        own.retain(|name, own| current(objects.get(name).map(Arc::as_ref), &own.write) == Current::Written);
        for (name, own) in own.iter() {
            match &own.write {
                Write::Object(written) => objects.insert(name.clone(), Arc::clone(written)),
                Write::Deletion { .. } => objects.remove(name),
            };
        }
        objects
    }

    fn keep(&self, name: String, write: Write<K>) {
        let own = Own { write, is_listed: false };
        self.own.lock().expect("nobody panics with this lock").insert(name, own);
    }

    /// The API answered a write with this object.
    pub(super) fn wrote(&self, object: K) {
        self.keep(object.name_any(), Write::Object(Arc::new(object)));
    }

    /// The API took the deletion of this object.
    pub(super) fn deleted(&self, object: &K) {
        self.keep(object.name_any(), Write::Deletion { uid: object.uid().unwrap_or_default() });
    }

    /// Trusts the watch alone from here on.
    pub(super) fn forget_own(&self) {
        self.own.lock().expect("nobody panics with this lock").clear();
    }

    /// Ends the writes that an event makes obsolete, where the store alone does not show it: an object that is not
    /// there may also be one that is not shown yet.
    pub(super) fn follow(&self, event: &Event<K>) {
        let mut own = self.own.lock().expect("nobody panics with this lock");
        match event {
            Event::Init => own.values_mut().for_each(|own| own.is_listed = true),
            Event::InitDone => own.retain(|_, own| !own.is_listed),
            Event::Delete(object) => {
                let is_obsolete = own.get(&object.name_any()).is_some_and(|own| match &own.write {
                    Write::Object(written) => version(object) >= version(written.as_ref()),
                    Write::Deletion { .. } => true,
                });
                if is_obsolete {
                    own.remove(&object.name_any());
                }
            }
            Event::Apply(_) | Event::InitApply(_) => {}
        }
    }
}

impl<K> Cache<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    /// Begins to watch. `trim` removes the parts of an object that nobody reads. `changed` is called for every change.
    pub(super) fn begin(
        api: Api<K>,
        config: watcher::Config,
        trim: fn(&mut K),
        changed: impl Fn() + Send + 'static,
    ) -> Self {
        let (shared, mut writer) = Shared::new();
        let task = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                let mut events = pin!(watcher(api, config));
                let (mut retry, mut last_error) = (RETRY_MIN, LastError::default());
                while let Some(event) = events.next().await {
                    match event {
                        Ok(event) => {
                            retry = RETRY_MIN;
                            last_error.clear();
                            let event = event.modify(|object| {
                                object.meta_mut().managed_fields = None;
                                trim(object);
                            });
                            // The store first: a write that is ended must be in it already.
                            writer.apply_watcher_event(&event);
                            shared.follow(&event);
                            *shared.error.lock().expect("nobody panics with this lock") = None;
                            if !matches!(event, Event::Init | Event::InitApply(_)) {
                                changed();
                            }
                        }
                        Err(error) => {
                            // The Lease reports an outage; here it would be one line for each watch.
                            let changed = if is_outage(&error) { None } else { last_error.changed(&error) };
                            if let Some(error) = changed {
                                tracing::warn!(kind = %K::kind(&()), error, "a watch was interrupted; retrying");
                            }
                            *shared.error.lock().expect("nobody panics with this lock") = Some(Arc::new(error));
                            sleep(retry).await;
                            retry = (retry * 2).min(RETRY_MAX);
                        }
                    }
                }
            }
        });
        Self { shared, watch: Arc::new(AbortOnDropHandle::new(task)) }
    }

    /// Waits until the first list is complete.
    pub(super) async fn synced(&self) -> Result<(), Error> {
        match timeout(SYNC_TIMEOUT, self.shared.store.wait_until_ready()).await {
            Ok(Ok(())) => Ok(()),
            _ => {
                let source = self.shared.error.lock().expect("nobody panics with this lock").clone();
                Err(Error::Watch { kind: K::kind(&()).into_owned(), source })
            }
        }
    }
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> std::ops::Deref for Cache<K> {
    type Target = Shared<K>;

    fn deref(&self) -> &Shared<K> {
        &self.shared
    }
}

/// Whether the API is away, and not the request wrong.
pub(super) fn is_outage(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => crate::client::is_outage(error),
        watcher::Error::WatchError(status) => is_outage_status(status),
        watcher::Error::NoResourceVersion => false,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::ObjectMeta;

    use super::*;

    fn object(name: &str, uid: &str, version: &str) -> ConfigMap {
        let text = |text: &str| Some(text.to_string());
        ConfigMap {
            metadata: ObjectMeta {
                name: text(name),
                uid: text(uid),
                resource_version: text(version),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        }
    }

    /// An event in the life of one object.
    enum Happens {
        Shown(Event<ConfigMap>),
        Written(ConfigMap),
        Deleted(ConfigMap),
    }
    use Happens::{Deleted, Shown, Written};

    /// Name, and what happens one after the other with the version that is seen then.
    type Case<'a> = (&'a str, Vec<(Happens, Option<&'a str>)>);

    #[test]
    fn our_own_writes_are_seen_at_once_and_those_of_others_when_the_watch_shows_them() {
        let a = |version: &str| object("a", "1", version);
        let again = |version: &str| object("a", "2", version);
        let cases: Vec<Case> = vec![
            (
                "a write that the watch shows late",
                vec![
                    (Shown(Event::Apply(a("5"))), Some("5")),
                    (Written(a("9")), Some("9")),
                    (Shown(Event::Apply(a("7"))), Some("9")),
                    (Shown(Event::Apply(a("9"))), Some("9")),
                    (Shown(Event::Apply(a("12"))), Some("12")),
                    (Shown(Event::Delete(a("13"))), None),
                ],
            ),
            (
                "numbers, not texts",
                vec![(Shown(Event::Apply(a("999"))), Some("999")), (Written(a("1000")), Some("1000"))],
            ),
            (
                "a creation, and somebody's deletion before the watch showed it",
                vec![
                    (Written(a("5")), Some("5")),
                    (Shown(Event::Apply(a("5"))), Some("5")),
                    (Shown(Event::Delete(a("6"))), None),
                ],
            ),
            (
                "a creation after a deletion that is shown late",
                vec![
                    (Shown(Event::Apply(a("5"))), Some("5")),
                    (Written(again("9")), Some("9")),
                    (Shown(Event::Delete(a("7"))), Some("9")),
                    (Shown(Event::Apply(again("9"))), Some("9")),
                ],
            ),
            (
                "a deletion",
                vec![
                    (Shown(Event::Apply(a("5"))), Some("5")),
                    (Deleted(a("5")), None),
                    // A last word of somebody else on what is deleted.
                    (Shown(Event::Apply(a("6"))), None),
                    (Shown(Event::Delete(a("7"))), None),
                    (Shown(Event::Apply(again("9"))), Some("9")),
                ],
            ),
            (
                "a deletion, and another object of that name",
                vec![
                    (Shown(Event::Apply(a("5"))), Some("5")),
                    (Deleted(a("5")), None),
                    (Shown(Event::Apply(again("9"))), Some("9")),
                ],
            ),
            (
                "a list that began before a write does not end it",
                vec![
                    (Shown(Event::Init), None),
                    (Written(a("9")), Some("9")),
                    (Shown(Event::InitDone), Some("9")),
                    (Shown(Event::Apply(a("9"))), Some("9")),
                ],
            ),
            (
                "a list that began after a write does, whatever it shows",
                vec![(Written(a("9")), Some("9")), (Shown(Event::Init), Some("9")), (Shown(Event::InitDone), None)],
            ),
            (
                "versions that are no numbers: the watch is believed",
                vec![(Shown(Event::Apply(a("x"))), Some("x")), (Written(a("y")), Some("x"))],
            ),
        ];
        for (name, happens) in cases {
            let (shared, mut writer) = Shared::<ConfigMap>::new();
            for (index, (happens, want)) in happens.into_iter().enumerate() {
                match happens {
                    Shown(event) => {
                        writer.apply_watcher_event(&event);
                        shared.follow(&event);
                    }
                    Written(object) => shared.keep("a".into(), Write::Object(Arc::new(object))),
                    Deleted(object) => shared.keep("a".into(), Write::Deletion { uid: object.uid().unwrap() }),
                }
                let found = shared.objects().get("a").and_then(|object| object.resource_version());
                assert_eq!(found.as_deref(), want, "{name}: {index}");
            }
        }
    }
}
