package httpapi

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
)

// Malformed makes the answers to what is no request, which never come to a
// handler: net/http refuses it with a line of text. They are a problem like
// every other refusal, with the security headers and a request id, a line in
// the access log and a count. The function it gives writes a whole HTTP/1.1
// answer after which the connection is closed; why may be empty.
func Malformed(observer Observer, o Options) func(status int, why string, secure bool) []byte {
	log, now := o.Logger, o.Now
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if now == nil {
		now = time.Now
	}
	return func(status int, why string, secure bool) []byte {
		c := &call{id: newID()}
		p := newProblem(status, malformedDetail(status, why))
		p.RequestID = c.id
		body, err := jsonv2.Marshal(p, writeOptions())
		if err != nil {
			body = nil // a problem of plain fields does not fail
		}
		h := http.Header{"Content-Type": {"application/problem+json"}, "Date": {now().UTC().Format(http.TimeFormat)}, "X-Request-Id": {c.id}}
		maps.Copy(h, p.header)
		secureHeaders(h, secure)
		answer := http.Response{
			StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Header: h, Close: true,
			Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
		}
		var out bytes.Buffer
		if err := answer.Write(&out); err != nil {
			out.Reset() // into memory it does not fail
		}
		if f := observer.Request; f != nil {
			f(knownMethod(""), c.pattern(), status, 0)
		}
		log.Info("request", slog.String("method", knownMethod("")), slog.String("route", c.pattern()), slog.Int("status", status),
			slog.Int("bytes", len(body)), slog.Float64("duration_ms", 0), slog.String("request_id", c.id))
		return out.Bytes()
	}
}

func malformedDetail(status int, why string) string {
	switch status {
	case http.StatusRequestHeaderFieldsTooLarge:
		return "the header of the request, its path and query included, is too large"
	case http.StatusNotImplemented:
		return "the body has a transfer coding that is not known here; send it chunked, or with a Content-Length"
	case http.StatusHTTPVersionNotSupported:
		return "this version of HTTP is not spoken here; speak HTTP/1.1, or HTTP/2 over TLS"
	case http.StatusExpectationFailed:
		return "Expect knows 100-continue only"
	}
	if why != "" {
		return fmt.Sprintf("this is not a valid HTTP request: %s", why)
	}
	return "this is not a valid HTTP request"
}
