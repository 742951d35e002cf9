package main

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"time"
)

// A cluster of 200 nodes and 3,000 pods, whose API server logs reads at Metadata and writes at RequestResponse, without the stage
// RequestReceived.
const (
	nodes      = 200
	pods       = 3000
	namespaces = 40
)

type generator struct {
	*rand.Rand
	out     *bufio.Writer
	now     time.Time
	written int64
	version int
}

type one struct {
	level, stage, uri, verb string
	user                    string
	agent                   string
	ref                     string
	code                    int
	reason                  string
	request, response       string
}

func generate(bytes int64, to io.Writer) error {
	g := &generator{
		Rand: rand.New(rand.NewPCG(1, 2)), out: bufio.NewWriterSize(to, 1<<20),
		now: time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC), version: 48_000_000,
	}
	total := 0
	for _, k := range kinds {
		total += k.weight
	}
	for g.written < bytes {
		// 250 requests a second, in bursts.
		g.now = g.now.Add(time.Duration(g.ExpFloat64() * 4e6))
		at := g.IntN(total)
		for _, k := range kinds {
			if at -= k.weight; at < 0 {
				k.make(g)
				break
			}
		}
	}
	return g.out.Flush()
}

func (g *generator) id() string {
	a, b := g.Uint64(), g.Uint64()
	return fmt.Sprintf("%08x-%04x-4%03x-a%03x-%012x", uint32(a), uint16(a>>32), uint16(a>>48)&0xfff, uint16(b)&0xfff, b>>16)
}

// The same for the same seed, as a UID of an object is.
func uid(seed string) string {
	h := uint64(14695981039346656037)
	for _, c := range []byte(seed) {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return fmt.Sprintf("%08x-%04x-4%03x-b%03x-%012x", uint32(h), uint16(h>>32), uint16(h>>48)&0xfff, uint16(h)&0xfff, h>>16)
}

func stamp(t time.Time) string { return t.Format("2006-01-02T15:04:05.000000Z") }

func (g *generator) event(e one) {
	before := g.written
	n := 0
	write := func(format string, args ...any) {
		m, _ := fmt.Fprintf(g.out, format, args...)
		n += m
	}
	took := time.Duration(g.ExpFloat64() * 6e6)
	write(`{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"%s","auditID":"%s","stage":"%s","requestURI":"%s","verb":"%s","user":%s,"sourceIPs":["10.0.%d.%d"],"userAgent":"%s"`,
		e.level, g.id(), e.stage, strings.ReplaceAll(e.uri, "&", `\u0026`), e.verb, e.user, g.IntN(4), g.IntN(250)+1, e.agent)
	if e.ref != "" {
		write(`,"objectRef":{%s}`, e.ref)
	}
	if e.reason == "" {
		write(`,"responseStatus":{"metadata":{},"code":%d}`, e.code)
	} else {
		write(`,"responseStatus":{"metadata":{},"status":"Failure","message":"%s","reason":"%s","code":%d}`, strings.ToLower(e.reason), e.reason, e.code)
	}
	if e.request != "" {
		write(`,"requestObject":%s`, e.request)
	}
	if e.response != "" {
		write(`,"responseObject":%s`, e.response)
	}
	write(`,"requestReceivedTimestamp":"%s","stageTimestamp":"%s","annotations":{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":"%s"}}`+"\n",
		stamp(g.now), stamp(g.now.Add(took)), "RBAC: allowed by ClusterRoleBinding \\\"x\\\" of ClusterRole \\\"x\\\" to Group \\\"y\\\"")
	g.written = before + int64(n)
}

func nodeUser(i int) string {
	return fmt.Sprintf(`{"username":"system:node:node-%03d","groups":["system:nodes","system:authenticated"],"extra":{"authentication.kubernetes.io/credential-id":["X509SHA256=%s%s"]}}`, i, strings.ReplaceAll(uid(fmt.Sprint("c", i)), "-", ""), strings.ReplaceAll(uid(fmt.Sprint("d", i)), "-", ""))
}

func account(namespace, name string, i int) string {
	return fmt.Sprintf(`{"username":"system:serviceaccount:%s:%s","uid":"%s","groups":["system:serviceaccounts","system:serviceaccounts:%s","system:authenticated"],"extra":{"authentication.kubernetes.io/credential-id":["JTI=%s"],"authentication.kubernetes.io/node-name":["node-%03d"],"authentication.kubernetes.io/node-uid":["%s"],"authentication.kubernetes.io/pod-name":["%s-%d"],"authentication.kubernetes.io/pod-uid":["%s"]}}`,
		namespace, name, uid(name), namespace, uid(fmt.Sprint(name, i)), i%nodes, uid(fmt.Sprint("n", i%nodes)), name, i, uid(fmt.Sprint(name, "p", i)))
}

func person(name string, groups ...string) string {
	return fmt.Sprintf(`{"username":"%s","groups":["%s","system:authenticated"]}`, name, strings.Join(groups, `","`))
}

func pod(i int) (namespace, name string) {
	return fmt.Sprintf("team-%02d", i%namespaces), fmt.Sprintf("service-%02d-%s-%s", i%60, uid(fmt.Sprint("rs", i%300))[:10], uid(fmt.Sprint("pod", i))[:5])
}

func (g *generator) meta(namespace, name string) string {
	g.version += g.IntN(5) + 1
	return fmt.Sprintf(`"metadata":{"name":"%s","namespace":"%s","uid":"%s","resourceVersion":"%d","generation":3,"creationTimestamp":"2026-02-27T11:14:03Z","labels":{"app.kubernetes.io/name":"%s","app.kubernetes.io/part-of":"%s","pod-template-hash":"5d4f8c7b9"},"managedFields":[{"manager":"kube-controller-manager","operation":"Update","apiVersion":"v1","time":"%s","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:labels":{".":{},"f:app.kubernetes.io/name":{},"f:pod-template-hash":{}},"f:ownerReferences":{".":{},"k:{\"uid\":\"%s\"}":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"main\"}":{".":{},"f:image":{},"f:name":{},"f:resources":{}}},"f:restartPolicy":{},"f:schedulerName":{}}}}]}`,
		name, namespace, uid(name), g.version, name, namespace, g.now.Format(time.RFC3339), uid(name+"o"))
}

func (g *generator) podObject(i int) string {
	namespace, name := pod(i)
	var env strings.Builder
	for e := range i%7 + 1 {
		fmt.Fprintf(&env, `{"name":"SETTING_%d","value":"value of \"%d\" <a\u003eb> %s"},`, e, e, uid(fmt.Sprint(e, i)))
	}
	return fmt.Sprintf(`{"kind":"Pod","apiVersion":"v1",%s,"spec":{"containers":[{"name":"main","image":"registry.example.com/%s/service:v1.%d.0","args":["--listen=:8080","--log-level=info"],"env":[%s{"name":"LAST","value":"ü"}],"resources":{"limits":{"cpu":"500m","memory":"512Mi"},"requests":{"cpu":"100m","memory":"128Mi"}},"volumeMounts":[{"name":"kube-api-access","readOnly":true,"mountPath":"/var/run/secrets/kubernetes.io/serviceaccount"}],"terminationMessagePath":"/dev/termination-log","imagePullPolicy":"IfNotPresent"}],"restartPolicy":"Always","terminationGracePeriodSeconds":30,"dnsPolicy":"ClusterFirst","serviceAccountName":"default","nodeName":"node-%03d","tolerations":[{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}]},"status":{"phase":"Running","conditions":[{"type":"Initialized","status":"True","lastTransitionTime":"2026-02-27T11:14:03Z"},{"type":"Ready","status":"True","lastTransitionTime":"2026-02-27T11:14:09Z"}],"hostIP":"10.0.1.7","podIP":"10.244.3.19","startTime":"2026-02-27T11:14:03Z"}}`,
		g.meta(namespace, name), namespace, i%20, env.String(), i%nodes)
}

func ref(group, resource, namespace, name, sub string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `"resource":"%s"`, resource)
	for _, part := range [][2]string{{"namespace", namespace}, {"name", name}, {"apiGroup", group}, {"apiVersion", "v1"}, {"subresource", sub}} {
		if part[1] != "" {
			fmt.Fprintf(&b, `,"%s":"%s"`, part[0], part[1])
		}
	}
	return b.String()
}

const (
	kubelet = "kubelet/v1.36.3 (linux/amd64) kubernetes/abcdef0"
	manager = "kube-controller-manager/v1.36.3 (linux/amd64) kubernetes/abcdef0/system:serviceaccount:kube-system:generic"
	kubectl = "kubectl/v1.36.3 (darwin/arm64) kubernetes/abcdef0"
)

type kind struct {
	weight int
	make   func(g *generator)
}

// Roughly what a busy cluster asks.
var kinds = []kind{
	{22, func(g *generator) {
		i := g.IntN(nodes)
		name := fmt.Sprintf("node-%03d", i)
		g.event(one{level: "Metadata", stage: "ResponseComplete", verb: "update", code: 200, user: nodeUser(i), agent: kubelet,
			uri: "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/" + name + "?timeout=10s",
			ref: ref("coordination.k8s.io", "leases", "kube-node-lease", name, "")})
	}},
	{6, func(g *generator) {
		i := g.IntN(nodes)
		name := fmt.Sprintf("node-%03d", i)
		g.event(one{level: "Metadata", stage: "ResponseComplete", verb: "get", code: 200, user: nodeUser(i), agent: kubelet,
			uri: "/api/v1/nodes/" + name + "?resourceVersion=0&timeout=10s", ref: ref("", "nodes", "", name, "")})
	}},
	{8, func(g *generator) {
		i := g.IntN(pods)
		namespace, name := pod(i)
		g.event(one{level: "RequestResponse", stage: "ResponseComplete", verb: "patch", code: 200, user: nodeUser(i % nodes), agent: kubelet,
			uri: "/api/v1/namespaces/" + namespace + "/pods/" + name + "/status", ref: ref("", "pods", namespace, name, "status"),
			request:  `{"metadata":{"uid":"` + uid(name) + `"},"status":{"$setElementOrder/conditions":[{"type":"Ready"}],"conditions":[{"lastTransitionTime":"2026-03-02T08:00:00Z","status":"True","type":"Ready"}]}}`,
			response: g.podObject(i)})
	}},
	{9, func(g *generator) {
		i := g.IntN(pods)
		namespace, _ := pod(i)
		g.version += g.IntN(3)
		for _, stage := range []string{"ResponseStarted", "ResponseComplete"} {
			seconds := g.IntN(300) + 300
			g.event(one{level: "Metadata", stage: stage, verb: "watch", code: 200, user: nodeUser(i % nodes), agent: kubelet,
				uri: fmt.Sprintf("/api/v1/namespaces/%s/configmaps?allowWatchBookmarks=true&fieldSelector=metadata.name%%3Dkube-root-ca.crt&resourceVersion=%d&timeout=%dm%ds&timeoutSeconds=%d&watch=true", namespace, g.version, seconds/60, seconds%60, seconds),
				ref: ref("", "configmaps", namespace, "kube-root-ca.crt", "")})
		}
	}},
	{12, func(g *generator) {
		name := []string{"kube-controller-manager", "kube-scheduler"}[g.IntN(2)]
		verb := []string{"get", "update"}[g.IntN(2)]
		g.event(one{level: "Metadata", stage: "ResponseComplete", verb: verb, code: 200, user: person("system:"+name, "system:x"),
			agent: name + "/v1.36.3 (linux/amd64) kubernetes/abcdef0/leader-election",
			uri:   "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/" + name + "?timeout=5s",
			ref:   ref("coordination.k8s.io", "leases", "kube-system", name, "")})
	}},
	{10, func(g *generator) {
		i := g.IntN(pods)
		controller := []string{"deployment-controller", "replicaset-controller", "endpointslice-controller", "job-controller"}[g.IntN(4)]
		namespace, name := pod(i)
		body := `{"kind":"ReplicaSet","apiVersion":"apps/v1",` + g.meta(namespace, name) + `,"spec":{"replicas":3,"selector":{"matchLabels":{"app":"x"}},"template":` + g.podObject(i) + `},"status":{"replicas":3,"readyReplicas":3}}`
		g.event(one{level: "RequestResponse", stage: "ResponseComplete", verb: "update", code: 200, user: account("kube-system", controller, 0), agent: manager,
			uri: "/apis/apps/v1/namespaces/" + namespace + "/replicasets/" + name + "/status", ref: ref("apps", "replicasets", namespace, name, "status"),
			request: body, response: body})
	}},
	{8, func(g *generator) {
		i := g.IntN(pods)
		namespace, name := pod(i)
		g.event(one{level: "RequestResponse", stage: "ResponseComplete", verb: "create", code: 201, user: nodeUser(i % nodes), agent: kubelet,
			uri: "/api/v1/namespaces/" + namespace + "/events", ref: ref("", "events", namespace, name+".17f", ""),
			request:  `{"kind":"Event","apiVersion":"v1","metadata":{"name":"` + name + `.17f","namespace":"` + namespace + `"},"involvedObject":{"kind":"Pod","name":"` + name + `"},"reason":"Pulled","message":"Container image \"x\" already present on machine","source":{"component":"kubelet"},"type":"Normal","count":1}`,
			response: `{"kind":"Event","apiVersion":"v1",` + g.meta(namespace, name) + `,"involvedObject":{"kind":"Pod","name":"` + name + `"},"reason":"Pulled","type":"Normal","count":1}`})
	}},
	{6, func(g *generator) {
		i := g.IntN(400)
		namespace := fmt.Sprintf("team-%02d", i%namespaces)
		name := []string{"database", "tls", "token", "registry"}[i%4]
		g.event(one{level: "Metadata", stage: "ResponseComplete", verb: "get", code: 200, user: account("external-secrets", "external-secrets", i%3),
			agent: "external-secrets/v0.9 (linux/amd64) kubernetes/$Format",
			uri:   "/api/v1/namespaces/" + namespace + "/secrets/" + name, ref: ref("", "secrets", namespace, name, "")})
	}},
	{6, func(g *generator) {
		g.version += 3
		resource := []string{"pods", "services", "endpoints", "nodes"}[g.IntN(4)]
		g.event(one{level: "Metadata", stage: "ResponseComplete", verb: "list", code: 200, user: account("monitoring", "prometheus", 0),
			agent: "Prometheus/3.1.0", uri: fmt.Sprintf("/api/v1/%s?limit=500&resourceVersion=%d", resource, g.version), ref: ref("", resource, "", "", "")})
	}},
	{3, func(g *generator) {
		path := []string{"/livez?verbose", "/readyz", "/metrics", "/openapi/v3?timeout=32s", "/apis?timeout=32s", "/version"}[g.IntN(6)]
		g.event(one{level: "Metadata", stage: "ResponseComplete", verb: "get", code: 200, user: person("system:anonymous", "system:unauthenticated"), agent: "kube-probe/1.36", uri: path})
	}},
	{5, func(g *generator) {
		i := g.IntN(pods)
		namespace, name := pod(i)
		name = name[:10]
		body := `{"kind":"Deployment","apiVersion":"apps/v1",` + g.meta(namespace, name) + `,"spec":{"replicas":3,"template":` + g.podObject(i) + `}}`
		g.event(one{level: "RequestResponse", stage: "ResponseComplete", verb: "patch", code: 200, user: person(fmt.Sprintf("user%02d@example.com", i%25), "developers", "team-"+namespace[5:]), agent: kubectl,
			uri: "/apis/apps/v1/namespaces/" + namespace + "/deployments/" + name + "?fieldManager=kubectl-client-side-apply&fieldValidation=Strict",
			ref: ref("apps", "deployments", namespace, name, ""), request: body, response: body})
	}},
	{3, func(g *generator) {
		i := g.IntN(pods)
		namespace, name := pod(i)
		g.event(one{level: "Metadata", stage: "ResponseComplete", verb: "list", code: 200, user: person(fmt.Sprintf("user%02d@example.com", i%25), "developers"), agent: kubectl,
			uri: "/api/v1/namespaces/" + namespace + "/pods?limit=500&labelSelector=app%3D" + name[:10], ref: ref("", "pods", namespace, "", "")})
	}},
	{1, func(g *generator) {
		i := g.IntN(pods)
		namespace, name := pod(i)
		for _, stage := range []string{"ResponseStarted", "ResponseComplete"} {
			g.event(one{level: "Metadata", stage: stage, verb: "get", code: 101, user: person(fmt.Sprintf("user%02d@example.com", i%25), "developers"), agent: kubectl,
				uri: "/api/v1/namespaces/" + namespace + "/pods/" + name + "/exec?command=sh&container=main&stdin=true&stdout=true&tty=true", ref: ref("", "pods", namespace, name, "exec")})
		}
	}},
	{1, func(g *generator) {
		g.event(one{level: "Metadata", stage: "ResponseStarted", verb: "get", code: 401, reason: "Unauthorized", user: "{}", agent: "curl/8.5.0", uri: "/api/v1/secrets", ref: ref("", "secrets", "", "", "")})
	}},
	{1, func(g *generator) {
		// A long list now and then.
		var items strings.Builder
		first := g.IntN(pods)
		for i := range g.IntN(60) + 1 {
			if i > 0 {
				items.WriteByte(',')
			}
			items.WriteString(g.podObject((first + i) % pods))
		}
		namespace, _ := pod(first)
		g.event(one{level: "RequestResponse", stage: "ResponseComplete", verb: "list", code: 200, user: account("argocd", "argocd-application-controller", 0), agent: "argocd-application-controller/v2.14",
			uri: "/api/v1/namespaces/" + namespace + "/pods?limit=500", ref: ref("", "pods", namespace, "", ""),
			response: `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[` + items.String() + `]}`})
	}},
}
