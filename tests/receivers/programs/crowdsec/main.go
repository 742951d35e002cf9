// CrowdSec's k8s-audit data source without the rest of it: prints each event that it hands on as a line.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/crowdsecurity/crowdsec/pkg/acquisition/modules/kubernetesaudit"
	"github.com/crowdsecurity/crowdsec/pkg/metrics"
	"github.com/crowdsecurity/crowdsec/pkg/types"
	"github.com/sirupsen/logrus"
	"gopkg.in/tomb.v2"
)

// crowdsec FILE: what CrowdSec reads as acquis.d/k8s-audit.yaml.
func main() {
	configuration, err := os.ReadFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	source := kubernetesauditacquisition.KubernetesAuditSource{}
	if err := source.Configure(configuration, logrus.WithField("type", "k8s-audit"), metrics.AcquisitionMetricsLevelNone); err != nil {
		log.Fatal(err)
	}
	events := make(chan types.Event)
	running := &tomb.Tomb{}
	if err := source.StreamingAcquisition(context.Background(), events, running); err != nil {
		log.Fatal(err)
	}
	for {
		select {
		case event := <-events:
			fmt.Println(event.Line.Raw)
		case <-running.Dying():
			log.Fatal(running.Err())
		}
	}
}
