package attack_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"tallyhook/internal/attack"
	"tallyhook/internal/testenv"
)

// The long form is asked for with make attack.
var (
	inputs = flag.Int("inputs", 3000, "how many inputs are sent")
	seed   = flag.Uint64("seed", 1, "of the inputs")
	target = flag.String("url", "", "a running server on a loopback address, with its admin key in TALLYHOOK_API_KEY; empty: one of the test's own")
)

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

// TestAttack: no answer is of our own fault, none tells of the inside, no row
// comes of what was refused, and the server lives.
func TestAttack(t *testing.T) {
	t.Parallel()
	o := attack.Options{URL: *target, Key: os.Getenv("TALLYHOOK_API_KEY"), Inputs: *inputs, Seed: *seed}
	var server *testenv.Server
	if o.URL == "" {
		server = testenv.Start(t, testenv.Options{Env: []string{"RETRY_SCHEDULE=24h"}})
		o.URL, o.Key = server.URL, testenv.AdminKey
	}
	r, err := attack.Run(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("seed %d, %s", o.Seed, r)
	for _, p := range r.Problems {
		t.Error(p)
	}
	if r.Inputs != o.Inputs || len(r.Families) != 13 {
		t.Errorf("%d inputs of %d families were sent, want %d of 13", r.Inputs, len(r.Families), o.Inputs)
	}
	if server == nil {
		return
	}
	c := server.Client("")
	if d := c.Get("/api/admin/balance").At("data.difference").Int(); d != 0 {
		t.Errorf("the balance is %d, want 0", d)
	}
	for line := range strings.Lines(server.Log()) {
		if strings.Contains(line, `"level":"ERROR"`) {
			t.Fatalf("the server has logged an error: %.400s", line)
		}
	}
}

// TestLoopbackOnly: nobody else's server is attacked by a slip.
func TestLoopbackOnly(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"http://192.0.2.1:3000", "http://localhost.evil.example", "http://example.com", "https://127.0.0.1", "", "127.0.0.1:3000", "http://0.0.0.0:3000"} {
		if _, err := attack.Run(context.Background(), attack.Options{URL: url, Key: "k"}); err == nil || !strings.Contains(err.Error(), "loopback") && !strings.Contains(err.Error(), "URL") {
			t.Errorf("%s: got %v, want it refused", url, err)
		}
	}
}
