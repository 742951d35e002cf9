// The Go side of the replay bench.
//
//	replay-go generate BYTES        writes a log of an API server, the same for the same size, to standard output
//	replay-go decode POLICY LOG     per rule: events, events that the policy keeps and their bytes, by encoding/json and upstream's evaluator
package main

import (
	"fmt"
	"os"
	"strconv"
)

func main() {
	var err error
	switch {
	case len(os.Args) == 3 && os.Args[1] == "generate":
		var bytes int64
		if bytes, err = strconv.ParseInt(os.Args[2], 10, 64); err == nil {
			err = generate(bytes, os.Stdout)
		}
	case len(os.Args) == 4 && os.Args[1] == "decode":
		err = decode(os.Args[2], os.Args[3], os.Stdout)
	default:
		err = fmt.Errorf("usage: replay-go generate BYTES | decode POLICY LOG")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "replay-go:", err)
		os.Exit(2)
	}
}
