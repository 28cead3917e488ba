// Package tap stands in for the library of that name that the validation programs of runtime-tools print with, which no
// Debian package carries: results as lines of the Test Anything Protocol, and details as a block of YAML below them.
package tap

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// T prints the results of one program.
type T struct {
	Writer io.Writer
	count  int
	todo   bool
}

// New is a T that prints to standard output.
func New() *T { return &T{} }

func (t *T) print(format string, args ...interface{}) {
	w := t.Writer
	if w == nil {
		w = os.Stdout
	}
	fmt.Fprintf(w, format, args...)
}

// Header begins; 0 tests are as many as AutoPlan will have counted.
func (t *T) Header(tests int) {
	t.print("TAP version 13\n")
	if tests > 0 {
		t.print("1..%d\n", tests)
	}
}

// Ok is one result.
func (t *T) Ok(passed bool, description string) {
	t.count++
	word, todo := "ok", ""
	if !passed {
		word = "not ok"
	}
	if t.todo {
		todo = " # TODO"
		t.todo = false
	}
	t.print("%s %d - %s%s\n", word, t.count, description, todo)
}

// Pass is a good result.
func (t *T) Pass(description string) { t.Ok(true, description) }

// Fail is a bad one.
func (t *T) Fail(description string) { t.Ok(false, description) }

// Skip is count results that cannot be had.
func (t *T) Skip(count int, description string) {
	for ; count > 0; count-- {
		t.count++
		t.print("ok %d # SKIP %s\n", t.count, description)
	}
}

// Todo says of the next result that a bad one does no harm.
func (t *T) Todo() *T {
	t.todo = true
	return t
}

// AutoPlan ends what Header(0) began.
func (t *T) AutoPlan() { t.print("1..%d\n", t.count) }

// Diagnostic is a remark.
func (t *T) Diagnostic(message string) {
	t.print("# %s\n", strings.ReplaceAll(message, "\n", "\n# "))
}

// Diagnosticf is a remark.
func (t *T) Diagnosticf(format string, args ...interface{}) {
	t.Diagnostic(fmt.Sprintf(format, args...))
}

// YAML are details of the last result; JSON is YAML, too.
func (t *T) YAML(details interface{}) error {
	text, err := json.MarshalIndent(details, "  ", "  ")
	if err == nil {
		t.print("  ---\n  %s\n  ...\n", text)
	}
	return err
}
