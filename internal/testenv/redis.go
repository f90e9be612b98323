package testenv

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// RedisOptions of a server; the zero value is safe for a queue: it appends to
// its file and evicts nothing.
type RedisOptions struct {
	NoAppendOnly bool
	MaxMemory    string // "8mb"; empty: no bound
	Policy       string // maxmemory-policy; empty: noeviction
	Password     string
	ReplicaOf    *Redis
	Cluster      bool     // one node that holds all slots
	Sentinel     []string // lines of a sentinel.conf: it is a sentinel, not a server
	Args         []string // more of the command line
}

// Redis is a real server of its own on a free loopback port, in a temporary
// folder. It ends with the test.
type Redis struct {
	Addr string // host and port; a restart keeps it

	tb   testing.TB
	opt  RedisOptions
	bin  string
	dir  string
	cmd  *exec.Cmd
	log  *Log
	done chan struct{} // closed when the process has ended
}

// StartRedis starts a server and waits until it answers. It fails the test,
// and says what to install, where there is none.
func StartRedis(tb testing.TB, o RedisOptions) *Redis {
	tb.Helper()
	r := &Redis{tb: tb, opt: o, bin: redisBinary(tb), dir: tb.TempDir()}
	tb.Cleanup(func() {
		r.Kill()
		if tb.Failed() {
			tb.Logf("the end of the Redis log:\n%s", r.log.tail(20))
		}
	})
	// Between finding a free port and taking it, another may take it.
	for range 5 {
		r.Addr = FreeAddr(tb)
		if r.launch() {
			if o.Cluster {
				r.takeSlots()
			}
			return r
		}
	}
	tb.Fatalf("Redis does not start:\n%s", r.log.tail(20))
	return nil
}

// redisBinary finds the program.
func redisBinary(tb testing.TB) string {
	tb.Helper()
	for _, name := range []string{"redis-server", "valkey-server", "/usr/bin/redis-server", "/usr/bin/valkey-server"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	tb.Fatal("neither redis-server nor valkey-server is installed: apt-get install -y redis-server")
	return ""
}

func (r *Redis) args() []string {
	host, port, _ := strings.Cut(r.Addr, ":")
	args := []string{"--bind", host, "--port", port, "--dir", r.dir, "--daemonize", "no"}
	if r.opt.Sentinel != nil {
		return append([]string{r.dir + "/sentinel.conf", "--sentinel"}, args...)
	}
	args = append(args, "--save", "", "--maxmemory-policy", "noeviction", "--appendonly", "yes", "--appendfsync", "everysec", "--repl-diskless-sync-delay", "0")
	if r.opt.NoAppendOnly {
		args = append(args, "--appendonly", "no")
	}
	for name, value := range map[string]string{
		"--maxmemory": r.opt.MaxMemory, "--maxmemory-policy": r.opt.Policy, "--requirepass": r.opt.Password,
	} {
		if value != "" {
			args = append(args, name, value)
		}
	}
	if r.opt.ReplicaOf != nil {
		host, port, _ := strings.Cut(r.opt.ReplicaOf.Addr, ":")
		args = append(args, "--replicaof", host+" "+port)
	}
	if r.opt.Cluster {
		args = append(args, "--cluster-enabled", "yes")
	}
	return append(args, r.opt.Args...)
}

// launch starts the process; false when it ended instead of answering.
func (r *Redis) launch() bool {
	r.tb.Helper()
	if r.opt.Sentinel != nil {
		if err := os.WriteFile(r.dir+"/sentinel.conf", []byte(strings.Join(r.opt.Sentinel, "\n")+"\n"), 0o600); err != nil {
			r.tb.Fatalf("write sentinel.conf: %v", err)
		}
	}
	r.log, r.done = &Log{}, make(chan struct{})
	//nolint:gosec,noctx // the program is Redis; the process is ended by Kill, Stop or the cleanup
	r.cmd = exec.Command(r.bin, r.args()...)
	r.cmd.Env = environ(nil)
	r.cmd.Stdout, r.cmd.Stderr = r.log, r.log
	dieWithParent(r.cmd)
	if err := r.cmd.Start(); err != nil {
		r.tb.Fatalf("start %s: %v", r.bin, err)
	}
	go func() {
		defer close(r.done)
		_ = r.cmd.Wait() // a kill is an error, and wanted
	}()
	up := false
	Eventually(r.tb, startTimeout, "Redis answers", func() bool {
		reply, err := r.Try("PING")
		up = err == nil && reply == "PONG"
		return up || r.ended()
	})
	return up && !r.ended()
}

func (r *Redis) ended() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

func (r *Redis) takeSlots() {
	r.tb.Helper()
	r.Do("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
	Eventually(r.tb, startTimeout, "the cluster is there", func() bool {
		info, err := r.Try("CLUSTER", "INFO")
		return err == nil && strings.Contains(info, "cluster_state:ok")
	})
}

// URL is how a client is told of the server.
func (r *Redis) URL() string {
	scheme, user := "redis", ""
	if r.opt.Cluster {
		scheme = "redis-cluster"
	}
	if r.opt.Password != "" {
		user = ":" + r.opt.Password + "@"
	}
	return scheme + "://" + user + r.Addr
}

func (r *Redis) signal(sig os.Signal) {
	r.tb.Helper()
	if err := r.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		r.tb.Errorf("send %v: %v", sig, err)
	}
}

// Kill ends the server as a crash would (SIGKILL) and waits for its end.
func (r *Redis) Kill() {
	r.tb.Helper()
	r.signal(os.Kill)
	<-r.done
}

// Stop asks the server to end (SIGTERM), so that it writes what it holds, and
// waits for its end.
func (r *Redis) Stop() {
	r.tb.Helper()
	r.signal(syscall.SIGTERM)
	timer := time.NewTimer(startTimeout)
	defer timer.Stop()
	select {
	case <-r.done:
	case <-timer.C:
		r.tb.Fatalf("Redis has not ended within %v", startTimeout)
	}
}

// Restart starts the server again on the same port, with what its file holds;
// it is killed first when it runs.
func (r *Redis) Restart() {
	r.tb.Helper()
	r.Kill()
	if !r.launch() {
		r.tb.Fatalf("Redis does not start again:\n%s", r.log.tail(20))
	}
}

// Do runs one command and gives its reply as text, the elements of an array on
// a line each. An error fails the test.
func (r *Redis) Do(args ...string) string {
	r.tb.Helper()
	reply, err := r.Try(args...)
	if err != nil {
		r.tb.Fatalf("redis %s: %v", args[0], err)
	}
	return reply
}

// Try is Do for a server that may not answer.
func (r *Redis) Try(args ...string) (string, error) {
	d := net.Dialer{Timeout: time.Second}
	conn, err := d.Dial("tcp", r.Addr)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(startTimeout)); err != nil {
		return "", err
	}
	c := newResp(conn)
	if r.opt.Password != "" {
		if _, err := c.do("AUTH", r.opt.Password); err != nil {
			return "", err
		}
	}
	return c.do(args...)
}

// Info is one field of INFO, for example used_memory.
func (r *Redis) Info(field string) string {
	r.tb.Helper()
	for line := range strings.Lines(r.Do("INFO", "everything")) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), field+":"); ok {
			return v
		}
	}
	return ""
}

// InfoInt is one field of INFO that is a whole number; it fails the test when
// it is not there.
func (r *Redis) InfoInt(field string) int64 {
	r.tb.Helper()
	n, err := strconv.ParseInt(r.Info(field), 10, 64)
	if err != nil {
		r.tb.Fatalf("INFO %s: %v", field, err)
	}
	return n
}

// Calls is how often the server ran a command, also from within scripts.
func (r *Redis) Calls(command string) int64 {
	r.tb.Helper()
	var n int64
	if v := r.Info("cmdstat_" + command); v != "" {
		if _, err := fmt.Sscanf(v, "calls=%d,", &n); err != nil {
			r.tb.Fatalf("INFO commandstats of %s: %v", command, err)
		}
	}
	return n
}
