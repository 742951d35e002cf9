package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

const tries = 50

// Posts requests that are rejected while their body is still being sent. A client that sees a reset and not the status is
// counted by its error.
func early(directory, address string, limit int) error {
	scheme, plain := "https://", strings.HasPrefix(address, "http://")
	if plain {
		scheme, address = "http://", strings.TrimPrefix(address, "http://")
	}
	list := []byte(`{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[{"a":"`)
	body := func(bytesInAll int) []byte {
		return append(bytes.Clone(list), bytes.Repeat([]byte("x"), bytesInAll-len(list))...)
	}
	// A body without a length is sent in chunks.
	chunked := func(body []byte) io.Reader { return io.MultiReader(bytes.NewReader(body)) }
	sized := func(body []byte) io.Reader { return bytes.NewReader(body) }
	little, much, huge := body(limit+1), body(8*limit), body(64*limit)
	for _, each := range []struct {
		name   string
		want   int
		change func(*http.Request)
		body   func([]byte) io.Reader
		bytes  []byte
	}{
		{"a byte over the limit", 413, nil, sized, little},
		{"8 times the limit", 413, nil, sized, much},
		{"64 times the limit", 413, nil, sized, huge},
		{"a byte over, in chunks", 413, nil, chunked, little},
		{"8 times, in chunks", 413, nil, chunked, much},
		{"64 times, in chunks", 413, nil, chunked, huge},
		{"wrong token", 401, func(r *http.Request) { r.Header.Set("Authorization", "Bearer wrong") }, sized, much},
		{"wrong method", 405, func(r *http.Request) { r.Method = http.MethodPut }, sized, much},
		{"wrong encoding", 415, func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") }, sized, much},
		{"malformed", 400, nil, sized, append([]byte("[]"), bytes.Repeat([]byte(" "), limit-2)...)},
	} {
		for _, http2 := range []bool{false, true} {
			answers := map[string]int{}
			for range tries {
				to, token, err := client(directory, http2)
				if err != nil {
					return err
				}
				post := request(scheme+address, token, each.body(each.bytes))
				if each.change != nil {
					each.change(post)
				}
				answer, err := to.Do(post)
				if err != nil {
					// Without the addresses, whose ports differ.
					text := err.Error()
					answers[text[strings.LastIndex(text, ": ")+1:]]++
					continue
				}
				text, err := io.ReadAll(answer.Body)
				answer.Body.Close()
				if err != nil || len(text) == 0 {
					answers[fmt.Sprintf("%d, then %q, %v", answer.StatusCode, text, err)]++
					continue
				}
				answers[fmt.Sprint(answer.StatusCode, " ", answer.Proto)]++
				to.CloseIdleConnections()
			}
			line, err := json.Marshal(map[string]any{"name": each.name, "plain": plain, "offersHTTP2": http2, "want": each.want, "answers": answers})
			if err != nil {
				return err
			}
			fmt.Fprintln(os.Stdout, string(line))
		}
	}
	return nil
}
