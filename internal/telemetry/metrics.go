package telemetry

import (
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const namespace = "tallyhook"

// Metrics are what the running code counts. The labels stand in the order of
// the arguments of WithLabelValues.
type Metrics struct {
	EventsReceived   *prometheus.CounterVec // provider
	Events           *prometheus.CounterVec // provider, outcome
	WebhooksRejected *prometheus.CounterVec // provider, reason
	Ignored          *Names                 // provider, kind

	OrphansResolved *prometheus.CounterVec // by: adoption, retry, replay, assign
	OrphanWait      prometheus.Histogram   // seconds
	RetryBatch      prometheus.Histogram   // events
	RetryAttempts   *prometheus.CounterVec // outcome

	DeadLetters *prometheus.CounterVec // reason
	Replays     *prometheus.CounterVec // outcome: applied, orphaned, duplicate, dead

	CommitBatch    prometheus.Histogram // events
	CommitDuration prometheus.Histogram // seconds

	AuthFailures *prometheus.CounterVec // reason
	RateLimited  *prometheus.CounterVec // kind: anonymous, api, webhook, signature
	CORSRefused  prometheus.Counter

	HTTPInFlight prometheus.Gauge
	HTTPDuration *prometheus.HistogramVec // seconds; method, route, status
}

// NewMetrics registers every metric, with those of the Go runtime and of the
// process, on reg. It panics, as a programming error, when reg has them already.
func NewMetrics(reg *prometheus.Registry, version string) *Metrics {
	reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	f := promauto.With(reg)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return f.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets})
	}
	events := []float64{1, 2, 5, 10, 25, 50, 100, 250, 500, 1000}
	m := &Metrics{
		EventsReceived: counter("events_received_total",
			"Events taken in and made durable, duplicates included, by provider.", "provider"),
		Events: counter("events_total",
			"Events by provider and first outcome: applied, orphaned, duplicate, ignored, dead, spooled. A spooled event counts again with what its replay made of it.", "provider", "outcome"),
		WebhooksRejected: counter("webhooks_rejected_total",
			"Webhook requests refused before anything was stored, by provider and reason.", "provider", "reason"),

		Ignored: &Names{counter: counter("events_ignored_total",
			"Events kept as ignored, by provider and the provider's own name of what happened; other than the first 50 names of a provider: other.", "provider", "kind")},

		OrphansResolved: counter("orphans_resolved_total",
			"Orphans tied to their enrollment, by what did it: adoption, retry, replay, assign.", "by"),
		OrphanWait: histogram("orphan_wait_seconds",
			"Time an orphan waited, from its receipt until it was tied to its enrollment, in seconds.",
			[]float64{0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 6 * 3600, 24 * 3600, 72 * 3600}),
		RetryBatch: histogram("retry_batch_events",
			"Due orphans taken by one retry batch, in events.", events),
		RetryAttempts: counter("retry_attempts_total",
			"Attempts to find the enrollment of an orphan on its schedule, by outcome.", "outcome"),

		DeadLetters: counter("dead_letters_total",
			"Events moved to the dead letter queue, by reason.", "reason"),
		Replays: counter("replays_total",
			"Dead letters replayed, by outcome: applied, orphaned, duplicate, dead.", "outcome"),

		CommitBatch: histogram("commit_batch_events",
			"Events committed in one transaction of the group commit, in events.", events),
		CommitDuration: histogram("commit_duration_seconds",
			"Time one transaction of the group commit took, in seconds.",
			[]float64{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5}),

		AuthFailures: counter("auth_failures_total",
			"Requests refused for their API key or its scope, by reason.", "reason"),

		RateLimited: counter("rate_limited_total",
			"Requests refused for a spent budget, by whose it is: anonymous (an address), api (a key), webhook (a source), signature (bad ones of an address for a source).", "kind"),
		CORSRefused: f.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Name: "cors_refused_total", Help: "Requests refused for the origin of the page that sent them.",
		}),

		HTTPInFlight: f.NewGauge(prometheus.GaugeOpts{
			Namespace: namespace, Name: "http_requests_in_flight", Help: "HTTP requests being served now.",
		}),
		HTTPDuration: f.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Name: "http_request_duration_seconds",
			Help:    "Time to answer a request, in seconds, by method, route pattern and status code.",
			Buckets: []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10},
		}, []string{"method", "route", "status"}),
	}
	f.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: namespace, Name: "build_info", Help: "Always 1; its labels say which build is running.",
	}, []string{"version", "goversion"}).WithLabelValues(version, runtime.Version()).Set(1)

	// A counter that first appears as 1 hides its first event from rate();
	// where the contract fixes the values, they start at 0.
	for _, by := range []string{"adoption", "retry", "replay", "assign"} {
		m.OrphansResolved.WithLabelValues(by)
	}
	for _, kind := range []string{"anonymous", "api", "webhook", "signature"} {
		m.RateLimited.WithLabelValues(kind)
	}
	for _, outcome := range []string{"applied", "orphaned", "duplicate", "dead"} {
		m.Replays.WithLabelValues(outcome)
	}
	return m
}

// NewCertificateExpiry makes the gauge of the TLS certificate's end, to
// register. at gives the zero time when there is none; then the series is 0.
func NewCertificateExpiry(at func() time.Time) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: namespace, Name: "certificate_expiry_timestamp_seconds",
		Help: "When the TLS certificate in use ends, in seconds since 1970; 0 without TLS.",
	}, func() float64 {
		if t := at(); !t.IsZero() {
			return float64(t.Unix())
		}
		return 0
	})
}

// Handler serves the metrics as Prometheus text or OpenMetrics, as the client
// asks. A collector that fails costs its own series only; its failures are
// counted in promhttp_metric_handler_errors_total.
func Handler(reg *prometheus.Registry) http.Handler {
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		ErrorHandling:     promhttp.ContinueOnError,
		Registry:          reg,
		EnableOpenMetrics: true,
	})
}
