package main

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	cryptorand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"hash/fnv"
	"io"
	"math/big"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	connections = 8
	events      = 400
	// Different batches; the ids of their events are written anew for each post.
	templates = 16
	// An audit ID: 24 characters that stay, and the number of the event.
	idHead = "5f0c2a9e-7b1d-4c3e-9a8f-"
)

func certificate(directory string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), cryptorand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotAfter: time.Now().AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(cryptorand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	for name, block := range map[string]*pem.Block{"tls.crt": {Type: "CERTIFICATE", Bytes: der}, "tls.key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(directory, name), pem.EncodeToMemory(block), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// A client as kube-apiserver's. Without HTTP/2 each has a connection of its own.
func client(directory string, http2 bool) (*http.Client, string, error) {
	root, err := os.ReadFile(filepath.Join(directory, "tls.crt"))
	if err != nil {
		return nil, "", err
	}
	token, err := os.ReadFile(filepath.Join(directory, "token"))
	if err != nil {
		return nil, "", err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(root)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: http2}
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}, strings.TrimSpace(string(token)), nil
}

func request(url, token string, body io.Reader) *http.Request {
	post, err := http.NewRequest(http.MethodPost, url+"/?timeout=30s", body)
	if err != nil {
		panic(err)
	}
	post.Header.Set("Content-Type", "application/json")
	post.Header.Set("Authorization", "Bearer "+token)
	return post
}

// A batch, and where the numbers of its events are.
type batch struct {
	body []byte
	at   []int
}

func load(directory, address string, batches int) error {
	made := make([]batch, templates)
	size := 0
	random := rand.New(rand.NewPCG(1, 2))
	for i := range made {
		made[i] = generate(random)
		size += len(made[i].body)
	}
	var next atomic.Int64
	var first error
	var mutex sync.Mutex
	var group sync.WaitGroup
	var took []time.Duration
	begin := time.Now()
	for range connections {
		group.Go(func() {
			mine, err := post(directory, "https://"+address, made, &next, batches)
			mutex.Lock()
			defer mutex.Unlock()
			took = append(took, mine...)
			if err != nil {
				first = err
			}
		})
	}
	group.Wait()
	seconds := time.Since(begin).Seconds()
	if first != nil {
		return first
	}
	slices.Sort(took)
	at := func(share float64) float64 { return took[int(share*float64(len(took)-1))].Seconds() * 1000 }
	return json.NewEncoder(os.Stdout).Encode(map[string]float64{
		"events": float64(len(took) * events), "seconds": seconds, "p50": at(0.5), "p99": at(0.99),
		"eventBytes": float64(size) / templates / events,
	})
}

// Posts on one connection until all batches are taken.
func post(directory, url string, made []batch, next *atomic.Int64, batches int) ([]time.Duration, error) {
	to, token, err := client(directory, false)
	if err != nil {
		return nil, err
	}
	var took []time.Duration
	own := make([][]byte, len(made))
	for {
		number := int(next.Add(1)) - 1
		if number >= batches {
			return took, nil
		}
		which := number % len(made)
		if own[which] == nil {
			own[which] = bytes.Clone(made[which].body)
		}
		for i, at := range made[which].at {
			copy(own[which][at:], fmt.Sprintf("%012x", number*events+i))
		}
		begin := time.Now()
		answer, err := to.Do(request(url, token, bytes.NewReader(own[which])))
		if err != nil {
			return nil, err
		}
		text, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || answer.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("%s: %s, %v", answer.Status, text, err)
		}
		took = append(took, time.Since(begin))
	}
}

// Reads at Metadata, and one in six a write with its object: 1.5 KB on average.
func generate(random *rand.Rand) batch {
	list := eventList{Kind: "EventList", APIVersion: "audit.k8s.io/v1", Items: make([]event, events)}
	for i := range list.Items {
		list.Items[i] = one(random)
	}
	body, err := json.Marshal(list)
	if err != nil {
		panic(err)
	}
	made := batch{body: body}
	for at := 0; ; {
		found := bytes.Index(body[at:], []byte(idHead))
		if found < 0 {
			return made
		}
		at += found + len(idHead)
		made.at = append(made.at, at)
	}
}

func one(random *rand.Rand) event {
	pick := func(words ...string) string { return words[random.IntN(len(words))] }
	namespace := fmt.Sprintf("team-%d", random.IntN(40))
	name := fmt.Sprintf("%s-%08x-%05x", pick("checkout", "billing", "inventory", "gateway"), random.Uint32(), random.IntN(1<<20))
	node := fmt.Sprintf("ip-10-0-%d-%d.eu-central-1.compute.internal", random.IntN(8), random.IntN(256))
	stamp := time.Date(2026, 3, 2, 8, 0, 0, random.IntN(1e9), time.UTC)
	e := event{
		Level: "Metadata", AuditID: idHead + "000000000000", Stage: "ResponseComplete",
		RequestURI: fmt.Sprintf("/api/v1/namespaces/%s/pods?fieldSelector=spec.nodeName%%3D%s&limit=500&resourceVersion=0", namespace, node),
		Verb:       pick("get", "list", "watch"),
		User: user{
			Username: "system:serviceaccount:" + namespace + ":" + pick("default", "deployer", "prometheus"),
			UID:      fmt.Sprintf("%08x-0000-4000-8000-%012x", random.Uint32(), random.Uint64()>>16),
			Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"},
			Extra: map[string][]string{
				"authentication.kubernetes.io/credential-id": {fmt.Sprintf("JTI=%08x-0000-4000-8000-%012x", random.Uint32(), random.Uint64()>>16)},
				"authentication.kubernetes.io/node-name":     {node},
				"authentication.kubernetes.io/pod-name":      {name},
			},
		},
		SourceIPs:                []string{fmt.Sprintf("10.0.%d.%d", random.IntN(8), random.IntN(256))},
		UserAgent:                "kubectl/v1.36.3 (linux/amd64) kubernetes/8f94681",
		ObjectRef:                &objectRef{Resource: "pods", Namespace: namespace, Name: name, APIVersion: "v1"},
		ResponseStatus:           &status{Code: int32(200 + 204*random.IntN(2))},
		RequestReceivedTimestamp: stamp.Format("2006-01-02T15:04:05.000000Z"),
		StageTimestamp:           stamp.Add(time.Millisecond).Format("2006-01-02T15:04:05.000000Z"),
		Annotations: map[string]string{
			"authorization.k8s.io/decision": "allow",
			"authorization.k8s.io/reason":   fmt.Sprintf("RBAC: allowed by RoleBinding %q of Role %q to ServiceAccount %q", "reader/"+namespace, "reader", "default/"+namespace),
		},
	}
	if random.IntN(6) == 0 {
		object := fmt.Sprintf(`{"kind":"Pod","apiVersion":"v1","metadata":{"name":%q,"namespace":%q,"labels":{"app":"a"}},"spec":{"containers":[%s]}}`, name, namespace,
			strings.TrimSuffix(strings.Repeat(`{"name":"main","image":"example.org/shop/main:1.4.2","args":["--config=/etc/main.yaml","--format=\"%d\"\n"],"ports":[{"containerPort":8080}],"resources":{"limits":{"cpu":"2","memory":"512Mi"}}},`, 4), ","))
		e.Level, e.Verb = "RequestResponse", pick("create", "update", "patch")
		e.RequestObject, e.ResponseObject = json.RawMessage(object), json.RawMessage(object)
	}
	return e
}

// Lines in any order: the digest is the sum of theirs.
func check(output string) error {
	file, err := os.Open(output)
	if err != nil {
		return err
	}
	defer file.Close()
	var lines int
	var digest uint64
	seen := map[string]struct{}{}
	input := bufio.NewReaderSize(file, 1<<20)
	for {
		line, err := input.ReadBytes('\n')
		if err == io.EOF && len(line) == 0 {
			break
		} else if err != nil {
			return fmt.Errorf("after %d lines: %w", lines, err)
		}
		lines++
		hash := fnv.New64a()
		hash.Write(line)
		digest += hash.Sum64()
		at := bytes.Index(line, []byte(idHead))
		if at < 0 {
			return fmt.Errorf("line %d has no audit ID", lines)
		}
		at += len(idHead)
		seen[string(line[at:at+12])] = struct{}{}
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"lines": lines, "different": len(seen), "digest": fmt.Sprintf("%016x", digest)})
}
