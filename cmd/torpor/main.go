// Command torpor runs services that sleep while they are idle, with their
// connections open. See README.md.
package main

import (
	"context"
	"os"
)

func main() {
	env := &environment{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}
	os.Exit(execute(context.Background(), env, os.Args[1:]))
}
