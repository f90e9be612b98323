package smoke_test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"tallyhook/internal/testenv"
)

// tests are all tests of the package; the program they ran is removed before
// goroutines are counted.
type tests struct{ m *testing.M }

func (t tests) Run() int {
	code := t.m.Run()
	if err := testenv.RemoveBinary(); err != nil {
		fmt.Fprintln(os.Stderr, "remove the test's program:", err)
		return 1
	}
	return code
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(tests{m}) }
