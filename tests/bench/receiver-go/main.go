// The Go side of the receiver bench. It needs the standard library only.
//
//	receiver-go certificate DIRECTORY            writes tls.crt and tls.key for 127.0.0.1
//	receiver-go receive DIRECTORY KIND OUTPUT    a webhook target; KIND is json, summary, json-least or summary-least
//	receiver-go load DIRECTORY ADDRESS BATCHES   posts batches on 8 connections; prints its figures as JSON
//	receiver-go check OUTPUT                     counts lines and different events, and prints a digest of the lines
//	receiver-go early DIRECTORY ADDRESS LIMIT    posts what is rejected while it is still being sent; counts the answers
//
// DIRECTORY also has the file token.
package main

import (
	"fmt"
	"os"
	"strconv"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "receiver-go:", err)
		os.Exit(2)
	}
}

func run(args []string) error {
	if len(args) == 2 && args[0] == "certificate" {
		return certificate(args[1])
	}
	if len(args) == 2 && args[0] == "check" {
		return check(args[1])
	}
	if len(args) != 4 {
		return fmt.Errorf("usage: see main.go")
	}
	if args[0] == "receive" {
		return receive(args[1], args[2], args[3])
	}
	number, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	switch args[0] {
	case "load":
		return load(args[1], args[2], number)
	case "early":
		return early(args[1], args[2], number)
	}
	return fmt.Errorf("unknown command %q", args[0])
}
