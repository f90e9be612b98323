package httpapi

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"

	"tallyhook/internal/fault"
)

const (
	maxBodies = 256 << 20 // bytes of bodies in hand at once
	smallBody = 64 << 10  // a body that is let in all the same
)

// bound reads the raw body, at most as much as the route takes, before anything
// looks at it. A chunked body that grows too long is refused like an announced
// one, and so is a compressed one: the bound is that of what comes out.
func (s *server) bound(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := callOf(r.Context())
		if ambiguous(r) {
			w.Header().Set("Connection", "close")
		}
		limit := s.opt.MaxBodyBytes
		if c.route != nil && c.route.MaxBody > 0 {
			limit = c.route.MaxBody
		}
		if r.ContentLength > limit {
			s.tooLarge(w, r, limit)
			return
		}
		if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 || c.route == nil {
			next.ServeHTTP(w, r)
			return
		}
		zipped, known := zippedBody(r.Header)
		if !known {
			w.Header().Set("Connection", "close")
			w.Header().Set("Accept-Encoding", "gzip, identity")
			s.refuse(w, r, fault.New(fault.Unsupported, "send the body as it is, or with Content-Encoding: gzip"))
			return
		}
		if s.opt.MaxBodyBytes < limit && (zipped || r.ContentLength < 0 || r.ContentLength > s.opt.MaxBodyBytes) {
			// Only a key that may use it gets more room than everybody.
			err := s.meter(w, r)
			if err == nil {
				err = s.admit(c, c.route, r)
			}
			if err != nil {
				w.Header().Set("Connection", "close")
				s.refuse(w, r, err)
				return
			}
		}
		// Bodies in hand are bounded together: many large ones at once are told
		// to come again, in a status that every vendor takes as just that. What
		// counts is what has come, and not what was announced: announcing costs
		// nothing.
		held := &holding{of: &s.bodies}
		defer held.release()
		body, err := readBody(held.reading(http.MaxBytesReader(w, r.Body, limit)), r.ContentLength)
		if err == nil && zipped {
			body, err = unzip(body, limit, held)
		}
		if errors.Is(err, errBodies) {
			w.Header().Set("Connection", "close")
			w.Header().Set("Retry-After", "1")
			writeProblem(w, r, newProblem(http.StatusTooManyRequests, "too many large bodies at once; try again"))
			return
		}
		if err != nil {
			if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
				s.tooLarge(w, r, limit)
				return
			}
			w.Header().Set("Connection", "close")
			writeProblem(w, r, newProblem(http.StatusBadRequest, "the request body ended early or could not be read"))
			return
		}
		if zipped { // from here on the body is what was meant, also for signatures
			r.Header.Del("Content-Encoding")
			r.ContentLength = int64(len(body))
		}
		c.body = body
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}

// ambiguous tells requests about whose end a proxy before us may think
// differently: net/http takes a length away that came beside a coding, and
// ignores a coding in HTTP/1.0, without telling. What follows such a request on
// its connection is never read, so nothing can hide in it.
func ambiguous(r *http.Request) bool {
	return r.ProtoMajor == 1 && (r.ProtoMinor == 0 || len(r.TransferEncoding) > 0)
}

// zippedBody tells whether a body is compressed; known is false when it is in
// a way that is not read here, such as twice.
func zippedBody(h http.Header) (zipped, known bool) {
	switch strings.ToLower(strings.TrimSpace(strings.Join(h.Values("Content-Encoding"), ","))) {
	case "", "identity":
		return false, true
	case "gzip", "x-gzip":
		return true, true
	}
	return false, false
}

// unzip gives what a body holds; a MaxBytesError when that is more than limit.
func unzip(body []byte, limit int64, held *holding) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("read gzip: %w", err)
	}
	out, err := readBody(held.reading(io.LimitReader(z, limit+1)), -1)
	switch {
	case err != nil:
		return nil, err
	case int64(len(out)) > limit:
		return nil, &http.MaxBytesError{Limit: limit}
	}
	return out, nil
}

var errBodies = errors.New("too many bytes of bodies are in hand")

// holding is what one request has in hand of all bytes of bodies.
type holding struct {
	of  *atomic.Int64
	own int64
}

// reading counts what is read. It fails when all bodies together are too
// large and this one is not small.
func (h *holding) reading(from io.Reader) io.Reader { return heldReader{from, h} }

func (h *holding) release() { h.of.Add(-h.own) }

type heldReader struct {
	from io.Reader
	*holding
}

// Read implements io.Reader.
func (r heldReader) Read(p []byte) (int, error) {
	n, err := r.from.Read(p)
	r.own += int64(n)
	if r.of.Add(int64(n)) > maxBodies && r.own > smallBody {
		return n, errBodies
	}
	return n, err
}

// readBody reads to the end; an announced length saves growing, but is trusted
// for a small buffer only.
func readBody(from io.Reader, announced int64) ([]byte, error) {
	var buf bytes.Buffer
	if announced > 0 {
		buf.Grow(int(min(announced, 256<<10)) + bytes.MinRead)
	}
	if _, err := buf.ReadFrom(from); err != nil {
		return nil, fmt.Errorf("read body: %w", err)
	}
	return buf.Bytes(), nil
}

func (s *server) tooLarge(w http.ResponseWriter, r *http.Request, limit int64) {
	w.Header().Set("Connection", "close") // the rest of the body is not worth reading
	c := callOf(r.Context())
	if c.route != nil && c.route.Class == classWebhook {
		s.rejected("", fault.TooLarge)
	}
	writeProblem(w, r, newProblem(http.StatusRequestEntityTooLarge, fmt.Sprintf("the request body is larger than %d bytes", limit)))
}
