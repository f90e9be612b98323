package app_test

import (
	"flag"
	"testing"
	"time"

	"tallyhook/internal/bench"
	"tallyhook/internal/testenv"
)

var neighbourTime = flag.Duration("neighbour", 10*time.Second, "how long BenchmarkNeighbour sends, alone and beside the flood")

// BenchmarkNeighbour shows how much one tenant's flood slows another tenant's
// requests: the factors of the median and of the 99th percentile.
func BenchmarkNeighbour(b *testing.B) {
	server := testenv.Start(b, testenv.Options{Env: []string{"LOG_LEVEL=warn", "RETRY_SCHEDULE=24h"}})
	other := server.Client("").Post(201, "/api/admin/tenants", map[string]any{"name": "other"}).At("data.api_key").Text()
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
