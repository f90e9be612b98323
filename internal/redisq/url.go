package redisq

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/redis/rueidis"

	"tallyhook/internal/fault"
)

// ParseURL reads where Redis is:
//
//	redis://[[user]:password@]host[:port][/db]                            one server
//	redis-sentinel://[[user]:password@]host[:port],host.../master[/db]    the master that sentinels name
//	redis-cluster://[[user]:password@]host[:port],host...                 a cluster, found by any of its nodes
//
// rediss://, rediss-sentinel:// and rediss-cluster:// speak TLS (1.2 at least,
// certificates verified). The port is 6379, of sentinels 26379. After a "?":
// ca=FILE trusts the certificates in a PEM file in place of the system's;
// sentinel_user= and sentinel_password= are for the sentinels themselves, which
// get no credentials otherwise. An error is of kind Invalid and shows no part
// of the URL, which may hold a password.
func ParseURL(text string) (rueidis.ClientOption, error) {
	var o rueidis.ClientOption
	invalid := func(format string, args ...any) error {
		return fault.New(fault.Invalid, "the URL of Redis "+format, args...)
	}
	// net/url takes one port, and lists of hosts have several.
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		return o, invalid("has no scheme: redis://, rediss://, redis-sentinel:// or redis-cluster://")
	}
	rest, query, _ := strings.Cut(rest, "?")
	hosts, path, _ := strings.Cut(rest, "/")
	if at := strings.LastIndex(hosts, "@"); at >= 0 {
		user, err := url.Parse("redis://" + hosts[:at] + "@host")
		if err != nil {
			return o, invalid("has a user or password with signs that must be written as %%XX")
		}
		o.Username = user.User.Username()
		o.Password, _ = user.User.Password()
		hosts = hosts[at+1:]
	}
	kind, secure := strings.TrimPrefix(scheme, "redis"), false
	if k, ok := strings.CutPrefix(kind, "s"); ok && (k == "" || k[0] == '-') {
		kind, secure = k, true
	}
	if !strings.HasPrefix(scheme, "redis") || (kind != "" && kind != "-sentinel" && kind != "-cluster") {
		return o, invalid("has an unknown scheme: redis://, rediss://, redis-sentinel:// and redis-cluster:// are known")
	}
	port := "6379"
	if kind == "-sentinel" {
		port = "26379"
	}
	var err error
	if o.InitAddress, err = addresses(hosts, port); err != nil {
		return o, err
	}
	q, err := url.ParseQuery(query)
	if err != nil {
		return o, invalid("has a query that cannot be read")
	}
	if secure {
		if o.TLSConfig, err = trust(q.Get("ca")); err != nil {
			return o, err
		}
	}
	db := path
	switch kind {
	case "":
		o.ForceSingleClient = true
		if len(o.InitAddress) > 1 {
			return o, invalid("names several hosts: that is redis-sentinel:// or redis-cluster://")
		}
	case "-sentinel":
		o.Sentinel.MasterSet, db, _ = strings.Cut(path, "/")
		if o.Sentinel.MasterSet == "" {
			return o, invalid("lacks the master's name: redis-sentinel://host:26379/NAME")
		}
		o.Sentinel.Username, o.Sentinel.Password = q.Get("sentinel_user"), q.Get("sentinel_password")
		o.Sentinel.TLSConfig = o.TLSConfig
	case "-cluster":
		if path != "" {
			return o, invalid("names a database, and a cluster has only one")
		}
	}
	if db != "" {
		if o.SelectDB, err = strconv.Atoi(db); err != nil || o.SelectDB < 0 {
			return o, invalid("has a database that is no number")
		}
	}
	return o, nil
}

func addresses(hosts, port string) ([]string, error) {
	var all []string
	for h := range strings.SplitSeq(hosts, ",") {
		name, p, err := net.SplitHostPort(h)
		if err != nil { // no port
			name, p = strings.Trim(h, "[]"), port
		}
		if n, err := strconv.Atoi(p); name == "" || err != nil || n < 1 || n > 65535 {
			return nil, fault.New(fault.Invalid, "the URL of Redis has a host or port that cannot be read")
		}
		all = append(all, net.JoinHostPort(name, p))
	}
	return all, nil
}

// trust makes the settings of TLS; crypto/tls checks the name that was dialed.
func trust(ca string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca == "" {
		return c, nil
	}
	pem, err := os.ReadFile(ca) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, "read ca of the URL of Redis", err)
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fault.New(fault.Invalid, "ca of the URL of Redis names a file without certificates")
	}
	return c, nil
}
