// Answers with kube-apiserver's own code: loads audit policies, decides about requests, and derives their attributes.
//
// One JSON object a line in, one out:
//
//	{"op":"load","text":BASE64}              -> {"policy":{…}|null,"error":"…","warning":"…"}; the policy is kept for "eval"
//	{"op":"eval","attributes":{…}}           -> {"level","omitStages","omitManagedFields","rule"}
//	{"op":"request","method":…,"url":…}      -> the attributes, or {"error":"…"}
//	{"op":"pod","text":BASE64}               -> the pod that the kubelet reads in a manifest, or {"error":"…"}
//	{"op":"bench","attributes":[{…}],"n":N}  -> {"nanoseconds":N}: the time of n decisions, one after the other
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/yaml"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/audit/policy"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/klog/v2"
)

type question struct {
	Op         string          `json:"op"`
	Text       []byte          `json:"text"`
	Attributes json.RawMessage `json:"attributes"`
	Method     string          `json:"method"`
	URL        string          `json:"url"`
	N          int             `json:"n"`
}

type userRecord struct {
	Name   string   `json:"name"`
	Groups []string `json:"groups"`
}

type attributes struct {
	User            *userRecord `json:"user"`
	Verb            string      `json:"verb"`
	Namespace       string      `json:"namespace"`
	APIGroup        string      `json:"apiGroup"`
	APIVersion      string      `json:"apiVersion"`
	Resource        string      `json:"resource"`
	Subresource     string      `json:"subresource"`
	Name            string      `json:"name"`
	ResourceRequest bool        `json:"resourceRequest"`
	Path            string      `json:"path"`
}

func (a attributes) record() authorizer.AttributesRecord {
	record := authorizer.AttributesRecord{
		Verb: a.Verb, Namespace: a.Namespace, APIGroup: a.APIGroup, APIVersion: a.APIVersion, Resource: a.Resource,
		Subresource: a.Subresource, Name: a.Name, ResourceRequest: a.ResourceRequest, Path: a.Path,
	}
	// An interface that holds a nil pointer would not be nil.
	if a.User != nil {
		record.User = &user.DefaultInfo{Name: a.User.Name, Groups: a.User.Groups}
	}
	return record
}

var pods = func() serializer.CodecFactory {
	scheme := runtime.NewScheme()
	utilruntime.Must(corev1.AddToScheme(scheme))
	return serializer.NewCodecFactory(scheme)
}()

type judge struct {
	log bytes.Buffer
	// The policy itself, and the same with the index of each rule in place of its level.
	decides, counts audit.PolicyRuleEvaluator
	factory         request.RequestInfoFactory
}

func (j *judge) load(text []byte) any {
	j.log.Reset()
	j.decides, j.counts = nil, nil
	loaded, err := loadOrPanic(text)
	klog.Flush()
	answer := map[string]any{"policy": nil, "error": "", "warning": j.log.String()}
	if err != nil {
		answer["error"] = err.Error()
		return answer
	}
	answer["policy"] = shown(loaded)
	numbered := loaded.DeepCopy()
	for i := range numbered.Rules {
		numbered.Rules[i].Level = auditinternal.Level(strconv.Itoa(i))
	}
	j.counts = policy.NewPolicyRuleEvaluator(numbered)
	j.decides = policy.NewPolicyRuleEvaluator(loaded)
	return answer
}

// A panic of the YAML parser would end the API server too.
func loadOrPanic(text []byte) (loaded *auditinternal.Policy, err error) {
	defer func() {
		if p := recover(); p != nil {
			loaded, err = nil, fmt.Errorf("panic: %v", p)
		}
	}()
	return policy.LoadPolicyFromBytes(text)
}

// Lists are never null, so that equal policies look equal.
func shown(p *auditinternal.Policy) any {
	rules := make([]any, 0, len(p.Rules))
	for _, r := range p.Rules {
		resources := make([]any, 0, len(r.Resources))
		for _, gr := range r.Resources {
			resources = append(resources, map[string]any{"group": gr.Group, "resources": list(gr.Resources), "resourceNames": list(gr.ResourceNames)})
		}
		rules = append(rules, map[string]any{
			"level": r.Level, "users": list(r.Users), "userGroups": list(r.UserGroups), "verbs": list(r.Verbs), "resources": resources,
			"namespaces": list(r.Namespaces), "nonResourceURLs": list(r.NonResourceURLs), "omitStages": list(r.OmitStages),
			"omitManagedFields": r.OmitManagedFields,
		})
	}
	return map[string]any{"rules": rules, "omitStages": list(p.OmitStages), "omitManagedFields": p.OmitManagedFields}
}

func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func (j *judge) eval(a attributes) any {
	record := a.record()
	decision := j.decides.EvaluatePolicyRule(record)
	stages := []string{}
	for _, s := range decision.OmitStages {
		stages = append(stages, string(s))
	}
	slices.Sort(stages)
	answer := map[string]any{
		"level": decision.Level, "omitStages": slices.Compact(stages), "omitManagedFields": decision.OmitManagedFields, "rule": nil,
	}
	if index, err := strconv.Atoi(string(j.counts.EvaluatePolicyRule(record).Level)); err == nil {
		answer["rule"] = index
	}
	return answer
}

func validMethod(method string) bool {
	_, err := http.NewRequest(method, "/", nil)
	return method != "" && err == nil
}

// The request as net/http hands it to the API server: the target of the request line, or of HTTP/2's :path.
func (j *judge) request(method, target string) any {
	failed := func(err any) any { return map[string]any{"error": fmt.Sprint(err)} }
	if !validMethod(method) {
		return failed("invalid method")
	}
	rest := target
	if method == "CONNECT" && !strings.HasPrefix(target, "/") {
		rest = "http://" + target
	}
	parsed, err := url.ParseRequestURI(rest)
	if err != nil {
		return failed(err)
	}
	if method == "OPTIONS" && target == "*" {
		return failed("net/http answers OPTIONS *")
	}
	info, err := j.factory.NewRequestInfo(&http.Request{Method: method, URL: parsed})
	if err != nil {
		return failed(err)
	}
	return map[string]any{
		"isResourceRequest": info.IsResourceRequest, "path": info.Path, "verb": info.Verb, "apiGroup": info.APIGroup,
		"apiVersion": info.APIVersion, "namespace": info.Namespace, "resource": info.Resource, "subresource": info.Subresource,
		"name": info.Name,
	}
}

// pod reads a manifest as the kubelet does, without defaults (pkg/kubelet/config/common.go, tryDecodeSinglePod).
func (j *judge) pod(text []byte) any {
	data, err := yaml.ToJSON(text)
	if err != nil {
		return map[string]string{"error": err.Error()}
	}
	decoded, _, err := pods.UniversalDeserializer().Decode(data, nil, nil)
	if err != nil {
		return map[string]string{"error": err.Error()}
	}
	pod, isPod := decoded.(*corev1.Pod)
	if !isPod {
		return map[string]string{"error": fmt.Sprintf("%T is no pod", decoded)}
	}
	return pod
}

func (j *judge) bench(all []attributes, n int) any {
	records := make([]authorizer.Attributes, len(all))
	for i, a := range all {
		records[i] = a.record()
	}
	start := time.Now()
	for i := range n {
		j.decides.EvaluatePolicyRule(records[i%len(records)])
	}
	return map[string]any{"nanoseconds": time.Since(start).Nanoseconds()}
}

func (j *judge) answer(line []byte) (any, error) {
	var q question
	if err := json.Unmarshal(line, &q); err != nil {
		return nil, err
	}
	switch q.Op {
	case "load":
		return j.load(q.Text), nil
	case "eval":
		var a attributes
		if err := json.Unmarshal(q.Attributes, &a); err != nil {
			return nil, err
		}
		return j.eval(a), nil
	case "request":
		return j.request(q.Method, q.URL), nil
	case "pod":
		return j.pod(q.Text), nil
	case "bench":
		var all []attributes
		if err := json.Unmarshal(q.Attributes, &all); err != nil {
			return nil, err
		}
		return j.bench(all, q.N), nil
	}
	return nil, fmt.Errorf("unknown op %q", q.Op)
}

func main() {
	j := &judge{factory: request.RequestInfoFactory{
		APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api"),
	}}
	flags := flag.NewFlagSet("klog", flag.PanicOnError)
	klog.InitFlags(flags)
	for name, value := range map[string]string{"logtostderr": "false", "alsologtostderr": "false", "stderrthreshold": "FATAL", "one_output": "true"} {
		if err := flags.Set(name, value); err != nil {
			panic(err)
		}
	}
	klog.SetOutput(&j.log)
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := bufio.NewWriterSize(os.Stdout, 1<<20)
	encoder := json.NewEncoder(out)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		answer, err := j.answer(line)
		if err != nil {
			fmt.Fprintln(os.Stderr, "judge:", err)
			os.Exit(1)
		}
		if err := encoder.Encode(answer); err != nil {
			return
		}
		// Nobody waits while more is to be answered.
		if in.Buffered() == 0 {
			if err := out.Flush(); err != nil {
				return
			}
		}
	}
}
