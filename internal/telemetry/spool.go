package telemetry

import "github.com/prometheus/client_golang/prometheus"

// SpoolCollector exports what the spool holds. It is apart from the
// StoreCollector, whose series are absent just when these matter.
type SpoolCollector struct {
	read          func() (events, bytes int64)
	events, bytes *prometheus.Desc
}

// NewSpoolCollector makes a collector to register. read is called once a
// scrape; without a spool it answers 0.
func NewSpoolCollector(read func() (events, bytes int64)) *SpoolCollector {
	return &SpoolCollector{
		read: read,
		events: prometheus.NewDesc(prometheus.BuildFQName(namespace, "", "spool_events"),
			"Events accepted into the spool that are not in the database yet.", nil, nil),
		bytes: prometheus.NewDesc(prometheus.BuildFQName(namespace, "", "spool_bytes"),
			"Bytes of the spool's events, overhead included; bounded by SPOOL_MAX_BYTES.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *SpoolCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.events
	ch <- c.bytes
}

// Collect implements prometheus.Collector.
func (c *SpoolCollector) Collect(ch chan<- prometheus.Metric) {
	events, bytes := c.read()
	ch <- prometheus.MustNewConstMetric(c.events, prometheus.GaugeValue, float64(events))
	ch <- prometheus.MustNewConstMetric(c.bytes, prometheus.GaugeValue, float64(bytes))
}

// NewRedisUp exports redis_up, 1 while Redis answers and takes writes. It is
// registered only where a Redis is configured.
func NewRedisUp(up func() bool) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: namespace, Name: "redis_up", Help: "1 while Redis answers and takes writes.",
	}, func() float64 {
		if up() {
			return 1
		}
		return 0
	})
}
