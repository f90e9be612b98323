package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tallyhook/internal/testenv"
)

func TestMain(m *testing.M) {
	m.Run()
	if err := testenv.RemoveBinary(); err != nil {
		fmt.Fprintln(os.Stderr, "remove the test's program:", err)
	}
}

// oneLine checks that a command failed with a code and a single line on
// standard error that has every word, and said nothing else.
func oneLine(t *testing.T, got testenv.Result, code int, words ...string) {
	t.Helper()
	if got.Code != code {
		t.Errorf("exit code %d, want %d", got.Code, code)
	}
	if got.Stdout != "" {
		t.Errorf("standard output: %q, want nothing", got.Stdout)
	}
	if !strings.HasPrefix(got.Stderr, "tallyhook: ") || strings.Count(got.Stderr, "\n") != 1 {
		t.Errorf("standard error: %q, want one line", got.Stderr)
	}
	for _, w := range words {
		if !strings.Contains(got.Stderr, w) {
			t.Errorf("standard error: %q, want it to say %q", got.Stderr, w)
		}
	}
}

func TestBadSettingsStopTheStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	secret := "hunter2-hunter2"
	for name, test := range map[string]struct {
		env  []string
		args []string
		says []string
	}{
		"PortNoNumber":       {env: []string{"PORT=three"}, says: []string{"PORT", "three", "0 to 65535"}},
		"PortTooLarge":       {args: []string{"--port", "70000"}, says: []string{"flag --port", "70000"}},
		"Prefixed":           {env: []string{"TALLYHOOK_PORT=x"}, says: []string{"TALLYHOOK_PORT"}},
		"Contradiction":      {env: []string{"PORT=3001", "TALLYHOOK_PORT=3002"}, says: []string{"PORT", "TALLYHOOK_PORT"}},
		"Misspelt":           {env: []string{"TALLYHOOK_PROT=3000"}, says: []string{"TALLYHOOK_PROT"}},
		"Redis":              {env: []string{"REDIS_URL=http://localhost"}, says: []string{"REDIS_URL", "redis-cluster://"}},
		"Postgres":           {env: []string{"DATABASE_URL=postgres://localhost/x"}, says: []string{"SECRETS_KEY", "PostgreSQL"}},
		"Memory":             {env: []string{"DATABASE_URL=sqlite::memory:"}, says: []string{"DATABASE_URL"}},
		"Schedule":           {env: []string{"RETRY_SCHEDULE=5s,never"}, says: []string{"RETRY_SCHEDULE", "5s,never"}},
		"ScheduleOfNothing":  {env: []string{"RETRY_SCHEDULE=0s"}, says: []string{"RETRY_SCHEDULE"}},
		"Timeout":            {args: []string{"--shutdown-timeout=30"}, says: []string{"SHUTDOWN_TIMEOUT", "30"}},
		"PublicURL":          {env: []string{"PUBLIC_URL=example.com"}, says: []string{"PUBLIC_URL"}},
		"ShortKey":           {env: []string{"API_KEY=" + secret}, says: []string{"API_KEY", "16 to 512"}},
		"SecretsKey":         {env: []string{"SECRETS_KEY=" + secret}, says: []string{"SECRETS_KEY", "32 bytes"}},
		"KeyTwice":           {env: []string{"API_KEY=" + secret + secret, "API_KEY_FILE=/dev/null"}, says: []string{"API_KEY_FILE"}},
		"KeyFileNotThere":    {env: []string{"API_KEY_FILE=" + dir + "/none"}, says: []string{"API_KEY_FILE"}},
		"Level":              {env: []string{"LOG_LEVEL=loud"}, says: []string{"LOG_LEVEL", "loud"}},
		"MetricsAddr":        {env: []string{"METRICS_ADDR=9090"}, says: []string{"METRICS_ADDR", "9090"}},
		"UnknownFlag":        {args: []string{"--no-such"}, says: []string{"--no-such"}},
		"FlagWithoutValue":   {args: []string{"--port"}, says: []string{"--port"}},
		"UnexpectedArgument": {args: []string{"now"}, says: []string{"now"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := testenv.Run(t, dir, append([]string{"HOST=127.0.0.1"}, test.env...), append([]string{"serve"}, test.args...)...)
			oneLine(t, got, 2, test.says...)
			if strings.Contains(got.Stderr, secret) {
				t.Errorf("standard error shows a secret: %q", got.Stderr)
			}
			if files, err := os.ReadDir(dir); err != nil || len(files) != 0 {
				t.Errorf("a start that was stopped left %d files (error %v)", len(files), err)
			}
		})
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"UnknownCommand":    {"frobnicate"},
		"AlmostACommand":    {"serv"},
		"UnknownSubcommand": {"migrate", "sideways"},
		"VersionOfWhat":     {"version", "all"},
		"DoctorUnknownFlag": {"doctor", "--cure"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			oneLine(t, testenv.Run(t, t.TempDir(), nil, args...), 2)
		})
	}
	help := testenv.Run(t, t.TempDir(), nil, "--help")
	for _, verb := range []string{"serve", "migrate", "doctor", "smoke", "bench", "version"} {
		if help.Code != 0 || !strings.Contains(help.Stdout, "\n  "+verb+" ") {
			t.Errorf("--help does not list %s:\n%s", verb, help.Stdout)
		}
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	got := testenv.Run(t, t.TempDir(), nil, "version")
	if want := "tallyhook " + testenv.Version + "\n"; got.Code != 0 || got.Stdout != want || got.Stderr != "" {
		t.Errorf("version: code %d, %q, %q; want %q", got.Code, got.Stdout, got.Stderr, want)
	}
}

// TestPrecedence: a flag wins over the environment, which wins over the default.
func TestPrecedence(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		env           []string
		args          []string
		value, origin string
	}{
		"Default":     {value: "2097152", origin: "default"},
		"Environment": {env: []string{"MAX_BODY_BYTES=4096"}, value: "4096", origin: "environment MAX_BODY_BYTES"},
		"Prefixed":    {env: []string{"TALLYHOOK_MAX_BODY_BYTES=4096"}, value: "4096", origin: "environment TALLYHOOK_MAX_BODY_BYTES"},
		"Empty":       {env: []string{"MAX_BODY_BYTES="}, value: "2097152", origin: "default"},
		"Flag": {
			env: []string{"MAX_BODY_BYTES=4096"}, args: []string{"--max-body-bytes=8192"}, value: "8192", origin: "flag --max-body-bytes",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.Start(t, testenv.Options{Env: test.env, Args: test.args})
			var value, origin string
			for line := range strings.Lines(server.Log()) {
				var entry struct{ Msg, Name, Value, Origin string }
				if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "setting" && entry.Name == "MAX_BODY_BYTES" {
					value, origin = entry.Value, entry.Origin
				}
			}
			if value != test.value || origin != test.origin {
				t.Errorf("MAX_BODY_BYTES is %q from %q, want %q from %q", value, origin, test.value, test.origin)
			}
			body := strings.Repeat(" ", 6000)
			want := 400 // not JSON
			if test.value == "4096" {
				want = 413
			}
			server.Client("").Post(want, "/api/events", body)
		})
	}
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // nothing was accepted
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	oneLine(t, testenv.Run(t, t.TempDir(), []string{"PORT=" + port}, "serve"), 1, port, "in use")
	oneLine(t, testenv.Run(t, t.TempDir(), []string{"PORT=0", "METRICS_ADDR=127.0.0.1:" + port}, "serve"), 1, "METRICS_ADDR", port)
}

// TestSecondServer: two servers of one database would not know each other's
// events. The first one goes on; the tools may run beside it.
func TestSecondServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	server := testenv.Start(t, testenv.Options{Dir: dir})
	env := []string{"PORT=0", "DATABASE_URL=sqlite:" + filepath.Join(dir, "tallyhook.db")}
	oneLine(t, testenv.Run(t, dir, env, "serve"), 1, "tallyhook.db")
	event := map[string]any{"event_type": "opened", "channel": "email", "email": "ada@example.com", "provider_event_id": "1"}
	server.Client("").Post(202, "/api/events", event)
	for _, verb := range [][]string{{"doctor"}, {"migrate", "status"}} {
		if got := testenv.Run(t, dir, env, verb...); got.Code != 0 {
			t.Errorf("%v beside a server: code %d\n%s%s", verb, got.Code, got.Stdout, got.Stderr)
		}
	}
	server.Client("").Post(200, "/api/events", event)

	// A crash leaves no lock behind.
	server.Kill()
	testenv.Start(t, testenv.Options{Dir: dir}).Client("").Post(200, "/api/events", event)
}

// TestFirstStart is what a newcomer sees, and does.
func TestFirstStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	server := testenv.Start(t, testenv.Options{Dir: dir, NoKey: true})
	key := adminKey(t, server)
	if !strings.HasPrefix(key, "thk_") {
		t.Fatalf("the first start shows the admin key %q:\n%s", key, server.Log())
	}
	if want := "data in       " + filepath.Join(dir, "tallyhook.db"); !strings.Contains(server.Log(), want) {
		t.Errorf("the first start does not say %q:\n%s", want, server.Log())
	}
	tryAll(t, server, nil)
	info, err := os.Stat(filepath.Join(dir, "tallyhook.db.key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key file: %v, error %v; want mode 0600", info, err)
	}
	server.Client(key).Get("/api/keys")
	if code := server.Stop(2 * time.Minute); code != 0 {
		t.Fatalf("exit code %d, want 0", code)
	}

	again := testenv.Start(t, testenv.Options{Dir: dir, NoKey: true})
	line := adminKey(t, again)
	if strings.Contains(again.Log(), key) || !strings.Contains(line, "shown when it was made") || !strings.Contains(line, "API_KEY") {
		t.Errorf("the second start says about the key: %q", line)
	}
	again.Client(key).Get("/api/keys")
}

// TestStartWithAPIKey: the lines to try work in the shell that has API_KEY.
func TestStartWithAPIKey(t *testing.T) {
	t.Parallel()
	server := testenv.Start(t, testenv.Options{})
	if line := adminKey(t, server); line != "the one in API_KEY" {
		t.Errorf("the start says about the key: %q", line)
	}
	if strings.Contains(server.Log(), testenv.AdminKey) {
		t.Error("the log shows the API key")
	}
	tryAll(t, server, []string{"API_KEY=" + testenv.AdminKey})
}

func adminKey(t *testing.T, server *testenv.Server) string {
	t.Helper()
	_, after, ok := strings.Cut(server.Log(), "admin key     ")
	if !ok {
		t.Fatalf("the start says nothing about the admin key:\n%s", server.Log())
	}
	line, _, _ := strings.Cut(after, "\n")
	line, _, _ = strings.Cut(line, "  (")
	return line
}

// tryAll pastes the curl lines of the welcome into a shell.
func tryAll(t *testing.T, server *testenv.Server, env []string) {
	t.Helper()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Fatalf("%v; install it with: apt-get install -y curl", err)
	}
	lines := 0
	for line := range strings.Lines(server.Log()) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "curl ") {
			continue
		}
		lines++
		cmd := exec.CommandContext(t.Context(), "sh", "-c", line+` --silent --show-error --write-out '\n%{http_code}'`)
		cmd.Env = append(os.Environ(), env...)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.HasSuffix(string(out), "\n200") {
			t.Errorf("%s\n%v\n%s", line, err, out)
		}
	}
	if lines != 3 {
		t.Errorf("the welcome has %d curl lines, want 3", lines)
	}
}

func TestWrongSecretsKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	env := func(key string) []string {
		return []string{"PORT=0", "DATABASE_URL=sqlite:" + dir + "/tallyhook.db", "SECRETS_KEY=" + key}
	}
	server := testenv.Start(t, testenv.Options{Dir: dir, Env: []string{"SECRETS_KEY=" + strings.Repeat("ab", 32)}})
	source := server.Client("").NewSource("generic", "")
	if code := server.Stop(2 * time.Minute); code != 0 {
		t.Fatalf("exit code %d, want 0", code)
	}
	oneLine(t, testenv.Run(t, dir, env(strings.Repeat("cd", 32)), "serve"), 2, "SECRETS_KEY", "former")

	// None at all: a key file that was made now would not be the former key.
	oneLine(t, testenv.Run(t, dir, env(""), "serve"), 1, "SECRETS_KEY", "key file")
	if _, err := os.Stat(filepath.Join(dir, "tallyhook.db.key")); err == nil {
		t.Error("a start without the key has made a key file")
	}

	server = testenv.Start(t, testenv.Options{Dir: dir, Env: []string{"SECRETS_KEY=" + strings.Repeat("ab", 32)}})
	body := []byte(`{"event_type":"opened","channel":"email","email":"ada@example.com"}`)
	headers, err := testenv.Sign(source.Secret, "msg_1", time.Now(), body)
	if err != nil {
		t.Fatal(err)
	}
	server.Client("").Post(200, source.Path, body, headers...)
}

func TestOpenKeyFileIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "tallyhook.db.key")
	if err := os.WriteFile(file, []byte(strings.Repeat("ab", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	got := testenv.Run(t, dir, []string{"PORT=0", "DATABASE_URL=sqlite:" + dir + "/tallyhook.db"}, "serve")
	oneLine(t, got, 1, file, "chmod 600")
}
