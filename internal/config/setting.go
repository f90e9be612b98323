package config

import (
	"encoding/base64"
	"encoding/hex"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Who a setting is for.
const (
	forProduction  = "production"
	forDevelopment = "development"
	forTest        = "test"
)

const (
	production   = "production"
	development  = "development"
	sqliteScheme = "sqlite:"
)

// Setting is one thing an operator can choose.
type Setting struct {
	Name     string // in the environment, with or without Prefix
	Flag     string // without the dashes; empty: the environment only
	Default  string // empty: none, or as Help says
	Secret   bool   // NAME_FILE works too, and the value is never shown
	Help     string // one sentence or two
	Allowed  string // completes "it must be ..."
	Example  string // for .env.example
	Audience string // "production", "development" or "test"

	// shown is what may be shown of a secret. nil: a mask.
	shown func(string) string

	// set takes the text into a Config; false: not allowed. It sees what the
	// rows above it have set. nil: the server does not read this one.
	set func(*Config, string) bool
}

// Settings is the table of every setting of this release, in reading order.
func Settings() []Setting {
	return []Setting{
		{
			Name: "HOST", Flag: "host", Default: "127.0.0.1", Audience: forProduction, Example: "0.0.0.0",
			Help:    "Address or host name to listen on; 0.0.0.0 or :: for every interface.",
			Allowed: "an IP address or a host name, without a port",
			set:     func(c *Config, v string) bool { c.Host = unbracket(v); return validHost(c.Host) },
		},
		{
			Name: "PORT", Flag: "port", Default: "3000", Audience: forProduction, Example: "8080",
			Help:    "TCP port to listen on; 0 takes any free one.",
			Allowed: "a whole number from 0 to 65535",
			set:     whole(func(c *Config, n int64) { c.Port = int(n) }, 0, 65535),
		},
		{
			Name: "PUBLIC_URL", Flag: "public-url", Audience: forProduction, Example: "https://events.example.com",
			Help: "What vendors call us by; the URLs of sources are built from it. " +
				"Default: http://HOST:PORT, which vendors cannot reach.",
			Allowed: "an http or https URL such as https://events.example.com, without user, query or fragment",
			set:     setPublicURL,
		},
		{
			Name: "DATABASE_URL", Flag: "database-url", Default: "sqlite:tallyhook.db", Secret: true, Audience: forProduction,
			Help: "Where events are kept: sqlite: and the path of a file, which is made when missing, or the postgres:// URL of a " +
				"PostgreSQL database (14 or later), which several replicas may share.",
			Allowed: "sqlite:PATH with the path of a file (memory is not durable), or postgres://USER:PASSWORD@HOST:PORT/NAME",
			set:     setDatabase, shown: withoutPassword,
		},
		{
			Name: "REDIS_HOST", Flag: "redis-host", Audience: forProduction, Example: "redis.internal",
			Help:    "Host of Redis, where no REDIS_URL is set.",
			Allowed: "an IP address or a host name, without a port",
			set:     func(c *Config, v string) bool { c.redis.host = unbracket(v); return v == "" || validHost(c.redis.host) },
		},
		{
			Name: "REDIS_PORT", Flag: "redis-port", Default: "6379", Audience: forProduction, Example: "6380",
			Help:    "Port of REDIS_HOST. An address such as tcp://10.0.0.1:6379, which Kubernetes injects, is ignored.",
			Allowed: "a whole number from 1 to 65535",
			set:     whole(func(c *Config, n int64) { c.redis.port = int(n) }, 1, 65535),
		},
		{
			Name: "REDIS_PASSWORD", Flag: "redis-password", Secret: true, Audience: forProduction,
			Help:    "Password of REDIS_HOST. Prefer REDIS_PASSWORD_FILE: a flag shows in the process list.",
			Allowed: "any text",
			set:     func(c *Config, v string) bool { c.redis.password = v; return true },
		},
		{
			Name: "REDIS_URL", Flag: "redis-url", Secret: true, Audience: forProduction,
			Help: "Redis 7 or Valkey, for the retry schedule of several replicas; none: the schedule is in the database alone. " +
				"Nothing is lost with it: the database stays the truth.",
			Allowed: "redis://[USER:PASSWORD@]HOST:PORT[/DB], redis-sentinel://HOST:PORT,.../NAME or redis-cluster://HOST:PORT,...; rediss for TLS",
			set:     setRedis,
		},
		{
			Name: "SPOOL_DIR", Flag: "spool-dir", Audience: forProduction, Example: "/var/lib/tallyhook/spool",
			Help: "Folder where accepted events wait while the database is away; it must be durable, and of this replica alone. " +
				"None: such events are refused with 503 then.",
			Allowed: "the path of a folder, which is made when missing",
			set:     func(c *Config, v string) bool { c.SpoolDir = v; return !strings.Contains(v, "\x00") },
		},
		{
			Name: "SPOOL_MAX_BYTES", Flag: "spool-max-bytes", Default: "1073741824", Audience: forProduction, Example: "4294967296",
			Help:    "Bound of the spool, in bytes; when it is reached, events are refused with 503.",
			Allowed: "a whole number of bytes from 1048576 (1 MiB)",
			set:     whole(func(c *Config, n int64) { c.SpoolMaxBytes = n }, 1<<20, 1<<62),
		},
		{
			Name: "API_KEY", Flag: "api-key", Secret: true, Audience: forProduction,
			Help: "The first admin key. None given and none stored: one is made and shown once on standard error. " +
				"Prefer API_KEY_FILE: a flag shows in the process list.",
			Allowed: "16 to 512 visible ASCII characters without spaces; openssl rand -hex 32 makes a good one",
			set: func(c *Config, v string) bool {
				c.APIKey = Secret(v)
				// Keys are stored as plain SHA-256, which only protects a random one.
				if v != "" && len(v) < 32 {
					c.Warnings = append(c.Warnings, "API_KEY is shorter than 32 characters; make one with: openssl rand -hex 32")
				}
				return v == "" || len(v) >= 16 && len(v) <= 512 && visible(v)
			},
		},
		{
			Name: "SECRETS_KEY", Flag: "secrets-key", Secret: true, Audience: forProduction,
			Help: "Encrypts the secrets of sources at rest; required with PostgreSQL. None given: a key file of mode 0600 is made beside the " +
				"SQLite database; keep a copy of it. Prefer SECRETS_KEY_FILE: a flag shows in the process list.",
			Allowed: "32 bytes in base64 or hex; openssl rand -base64 32 makes one",
			set: func(c *Config, v string) bool {
				c.SecretsKey = Secret(v)
				return v == "" || thirtyTwoBytes(v)
			},
		},
		{
			Name: "TLS_CERT", Flag: "tls-cert", Audience: forProduction, Example: "/etc/tallyhook/tls.crt",
			Help: "File with the certificate chain in PEM; with TLS_KEY the server speaks TLS and HTTP/2. A changed file is taken up " +
				"within seconds, and no connection is dropped for it.",
			Allowed: "the path of a file, together with TLS_KEY",
			set:     func(c *Config, v string) bool { c.TLSCert = v; return !strings.Contains(v, "\x00") },
		},
		{
			Name: "TLS_KEY", Flag: "tls-key", Audience: forProduction, Example: "/etc/tallyhook/tls.key",
			Help:    "File with the private key of TLS_CERT in PEM.",
			Allowed: "the path of a file, together with TLS_CERT",
			set:     func(c *Config, v string) bool { c.TLSKey = v; return !strings.Contains(v, "\x00") },
		},
		{
			Name: "TRUSTED_PROXIES", Flag: "trusted-proxies", Audience: forProduction, Example: "10.0.0.0/8,fd00::/8",
			Help: "Addresses of the proxies in front. From these alone X-Forwarded-For and X-Forwarded-Proto are believed; " +
				"none: the client is whoever connects.",
			Allowed: "addresses or ranges such as 10.0.0.0/8, separated by commas",
			set:     setProxies,
		},
		{
			Name: "ALLOWED_ORIGINS", Flag: "allowed-origins", Audience: forProduction, Example: "https://app.example.com,https://crm.example.com",
			Help: "Origins whose pages may call the API from a browser, beside that of PUBLIC_URL; every other one is refused with 403. " +
				"Webhooks have no CORS.",
			Allowed: "origins such as https://app.example.com in lower case, without a path, separated by commas",
			set:     setOrigins,
		},
		{
			Name: "RATE_LIMIT_ANONYMOUS", Flag: "rate-limit-anonymous", Default: "100/15m", Audience: forProduction, Example: "300/15m",
			Help: "Requests of one address (of one /64 with IPv6) without a key, or with a wrong one, and bad signatures of one address for one source; " +
				"more are answered 429. Replicas with the same Redis share it. A valid key or signature is never refused for its address.",
			Allowed: rateAllowed,
			set:     rate(func(c *Config, r Rate) { c.RateAnonymous = r }),
		},
		{
			Name: "RATE_LIMIT_API", Flag: "rate-limit-api", Default: "100/1s", Audience: forProduction, Example: "500/1s",
			Help:    "Requests of one API key; more are answered 429. Raise it for a load test.",
			Allowed: rateAllowed,
			set:     rate(func(c *Config, r Rate) { c.RateAPI = r }),
		},
		{
			Name: "RATE_LIMIT_WEBHOOK", Flag: "rate-limit-webhook", Default: "2000/1s", Audience: forProduction, Example: "5000/1s",
			Help:    "Verified requests of one source; more are answered 429, which every vendor takes for a delay.",
			Allowed: rateAllowed,
			set:     rate(func(c *Config, r Rate) { c.RateWebhook = r }),
		},
		{
			Name: "MAX_BODY_BYTES", Flag: "max-body-bytes", Default: "2097152", Audience: forProduction, Example: "4194304",
			Help:    "Largest body of a request, in bytes; a larger one is answered 413.",
			Allowed: "a whole number of bytes from 1024 (1 KiB) to 67108864 (64 MiB)",
			set:     whole(func(c *Config, n int64) { c.MaxBodyBytes = n }, 1<<10, 64<<20),
		},
		{
			Name: "ORPHANED_QUEUE_BATCH_SIZE", Flag: "orphaned-queue-batch-size", Default: "50", Audience: forProduction,
			Example: "200",
			Help:    "How many due orphans are taken at a time and resolved in one transaction.",
			Allowed: "a whole number from 1 to 1000",
			set:     whole(func(c *Config, n int64) { c.BatchSize = int(n) }, 1, 1000),
		},
		{
			Name: "RETRY_SCHEDULE", Flag: "retry-schedule", Default: "5s,15s,1m,5m,15m,1h", Audience: forProduction,
			Example: "5s,1m,10m,1h,12h",
			Help: "How long an orphan waits before each attempt to find its enrollment. " +
				"The last attempt spent, it becomes a dead letter.",
			Allowed: "1 to 50 durations from 1ms to 720h, separated by commas, such as 5s,1m,1h",
			set:     setSchedule,
		},
		{
			Name: "TX_TIMEOUT", Flag: "tx-timeout", Default: "5s", Audience: forProduction, Example: "10s",
			Help:    "Longest a database transaction may take; then it is rolled back and tried again, at no attempt's cost.",
			Allowed: "a duration from 10ms to 5m, such as 5s",
			set:     duration(func(c *Config, d time.Duration) { c.TxTimeout = d }, 10*time.Millisecond, 5*time.Minute),
		},
		{
			Name: "RETENTION_EVENTS", Flag: "retention-events", Default: "0", Audience: forProduction, Example: "400d",
			Help: "How long events are kept after their receipt; then those that wait for nothing are removed, and their numbers stay. " +
				"Duplicates are told for as long, for 35 days at least: a new event that happened before that is a dead letter, too_old. 0 keeps everything.",
			Allowed: "a number of days from 1d to 3650d, such as 400d, or 0",
			set:     setRetention,
		},
		{
			Name: "SHUTDOWN_TIMEOUT", Flag: "shutdown-timeout", Default: "30s", Audience: forProduction, Example: "20s",
			Help: "Longest an orderly shutdown may take after SIGTERM or SIGINT. " +
				"Keep it below what the service manager waits before it kills.",
			Allowed: "a duration from 10ms to 10m, such as 30s",
			set:     duration(func(c *Config, d time.Duration) { c.ShutdownTimeout = d }, 10*time.Millisecond, 10*time.Minute),
		},
		{
			Name: "METRICS_ADDR", Flag: "metrics-addr", Audience: forProduction, Example: "127.0.0.1:9090",
			Help:    "Moves /metrics to a listener of its own. Default: it is served with everything else, without a key.",
			Allowed: "HOST:PORT or :PORT, such as 127.0.0.1:9090",
			set:     func(c *Config, v string) bool { c.MetricsAddr = v; return v == "" || validAddr(v) },
		},
		{
			Name: "APP_ENV", Flag: "app-env", Default: production, Audience: forDevelopment, Example: development,
			Help:    "development logs readably (LOG_FORMAT text) and lets pages of any localhost port call the API (CORS); nothing else differs.",
			Allowed: "production or development",
			set: func(c *Config, v string) bool {
				c.AppEnv = strings.ToLower(v)
				return c.AppEnv == production || c.AppEnv == development
			},
		},
		{
			Name: "LOG_LEVEL", Flag: "log-level", Default: "info", Audience: forProduction, Example: "warn",
			Help:    "The least level that is logged.",
			Allowed: "debug, info, warn or error",
			set: func(c *Config, v string) bool {
				// slog itself also takes forms such as INFO+3.
				return c.LogLevel.UnmarshalText([]byte(v)) == nil && !strings.ContainsAny(v, "+-")
			},
		},
		{
			Name: "LOG_FORMAT", Flag: "log-format", Audience: forProduction, Example: "json",
			Help:    "How log lines look. Default: json, or text when APP_ENV is development.",
			Allowed: "json or text",
			set: func(c *Config, v string) bool {
				if c.LogFormat = strings.ToLower(v); v == "" {
					c.LogFormat = "json"
					if c.Development() {
						c.LogFormat = "text"
					}
				}
				return c.LogFormat == "json" || c.LogFormat == "text"
			},
		},
		{
			Name: "CHAOS_ROUNDS", Default: "4", Audience: forTest, Example: "20",
			Help: "How often the crash test kills and restarts the server. The test reads it, under the name " +
				"TALLYHOOK_CHAOS_ROUNDS alone (make chaos ROUNDS=20 sets it); the server does not.",
			Allowed: "a whole number from 1",
		},
		{
			Name: "CHAOS_MINUTES", Default: "0.4", Audience: forTest, Example: "5",
			Help: "How long the storm of faults goes on, in minutes. The test reads it, under the name " +
				"TALLYHOOK_CHAOS_MINUTES alone (make chaos MINUTES=5 sets it); the server does not.",
			Allowed: "a number above 0",
		},
	}
}

func whole(put func(*Config, int64), least, most int64) func(*Config, string) bool {
	return func(c *Config, v string) bool {
		n, err := strconv.ParseInt(v, 10, 64)
		put(c, n)
		return err == nil && n >= least && n <= most
	}
}

func duration(put func(*Config, time.Duration), least, most time.Duration) func(*Config, string) bool {
	return func(c *Config, v string) bool {
		d, err := time.ParseDuration(v)
		put(c, d)
		return err == nil && d >= least && d <= most
	}
}

// setRetention reads a number of days, which is what people count retention in.
func setRetention(c *Config, v string) bool {
	if v == "0" {
		c.RetentionEvents = 0
		return true
	}
	text, ok := strings.CutSuffix(v, "d")
	n, err := strconv.ParseUint(text, 10, 16)
	c.RetentionEvents = time.Duration(n) * 24 * time.Hour
	return ok && err == nil && n >= 1 && n <= 3650
}

const rateAllowed = "a number of requests and a period of 1ms to 24h, such as 100/15m, or 0 for no limit"

// rate reads COUNT/PERIOD. The bounds keep what is counted within an int32.
func rate(put func(*Config, Rate)) func(*Config, string) bool {
	return func(c *Config, v string) bool {
		if v == "0" {
			put(c, Rate{})
			return true
		}
		count, period, _ := strings.Cut(v, "/")
		n, err := strconv.ParseUint(strings.TrimSpace(count), 10, 30)
		d, derr := time.ParseDuration(strings.TrimSpace(period))
		put(c, Rate{int(n), d})
		return err == nil && derr == nil && n > 0 && d >= time.Millisecond && d <= 24*time.Hour
	}
}

func setProxies(c *Config, v string) bool {
	c.TrustedProxies = nil
	for text := range strings.SplitSeq(v, ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		p, err := netip.ParsePrefix(text)
		if a, aerr := netip.ParseAddr(text); aerr == nil && a.Zone() == "" {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			return false
		}
		c.TrustedProxies = append(c.TrustedProxies, p.Masked())
	}
	return true
}

// setOrigins takes origins as browsers write them, since they are compared
// byte by byte: what a browser never sends would be dead weight.
func setOrigins(c *Config, v string) bool {
	c.AllowedOrigins = nil
	for text := range strings.SplitSeq(v, ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || !validHost(u.Hostname()) || u.Scheme+"://"+u.Host != text || text != strings.ToLower(text) {
			return false
		}
		if port := u.Port(); strings.HasSuffix(text, ":") || u.Scheme == "http" && port == "80" || u.Scheme == "https" && port == "443" {
			return false // browsers leave it out
		}
		c.AllowedOrigins = append(c.AllowedOrigins, text)
	}
	return true
}

func setSchedule(c *Config, v string) bool {
	parts := strings.Split(v, ",")
	c.RetrySchedule = make([]time.Duration, 0, len(parts))
	for _, p := range parts {
		d, err := time.ParseDuration(strings.TrimSpace(p))
		if err != nil || d < time.Millisecond || d > 720*time.Hour {
			return false
		}
		c.RetrySchedule = append(c.RetrySchedule, d)
	}
	return len(parts) <= 50
}

// setDatabase takes postgres:// URLs, sqlite:PATH, and sqlite:///PATH as other
// tools write an absolute one. sqlite://NAME would mean /NAME by the letter and
// NAME by intent, so it is refused.
func setDatabase(c *Config, v string) bool {
	if strings.HasPrefix(v, "postgres://") || strings.HasPrefix(v, "postgresql://") {
		c.DatabaseURL = Secret(v)
		u, err := url.Parse(v)
		return err == nil && u.Fragment == "" && len(u.Path) > 1 && (u.Host != "" || u.Query().Get("host") != "")
	}
	path, ok := strings.CutPrefix(v, sqliteScheme)
	if !ok {
		return false
	}
	if strings.HasPrefix(path, "//") {
		if path = path[2:]; !strings.HasPrefix(path, "/") {
			return false
		}
	}
	if path == "" || strings.HasSuffix(path, "/") || strings.ContainsAny(path, "?#\x00") || strings.HasPrefix(path, ":memory:") {
		return false
	}
	c.DatabaseURL = Secret(sqliteScheme + filepath.Clean(path))
	return true
}

// redisParts are the settings of Redis where no URL is given.
type redisParts struct {
	host     string
	port     int
	password string
}

func setRedis(c *Config, v string) bool {
	if v == "" && c.redis.host != "" {
		u := url.URL{Scheme: "redis", Host: net.JoinHostPort(c.redis.host, strconv.Itoa(c.redis.port))}
		if c.redis.password != "" {
			u.User = url.UserPassword("", c.redis.password)
		}
		v = u.String()
	}
	c.RedisURL = Secret(v)
	if v == "" {
		return true
	}
	scheme, rest, _ := strings.Cut(v, "://")
	return rest != "" && slices.Contains([]string{
		"redis", "rediss", "redis-sentinel", "rediss-sentinel", "redis-cluster", "rediss-cluster",
	}, scheme)
}

// withoutPassword shows a URL with its password masked.
func withoutPassword(v string) string {
	u, err := url.Parse(v)
	if err != nil || u.Query().Has("password") {
		return Secret(v).mask()
	}
	return u.Redacted()
}

func setPublicURL(c *Config, v string) bool {
	if v == "" {
		c.PublicURL = "http://" + c.Addr()
		return true
	}
	u, err := url.Parse(v)
	if err != nil || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || !validHost(u.Hostname()) {
		return false
	}
	c.PublicURL = strings.TrimRight(u.String(), "/")
	return u.Scheme == "http" || u.Scheme == "https"
}

func unbracket(host string) string {
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		return host[1 : len(host)-1]
	}
	return host
}

func validHost(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return host != "" && len(host) <= 253 && !strings.ContainsFunc(host, func(r rune) bool {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		return !letter && r != '-' && r != '.' && r != '_'
	})
}

func validAddr(addr string) bool {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host != "" && !validHost(host) {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n <= 65535
}

// thirtyTwoBytes accepts what access.ParseKey reads; here, so that the line
// about a bad one says where it came from.
func thirtyTwoBytes(s string) bool {
	if b, err := hex.DecodeString(s); err == nil && len(b) == 32 {
		return true
	}
	b, err := base64.RawURLEncoding.DecodeString(strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(s, "=")))
	return err == nil && len(b) == 32
}

func visible(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}
