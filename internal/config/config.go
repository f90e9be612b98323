// Package config holds what the operator can choose. One table (Settings)
// drives the flags, the environment, .env.example and docs/configuration.md,
// so that none of them can say something else than the others.
//
// Guarantees: Load is a function of its arguments, and of the files that a
// NAME_FILE names; nothing is taken silently: a bad value, a contradiction and
// a misspelt TALLYHOOK_ name each end in one line that names the setting and
// where it came from; a secret is never part of an error, of Describe, or of a
// printed Config.
package config

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"tallyhook/internal/fault"
)

// Prefix may stand before every name in the environment.
const Prefix = "TALLYHOOK_"

// maxSecretFile bounds what is read from a NAME_FILE, in bytes.
const maxSecretFile = 64 << 10

// Config is what was chosen. It is made by Load only.
type Config struct {
	Host            string // address or name to listen on
	Port            int    // 0: any free port
	AppEnv          string // "production" or "development"
	DatabaseURL     Secret // "sqlite:" and a path, or a postgres:// URL, which may hold a password
	RedisURL        Secret // empty: the queue is in the database
	SpoolDir        string // empty: no spool
	SpoolMaxBytes   int64
	APIKey          Secret // the first admin key; empty when none was given
	SecretsKey      Secret // 32 bytes in base64 or hex; empty when none was given
	BatchSize       int    // due orphans taken at a time
	RetrySchedule   []time.Duration
	TxTimeout       time.Duration
	ShutdownTimeout time.Duration
	RetentionEvents time.Duration // 0: events are kept for ever
	MaxBodyBytes    int64
	PublicURL       string // without a slash at its end
	AllowedOrigins  []string
	RateAnonymous   Rate   // of an address
	RateAPI         Rate   // of a key
	RateWebhook     Rate   // of a source
	TLSCert, TLSKey string // paths; both empty: no TLS
	TrustedProxies  []netip.Prefix
	LogLevel        slog.Level
	LogFormat       string // "json" or "text"
	MetricsAddr     string // empty: /metrics is on the main listener

	// Warnings are what was set and has no effect; log each at start.
	Warnings []string

	lines []Line
	redis redisParts
}

// Rate is so many requests in a period; none when Count is 0.
type Rate struct {
	Count  int
	Period time.Duration
}

// TLS tells whether the server speaks TLS.
func (c Config) TLS() bool { return c.TLSCert != "" }

// Development tells whether APP_ENV is development.
func (c Config) Development() bool { return c.AppEnv == development }

// Addr is the address to listen on.
func (c Config) Addr() string { return net.JoinHostPort(c.Host, strconv.Itoa(c.Port)) }

// SQLitePath is the path of the database file; empty with PostgreSQL.
func (c Config) SQLitePath() string {
	path, ok := strings.CutPrefix(c.DatabaseURL.Reveal(), sqliteScheme)
	if !ok {
		return ""
	}
	return path
}

// Postgres tells whether the database is PostgreSQL.
func (c Config) Postgres() bool { return c.SQLitePath() == "" }

// Line is one setting as it was chosen.
type Line struct {
	Name   string
	Value  string // a secret is masked
	Origin string // "default", "flag --port", "environment PORT", "file API_KEY_FILE"
}

// Describe lists every setting with its value and where that came from.
func (c Config) Describe() []Line { return slices.Clone(c.lines) }

// Given tells whether a setting was chosen, by its name; false for one that
// has its default.
func (c Config) Given(name string) bool {
	return slices.ContainsFunc(c.lines, func(l Line) bool { return l.Name == name && l.Origin != byDefault })
}

// Secret is text that does not print: fmt, slog and JSON show a mask.
type Secret string

// Reveal gives the text itself.
func (s Secret) Reveal() string { return string(s) }

func (s Secret) mask() string {
	if s == "" {
		return ""
	}
	return "(secret)"
}

// Format implements fmt.Formatter, so that no verb shows the text.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.mask())) } // fmt drops the error too

// MarshalText implements encoding.TextMarshaler, for JSON.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.mask()), nil }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.mask()) }

// RegisterFlags adds a flag for each setting that has one.
func RegisterFlags(fs *pflag.FlagSet) {
	for _, s := range Settings() {
		if s.Flag != "" {
			help := s.Help
			if s.Default != "" {
				help += " (default " + s.Default + ")"
			}
			fs.String(s.Flag, "", help+" [$"+s.Name+"]")
		}
	}
}

// FromFlags gives the settings whose flags were used, by the setting's name.
func FromFlags(fs *pflag.FlagSet) map[string]string {
	used := map[string]string{}
	for _, s := range Settings() {
		if f := fs.Lookup(s.Flag); f != nil && f.Changed {
			used[s.Name] = f.Value.String()
		}
	}
	return used
}

// byDefault is the origin of what nobody chose.
const byDefault = "default"

// choice is one setting's text and its origin, as in Line.
type choice struct{ text, origin string }

// Load makes the configuration of flags (by setting name, from FromFlags) and
// an environment ("NAME=value", as os.Environ gives). A flag wins over the
// environment, which wins over the default. An empty variable is as good as
// none, because that is what compose files make of an unset one.
func Load(flags map[string]string, environ []string) (Config, error) {
	settings := Settings()
	env := map[string]string{}
	for _, kv := range environ {
		if name, value, ok := strings.Cut(kv, "="); ok && value != "" {
			env[name] = value
		}
	}
	var c Config
	if err := c.checkNames(settings, env); err != nil {
		return Config{}, err
	}
	for _, s := range settings {
		if s.set == nil {
			continue
		}
		got, err := s.choose(flags, env)
		if err != nil {
			return Config{}, err
		}
		if !s.set(&c, got.text) {
			return Config{}, s.bad(got)
		}
		switch {
		case s.shown != nil:
			got.text = s.shown(got.text)
		case s.Secret:
			got.text = Secret(got.text).mask()
		}
		c.lines = append(c.lines, Line{s.Name, got.text, got.origin})
	}
	if c.Postgres() && c.SecretsKey == "" {
		return Config{}, fault.New(fault.Invalid, "SECRETS_KEY is not set, and PostgreSQL needs it, the same for every replica: openssl rand -base64 32 makes one")
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return Config{}, fault.New(fault.Invalid, "TLS_CERT and TLS_KEY go together; set both, or neither")
	}
	if c.TLS() && !c.Given("PUBLIC_URL") {
		c.PublicURL = "https://" + c.Addr()
	}
	// What follows from other settings is shown as it came out.
	for i, l := range c.lines {
		switch l.Name {
		case "PUBLIC_URL":
			c.lines[i].Value = c.PublicURL
		case "LOG_FORMAT":
			c.lines[i].Value = c.LogFormat
		case "REDIS_URL":
			c.lines[i].Value = withoutPassword(c.RedisURL.Reveal())
		}
	}
	c.redis = redisParts{} // in RedisURL now
	return c, nil
}

// choose finds the text of one setting.
func (s Setting) choose(flags, env map[string]string) (choice, error) {
	if v, ok := flags[s.Name]; ok {
		return choice{v, "flag --" + s.Flag}, nil
	}
	text, name, err := s.variable(env, s.Name)
	if err != nil {
		return choice{}, err
	}
	var path, fileName string
	if s.Secret {
		if path, fileName, err = s.variable(env, s.Name+"_FILE"); err != nil {
			return choice{}, err
		}
	}
	switch {
	case name != "" && fileName != "":
		return choice{}, fault.New(fault.Invalid, "%s and %s are both set; keep one of them", name, fileName)
	case name != "":
		return choice{text, "environment " + name}, nil
	case fileName != "":
		text, err = readSecret(path, fileName)
		return choice{text, "file " + fileName}, err
	}
	return choice{s.Default, byDefault}, nil
}

// variable reads NAME or TALLYHOOK_NAME and says which one it was.
func (s Setting) variable(env map[string]string, name string) (value, found string, err error) {
	bare, hasBare := env[name]
	prefixed, hasPrefixed := env[Prefix+name]
	if name == "PORT" && addressOfService(prefixed) {
		hasPrefixed = false
	}
	if name == "REDIS_PORT" {
		hasBare, hasPrefixed = hasBare && !addressOfService(bare), hasPrefixed && !addressOfService(prefixed)
	}
	switch {
	case hasBare && hasPrefixed && bare != prefixed:
		return "", "", fault.New(fault.Invalid, "%s and %s are both set, to different values; keep one of them", Prefix+name, name)
	case hasPrefixed:
		return prefixed, Prefix + name, nil
	case hasBare:
		return bare, name, nil
	}
	return "", "", nil
}

func readSecret(path, name string) (string, error) {
	info, err := os.Stat(path)
	if err == nil && info.Size() > maxSecretFile {
		return "", fault.New(fault.Invalid, "%s names a file of more than %d bytes, which is no secret", name, maxSecretFile)
	}
	raw, err := os.ReadFile(path) //nolint:gosec // the operator names the file
	if err != nil {
		return "", fault.New(fault.Invalid, "%s names a file that cannot be read: %v", name, err)
	}
	text := strings.TrimSpace(string(raw))
	if text == "" {
		return "", fault.New(fault.Invalid, "%s names a file that is empty", name)
	}
	return text, nil
}

// bad is the one line about a value that is not allowed.
func (s Setting) bad(got choice) error {
	value := strconv.QuoteToASCII(got.text)
	switch {
	case s.Secret, strings.Contains(got.text, "@"): // a URL may carry a password
		value = "the value given"
	case len(value) > 80:
		value = value[:60] + `..."`
	}
	return fault.New(fault.Invalid, "%s (%s): %s is not allowed; it must be %s", s.Name, got.origin, value, s.Allowed)
}
