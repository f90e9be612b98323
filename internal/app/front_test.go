package app_test

import (
	"fmt"
	"strings"
	"testing"

	"tallyhook/internal/testenv"
)

// TestWhatIsNoRequest never comes to a handler, and is answered, logged and
// counted like every refusal all the same; over TLS too.
func TestWhatIsNoRequest(t *testing.T) {
	t.Parallel()
	e := startTLS(t, "RATE_LIMIT_ANONYMOUS=0")
	counted := map[int]int{}
	for name, tc := range map[string]struct {
		text string
		want int
		says string
	}{
		"Garbage":     {"nonsense\r\n\r\n", 400, "not a valid HTTP request"},
		"TwoHosts":    {"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "not a valid HTTP request"},
		"NoHost":      {"GET / HTTP/1.1\r\n\r\n", 400, "missing required Host header"},
		"LongHeader":  {request("GET", "/livez", "", "X-A: "+strings.Repeat("a", 80_000)), 431, "too large"},
		"Coding":      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n", 501, "transfer coding"},
		"Version":     {"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505, "version"},
		"Expectation": {request("GET", "/livez", "", "Expect: a-miracle"), 417, "100-continue"},
	} {
		for way, send := range map[string]func(string) testenv.Answer{"plain": e.raw, "TLS": e.rawTLS} {
			what := name + ", " + way
			before := strings.Count(e.log.String(), `"msg":"request"`)
			a := send(tc.text)
			if a.Status != tc.want || !strings.Contains(string(a.Body), tc.says) {
				t.Errorf("%s: got %d %s, want %d %q", what, a.Status, a.Body, tc.want, tc.says)
			}
			e.whole(what, a)
			if secure := a.Header.Get("Strict-Transport-Security") != ""; secure != (way == "TLS") {
				t.Errorf("%s: HSTS is %t", what, secure)
			}
			if a.Header.Get("Date") == "" {
				t.Errorf("%s: no Date", what)
			}
			log := e.log.String()
			if got := strings.Count(log, `"msg":"request"`) - before; got != 1 || !strings.Contains(log, `"request_id":"`+a.Header.Get("X-Request-ID")+`"`) {
				t.Errorf("%s: %d lines in the access log, want one of this request", what, got)
			}
			counted[tc.want]++
		}
	}
	for status, want := range counted {
		series := fmt.Sprintf(`tallyhook_http_request_duration_seconds_count{method="other",route="unmatched",status="%d"}`, status)
		if got := e.metric(series); got != float64(want) {
			t.Errorf("%d: counted %v, want %d", status, got, want)
		}
	}
}
