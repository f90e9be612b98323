package app_test

import (
	"flag"
	"path/filepath"
	"testing"
	"time"

	"tallyhook/internal/bench"
	"tallyhook/internal/testenv"
)

var neighbourTime = flag.Duration("neighbour", 10*time.Second, "how long BenchmarkNeighbour sends, alone and beside the flood")

// twoTenants starts a server on which a second tenant has a key; limits are off.
func twoTenants(tb testing.TB, env ...string) (server *testenv.Server, other string) {
	tb.Helper()
	dir := tb.TempDir()
	server = testenv.Start(tb, testenv.Options{Dir: dir, Env: env})
	id, other := server.Client("").NewKey("other", "admin")
	if code := server.Stop(time.Minute); code != 0 {
		tb.Fatalf("exit code %d", code)
	}
	testenv.Exec(tb, filepath.Join(dir, "tallyhook.db"), `
		INSERT INTO tenant(id, uid, name, created_at) VALUES (2, randomblob(16), 'other', 0);
		UPDATE api_key SET tenant_id = 2 WHERE hex(id) = upper(replace('`+id+`', '-', ''))`)
	return testenv.Start(tb, testenv.Options{Dir: dir, Env: env}), other
}

// BenchmarkNeighbour shows how much one tenant's flood slows another tenant's
// requests: the factors of the median and of the 99th percentile.
func BenchmarkNeighbour(b *testing.B) {
	server, other := twoTenants(b, "LOG_LEVEL=warn", "RETRY_SCHEDULE=24h")
	for b.Loop() {
		n, err := bench.Neighbour(b.Context(), bench.Target{URL: server.URL, Key: other}, bench.Target{URL: server.URL, Key: testenv.AdminKey},
			bench.Options{Duration: *neighbourTime})
		if err != nil {
			b.Fatal(err)
		}
		if n.Alone.Errors+n.Beside.Errors > 0 {
			b.Errorf("requests of the neighbour failed: %s", n.Beside.ErrorSample)
		}
		b.Log(n)
		b.ReportMetric(n.P50, "factor-p50")
		b.ReportMetric(n.P99, "factor-p99")
		b.ReportMetric(n.Beside.Latency.P99, "ms-p99")
	}
	if d := server.Client("").Get("/api/admin/balance").At("data.difference").Int(); d != 0 {
		b.Errorf("the balance is %d, want 0", d)
	}
}
