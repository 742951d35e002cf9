package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/sets"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit/policy"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// What is needed of an event; encoding/json passes over the rest.
type event struct {
	Level      string
	Stage      string
	Verb       string
	RequestURI string
	User       struct {
		Username string
		Groups   []string
	}
}

type count struct {
	Rule  *int  `json:"rule"`
	Hits  int64 `json:"hits"`
	Kept  int64 `json:"events"`
	Bytes int64 `json:"logged"`
}

// As a plain Go program would do it: a line after the other, the whole event through encoding/json.
func decode(policyFile, log string, out io.Writer) error {
	text, err := os.ReadFile(policyFile)
	if err != nil {
		return err
	}
	loaded, err := policy.LoadPolicyFromBytes(text)
	if err != nil {
		return err
	}
	levels := make([]auditinternal.Level, len(loaded.Rules))
	for i := range loaded.Rules {
		levels[i] = loaded.Rules[i].Level
		// The decision tells its rule.
		loaded.Rules[i].Level = auditinternal.Level(strconv.Itoa(i))
	}
	evaluator := policy.NewPolicyRuleEvaluator(loaded)
	factory := request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}
	counts := make([]count, len(levels)+1)
	file, err := os.Open(log)
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewReaderSize(file, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			break
		} else if err != nil {
			return err
		}
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			return err
		}
		record, err := attributes(&factory, &e)
		if err != nil {
			return err
		}
		decision := evaluator.EvaluatePolicyRule(record)
		rule, err := strconv.Atoi(string(decision.Level))
		if err != nil {
			rule = len(levels)
		}
		counts[rule].Hits++
		isKept := rule < len(levels) && levels[rule] != auditinternal.LevelNone
		if isKept && !slices.Contains(decision.OmitStages, auditinternal.Stage(e.Stage)) {
			counts[rule].Kept++
			counts[rule].Bytes += int64(len(line))
		}
	}
	for i := range levels {
		counts[i].Rule = &i
	}
	return json.NewEncoder(out).Encode(counts)
}

var methods = map[string]string{
	"create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE", "deletecollection": "DELETE", "get": "GET", "list": "GET", "watch": "GET",
}

func attributes(factory *request.RequestInfoFactory, e *event) (authorizer.Attributes, error) {
	target, err := url.ParseRequestURI(e.RequestURI)
	if err != nil {
		return nil, err
	}
	method, ok := methods[e.Verb]
	if !ok {
		method = strings.ToUpper(e.Verb)
	}
	info, err := factory.NewRequestInfo(&http.Request{Method: method, URL: target})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.RequestURI, err)
	}
	record := authorizer.AttributesRecord{
		Verb: e.Verb, Namespace: info.Namespace, APIGroup: info.APIGroup, APIVersion: info.APIVersion, Resource: info.Resource,
		Subresource: info.Subresource, Name: info.Name, ResourceRequest: info.IsResourceRequest, Path: info.Path,
	}
	if e.User.Username != "" {
		record.User = &user.DefaultInfo{Name: e.User.Username, Groups: e.User.Groups}
	}
	return record, nil
}
