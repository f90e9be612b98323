package testenv

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// PostgresOptions say how a PostgreSQL server runs.
type PostgresOptions struct {
	// Durable keeps fsync on and the data on the disk: for tests of what
	// survives a crash of the machine, and for measurements. A server that is
	// killed and restarted keeps its data either way.
	Durable bool
	// Settings are added to the server's, as "name=value".
	Settings []string
	// Tables, if not nil, is where the tables and indexes are of what Database
	// makes.
	Tables *Disk
	// Log, if not nil and Tables is, is where the write-ahead log is. Its
	// segments are small then.
	Log *Disk
	// Template brings the schema into an empty database; it is run once, and
	// Database copies what it made.
	Template func(ctx context.Context, url string) error
}

// Postgres is a PostgreSQL server of one's own: in a temporary folder, on a
// loopback port. It starts when it is first used.
type Postgres struct {
	opt PostgresOptions

	mu       sync.Mutex
	bin      string // folder of the programs
	dir      string // everything of it; data is below
	port     int
	cmd      *exec.Cmd
	done     chan struct{} // closed when the server's main process has ended
	template bool          // it is there
	empty    int           // databases that Empty has made
}

// postgresUser is the role that every database belongs to.
const postgresUser = "tallyhook"

// NewPostgres describes a server that the tests of a binary share. Around
// ends it.
func NewPostgres(o PostgresOptions) *Postgres { return &Postgres{opt: o} }

// StartPostgres starts a server of a test's own, for faults; it ends with the test.
func StartPostgres(tb testing.TB, o PostgresOptions) *Postgres {
	tb.Helper()
	p := NewPostgres(o)
	tb.Cleanup(func() {
		if err := p.End(); err != nil {
			tb.Errorf("end PostgreSQL: %v", err)
		}
	})
	if err := p.ready(); err != nil {
		tb.Fatal(err)
	}
	return p
}

// Tests are the tests of a binary, as TestMain is given them.
type Tests interface{ Run() int }

// Around gives tests that end the server when they have run.
func (p *Postgres) Around(m Tests) Tests { return around{m, p} }

type around struct {
	Tests
	p *Postgres
}

func (a around) Run() int {
	code := a.Tests.Run()
	if err := a.p.End(); err != nil {
		fmt.Fprintln(os.Stderr, "end PostgreSQL:", err)
		code = max(code, 1)
	}
	return code
}

// URL leads to a database of the server.
func (p *Postgres) URL(database string) string {
	return fmt.Sprintf("postgres://%s@127.0.0.1:%d/%s?sslmode=disable", postgresUser, p.port, database)
}

// Addr is where the server listens.
func (p *Postgres) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.port)) }

// Env has the client programs of the server's release be found, and find it.
func (p *Postgres) Env() []string {
	return []string{
		"PATH=" + p.bin + ":/usr/bin:/bin",
		"PGHOST=127.0.0.1", "PGPORT=" + strconv.Itoa(p.port), "PGUSER=" + postgresUser,
	}
}

// Database gives the URL of the test's database of a name, which may be a path.
// It is made when it is not there yet, and goes with the test.
func (p *Postgres) Database(tb testing.TB, name string) string {
	tb.Helper()
	if err := p.ready(); err != nil {
		tb.Fatal(err)
	}
	sum := sha256.Sum256([]byte(name))
	db := "t_" + hex.EncodeToString(sum[:12])
	made, err := p.create(tb.Context(), db)
	if err != nil {
		tb.Fatalf("create a database: %v", err)
	}
	if made {
		tb.Cleanup(func() { p.drop(tb, db) })
	}
	return p.URL(db)
}

// Empty gives the URL of a new database without anything in it, which goes
// with the test.
func (p *Postgres) Empty(tb testing.TB) string {
	tb.Helper()
	if err := p.ready(); err != nil {
		tb.Fatal(err)
	}
	p.mu.Lock()
	p.empty++
	db := "e_" + strconv.Itoa(p.empty)
	p.mu.Unlock()
	if err := p.admin(tb.Context(), "CREATE DATABASE "+db); err != nil {
		tb.Fatalf("create a database: %v", err)
	}
	tb.Cleanup(func() { p.drop(tb, db) })
	return p.URL(db)
}

func (p *Postgres) drop(tb testing.TB, db string) {
	tb.Helper()
	if p.ended() { // the test has ended it, and all of its data goes with it
		return
	}
	if err := p.admin(context.WithoutCancel(tb.Context()), "DROP DATABASE "+db+" WITH (FORCE)"); err != nil {
		tb.Errorf("drop a database: %v", err)
	}
}

// create copies the template; one at a time, since nobody may be connected to it.
func (p *Postgres) create(ctx context.Context, db string) (made bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.template {
		if err := p.admin(ctx, "CREATE DATABASE template_of_tests"); err != nil {
			return false, err
		}
		if p.opt.Template != nil {
			if err := p.opt.Template(ctx, p.URL("template_of_tests")); err != nil {
				return false, err
			}
		}
		if p.opt.Tables != nil {
			if err := p.admin(ctx, "CREATE TABLESPACE small LOCATION '"+p.opt.Tables.Dir+"'"); err != nil {
				return false, err
			}
		}
		p.template = true
	}
	conn, err := pgx.Connect(ctx, p.URL("postgres"))
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	var there bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT 1 FROM pg_database WHERE datname = $1)", db).Scan(&there); err != nil || there {
		return false, err
	}
	query := "CREATE DATABASE " + db + " TEMPLATE template_of_tests"
	if p.opt.Tables != nil {
		query += " TABLESPACE small"
	}
	_, err = conn.Exec(ctx, query)
	return err == nil, err
}

func (p *Postgres) admin(ctx context.Context, query string) (err error) {
	conn, err := pgx.Connect(ctx, p.URL("postgres"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	_, err = conn.Exec(ctx, query)
	return err
}

// ready starts the server when it does not run yet.
func (p *Postgres) ready() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		return nil
	}
	if err := p.install(); err != nil {
		return err
	}
	return p.start()
}

// install makes the server's folder and an empty cluster of databases in it.
func (p *Postgres) install() (err error) {
	if p.dir != "" {
		return nil
	}
	if p.bin, err = postgresBin(); err != nil {
		return err
	}
	parent := ""
	if !p.opt.Durable {
		parent = memory()
	}
	sweep(cmp.Or(parent, os.TempDir()))
	if p.dir, err = os.MkdirTemp(parent, "tallyhook-postgres-"); err != nil {
		return err
	}
	cred, err := unprivileged()
	if err != nil {
		return err
	}
	if cred != nil {
		if err := os.Chown(p.dir, int(cred.Uid), int(cred.Gid)); err != nil {
			return err
		}
	}
	args := []string{"-D", p.data(), "-U", postgresUser, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"}
	if p.opt.Log != nil {
		args = append(args, "--waldir="+filepath.Join(p.opt.Log.Dir, "wal"), "--wal-segsize=1")
	}
	cmd := p.command("initdb", args...)
	cmd.SysProcAttr = dying(cred)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return nil
}

// sweep removes the folders of servers that have ended with a test process
// that was killed.
func sweep(parent string) {
	dirs, err := filepath.Glob(filepath.Join(parent, "tallyhook-postgres-*"))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		info, err := os.Stat(dir)
		if err != nil || time.Since(info.ModTime()) < time.Hour { // it may be starting
			continue
		}
		raw, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid")) //nolint:gosec // a folder that tests have made
		first, _, _ := strings.Cut(string(raw), "\n")
		if pid, perr := strconv.Atoi(first); err == nil && perr == nil && syscall.Kill(pid, 0) == nil {
			continue
		}
		_ = os.RemoveAll(dir) // another's that is not ours to remove stays
	}
}

func (p *Postgres) data() string { return filepath.Join(p.dir, "data") }

//nolint:noctx // ended by End, or by the end of this process (dying)
func (p *Postgres) command(name string, args ...string) *exec.Cmd {
	args = append([]string{filepath.Join(p.bin, name)}, args...)
	for _, d := range []*Disk{p.opt.Tables, p.opt.Log} {
		if d != nil {
			args = append(slices.Clip(d.enter), args...)
		}
	}
	cmd := exec.Command(args[0], args[1:]...) //nolint:gosec // the programs of the installed server
	cmd.Dir = p.dir
	cmd.Env = environ([]string{"PATH=" + p.bin + ":/usr/bin:/bin", "LC_ALL=C", "TZ=UTC", "HOME=" + p.dir})
	return cmd
}

// start runs the server on a free port, or the one it had, and waits until it answers.
func (p *Postgres) start() error {
	cred, err := unprivileged()
	if err != nil {
		return err
	}
	var last error
	for range 5 { // another process may take the port that was free
		port := p.port
		if port == 0 {
			if port, err = freePort(); err != nil {
				return err
			}
		}
		if last = p.startOn(port, cred); last == nil {
			p.port = port
			return nil
		}
		p.cmd = nil
	}
	return last
}

func (p *Postgres) startOn(port int, cred *syscall.Credential) error {
	log, err := os.OpenFile(filepath.Join(p.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // the server has it open by itself
	settings := []string{
		"listen_addresses=127.0.0.1", "port=" + strconv.Itoa(port), "unix_socket_directories=" + p.dir,
		"max_connections=300", "shared_buffers=64MB", "max_wal_size=512MB", "log_min_messages=warning", "deadlock_timeout=200ms",
	}
	if !p.opt.Durable {
		settings = append(settings, "fsync=off", "full_page_writes=off")
	}
	if p.opt.Log != nil {
		settings = append(settings, "max_wal_size=4MB", "min_wal_size=2MB")
	}
	args := []string{"-D", p.data()}
	for _, s := range append(settings, p.opt.Settings...) {
		args = append(args, "-c", s)
	}
	cmd := p.command("postgres", args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = dying(cred)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait() // how it ended is in its log
	}()
	p.cmd, p.done = cmd, done
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	url := fmt.Sprintf("postgres://%s@127.0.0.1:%d/postgres?sslmode=disable", postgresUser, port)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := pgx.Connect(ctx, url)
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-done:
			return fmt.Errorf("postgres ended instead of becoming ready:\n%s", p.log())
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("postgres is not ready after %v: %w\n%s", startTimeout, err, p.log()), p.kill())
		case <-tick.C:
		}
	}
}

func (p *Postgres) log() string {
	raw, err := os.ReadFile(filepath.Join(p.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(raw[max(0, len(raw)-4096):])
}

// Said tells whether a text is in the server's log.
func (p *Postgres) Said(tb testing.TB, text string) bool {
	tb.Helper()
	raw, err := os.ReadFile(filepath.Join(p.dir, "log"))
	if err != nil {
		tb.Fatal(err)
	}
	return strings.Contains(string(raw), text)
}

// Kill ends the server and every process of it as a crash would (SIGKILL).
func (p *Postgres) Kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.kill()
}

func (p *Postgres) kill() error {
	if p.cmd == nil {
		return nil
	}
	children := p.halt()
	for _, pid := range append(children, p.cmd.Process.Pid) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	<-p.done
	p.cmd = nil
	return gone(children)
}

// halt stops (SIGSTOP) the main process, so that it starts no more of them,
// and lists its children.
func (p *Postgres) halt() []int {
	pid := p.cmd.Process.Pid
	_ = syscall.Kill(pid, syscall.SIGSTOP) // it may have ended by itself
	var children []int
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil
	}
	for _, name := range tasks {
		raw, err := os.ReadFile(name) //nolint:gosec // of /proc
		if err != nil {
			continue
		}
		for f := range strings.FieldsSeq(string(raw)) {
			if n, err := strconv.Atoi(f); err == nil {
				children = append(children, n)
			}
		}
	}
	return children
}

// gone waits until processes that were killed have given back what they held.
func gone(pids []int) error {
	deadline := time.Now().Add(startTimeout)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for len(pids) > 0 {
		pids = slices.DeleteFunc(pids, func(pid int) bool {
			raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			_, after, _ := strings.Cut(string(raw), ") ")
			return err != nil || strings.HasPrefix(after, "Z")
		})
		if time.Now().After(deadline) {
			return fmt.Errorf("processes of PostgreSQL do not end: %v", pids)
		}
		<-tick.C
	}
	return nil
}

// Restart starts the server again, on its data and its port, after Kill or Stop.
func (p *Postgres) Restart(tb testing.TB) {
	tb.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		tb.Fatal("PostgreSQL runs already")
	}
	if err := p.start(); err != nil {
		tb.Fatal(err)
	}
}

// Revive starts the server again if it has ended by itself, as a service
// manager would.
func (p *Postgres) Revive(tb testing.TB) {
	tb.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.done:
	default:
		return
	}
	if err := p.start(); err != nil {
		tb.Fatal(err)
	}
}

// Pause lets nothing of the server run (SIGSTOP) until Resume: connections
// stay, and are answered by nobody.
func (p *Postgres) Pause(tb testing.TB) {
	tb.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pid := range p.halt() {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil && !errors.Is(err, syscall.ESRCH) {
			tb.Errorf("pause PostgreSQL: %v", err)
		}
	}
}

// Resume ends a Pause.
func (p *Postgres) Resume(tb testing.TB) {
	tb.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pid := range append(p.halt(), p.cmd.Process.Pid) {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil && !errors.Is(err, syscall.ESRCH) {
			tb.Errorf("resume PostgreSQL: %v", err)
		}
	}
}

// Stop ends the server in good order (SIGINT: open transactions are undone).
func (p *Postgres) Stop() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return nil
	}
	if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
		p.cmd = nil
		return nil
	case <-time.After(startTimeout):
		return errors.Join(errors.New("PostgreSQL does not end"), p.kill())
	}
}

func (p *Postgres) ended() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd == nil
}

// End ends the server, however it stands, and removes its folder.
func (p *Postgres) End() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.kill()
	if p.dir != "" {
		err = errors.Join(err, os.RemoveAll(p.dir))
		p.dir = ""
	}
	return err
}

// postgresBin finds the folder of the server's programs, the newest first.
func postgresBin() (string, error) {
	dirs, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return "", err
	}
	slices.SortFunc(dirs, func(a, b string) int { return major(b) - major(a) })
	if initdb, err := exec.LookPath("initdb"); err == nil {
		dirs = append([]string{filepath.Dir(initdb)}, dirs...)
	}
	for _, dir := range dirs {
		if runs(filepath.Join(dir, "initdb")) && runs(filepath.Join(dir, "postgres")) {
			return dir, nil
		}
	}
	return "", errors.New("PostgreSQL is not installed; install it with: apt-get install -y postgresql")
}

func runs(name string) bool {
	info, err := os.Stat(name)
	return err == nil && !info.IsDir() && info.Mode()&0o111 != 0
}

func major(dir string) int {
	n, err := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
	if err != nil {
		return 0
	}
	return n
}
