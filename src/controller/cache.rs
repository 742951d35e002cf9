//! The objects of one kind, as a watch shows them, with our own writes on top until the watch shows those too.
//!
//! *Guarantees.* A pass sees no object older than the one that this controller wrote last. Before the first list is
//! complete there are no objects at all ([`Shared::synced`]).
//!
//! After an error the watch begins again with a list, so a change that could not be read is not lost: the list cannot
//! be read either, and after [`MAX_INTERRUPTION`] the passes fail.
//!
//! *Caveats.* The writes of others are as old as the watch: two and a half minutes where its connection died
//! ([`crate::client`]) before the error shows, and [`MAX_INTERRUPTION`] after it. A decision that must not be made on
//! such a state is compared with the API first, as [`super::apply`] does before it gives a slot.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::{Stream, StreamExt};
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{Store, store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::{Error, RETRY_MAX, RETRY_MIN};
use crate::client::is_outage_status;
use crate::error::LastError;

/// A list takes no longer than this, unless the API is away.
const SYNC_TIMEOUT: Duration = Duration::from_secs(10);

/// An interruption that lasts longer than this is reported, and no pass is made on such objects.
const MAX_INTERRUPTION: Duration = Duration::from_secs(30);

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
    /// Locked before the store is read or written, so that both are of the same moment.
    own: Mutex<Own<K>>,
    /// `None`: the watch has shown everything since its last error.
    interruption: Mutex<Option<Interruption>>,
}

#[derive(Clone)]
struct Interruption {
    since: Instant,
    /// The last error.
    error: Arc<watcher::Error>,
}

/// Our writes that the watch has not shown yet.
struct Own<K> {
    /// By the name of the object.
    writes: BTreeMap<String, Unshown<K>>,
    /// The highest version that the watch has shown. It shows the changes of a kind in the order of their versions, so
    /// it has shown every write up to this one, even if the object is gone since.
    shown: u64,
    /// The same for the list that is being read.
    listed: u64,
}

struct Unshown<K> {
    write: Write<K>,
    /// It was made before the list began that is being read, so the list shows it, or what came after it.
    is_listed: bool,
}

enum Write<K> {
    Object(Arc<K>),
    Deletion { uid: String },
}

impl<K: ResourceExt> Write<K> {
    /// Whether the watch has shown it, or what came after it. `stored`: the object that it shows now.
    fn is_shown(&self, stored: Option<&K>, shown: u64) -> bool {
        match self {
            // One without a version is taken from the watch.
            Write::Object(written) => version(written.as_ref()).is_none_or(|version| version <= shown),
            Write::Deletion { uid } => stored.and_then(ResourceExt::uid).as_ref() != Some(uid),
        }
    }
}

/// A number that grows with each write of a kind: promised since 1.35 (KEP-5504), and true of etcd since there is
/// Kubernetes.
fn version<K: ResourceExt>(object: &K) -> Option<u64> {
    object.resource_version()?.parse().ok()
}

impl<K> Shared<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    pub(super) fn new() -> (Arc<Self>, Writer<K>) {
        let (store, writer) = store();
        let own = Own { writes: BTreeMap::new(), shown: 0, listed: 0 };
        (Arc::new(Self { store, own: Mutex::new(own), interruption: Mutex::default() }), writer)
    }

    /// All objects, by name.
    pub(super) fn objects(&self) -> BTreeMap<String, Arc<K>> {
        let mut own = self.own();
        let Own { writes, shown, .. } = &mut *own;
        let mut objects: BTreeMap<_, _> =
            self.store.state().into_iter().map(|object| (object.name_any(), object)).collect();
        writes.retain(|name, own| !own.write.is_shown(objects.get(name).map(Arc::as_ref), *shown));
        for (name, own) in writes {
            match &own.write {
                Write::Object(written) => objects.insert(name.clone(), Arc::clone(written)),
                Write::Deletion { .. } => objects.remove(name),
            };
        }
        objects
    }

    fn own(&self) -> MutexGuard<'_, Own<K>> {
        self.own.lock().expect("nobody panics with this lock")
    }

    fn keep(&self, name: String, write: Write<K>) {
        self.own().writes.insert(name, Unshown { write, is_listed: false });
    }

    /// The API answered a write with this object.
    pub(super) fn wrote(&self, object: K) {
        self.keep(object.name_any(), Write::Object(Arc::new(object)));
    }

    /// The API took the deletion of this object.
    pub(super) fn deleted(&self, object: &K) {
        self.keep(object.name_any(), Write::Deletion { uid: object.uid().unwrap_or_default() });
    }

    /// The API took the deletion of `object`. `left`: as it stays until its finalizers are removed.
    pub(super) fn took(&self, object: &K, left: Option<K>) {
        match left {
            Some(left) => self.wrote(left),
            None => self.deleted(object),
        }
    }

    /// Trusts the watch alone from here on.
    pub(super) fn forget_own(&self) {
        self.own().writes.clear();
    }

    /// The watch shows this.
    pub(super) fn show(&self, writer: &mut Writer<K>, event: &Event<K>) {
        let mut own = self.own();
        writer.apply_watcher_event(event);
        let Own { writes, shown, listed } = &mut *own;
        match event {
            Event::Init => {
                *listed = 0;
                writes.values_mut().for_each(|own| own.is_listed = true);
            }
            // The store has nothing of a list before all of it is there.
            Event::InitApply(object) => *listed = version(object).unwrap_or(0).max(*listed),
            Event::InitDone => {
                *shown = *listed;
                writes.retain(|_, own| !own.is_listed);
            }
            Event::Apply(object) | Event::Delete(object) => *shown = version(object).unwrap_or(0).max(*shown),
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
        changed: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let (shared, writer) = Shared::new();
        let task = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move { shared.follow(writer, || watcher(api.clone(), config.clone()), trim, changed).await }
        });
        Self { shared, watch: Arc::new(AbortOnDropHandle::new(task)) }
    }
}

impl<K> Shared<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    /// Shows the events of one watch after the other, for ever. An error ends a watch: kube would go on without the
    /// event that it could not read, or not list again.
    async fn follow<S: Stream<Item = Result<Event<K>, watcher::Error>>>(
        &self,
        mut writer: Writer<K>,
        watch: impl Fn() -> S,
        trim: fn(&mut K),
        changed: impl Fn(),
    ) {
        let (mut retry, mut last_error) = (RETRY_MIN, LastError::default());
        loop {
            let mut events = pin!(watch());
            while let Some(event) = events.next().await {
                let event = match event {
                    Ok(event) => event.modify(|object| {
                        object.meta_mut().managed_fields = None;
                        trim(object);
                    }),
                    Err(error) => {
                        // The Lease reports an outage; here it would be one line for each watch.
                        let changed = if is_outage(&error) { None } else { last_error.changed(&error) };
                        if let Some(error) = changed {
                            tracing::warn!(kind = %K::kind(&()), error, "a watch was interrupted; retrying");
                        }
                        self.interrupt(error);
                        break;
                    }
                };
                self.show(&mut writer, &event);
                match event {
                    Event::Init | Event::InitApply(_) => continue,
                    // Where a list succeeds and a watch does not, there is a list after each of them.
                    Event::InitDone => {}
                    Event::Apply(_) | Event::Delete(_) => {
                        retry = RETRY_MIN;
                        last_error.clear();
                    }
                }
                *self.interruption() = None;
                changed();
            }
            sleep(retry).await;
            retry = (retry * 2).min(RETRY_MAX);
        }
    }

    fn interruption(&self) -> MutexGuard<'_, Option<Interruption>> {
        self.interruption.lock().expect("nobody panics with this lock")
    }

    fn interrupt(&self, error: watcher::Error) {
        let mut interruption = self.interruption();
        let since = interruption.as_ref().map_or_else(Instant::now, |interruption| interruption.since);
        *interruption = Some(Interruption { since, error: Arc::new(error) });
    }

    /// Waits until the first list is complete. An error where the watch has been interrupted for long since.
    pub(super) async fn synced(&self) -> Result<(), Error> {
        // A list that has failed is not waited for.
        let wait = if self.interruption().is_some() { Duration::ZERO } else { SYNC_TIMEOUT };
        let is_listed = matches!(timeout(wait, self.store.wait_until_ready()).await, Ok(Ok(())));
        let interruption = self.interruption().clone();
        let lasts = interruption.as_ref().is_some_and(|found| found.since.elapsed() >= MAX_INTERRUPTION);
        if is_listed && !lasts {
            return Ok(());
        }
        let source = interruption.map(|interruption| interruption.error);
        Err(Error::Watch { kind: K::kind(&()).into_owned(), lasts, source })
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
    use futures::stream;
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
        /// The deletion of it waits for a finalizer.
        Held(ConfigMap),
    }
    use Happens::{Deleted, Held, Shown, Written};

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
                "an answer that comes after the deletion of what was written",
                vec![
                    (Shown(Event::Apply(a("5"))), Some("5")),
                    (Shown(Event::Delete(a("7"))), None),
                    (Written(a("5")), None),
                    (Written(again("9")), Some("9")),
                ],
            ),
            (
                "a creation that is gone by the time that the watch shows a later change",
                vec![(Written(a("5")), Some("5")), (Shown(Event::Apply(object("b", "3", "8"))), None)],
            ),
            (
                "a list shows nothing before it is complete",
                vec![
                    (Shown(Event::Init), None),
                    (Written(a("5")), Some("5")),
                    (Shown(Event::InitApply(object("b", "3", "8"))), Some("5")),
                    (Shown(Event::InitDone), None),
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
                "a deletion that a finalizer holds up",
                vec![
                    (Shown(Event::Apply(a("5"))), Some("5")),
                    (Held(a("6")), Some("6")),
                    (Shown(Event::Apply(a("6"))), Some("6")),
                    (Shown(Event::Delete(a("8"))), None),
                ],
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
                    Shown(event) => shared.show(&mut writer, &event),
                    Written(object) => shared.wrote(object),
                    Deleted(object) => shared.took(&object, None),
                    Held(object) => shared.took(&object, Some(object.clone())),
                }
                let found = shared.objects().get("a").and_then(|object| object.resource_version());
                assert_eq!(found.as_deref(), want, "{name}: {index}");
            }
        }
    }

    /// The events of the first watch, the second, and so on. After the last one nothing more comes.
    type Script = Vec<Vec<Result<Event<ConfigMap>, watcher::Error>>>;

    /// Follows a script, and asserts after so many seconds which version is shown and whether the objects are current.
    async fn follow(script: Script, asserted: &[(f64, Option<&str>, bool)]) {
        let (shared, writer) = Shared::<ConfigMap>::new();
        let script = Mutex::new(script.into_iter());
        let watch = || match script.lock().unwrap().next() {
            Some(events) => stream::iter(events).chain(stream::pending()).left_stream(),
            None => stream::pending().right_stream(),
        };
        let asserts = async {
            let began = Instant::now();
            for (seconds, version, is_synced) in asserted {
                tokio::time::sleep_until(began + Duration::from_secs_f64(*seconds)).await;
                let found = shared.objects().get("a").and_then(|object| object.resource_version());
                assert_eq!(found.as_deref(), *version, "after {seconds} s");
                assert_eq!(shared.synced().await.is_ok(), *is_synced, "after {seconds} s");
            }
        };
        tokio::select! {
            () = shared.follow(writer, watch, |_| {}, || {}) => unreachable!("it never ends"),
            () = asserts => {}
        }
    }

    fn list(version: &str) -> Vec<Result<Event<ConfigMap>, watcher::Error>> {
        vec![Ok(Event::Init), Ok(Event::InitApply(object("a", "1", version))), Ok(Event::InitDone)]
    }

    fn unreadable() -> Result<Event<ConfigMap>, watcher::Error> {
        let error = serde_json::from_str::<ConfigMap>("[").unwrap_err();
        Err(watcher::Error::WatchFailed(kube::Error::SerdeError(error)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_that_cannot_be_read_is_found_by_a_new_list() {
        let watches = vec![list("5").into_iter().chain([unreadable()]).collect(), list("7")];
        follow(watches, &[(5.0, Some("7"), true), (100.0, Some("7"), true)]).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_stays_interrupted_is_an_error() {
        let refused = || {
            let status = kube::core::Status::failure("no", "TooManyRequests").with_code(429);
            Err(watcher::Error::InitialListFailed(kube::Error::Api(status.boxed())))
        };
        let mut watches = vec![list("5").into_iter().chain([unreadable()]).collect()];
        // The beginning of a list says nothing about its end.
        watches.extend((0..12).map(|_| vec![Ok(Event::Init), refused()]));
        watches.push(list("7"));
        let asserted =
            [(1.0, Some("5"), true), (25.0, Some("5"), true), (40.0, Some("5"), false), (70.0, Some("7"), true)];
        follow(watches, &asserted).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_list_that_fails_is_an_error_at_once() {
        follow(vec![vec![Ok(Event::Init), unreadable()], list("5")], &[(0.1, None, false), (2.0, Some("5"), true)])
            .await;
    }
}
