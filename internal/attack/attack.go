// Package attack sends a running server what it must refuse, as a client over
// HTTP and by bare sockets: malformed HTTP, JSON bombs, broken text, SQL and
// templates in every field, huge arrays, replays, forgeries, guesses and floods
// of headers.
//
// Guarantees: it goes to loopback addresses alone; it is bounded by a number of
// inputs; the same seed gives the same inputs; it counts what came back and
// compares the rows that are there afterwards with what was accepted.
package attack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	answerTimeout = 30 * time.Second
	maxAnswer     = 4 << 20 // bytes of an answer that are looked at
	senders       = 4
)

// Options say what to attack and how much.
type Options struct {
	URL    string // of the server, on a loopback address
	Key    string // an admin key of it
	Inputs int
	Seed   uint64
}

// Report is what came of it.
type Report struct {
	Families map[string]map[int]int // by family and status; 0: the connection was closed without an answer
	Inputs   int
	Accepted map[string]int64           // rows that answers with 2xx stand for, by what they are
	Grown    map[string]int64           // rows that came, by what they are
	Process  [2]Process                 // the server's, before and after
	Guess    map[string][]time.Duration // how long a wrong key took to refuse, by how much of it is right; at most 5,000 each
	Problems []string                   // at most 50
}

// Process is what the server says of itself in its metrics.
type Process struct{ Goroutines, Files, ResidentMiB int64 }

// slack is how many goroutines and open files may be more afterwards: the pools
// of connections breathe.
const slack = 32

// Run attacks. The error says that it could not; what it found is in the Report.
func Run(ctx context.Context, o Options) (*Report, error) {
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, fmt.Errorf("read URL: %w", err)
	}
	if a, err := netip.ParseAddr(u.Hostname()); err != nil || !a.IsLoopback() || u.Scheme != "http" {
		return nil, errors.New("the server to attack must be at an http URL with a loopback address")
	}
	a := &attack{
		o: o, addr: u.Host, base: strings.TrimRight(o.URL, "/"), http: &http.Client{Timeout: answerTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: senders}},
		report: Report{Families: map[string]map[int]int{}, Accepted: map[string]int64{}, Grown: map[string]int64{}, Guess: map[string][]time.Duration{}},
	}
	defer a.http.CloseIdleConnections()
	if err := a.prepare(ctx); err != nil {
		return nil, err
	}
	before, err := a.rows(ctx)
	if err != nil {
		return nil, err
	}
	if a.report.Process[0], err = a.process(ctx); err != nil {
		return nil, err
	}
	var wg sync.WaitGroup
	for n := range senders {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(o.Seed, uint64(n))) //nolint:gosec // inputs that can be made again, not secrets; a small number
			for i := n; i < o.Inputs && ctx.Err() == nil; i += senders {
				f := families()[i%len(families())]
				f.send(ctx, a, rnd, f.name, i)
			}
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := a.settle(ctx); err != nil {
		return nil, err
	}
	after, err := a.rows(ctx)
	if err != nil {
		return nil, fmt.Errorf("the server does not answer after the attack: %w", err)
	}
	for what, n := range after {
		a.report.Grown[what] = n - before[what]
		if got, want := a.report.Grown[what], a.report.Accepted[what]; got != want {
			a.problem("%s: %d rows came, and %d were accepted", what, got, want)
		}
	}
	return &a.report, nil
}

// attack is one run.
type attack struct {
	o          Options
	addr, base string
	http       *http.Client

	instance, enrollment string
	source, path, secret string // a generic source, and its webhook

	mu     sync.Mutex // guards report
	report Report
}

func (a *attack) problem(format string, args ...any) {
	if len(a.report.Problems) < 50 {
		a.report.Problems = append(a.report.Problems, fmt.Sprintf(format, args...))
	}
}

// prepare makes what well-formed requests refer to.
func (a *attack) prepare(ctx context.Context) error {
	create := func(path string, body any) (string, map[string]any, error) {
		raw, err := json.Marshal(body)
		if err != nil {
			return "", nil, fmt.Errorf("%s: %w", path, err)
		}
		ans, err := a.ask(ctx, http.MethodPost, path, raw, a.keyed())
		if err != nil {
			return "", nil, err
		}
		var got struct {
			Data map[string]any `json:"data"`
		}
		if err := json.Unmarshal(ans.body, &got); err != nil || ans.status != http.StatusCreated {
			return "", nil, fmt.Errorf("POST %s: %d %.200s", path, ans.status, ans.body)
		}
		id, _ := got.Data["id"].(string)
		return id, got.Data, nil
	}
	template, _, err := create("/api/campaigns/templates", map[string]any{
		"name": "attack", "type": "email", "steps": []any{map[string]any{"step_number": 1, "channel": "email", "subject": "x"}},
	})
	if err != nil {
		return err
	}
	if a.instance, _, err = create("/api/campaigns/instances", map[string]any{"template_id": template, "name": "attack"}); err != nil {
		return err
	}
	if a.enrollment, _, err = create("/api/campaigns/instances/"+a.instance+"/enrollments", map[string]any{"email": fmt.Sprintf("attack-%s@example.com", a.instance)}); err != nil {
		return err
	}
	id, source, err := create("/api/sources", map[string]any{"provider": "generic", "name": "attack"})
	if err != nil {
		return err
	}
	a.source = id
	a.secret, _ = source["secret"].(string)
	hook, _ := source["url"].(string)
	_, token, ok := strings.Cut(hook, "/webhooks/")
	if !ok {
		return errors.New("the source made for the attack has no URL")
	}
	a.path = "/webhooks/" + token
	return nil
}

func (a *attack) keyed() http.Header {
	return http.Header{"X-Api-Key": {a.o.Key}, "Content-Type": {"application/json"}}
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

// ask sends a well-formed request.
func (a *attack) ask(ctx context.Context, method, path string, body []byte, header http.Header) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, bytes.NewReader(body))
	if err != nil {
		return answer{}, fmt.Errorf("%s %.80s: %w", method, path, err)
	}
	req.Header = header
	resp, err := a.http.Do(req)
	if err != nil {
		return answer{}, fmt.Errorf("%s %.80s: %w", method, path, err)
	}
	return read(resp)
}

func read(resp *http.Response) (answer, error) {
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return answer{}, fmt.Errorf("read answer: %w", err)
	}
	return answer{resp.StatusCode, resp.Header, b}, nil
}

// leaks are texts that no answer may hold.
var leaks = []string{"goroutine ", "runtime error", "panic:", "SQLITE", "sqlite3:", "SQLSTATE", "INSERT INTO", ".go:", "<html"} //nolint:gochecknoglobals // a constant

// saw counts an answer and looks at it.
func (a *attack) saw(family string, ans answer, sent string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.report.Inputs++
	if a.report.Families[family] == nil {
		a.report.Families[family] = map[int]int{}
	}
	a.report.Families[family][ans.status]++
	sent = fmt.Sprintf("%.200q", sent)
	// These two are net/http's, to a coding and a version that nobody speaks.
	protocol := family == familyHTTP && (ans.status == http.StatusNotImplemented || ans.status == http.StatusHTTPVersionNotSupported)
	if ans.status >= 500 && !protocol {
		a.problem("%s: %s was answered %d %.200s", family, sent, ans.status, ans.body)
	}
	for _, l := range leaks {
		if bytes.Contains(ans.body, []byte(l)) && !strings.Contains(sent, l) && ans.status >= 400 {
			a.problem("%s: the answer to %s tells %q: %.200s", family, sent, l, ans.body)
		}
	}
	if ans.status != 0 && (ans.header.Get("X-Request-Id") == "" || ans.header.Get("X-Content-Type-Options") != "nosniff") {
		a.problem("%s: the answer to %s has no request id or no security headers: %d %v", family, sent, ans.status, ans.header)
	}
	if ans.status >= 400 && ans.header.Get("Content-Type") != "application/problem+json" {
		a.problem("%s: the answer to %s is no problem: %d %v", family, sent, ans.status, ans.header)
	}
}

func (a *attack) accepted(what string, n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.report.Accepted[what] += n
}

// call sends a request of a family, and counts it.
func (a *attack) call(ctx context.Context, family, method, path string, body []byte, header http.Header) answer {
	ans, err := a.ask(ctx, method, path, body, header)
	if err != nil && ctx.Err() == nil && ans.status == 0 {
		// A server may close on what it does not want to read to its end.
		ans = answer{}
	}
	a.saw(family, ans, method+" "+path+" "+string(body))
	return ans
}

// raw sends bytes as they are.
func (a *attack) raw(ctx context.Context, family, text string) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", a.addr)
	if err != nil {
		a.saw(family, answer{}, text)
		return
	}
	defer conn.Close() //nolint:errcheck // the answer was read
	if err := conn.SetDeadline(time.Now().Add(answerTimeout)); err == nil {
		_, _ = io.WriteString(conn, text) // the server may close before the end
		if half, ok := conn.(*net.TCPConn); ok {
			_ = half.CloseWrite() // an unfinished request ends here
		}
	}
	b, _ := io.ReadAll(io.LimitReader(conn, maxAnswer)) // what has come until the connection was closed
	a.saw(family, parse(b), text)
}

// settle waits until the server has ended what the attack has begun, a minute
// at most: what is there then has leaked.
func (a *attack) settle(ctx context.Context) error {
	before := a.report.Process[0]
	if before.Goroutines == 0 {
		return nil
	}
	for deadline := time.Now().Add(time.Minute); ; {
		a.http.CloseIdleConnections()
		after, err := a.process(ctx)
		if err != nil {
			return fmt.Errorf("the server does not answer after the attack: %w", err)
		}
		a.report.Process[1] = after
		if after.Goroutines <= before.Goroutines+slack && after.Files <= before.Files+slack {
			return nil
		}
		if time.Now().After(deadline) {
			a.problem("the server has %d goroutines and %d open files, and had %d and %d", after.Goroutines, after.Files, before.Goroutines, before.Files)
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// process reads what the server says of itself; nothing where METRICS_ADDR has
// moved it.
func (a *attack) process(ctx context.Context) (p Process, err error) {
	ans, err := a.ask(ctx, http.MethodGet, "/metrics", nil, http.Header{})
	if err != nil {
		return p, err
	}
	for line := range strings.Lines(string(ans.body)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		v, perr := strconv.ParseFloat(value, 64)
		if perr != nil {
			continue
		}
		switch name {
		case "go_goroutines":
			p.Goroutines = int64(v)
		case "process_open_fds":
			p.Files = int64(v)
		case "process_resident_memory_bytes":
			p.ResidentMiB = int64(v) >> 20
		}
	}
	return p, nil
}

// rows counts what the database holds.
func (a *attack) rows(ctx context.Context) (map[string]int64, error) {
	n := map[string]int64{}
	for what, path := range map[string]string{
		"templates": "/api/campaigns/templates", "instances": "/api/campaigns/instances", "enrollments": "/api/campaigns/instances/" + a.instance + "/enrollments",
		"sources": "/api/sources", "keys": "/api/keys", "suppressions": "/api/suppressions", "events": "/api/events", "dead letters": "/api/admin/dlq",
	} {
		for cursor := ""; ; {
			ans, err := a.ask(ctx, http.MethodGet, path+"?limit=1000"+cursor, nil, a.keyed())
			if err != nil {
				return nil, err
			}
			if ans.status == http.StatusTooManyRequests { // a server with its usual limits
				select {
				case <-ctx.Done():
					return nil, ctx.Err()
				case <-time.After(time.Second):
				}
				continue
			}
			var page struct {
				Data []json.RawMessage `json:"data"`
				Next *string           `json:"next_cursor"`
			}
			if err := json.Unmarshal(ans.body, &page); err != nil || ans.status != http.StatusOK {
				return nil, fmt.Errorf("GET %s: %d %.200s", path, ans.status, ans.body)
			}
			n[what] += int64(len(page.Data))
			if page.Next == nil || *page.Next == "" {
				break
			}
			cursor = "&cursor=" + url.QueryEscape(*page.Next)
		}
	}
	return n, nil
}

// String is the counts, a line for each family.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d inputs\n", r.Inputs)
	for _, f := range slices.Sorted(maps.Keys(r.Families)) {
		fmt.Fprintf(&b, "  %-18s", f)
		for _, status := range slices.Sorted(maps.Keys(r.Families[f])) {
			fmt.Fprintf(&b, "  %d: %d", status, r.Families[f][status])
		}
		b.WriteByte('\n')
	}
	for _, what := range slices.Sorted(maps.Keys(r.Grown)) {
		fmt.Fprintf(&b, "  %-18s  accepted %d, grown %d\n", what, r.Accepted[what], r.Grown[what])
	}
	p := r.Process
	fmt.Fprintf(&b, "  the server: goroutines %d -> %d, open files %d -> %d, resident MiB %d -> %d\n",
		p[0].Goroutines, p[1].Goroutines, p[0].Files, p[1].Files, p[0].ResidentMiB, p[1].ResidentMiB)
	for _, class := range slices.Sorted(maps.Keys(r.Guess)) {
		took := slices.Sorted(slices.Values(r.Guess[class]))
		fmt.Fprintf(&b, "  a wrong key, %-13s  refused in %v (median of %d)\n", class, took[len(took)/2].Round(time.Microsecond), len(took))
	}
	for _, p := range r.Problems {
		b.WriteString("  ! " + p + "\n")
	}
	return b.String()
}
