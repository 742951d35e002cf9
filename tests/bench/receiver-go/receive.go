package main

import (
	"bytes"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
)

// A receiver as one would write it: decode, print, one write a batch. The kinds with "least" decode only what they
// print.
func receive(directory, kind, output string) error {
	kinds := map[string]func(*json.Decoder, *bytes.Buffer) (int, error){
		"json": whole, "summary": summaries, "json-least": wholeLeast, "summary-least": summariesLeast,
	}
	convert, ok := kinds[kind]
	if !ok {
		return fmt.Errorf("unknown kind %q", kind)
	}
	token, err := os.ReadFile(filepath.Join(directory, "token"))
	if err != nil {
		return err
	}
	out, err := os.OpenFile(output, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	var writing sync.Mutex
	var events atomic.Int64
	buffers := sync.Pool{New: func() any { return new(bytes.Buffer) }}
	http.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "audit_receiver_events_total %d\n", events.Load())
	})
	http.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		shown := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		if subtle.ConstantTimeCompare([]byte(shown), bytes.TrimSpace(token)) != 1 {
			http.Error(w, "wrong token", http.StatusUnauthorized)
			return
		}
		lines := buffers.Get().(*bytes.Buffer)
		defer buffers.Put(lines)
		lines.Reset()
		count, err := convert(json.NewDecoder(r.Body), lines)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		writing.Lock()
		_, err = out.Write(lines.Bytes())
		writing.Unlock()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		events.Add(int64(count))
		fmt.Fprintln(w, "ok")
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "listening address=%s\n", listener.Addr())
	return http.ServeTLS(listener, nil, filepath.Join(directory, "tls.crt"), filepath.Join(directory, "tls.key"))
}

func whole(body *json.Decoder, lines *bytes.Buffer) (int, error) {
	var list eventList
	if err := body.Decode(&list); err != nil {
		return 0, err
	}
	encoder := json.NewEncoder(lines)
	for i := range list.Items {
		if err := encoder.Encode(&list.Items[i]); err != nil {
			return 0, err
		}
	}
	return len(list.Items), nil
}

func summaries(body *json.Decoder, lines *bytes.Buffer) (int, error) {
	var list eventList
	if err := body.Decode(&list); err != nil {
		return 0, err
	}
	for i := range list.Items {
		e := &list.Items[i]
		var code int32
		if e.ResponseStatus != nil {
			code = e.ResponseStatus.Code
		}
		summary(lines, e.StageTimestamp, e.Level, e.Stage, e.Verb, e.User.Username, e.RequestURI, code, e.AuditID)
	}
	return len(list.Items), nil
}

func wholeLeast(body *json.Decoder, lines *bytes.Buffer) (int, error) {
	var list struct {
		Items []json.RawMessage `json:"items"`
	}
	if err := body.Decode(&list); err != nil {
		return 0, err
	}
	for _, item := range list.Items {
		lines.Write(item)
		lines.WriteByte('\n')
	}
	return len(list.Items), nil
}

func summariesLeast(body *json.Decoder, lines *bytes.Buffer) (int, error) {
	var list struct {
		Items []shownEvent `json:"items"`
	}
	if err := body.Decode(&list); err != nil {
		return 0, err
	}
	for i := range list.Items {
		e := &list.Items[i]
		summary(lines, e.StageTimestamp, e.Level, e.Stage, e.Verb, e.User.Username, e.RequestURI, e.ResponseStatus.Code, e.AuditID)
	}
	return len(list.Items), nil
}

func summary(lines *bytes.Buffer, time, level, stage, verb, user, uri string, code int32, id string) {
	fmt.Fprintf(lines, "%s level=%s stage=%s verb=%s user=%s uri=%s code=%d auditID=%s\n", time, level, stage, verb, user, uri, code, id)
}
