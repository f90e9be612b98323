// Package testenv runs the real program as tests need it: built once for each
// test process, started as a child on a free loopback port, killed, stopped,
// and spoken to over real sockets.
//
// Guarantees: a child never outlives the test that started it; a child sees
// none of the settings of the environment that the tests run in; nothing here
// sleeps for a fixed time, every wait is for a condition and has a deadline.
package testenv

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// program is the binary of this test process, built when it is first needed.
type program struct {
	once sync.Once
	dir  string
	path string
	err  error
}

var built program //nolint:gochecknoglobals // one build for each test process

// buildTimeout bounds the build of the binary; from an empty cache it compiles
// SQLite.
const buildTimeout = 10 * time.Minute

// Binary is the path of the tallyhook program, built from this module.
func Binary(tb testing.TB) string {
	tb.Helper()
	built.once.Do(func() { built.dir, built.path, built.err = build() })
	if built.err != nil {
		tb.Fatalf("build tallyhook: %v", built.err)
	}
	return built.path
}

// RemoveBinary takes the built program away; call it when all tests are done.
func RemoveBinary() error {
	if built.dir == "" {
		return nil
	}
	return os.RemoveAll(built.dir)
}

// Version is what the built program says it is.
const Version = "v0.0.0-test"

func build() (dir, path string, err error) {
	if dir, err = os.MkdirTemp("", "tallyhook"); err != nil {
		return "", "", err
	}
	path = filepath.Join(dir, "tallyhook")
	ctx, cancel := context.WithTimeout(context.Background(), buildTimeout)
	defer cancel()
	//nolint:gosec // the arguments are constants and a temporary path
	cmd := exec.CommandContext(ctx, "go", "build", "-ldflags", "-X main.version="+Version, "-o", path, "./cmd/tallyhook")
	cmd.Dir = Root()
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, "", fmt.Errorf("%w\n%s", err, out)
	}
	return dir, path, nil
}

// Root is the folder of the module.
func Root() string {
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		return "."
	}
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// runMark is set by scripts/gotest, which looks for processes that have it
// when the tests have ended.
const runMark = "TEST_RUN_MARK"

// environ is what a child sees: what a program needs to run at all, the mark
// of the test run, and what the test gives it.
func environ(extra []string) []string {
	var env []string
	for _, kv := range os.Environ() {
		switch name, _, _ := strings.Cut(kv, "="); name {
		case "PATH", "HOME", "TMPDIR", runMark, "GOCOVERDIR", "TZ":
			env = append(env, kv)
		}
	}
	return append(env, extra...)
}

// Eventually waits until done says so, and fails the test at the deadline.
func Eventually(tb testing.TB, within time.Duration, what string, done func() bool) {
	tb.Helper()
	if !Poll(within, done) {
		tb.Fatalf("not within %v: %s", within, what)
	}
}

// Poll asks until done says so; false at the deadline.
func Poll(within time.Duration, done func() bool) bool {
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if done() {
			return true
		}
		select {
		case <-deadline.C:
			return done()
		case <-tick.C:
		}
	}
}
