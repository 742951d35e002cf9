// The receiver of Falco's k8saudit plugin without the engine behind it: takes its events as Falco's capture loop does, and prints each as a line.
package main

import (
	"errors"
	"io"
	"log"
	"os"
	"unsafe"

	"github.com/falcosecurity/plugin-sdk-go/pkg/sdk"
	"github.com/falcosecurity/plugins/plugins/k8saudit/pkg/k8saudit"
)

// The events of one batch, in this program's memory and not in that of Falco's engine.
type batch [64]event

type event struct{ data []byte }

func (b *batch) Get(i int) sdk.EventWriter { return &b[i] }
func (b *batch) Len() int                  { return len(b) }
func (b *batch) ArrayPtr() unsafe.Pointer  { return nil }
func (b *batch) Free()                     {}

func (e *event) Writer() io.Writer {
	e.data = e.data[:0]
	return e
}

func (e *event) Write(data []byte) (int, error) {
	e.data = append(e.data, data...)
	return len(data), nil
}

func (e *event) SetTimestamp(uint64) {}

// falco SOURCE: what Falco has as the plugin's open_params.
func main() {
	plugin := &k8saudit.Plugin{}
	if err := plugin.Init("{}"); err != nil {
		log.Fatal(err)
	}
	source, err := plugin.Open(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	var events batch
	source.(sdk.Events).SetEvents(&events)
	for {
		n, err := source.(sdk.NextBatcher).NextBatch(plugin, &events)
		if err != nil && !errors.Is(err, sdk.ErrTimeout) {
			log.Fatal(err)
		}
		for _, event := range events[:n] {
			os.Stdout.Write(append(event.data, '\n'))
		}
	}
}
