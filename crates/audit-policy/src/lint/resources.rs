//! The resources of Kubernetes' own API groups. The data, with its sources, is in resources.txt.

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// A resource of Kubernetes.
#[derive(Debug)]
pub(super) struct Resource {
    pub group: &'static str,
    pub is_namespaced: bool,
    pub subresources: Vec<&'static str>,
}

/// A resource that Kubernetes no longer serves.
#[derive(Debug)]
pub(super) struct RemovedResource {
    /// The last minor version of Kubernetes 1 that served it.
    pub last_minor: u32,
    /// The group that has it now.
    pub now: Option<&'static str>,
}

#[derive(Debug, Default)]
pub(super) struct Resources {
    /// By name, one for each group that has it.
    present: BTreeMap<&'static str, Vec<Resource>>,
    gone: Vec<(&'static str, &'static str, RemovedResource)>,
}

pub(super) static RESOURCES: LazyLock<Resources> = LazyLock::new(|| {
    let mut table = Resources::default();
    for line in include_str!("resources.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split(' ').collect();
        let [group, name, third, rest @ ..] = words.as_slice() else { unreachable!("the tests read every line") };
        let group = if *group == "core" { "" } else { group };
        match third.parse() {
            Ok(last_minor) => {
                let now = rest.first().copied().filter(|now| *now != "-");
                table.gone.push((group, name, RemovedResource { last_minor, now }));
            }
            Err(_) => table.present.entry(name).or_default().push(Resource {
                group,
                is_namespaced: *third == "N",
                subresources: rest.to_vec(),
            }),
        }
    }
    table
});

impl Resources {
    pub fn find(&self, group: &str, name: &str) -> Option<&Resource> {
        self.present.get(name)?.iter().find(|resource| resource.group == group)
    }

    /// The groups that have a resource of this name.
    pub fn groups_with(&self, name: &str) -> Vec<&'static str> {
        self.present.get(name).into_iter().flatten().map(|resource| resource.group).collect()
    }

    pub fn gone(&self, group: &str, name: &str) -> Option<&RemovedResource> {
        self.gone.iter().find(|(of, one, _)| *of == group && *one == name).map(|(.., gone)| gone)
    }

    /// Whether it is currently one of Kubernetes' own groups.
    pub fn has_group(&self, group: &str) -> bool {
        self.present.values().flatten().any(|resource| resource.group == group)
    }

    /// The last minor version that served a removed group.
    pub fn group_gone(&self, group: &str) -> Option<u32> {
        let served = self.gone.iter().filter(|(of, ..)| *of == group).map(|(.., gone)| gone.last_minor);
        served.max().filter(|_| !self.has_group(group))
    }

    /// The name in the group's spelling: in lower case and in the plural.
    pub fn spelled(&self, group: &str, name: &str) -> Option<String> {
        let lower = name.to_lowercase();
        let plurals = [lower.clone(), format!("{lower}s"), format!("{lower}es")];
        let ies = lower.strip_suffix('y').map(|stem| format!("{stem}ies"));
        plurals.into_iter().chain(ies).find(|plural| self.find(group, plural).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_read() {
        let lines = include_str!("resources.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let read = RESOURCES.present.values().map(Vec::len).sum::<usize>() + RESOURCES.gone.len();
        assert_eq!(read, lines.count());
    }

    #[test]
    fn resources_are_found_where_they_are() {
        let pods = RESOURCES.find("", "pods").unwrap();
        assert!(pods.is_namespaced && pods.subresources.contains(&"exec"));
        assert!(!RESOURCES.find("", "nodes").unwrap().is_namespaced);
        assert_eq!(RESOURCES.groups_with("deployments"), ["apps"]);
        assert_eq!(RESOURCES.groups_with("events"), ["", "events.k8s.io"]);
        assert_eq!(RESOURCES.gone("extensions", "deployments").unwrap().now, Some("apps"));
        assert_eq!((RESOURCES.group_gone("extensions"), RESOURCES.group_gone("policy")), (Some(21), None));
        for (name, want) in [("Ingress", "ingresses"), ("networkpolicy", "networkpolicies"), ("INGRESSES", "ingresses")]
        {
            assert_eq!(RESOURCES.spelled("networking.k8s.io", name).as_deref(), Some(want));
        }
        assert_eq!(RESOURCES.spelled("apps", "pod"), None);
    }
}
