// kube-apiserver's audit webhook backend without the rest of kube-apiserver: it shows in seconds what a receiver's answer
// does to the counters and to the log.
//
// The backend is built and ended as kube-apiserver does it, an event is made and counted as for a request, and the flags
// have kube-apiserver's names and defaults:
// https://github.com/kubernetes/kubernetes/blob/v1.36.3/staging/src/k8s.io/apiserver/pkg/server/options/audit.go
//
// The first line on stdout is the address of the metrics. "drained" follows when the last event has been delivered or
// given up; the metrics are served until SIGTERM.
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	pkgaudit "k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	utilwebhook "k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/apiserver/plugin/pkg/audit/buffered"
	"k8s.io/apiserver/plugin/pkg/audit/truncate"
	"k8s.io/apiserver/plugin/pkg/audit/webhook"
	"k8s.io/component-base/logs"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/component-base/metrics/legacyregistry"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	"k8s.io/klog/v2"
)

type options struct {
	configFile     string
	initialBackoff time.Duration
	attempts       int
	mode           string
	batch          buffered.BatchConfig
	truncate       bool
	truncateConfig truncate.Config
}

type traffic struct {
	events     int
	perSecond  float64
	eventBytes int
	uriBytes   int
	prefix     string
}

func main() {
	// The defaults of audit.go.
	o := options{
		initialBackoff: webhook.DefaultInitialBackoffDelay,
		mode:           "batch",
		batch: buffered.BatchConfig{BufferSize: 10000, MaxBatchSize: 400, MaxBatchWait: 30 * time.Second,
			ThrottleEnable: true, ThrottleQPS: 10, ThrottleBurst: 15, AsyncDelegate: true},
		truncateConfig: truncate.Config{MaxBatchSize: 10 * 1024 * 1024, MaxEventSize: 100 * 1024},
	}
	var t traffic
	fs := pflag.CommandLine
	fs.StringVar(&o.configFile, "audit-webhook-config-file", "", "kubeconfig of the receiver")
	fs.DurationVar(&o.initialBackoff, "audit-webhook-initial-backoff", o.initialBackoff, "wait before the second attempt")
	fs.StringVar(&o.mode, "audit-webhook-mode", o.mode, "batch, blocking or blocking-strict")
	fs.IntVar(&o.batch.BufferSize, "audit-webhook-batch-buffer-size", o.batch.BufferSize, "events")
	fs.IntVar(&o.batch.MaxBatchSize, "audit-webhook-batch-max-size", o.batch.MaxBatchSize, "events")
	fs.DurationVar(&o.batch.MaxBatchWait, "audit-webhook-batch-max-wait", o.batch.MaxBatchWait, "longest wait of a batch that is not full")
	fs.BoolVar(&o.batch.ThrottleEnable, "audit-webhook-batch-throttle-enable", o.batch.ThrottleEnable, "")
	fs.Float32Var(&o.batch.ThrottleQPS, "audit-webhook-batch-throttle-qps", o.batch.ThrottleQPS, "batches per second")
	fs.IntVar(&o.batch.ThrottleBurst, "audit-webhook-batch-throttle-burst", o.batch.ThrottleBurst, "batches at once")
	fs.BoolVar(&o.truncate, "audit-webhook-truncate-enabled", o.truncate, "")
	fs.Int64Var(&o.truncateConfig.MaxBatchSize, "audit-webhook-truncate-max-batch-size", o.truncateConfig.MaxBatchSize, "bytes")
	fs.Int64Var(&o.truncateConfig.MaxEventSize, "audit-webhook-truncate-max-event-size", o.truncateConfig.MaxEventSize, "bytes")
	// Not kube-apiserver's.
	fs.IntVar(&o.attempts, "attempts", utilwebhook.DefaultRetryBackoffWithInitialDelay(0).Steps, "attempts per batch; kube-apiserver always makes as many as this default")
	listen := fs.String("listen", "127.0.0.1:0", "address of the metrics")
	fs.IntVar(&t.events, "events", 0, "events to hand to the backend, and then drain it; 0: without end")
	fs.Float64Var(&t.perSecond, "events-per-second", 0, "0: as fast as they can be made")
	fs.IntVar(&t.eventBytes, "event-bytes", 0, "bytes of data in the request object of each ResponseComplete event")
	fs.IntVar(&t.uriBytes, "uri-bytes", 0, "bytes added to the URI, which truncation cannot take away")
	fs.StringVar(&t.prefix, "id-prefix", "event-", "the audit IDs are this and 0, 1, 2 …; each has two events, of the stages RequestReceived and ResponseComplete")
	pflag.Parse()

	logs.InitLogs()
	defer logs.FlushLogs()
	if err := logsapi.ValidateAndApply(logsapi.NewLoggingConfiguration(), nil); err != nil {
		fail(err)
	}
	reached := &reached{change: make(chan struct{}, 1)}
	backend, err := o.backend(reached)
	if err != nil {
		fail(err)
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		fail(err)
	}
	http.Handle("/metrics", legacyregistry.Handler())
	go func() { fail(http.Serve(listener, nil)) }()
	fmt.Printf("http://%s/metrics\n", listener.Addr())

	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	// As there, a second signal ends it at once.
	context.AfterFunc(ctx, cancel)
	// preparedGenericAPIServer.RunWithContext: the backend runs until the last request has been answered, and then shuts
	// down.
	requestsDrained := make(chan struct{})
	if err := backend.Run(requestsDrained); err != nil {
		fail(err)
	}
	handed := t.run(ctx, backend)
	// Batches form as they do in a kube-apiserver that goes on: its end cuts a batch short.
	reached.wait(ctx, handed-dropped())
	close(requestsDrained)
	backend.Shutdown()
	fmt.Println("drained")
	<-ctx.Done()
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(2)
}

// ignoreErrors is what audit.go wraps around the backend in mode blocking.
type ignoreErrors struct{ pkgaudit.Backend }

func (i ignoreErrors) ProcessEvents(events ...*audit.Event) bool {
	i.Backend.ProcessEvents(events...)
	return true
}

// reached counts the events that have come to the webhook.
type reached struct {
	pkgaudit.Backend
	events atomic.Int64
	change chan struct{}
}

func (r *reached) ProcessEvents(events ...*audit.Event) bool {
	r.events.Add(int64(len(events)))
	select {
	case r.change <- struct{}{}:
	default:
	}
	return r.Backend.ProcessEvents(events...)
}

func (r *reached) wait(ctx context.Context, events int64) {
	for r.events.Load() < events {
		select {
		case <-ctx.Done():
			return
		case <-r.change:
		}
	}
}

// dropped is the number of events that will never come to the webhook: truncate and buffered drop an event while it is
// handed to them.
func dropped() (events int64) {
	families, err := legacyregistry.DefaultGatherer.Gather()
	if err != nil {
		fail(err)
	}
	for _, family := range families {
		if family.GetName() != "apiserver_audit_error_total" {
			continue
		}
		for _, metric := range family.GetMetric() {
			if metric.GetLabel()[0].GetValue() != webhook.PluginName {
				events += int64(metric.GetCounter().GetValue())
			}
		}
	}
	return events
}

// backend is newUntruncatedBackend and the two wrapBackend of audit.go.
func (o options) backend(reached *reached) (pkgaudit.Backend, error) {
	backoff := utilwebhook.DefaultRetryBackoffWithInitialDelay(o.initialBackoff)
	backoff.Steps = o.attempts
	var err error
	reached.Backend, err = webhook.NewBackend(o.configFile, auditv1.SchemeGroupVersion, backoff, nil)
	if err != nil {
		return nil, fmt.Errorf("initializing audit webhook: %v", err)
	}
	var backend pkgaudit.Backend = reached
	switch o.mode {
	case "batch":
		backend = buffered.NewBackend(backend, o.batch)
	case "blocking":
		backend = ignoreErrors{backend}
	case "blocking-strict":
	default:
		return nil, fmt.Errorf("invalid --audit-webhook-mode: %s", o.mode)
	}
	if o.truncate {
		backend = truncate.NewBackend(backend, o.truncateConfig, auditv1.SchemeGroupVersion)
	}
	klog.V(2).Infof("Using audit backend: %s", backend)
	return backend, nil
}

// run hands events to the backend until there are enough, or the context ends, and returns their number.
func (t traffic) run(ctx context.Context, backend pkgaudit.Backend) int64 {
	begin := time.Now()
	handed := 0
	due := func() bool {
		if t.events > 0 && handed == t.events {
			return false
		}
		wait := time.Duration(0)
		if t.perSecond > 0 {
			wait = time.Until(begin.Add(time.Duration(float64(handed) / t.perSecond * float64(time.Second))))
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		if ctx.Err() != nil {
			return false
		}
		handed++
		return true
	}
	for i := 0; t.request(fmt.Sprintf("%s%d", t.prefix, i), backend, due); i++ {
	}
	return int64(handed)
}

// request makes the events of one request, as WithAudit of k8s.io/apiserver/pkg/endpoints/filters does, each when it is
// due. False: no more are due.
func (t traffic) request(id string, backend pkgaudit.Backend, due func() bool) bool {
	if !due() {
		return false
	}
	ctx := pkgaudit.WithAuditContext(context.Background())
	pkgaudit.WithAuditID(ctx, types.UID(id))
	event := pkgaudit.AuditContextFrom(ctx)
	pkgaudit.ObservePolicyLevel(ctx, audit.LevelRequest)
	if err := event.Init(pkgaudit.RequestAuditConfig{Level: audit.LevelRequest}, backend); err != nil {
		fail(err)
	}
	uri := "/api/v1/namespaces/default/configmaps/settings?fieldManager=kubectl" + strings.Repeat("x", t.uriBytes)
	request, err := http.NewRequest("PATCH", uri, nil)
	if err != nil {
		fail(err)
	}
	request.RemoteAddr = "192.0.2.1:40000"
	request.Header.Set("User-Agent", "kubectl/v1.36.3")
	pkgaudit.LogRequestMetadata(ctx, request, time.Now(), authorizer.AttributesRecord{
		User:      &user.DefaultInfo{Name: "alice", Groups: []string{"system:authenticated"}},
		Verb:      "patch",
		Namespace: "default", APIVersion: "v1", Resource: "configmaps", Name: "settings", ResourceRequest: true,
	})
	if !event.ProcessEventStage(ctx, audit.StageRequestReceived) {
		pkgaudit.ApiserverAuditDroppedCounter.WithContext(ctx).Inc()
		return true
	}
	if t.eventBytes > 0 {
		object := `{"data":{"key":"` + strings.Repeat("x", t.eventBytes) + `"}}`
		pkgaudit.LogRequestPatch(ctx, []byte(object))
	}
	event.SetEventResponseStatus(&metav1.Status{Code: http.StatusOK})
	if !due() {
		return false
	}
	event.ProcessEventStage(ctx, audit.StageResponseComplete)
	return true
}
