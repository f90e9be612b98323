package testenv

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// startTimeout is how long a start may take on a busy machine.
const startTimeout = 2 * time.Minute

// Options of a server; the zero value is a server of its own with a new
// folder.
type Options struct {
	Dir   string   // of its data; empty: a new temporary one
	Args  []string // after "serve"
	Env   []string // "NAME=value"; added to HOST, PORT=0, DATABASE_URL, API_KEY and no rate limits
	NoKey bool     // give no API_KEY, as at a newcomer's first start
}

// AdminKey is the API key of every server that is not started without one.
const AdminKey = "thk-test-0123456789abcdef0123456789abcdef"

// Server is a running program.
type Server struct {
	Dir string // of its data
	URL string // where it listens; set when it is ready

	tb   testing.TB
	cmd  *exec.Cmd
	log  *Log
	done chan struct{} // closed when the process has ended
	code int           // its exit code; valid after done
}

// Start starts "tallyhook serve" and waits until it is ready.
func Start(tb testing.TB, o Options) *Server {
	tb.Helper()
	s := Launch(tb, o)
	s.AwaitReady()
	return s
}

// Launch starts "tallyhook serve" and returns at once.
func Launch(tb testing.TB, o Options) *Server {
	tb.Helper()
	if o.Dir == "" {
		o.Dir = tb.TempDir()
	}
	env := []string{
		"HOST=127.0.0.1", "PORT=0", "DATABASE_URL=sqlite:" + filepath.Join(o.Dir, "tallyhook.db"),
		// Tests ask faster than anybody; those of the limits set their own.
		"RATE_LIMIT_ANONYMOUS=0", "RATE_LIMIT_API=0", "RATE_LIMIT_WEBHOOK=0",
	}
	if !o.NoKey {
		env = append(env, "API_KEY="+AdminKey)
	}
	s := &Server{Dir: o.Dir, tb: tb, log: &Log{}, done: make(chan struct{})}
	//nolint:gosec,noctx // the program is ours; the process is ended by Kill, Stop or the cleanup below
	s.cmd = exec.Command(Binary(tb), append([]string{"serve"}, o.Args...)...)
	s.cmd.Env = environ(append(env, o.Env...))
	s.cmd.Dir = o.Dir
	s.cmd.Stderr = s.log
	s.cmd.Stdout = s.log
	if err := s.cmd.Start(); err != nil {
		tb.Fatalf("start tallyhook serve: %v", err)
	}
	go func() {
		defer close(s.done)
		s.code = exitCode(s.cmd.Wait())
	}()
	tb.Cleanup(func() {
		s.Kill()
		if tb.Failed() {
			tb.Logf("the end of the server's log:\n%s", s.log.tail(60))
		}
	})
	return s
}

func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode() // -1: ended by a signal
	}
	return -2
}

// AwaitReady waits until the server says where it listens and answers there.
func (s *Server) AwaitReady() {
	s.tb.Helper()
	Eventually(s.tb, startTimeout, "the server is ready", func() bool {
		if s.Ended() {
			s.tb.Fatalf("the server ended with code %d instead of becoming ready:\n%s", s.code, s.log.tail(20))
		}
		_, after, ok := strings.Cut(s.log.String(), "listening on  ")
		if url, _, whole := strings.Cut(after, "\n"); ok && whole {
			s.URL = url
		}
		return s.URL != ""
	})
	c := NewClient(s.tb, s.URL, "")
	defer c.Close()
	Eventually(s.tb, startTimeout, "readyz answers 200", func() bool {
		a, err := c.Try("GET", "/readyz", nil)
		return err == nil && a.Status == 200
	})
}

// Client speaks to the server with an API key, AdminKey when empty.
func (s *Server) Client(key string) *Client {
	if key == "" {
		key = AdminKey
	}
	c := NewClient(s.tb, s.URL, key)
	s.tb.Cleanup(c.Close)
	return c
}

// Signal sends a signal to the process.
func (s *Server) Signal(sig syscall.Signal) {
	s.tb.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.tb.Errorf("send %v: %v", sig, err)
	}
}

// Kill ends the process as a crash would (SIGKILL) and waits for its end.
func (s *Server) Kill() {
	if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.tb.Errorf("kill: %v", err)
	}
	<-s.done
}

// Stop asks the process to end (SIGTERM) and gives its exit code.
func (s *Server) Stop(within time.Duration) int {
	s.tb.Helper()
	s.Signal(syscall.SIGTERM)
	return s.Wait(within)
}

// Wait gives the exit code when the process has ended; -1 when a signal ended it.
func (s *Server) Wait(within time.Duration) int {
	s.tb.Helper()
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-s.done:
		return s.code
	case <-timer.C:
		s.tb.Fatalf("the server has not ended within %v", within)
		return -2
	}
}

// Ended tells whether the process has ended.
func (s *Server) Ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// Log is what the process has written so far.
func (s *Server) Log() string { return s.log.String() }

// Log takes a process's output in. It is safe for concurrent use.
type Log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// String is everything written so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *Log) tail(lines int) string {
	all := strings.Split(strings.TrimRight(l.String(), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

var _ io.Writer = (*Log)(nil)

// Result is how a command of the program ended.
type Result struct {
	Code           int
	Stdout, Stderr string
}

// Run runs a command of the program to its end, with nothing in the
// environment but env.
func Run(tb testing.TB, dir string, env []string, args ...string) Result {
	tb.Helper()
	program := Binary(tb) // its build is not part of the time
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...) //nolint:gosec // the program is ours
	cmd.Dir = dir
	cmd.Env = environ(env)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	code := exitCode(cmd.Run())
	if ctx.Err() != nil {
		tb.Fatalf("tallyhook %s has not ended within %v\n%s", strings.Join(args, " "), startTimeout, stderr.String())
	}
	return Result{Code: code, Stdout: stdout.String(), Stderr: stderr.String()}
}
