package bench

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"tallyhook/internal/store/yardstick"
)

// yardstickKey signs what is sent to the HTTP yardstick.
func yardstickKey() []byte { return []byte("yardstick-of-32-bytes-0123456789") }

// ServeYardstick is the HTTP yardstick: a plain net/http server that reads the
// body of a POST, checks its HMAC-SHA256 signature, and answers 202. Nothing
// is decoded or stored. It says on w where it listens and ends with ctx.
func ServeYardstick(ctx context.Context, w io.Writer) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	s := &http.Server{Handler: http.HandlerFunc(checkOnly), ReadHeaderTimeout: answerTimeout}
	defer context.AfterFunc(ctx, func() { _ = s.Close() })() // it ends either way
	if _, err := fmt.Fprintf(w, "listening on  http://%s\n", l.Addr()); err != nil {
		return errors.Join(err, l.Close())
	}
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

func checkOnly(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 2<<20))
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	mac := hmac.New(sha256.New, yardstickKey())
	for _, name := range []string{"webhook-id", "webhook-timestamp"} {
		mac.Write([]byte(r.Header.Get(name) + "."))
	}
	mac.Write(body)
	got, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(r.Header.Get("webhook-signature"), "v1,"))
	if err != nil || !hmac.Equal(got, mac.Sum(nil)) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	w.WriteHeader(http.StatusAccepted)
}

// SQLiteYardstick is what bare SQLite did.
type SQLiteYardstick struct {
	Batch     int     `json:"rows_a_transaction"`
	Rows      int64   `json:"rows"`
	PerSecond float64 `json:"rows_per_second"`
}

// sqliteYardsticks inserts the mix's rows into files of their own in dir.
func sqliteYardsticks(ctx context.Context, dir string, o *Options, m *Mix, r *Report) error {
	samples, err := m.Samples(200)
	if err != nil {
		return err
	}
	for _, batch := range []int{1, 50, 500} {
		o.progress("bare SQLite, %d rows a transaction", batch)
		res, err := yardstick.Insert(ctx, yardstick.Options{
			Path: filepath.Join(dir, fmt.Sprintf("yardstick-%d.db", batch)), Batch: batch, Duration: o.Duration, Samples: samples,
		})
		if err != nil {
			return fmt.Errorf("yardstick: %w", err)
		}
		r.SQLite = append(r.SQLite, SQLiteYardstick{batch, res.Rows, float64(res.Rows) / res.Took.Seconds()})
	}
	return nil
}

// httpYardsticks measures the yardstick server at t.
func httpYardsticks(ctx context.Context, t Target, o *Options, m *Mix, r *Report) error {
	s := shot{url: t.URL + "/", sign: yardstickKey(), mix: m}
	for _, n := range o.Connections {
		c, err := closedCell(ctx, t, o, "yardstick", s, n)
		if err != nil {
			return err
		}
		r.HTTP = append(r.HTTP, c.Cell)
	}
	return nil
}

// milliseconds of a duration, for reading.
func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
