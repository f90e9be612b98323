package config_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"tallyhook/internal/config"
	"tallyhook/internal/fault"
)

const goodKey = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

const base64Key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

func TestDefaults(t *testing.T) {
	t.Parallel()
	c := load(t, nil)
	got := fmt.Sprint(c.Addr(), " ", c.AppEnv, " ", c.DatabaseURL.Reveal(), " ", c.SQLitePath(), " ", c.BatchSize, " ", c.RetrySchedule, " ",
		c.TxTimeout, " ", c.ShutdownTimeout, " ", c.MaxBodyBytes, " ", c.PublicURL, " ", c.LogLevel, " ", c.LogFormat, " ",
		len(c.APIKey), len(c.SecretsKey), len(c.MetricsAddr), len(c.Warnings), c.Development())
	want := "127.0.0.1:3000 production sqlite:tallyhook.db tallyhook.db 50 [5s 15s 1m0s 5m0s 15m0s 1h0m0s] " +
		"5s 30s 2097152 http://127.0.0.1:3000 INFO json 0 0 0 0 false"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestGoodValues(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		env  []string
		got  func(config.Config) any
		want any
	}{
		"Port":               {[]string{"PORT=0"}, func(c config.Config) any { return c.Port }, 0},
		"Prefixed":           {[]string{"TALLYHOOK_PORT=8080"}, func(c config.Config) any { return c.Port }, 8080},
		"BothTheSame":        {[]string{"TALLYHOOK_PORT=8080", "PORT=8080"}, func(c config.Config) any { return c.Port }, 8080},
		"EmptyIsUnset":       {[]string{"PORT=", "TALLYHOOK_PORT=81"}, func(c config.Config) any { return c.Port }, 81},
		"EmptyUnknown":       {[]string{"TALLYHOOK_NONSENSE="}, func(c config.Config) any { return c.Port }, 3000},
		"IPv6":               {[]string{"HOST=::1"}, func(c config.Config) any { return c.PublicURL }, "http://[::1]:3000"},
		"IPv6Brackets":       {[]string{"HOST=[::1]"}, func(c config.Config) any { return c.Addr() }, "[::1]:3000"},
		"PublicURL":          {[]string{"PUBLIC_URL=https://e.example.com/in/"}, func(c config.Config) any { return c.PublicURL }, "https://e.example.com/in"},
		"DevelopmentIsText":  {[]string{"APP_ENV=development"}, func(c config.Config) any { return c.LogFormat }, "text"},
		"DevelopmentAndJSON": {[]string{"APP_ENV=development", "LOG_FORMAT=json"}, func(c config.Config) any { return c.LogFormat }, "json"},
		"Level":              {[]string{"LOG_LEVEL=WARN"}, func(c config.Config) any { return c.LogLevel }, slog.LevelWarn},
		"Absolute":           {[]string{"DATABASE_URL=sqlite:/a/b.db"}, func(c config.Config) any { return c.SQLitePath() }, "/a/b.db"},
		"AbsoluteAsURL":      {[]string{"DATABASE_URL=sqlite:///a/b.db"}, func(c config.Config) any { return c.DatabaseURL.Reveal() }, "sqlite:/a/b.db"},
		"Postgres": {
			[]string{"DATABASE_URL=postgres://u:p@h:5432/db?sslmode=require", "SECRETS_KEY=" + goodKey},
			func(c config.Config) any { return fmt.Sprint(c.DatabaseURL.Reveal(), c.SQLitePath(), c.Postgres()) },
			"postgres://u:p@h:5432/db?sslmode=requiretrue",
		},
		"RedisURL":          {[]string{"REDIS_URL=rediss://:p@h:6379/1", "REDIS_HOST=other"}, redisURL, "rediss://:p@h:6379/1"},
		"RedisParts":        {[]string{"REDIS_HOST=h", "REDIS_PORT=6380", "REDIS_PASSWORD=a:b"}, redisURL, "redis://:a%3Ab@h:6380"},
		"RedisHostAlone":    {[]string{"REDIS_HOST=::1"}, redisURL, "redis://[::1]:6379"},
		"RedisOfKubernetes": {[]string{"REDIS_PORT=tcp://10.0.0.1:6379"}, func(c config.Config) any { return fmt.Sprint(c.RedisURL.Reveal(), len(c.Warnings)) }, "1"},
		"Schedule": {
			[]string{"RETRY_SCHEDULE=50ms, 1s"},
			func(c config.Config) any { return c.RetrySchedule },
			[]time.Duration{50 * time.Millisecond, time.Second},
		},
		"MetricsAddr":      {[]string{"METRICS_ADDR=:9090"}, func(c config.Config) any { return c.MetricsAddr }, ":9090"},
		"LeastBody":        {[]string{"MAX_BODY_BYTES=1024"}, func(c config.Config) any { return c.MaxBodyBytes }, int64(1024)},
		"MostBatch":        {[]string{"ORPHANED_QUEUE_BATCH_SIZE=1000"}, func(c config.Config) any { return c.BatchSize }, 1000},
		"APIKey":           {[]string{"TALLYHOOK_API_KEY=" + goodKey}, func(c config.Config) any { return c.APIKey.Reveal() }, goodKey},
		"SecretsKeyHex":    {[]string{"SECRETS_KEY=" + goodKey}, func(c config.Config) any { return c.SecretsKey.Reveal() }, goodKey},
		"SecretsKeyBase64": {[]string{"SECRETS_KEY=" + base64Key}, func(c config.Config) any { return c.SecretsKey.Reveal() }, base64Key},
		"ClientURL":        {[]string{"TALLYHOOK_URL=http://elsewhere"}, func(c config.Config) any { return c.Port }, 3000},
		"ShortKeyWarns":    {[]string{"API_KEY=1234567890123456"}, func(c config.Config) any { return len(c.Warnings) }, 1},
		"OthersNames":      {[]string{"OTEL_SERVICE_NAME=x"}, func(c config.Config) any { return len(c.Warnings) }, 0},
		"Rate":             {[]string{"RATE_LIMIT_API=7/2m"}, func(c config.Config) any { return c.RateAPI }, config.Rate{Count: 7, Period: 2 * time.Minute}},
		"NoRate":           {[]string{"RATE_LIMIT_WEBHOOK=0"}, func(c config.Config) any { return c.RateWebhook }, config.Rate{}},
		"Origins": {
			[]string{"ALLOWED_ORIGINS= https://a.example , http://b.example:8080,,http://[::1]:9"},
			func(c config.Config) any { return c.AllowedOrigins },
			[]string{"https://a.example", "http://b.example:8080", "http://[::1]:9"},
		},
		"Proxies": {
			[]string{"TRUSTED_PROXIES=10.1.2.3/8, ::1,192.0.2.1"},
			func(c config.Config) any { return fmt.Sprint(c.TrustedProxies) },
			"[10.0.0.0/8 ::1/128 192.0.2.1/32]",
		},
		"TLS":           {[]string{"TLS_CERT=/c", "TLS_KEY=/k"}, func(c config.Config) any { return c.PublicURL }, "https://127.0.0.1:3000"},
		"TLSBehindName": {[]string{"TLS_CERT=/c", "TLS_KEY=/k", "PUBLIC_URL=http://a.example"}, func(c config.Config) any { return c.PublicURL }, "http://a.example"},
		"KubernetesService": {
			[]string{
				"TALLYHOOK_PORT=tcp://10.0.0.7:3000", "TALLYHOOK_SERVICE_HOST=10.0.0.7", "TALLYHOOK_SERVICE_PORT=3000",
				"TALLYHOOK_SERVICE_PORT_HTTP=3000", "TALLYHOOK_PORT_3000_TCP=tcp://10.0.0.7:3000", "TALLYHOOK_PORT_3000_TCP_ADDR=10.0.0.7",
				"TALLYHOOK_WEB_SERVICE_HOST=10.0.0.8", "PORT=3100",
			},
			func(c config.Config) any { return c.Port },
			3100,
		},
		"TestsOwn": {[]string{"TALLYHOOK_CHAOS_ROUNDS=20"}, func(c config.Config) any { return c.Port }, 3000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := tc.got(load(t, nil, tc.env...)); !cmp.Equal(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestBadValues(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		flags map[string]string
		env   []string
		want  []string // parts of the error
	}{
		"PortWord":         {env: []string{"PORT=abc"}, want: []string{"PORT (environment PORT)", `"abc"`, "0 to 65535"}},
		"PortBig":          {env: []string{"TALLYHOOK_PORT=65536"}, want: []string{"environment TALLYHOOK_PORT", "65536"}},
		"PortFlag":         {flags: map[string]string{"PORT": "-1"}, want: []string{"PORT (flag --port)", `"-1"`}},
		"FlagEmpty":        {flags: map[string]string{"PORT": ""}, want: []string{"flag --port", `""`}},
		"HostWithPort":     {env: []string{"HOST=localhost:80"}, want: []string{"HOST", "without a port"}},
		"TwoLines":         {env: []string{"HOST=a\nb"}, want: []string{"HOST", `a\nb`}},
		"LongValue":        {env: []string{"HOST=" + strings.Repeat("é", 5000)}, want: []string{"HOST", `..."`}},
		"AppEnv":           {env: []string{"APP_ENV=staging"}, want: []string{"APP_ENV", "production or development"}},
		"Batch0":           {env: []string{"ORPHANED_QUEUE_BATCH_SIZE=0"}, want: []string{"ORPHANED_QUEUE_BATCH_SIZE", "1 to 1000"}},
		"Batch1001":        {env: []string{"ORPHANED_QUEUE_BATCH_SIZE=1001"}, want: []string{"ORPHANED_QUEUE_BATCH_SIZE"}},
		"BodySmall":        {env: []string{"MAX_BODY_BYTES=1023"}, want: []string{"MAX_BODY_BYTES", "1 KiB"}},
		"BodyLarge":        {env: []string{"MAX_BODY_BYTES=67108865"}, want: []string{"MAX_BODY_BYTES", "64 MiB"}},
		"ScheduleEmptyOne": {env: []string{"RETRY_SCHEDULE=5s,,1m"}, want: []string{"RETRY_SCHEDULE", "commas"}},
		"ScheduleNoUnit":   {env: []string{"RETRY_SCHEDULE=5"}, want: []string{"RETRY_SCHEDULE"}},
		"ScheduleNegative": {env: []string{"RETRY_SCHEDULE=-5s"}, want: []string{"RETRY_SCHEDULE"}},
		"ScheduleLong":     {env: []string{"RETRY_SCHEDULE=1s" + strings.Repeat(",1s", 50)}, want: []string{"RETRY_SCHEDULE", "50"}},
		"TxTimeout":        {env: []string{"TX_TIMEOUT=0s"}, want: []string{"TX_TIMEOUT", "10ms to 5m"}},
		"ShutdownTimeout":  {env: []string{"SHUTDOWN_TIMEOUT=1h"}, want: []string{"SHUTDOWN_TIMEOUT", "10m"}},
		"LogLevel":         {env: []string{"LOG_LEVEL=INFO+1"}, want: []string{"LOG_LEVEL", "debug, info, warn or error"}},
		"LogFormat":        {env: []string{"LOG_FORMAT=xml"}, want: []string{"LOG_FORMAT", "json or text"}},
		"MetricsAddr":      {env: []string{"METRICS_ADDR=9090"}, want: []string{"METRICS_ADDR", "HOST:PORT"}},
		"PublicURLScheme":  {env: []string{"PUBLIC_URL=ftp://a.example"}, want: []string{"PUBLIC_URL", "http or https"}},
		"PublicURLQuery":   {env: []string{"PUBLIC_URL=https://a.example/?x=1"}, want: []string{"PUBLIC_URL"}},
		"PublicURLNoHost":  {env: []string{"PUBLIC_URL=events.example.com"}, want: []string{"PUBLIC_URL"}},
		"PostgresNoKey":    {env: []string{"DATABASE_URL=postgres://u:hunter2@h/db"}, want: []string{"SECRETS_KEY", "openssl"}},
		"PostgresNoName":   {env: []string{"DATABASE_URL=postgres://u:hunter2@h"}, want: []string{"DATABASE_URL", "postgres://USER"}},
		"Memory":           {env: []string{"DATABASE_URL=sqlite::memory:"}, want: []string{"DATABASE_URL", "not durable"}},
		"NoPath":           {env: []string{"DATABASE_URL=sqlite:"}, want: []string{"DATABASE_URL"}},
		"TwoSlashes":       {env: []string{"DATABASE_URL=sqlite://tallyhook.db"}, want: []string{"DATABASE_URL", "sqlite:PATH"}},
		"DatabaseOptions":  {env: []string{"DATABASE_URL=sqlite:a.db?mode=ro"}, want: []string{"DATABASE_URL"}},
		"ShortAPIKey":      {env: []string{"API_KEY=hunter2"}, want: []string{"API_KEY", "16 to 512"}},
		"SpacedAPIKey":     {env: []string{"API_KEY=hunter2 hunter2"}, want: []string{"API_KEY", "without spaces"}},
		"ShortSecretsKey":  {env: []string{"SECRETS_KEY=hunter2"}, want: []string{"SECRETS_KEY", "32 bytes in base64 or hex"}},
		"Contradiction":    {env: []string{"PORT=1", "TALLYHOOK_PORT=2"}, want: []string{"TALLYHOOK_PORT and PORT"}},
		"UnknownPrefixed":  {env: []string{"TALLYHOOK_PROT=1"}, want: []string{"TALLYHOOK_PROT", "no such setting"}},
		"FileOfNoSecret":   {env: []string{"TALLYHOOK_PORT_FILE=/x"}, want: []string{"TALLYHOOK_PORT_FILE"}},
		"Redis":            {env: []string{"REDIS_URL=http://:hunter2@h"}, want: []string{"REDIS_URL", "redis-cluster://"}},
		"RedisPort":        {env: []string{"REDIS_PORT=0"}, want: []string{"REDIS_PORT"}},
		"TLSCertAlone":     {env: []string{"TLS_CERT=/x"}, want: []string{"TLS_CERT and TLS_KEY"}},
		"TLSKeyAlone":      {env: []string{"TLS_KEY=/x"}, want: []string{"TLS_CERT and TLS_KEY"}},
		"RateNoPeriod":     {env: []string{"RATE_LIMIT_API=100"}, want: []string{"RATE_LIMIT_API", "100/15m"}},
		"RateZeroCount":    {env: []string{"RATE_LIMIT_API=0/1s"}, want: []string{"RATE_LIMIT_API"}},
		"RateNegative":     {env: []string{"RATE_LIMIT_ANONYMOUS=-1/1s"}, want: []string{"RATE_LIMIT_ANONYMOUS"}},
		"RateHuge":         {env: []string{"RATE_LIMIT_WEBHOOK=9999999999/1s"}, want: []string{"RATE_LIMIT_WEBHOOK"}},
		"RateLong":         {env: []string{"RATE_LIMIT_WEBHOOK=1/25h"}, want: []string{"RATE_LIMIT_WEBHOOK", "24h"}},
		"OriginStar":       {env: []string{"ALLOWED_ORIGINS=*"}, want: []string{"ALLOWED_ORIGINS"}},
		"OriginNull":       {env: []string{"ALLOWED_ORIGINS=null"}, want: []string{"ALLOWED_ORIGINS"}},
		"OriginPath":       {env: []string{"ALLOWED_ORIGINS=https://a.example/"}, want: []string{"ALLOWED_ORIGINS", "without a path"}},
		"OriginUpper":      {env: []string{"ALLOWED_ORIGINS=https://A.example"}, want: []string{"ALLOWED_ORIGINS", "lower case"}},
		"OriginPort":       {env: []string{"ALLOWED_ORIGINS=https://a.example:443"}, want: []string{"ALLOWED_ORIGINS"}},
		"OriginUser":       {env: []string{"ALLOWED_ORIGINS=https://u@a.example"}, want: []string{"ALLOWED_ORIGINS"}},
		"OriginWildcard":   {env: []string{"ALLOWED_ORIGINS=https://*.example"}, want: []string{"ALLOWED_ORIGINS"}},
		"ProxyName":        {env: []string{"TRUSTED_PROXIES=proxy.internal"}, want: []string{"TRUSTED_PROXIES", "10.0.0.0/8"}},
		"ProxyBits":        {env: []string{"TRUSTED_PROXIES=10.0.0.0/33"}, want: []string{"TRUSTED_PROXIES"}},
		"NoSuchFile":       {env: []string{"API_KEY_FILE=/no/such/file"}, want: []string{"API_KEY_FILE", "cannot be read"}},
		"KeyAndFile":       {env: []string{"API_KEY=" + goodKey, "API_KEY_FILE=/x"}, want: []string{"API_KEY and API_KEY_FILE"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := config.Load(tc.flags, tc.env)
			if err == nil {
				t.Fatal("got no error")
			}
			if got, want := fault.KindOf(err), fault.Invalid; got != want {
				t.Errorf("kind: got %v, want %v", got, want)
			}
			for _, part := range tc.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("got %q, want it to contain %q", err, part)
				}
			}
			if strings.ContainsAny(err.Error(), "\n") || len(err.Error()) > 400 {
				t.Errorf("got %q, want one short line", err)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("got %q, want no secret in it", err)
			}
		})
	}
}

func TestPrecedence(t *testing.T) {
	t.Parallel()
	file := write(t, goodKey+"\n")
	env := []string{"PORT=4000", "HOST=0.0.0.0", "API_KEY_FILE=" + file, "TALLYHOOK_SECRETS_KEY_FILE=" + file}
	fs := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	config.RegisterFlags(fs)
	if err := fs.Parse([]string{"--port=5000"}); err != nil {
		t.Fatal(err)
	}
	flags := config.FromFlags(fs)
	if diff := cmp.Diff(map[string]string{"PORT": "5000"}, flags); diff != "" {
		t.Fatalf("FromFlags (-want +got):\n%s", diff)
	}
	c := load(t, flags, env...)
	if got, want := c.APIKey.Reveal(), goodKey; got != want {
		t.Errorf("API key: got %q, want %q", got, want)
	}
	got := map[string]config.Line{}
	for _, l := range c.Describe() {
		got[l.Name] = l
	}
	for _, want := range []config.Line{
		{Name: "PORT", Value: "5000", Origin: "flag --port"},
		{Name: "HOST", Value: "0.0.0.0", Origin: "environment HOST"},
		{Name: "API_KEY", Value: "(secret)", Origin: "file API_KEY_FILE"},
		{Name: "SECRETS_KEY", Value: "(secret)", Origin: "file TALLYHOOK_SECRETS_KEY_FILE"},
		{Name: "TX_TIMEOUT", Value: "5s", Origin: "default"},
		{Name: "PUBLIC_URL", Value: "http://0.0.0.0:5000", Origin: "default"},
		{Name: "LOG_FORMAT", Value: "json", Origin: "default"},
	} {
		if diff := cmp.Diff(want, got[want.Name]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", want.Name, diff)
		}
	}
	if !c.Given("HOST") || c.Given("PUBLIC_URL") {
		t.Errorf("Given: got %v and %v, want true and false", c.Given("HOST"), c.Given("PUBLIC_URL"))
	}
}

func TestSecretFiles(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ content, want string }{
		"Empty":   {" \n", "empty"},
		"Large":   {strings.Repeat("x", 100_000), "no secret"},
		"BadText": {"hunter2", "API_KEY (file API_KEY_FILE)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := config.Load(nil, []string{"API_KEY_FILE=" + write(t, tc.content)})
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("got %v, want it to contain %q and no secret", err, tc.want)
			}
		})
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	t.Parallel()
	c := load(t, nil, "API_KEY="+goodKey, "SECRETS_KEY="+goodKey)
	asJSON, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var logged strings.Builder
	slog.New(slog.NewTextHandler(&logged, nil)).Info("start", slog.Any("config", c), slog.Any("key", c.APIKey))
	all := fmt.Sprintf("%v %+v %#v %q %x %s %s", c, c, c, c.APIKey, c.APIKey, asJSON, logged.String())
	if strings.Contains(all, goodKey) || strings.Contains(all, fmt.Sprintf("%x", goodKey)) {
		t.Errorf("a secret is printed: %s", all)
	}
}

// TestTableIsComplete keeps every row fit for what is made from it.
func TestTableIsComplete(t *testing.T) {
	t.Parallel()
	for _, s := range config.Settings() {
		wantFlag := strings.ToLower(strings.ReplaceAll(s.Name, "_", "-"))
		if s.Audience == "test" {
			wantFlag = ""
		}
		if s.Flag != wantFlag {
			t.Errorf("%s: got the flag %q, want %q", s.Name, s.Flag, wantFlag)
		}
		if s.Help == "" || s.Allowed == "" || strings.Contains(s.Help+s.Allowed, "\n") || !strings.HasSuffix(s.Help, ".") {
			t.Errorf("%s: Help and Allowed must be there, in one line, Help with a full stop", s.Name)
		}
		if s.Secret {
			continue // an example of a secret would be used as one
		}
		if s.Example == "" {
			t.Errorf("%s has no example", s.Name)
		}
		env := []string{config.Prefix + s.Name + "=" + s.Example}
		if other, ok := map[string]string{"TLS_CERT": "TLS_KEY", "TLS_KEY": "TLS_CERT"}[s.Name]; ok { // they go together
			env = append(env, other+"=/x")
		}
		load(t, nil, env...)
	}
}

func redisURL(c config.Config) any { return c.RedisURL.Reveal() }

// TestURLsAreShownWithoutPasswords: an operator must see which database it is.
func TestURLsAreShownWithoutPasswords(t *testing.T) {
	t.Parallel()
	c := load(t, nil, "DATABASE_URL=postgres://u:hunter2@h/db", "REDIS_HOST=r", "REDIS_PASSWORD=hunter3", "SECRETS_KEY="+goodKey)
	got := map[string]string{}
	for _, l := range c.Describe() {
		got[l.Name] = l.Value
	}
	if got["DATABASE_URL"] != "postgres://u:xxxxx@h/db" || got["REDIS_URL"] != "redis://:xxxxx@r:6379" || got["REDIS_PASSWORD"] != "(secret)" {
		t.Errorf("got %v", got)
	}
	if all := fmt.Sprintf("%v %+v", c, c); strings.Contains(all, "hunter") {
		t.Errorf("a password is shown: %s", all)
	}
}

func load(tb testing.TB, flags map[string]string, environ ...string) config.Config {
	tb.Helper()
	c, err := config.Load(flags, environ)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func write(tb testing.TB, content string) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}
