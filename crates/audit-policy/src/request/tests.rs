use super::*;

/// `verb group/version namespace resource/subresource name`, with `-` for an empty part; or verb and path of other
/// requests.
fn derived(method: &str, url: &str) -> String {
    let found = match attributes(method, url) {
        Ok(found) => found,
        Err(why) => return format!("error: {why}"),
    };
    let shown = |text: &Text| if text.is_empty() { "-".to_string() } else { text.to_string() };
    if !found.is_resource_request {
        return format!("{} {}", shown(&found.verb), shown(&found.path));
    }
    let Attributes { verb, api_group, api_version, namespace, resource, subresource, name, .. } = &found;
    let [verb, api_group, api_version, namespace, resource, subresource, name] =
        [verb, api_group, api_version, namespace, resource, subresource, name].map(shown);
    format!("{verb} {api_group}/{api_version} {namespace} {resource}/{subresource} {name}")
}

#[test]
fn attributes_are_those_of_the_api_server() {
    for (method, url, want) in [
        // Not resources.
        ("GET", "/", "get /"),
        ("GET", "/healthz?verbose", "get /healthz"),
        ("OPTIONS", "/api/v1", "options /api/v1"),
        ("GET", "/apis/apps/v1", "get /apis/apps/v1"),
        ("GET", "/apis/apps/v1/", "get /apis/apps/v1/"),
        ("GET", "/foo/v1/pods", "get /foo/v1/pods"),
        ("CONNECT", "host:443", "connect -"),
        // Names, namespaces, subresources.
        ("GET", "/api/v1/nodes", "list -/v1 - nodes/- -"),
        ("GET", "/api/v1/nodes/n", "get -/v1 - nodes/- n"),
        ("HEAD", "/api/v1/nodes/n/status", "get -/v1 - nodes/status n"),
        ("GET", "/api/v1/namespaces", "list -/v1 - namespaces/- -"),
        ("GET", "/api/v1/namespaces/a", "get -/v1 a namespaces/- a"),
        ("PUT", "/api/v1/namespaces/a/finalize", "update -/v1 a namespaces/finalize a"),
        ("GET", "/api/v1/namespaces/a/status/x", "get -/v1 a namespaces/status a"),
        ("POST", "/api/v1/namespaces/a/pods", "create -/v1 a pods/- -"),
        ("POST", "/api/v1/namespaces/a/pods/p/exec/deeper", "create -/v1 a pods/exec p"),
        ("PATCH", "/apis/apps/v1/namespaces/a/deployments/d/scale", "patch apps/v1 a deployments/scale d"),
        ("DELETE", "/apis/apps/v1/namespaces/a/deployments/d", "delete apps/v1 a deployments/- d"),
        ("DELETE", "/apis/apps/v1/namespaces/a/deployments", "deletecollection apps/v1 a deployments/- -"),
        ("DELETE", "/api/v1/nodes?fieldSelector=metadata.name=n", "deletecollection -/v1 - nodes/- -"),
        ("get", "/api/v1/nodes", "- -/v1 - nodes/- -"),
        ("OPTIONS", "/api/v1/nodes", "- -/v1 - nodes/- -"),
        // Slashes and escapes.
        ("GET", "///api/v1/nodes/", "list -/v1 - nodes/- -"),
        ("GET", "/api/v1//x", "get -/v1 - -/- x"),
        ("GET", "/api/v1/nodes%2Fn", "get -/v1 - nodes/- n"),
        ("GET", "/api/v1/%2A", "list -/v1 - */- -"),
        ("GET", "/api/v1/namespaces/../secrets", "list -/v1 .. secrets/- -"),
        ("GET", "https://host/api/v1/nodes", "list -/v1 - nodes/- -"),
        // Lists and watches.
        ("GET", "/api/v1/nodes?watch=true", "watch -/v1 - nodes/- -"),
        ("GET", "/api/v1/nodes?watch=", "watch -/v1 - nodes/- -"),
        ("GET", "/api/v1/nodes?watch=FALSE", "list -/v1 - nodes/- -"),
        ("GET", "/api/v1/nodes?watch=0&watch=1", "list -/v1 - nodes/- -"),
        ("GET", "/api/v1/nodes?Watch=1", "list -/v1 - nodes/- -"),
        ("GET", "/api/v1/nodes/n?watch=1", "get -/v1 - nodes/- n"),
        ("POST", "/api/v1/nodes?watch=1", "create -/v1 - nodes/- -"),
        ("GET", "/api/v1/nodes?fieldSelector=metadata.name%3Dn", "list -/v1 - nodes/- n"),
        ("GET", "/api/v1/nodes?watch=1&fieldSelector=metadata.name=n", "watch -/v1 - nodes/- n"),
        ("GET", "/api/v1/nodes?fieldSelector=metadata.name=a/b", "list -/v1 - nodes/- -"),
        ("GET", "/api/v1/nodes?fieldSelector=metadata.name=n&limit=x", "list -/v1 - nodes/- -"),
        ("GET", "/api/v1/nodes?watch=1&fieldSelector=metadata.name=n&labelSelector=((", "watch -/v1 - nodes/- -"),
        ("GET", "/api/v1/nodes?watch=fal%C5%BFe", "list -/v1 - nodes/- -"),
        ("GET", "/api/v1/nodes?watch=fal%C5%BFe&limit=x", "watch -/v1 - nodes/- -"),
        // The deprecated verbs.
        ("GET", "/api/v1/watch/nodes", "watch -/v1 - nodes/- -"),
        ("GET", "/api/v1/watch/namespaces/a/pods/p", "watch -/v1 a pods/- p"),
        ("POST", "/api/v1/proxy/namespaces/a/services/s/x", "proxy -/v1 a services/- s"),
        ("GET", "/apis/apps/v1/watch", "error: unable to determine kind and namespace from url"),
        ("GET", "/api/v1/proxy/", "error: unable to determine kind and namespace from url"),
        // Requests that never reach the audit.
        ("OPTIONS", "*", "error: the HTTP server itself answers OPTIONS *"),
        ("GET", "*", "get *"),
        ("GET", "api/v1", "error: invalid URI for request"),
        ("GET", "/%", "error: invalid URL escape"),
        ("", "/", "error: the method is not a token"),
        ("G T", "/", "error: the method is not a token"),
    ] {
        assert_eq!(derived(method, url), want, "{method} {url}");
    }
}
