package redisq_test

import (
	"strings"
	"testing"

	"tallyhook/internal/fault"
	"tallyhook/internal/redisq"
)

func TestParseURL(t *testing.T) {
	t.Parallel()
	type want struct {
		hosts                        string
		user, password, master, more string
		db                           int
		tls, single                  bool
	}
	for url, w := range map[string]want{
		"redis://localhost":                               {hosts: "localhost:6379", single: true},
		"redis://:secret@10.0.0.1:7000/3":                 {hosts: "10.0.0.1:7000", password: "secret", db: 3, single: true},
		"rediss://me:s%40c@[::1]:7000":                    {hosts: "[::1]:7000", user: "me", password: "s@c", tls: true, single: true},
		"redis-sentinel://:pw@a,b:1,c/main/2":             {hosts: "a:26379 b:1 c:26379", password: "pw", master: "main", db: 2},
		"rediss-sentinel://a/main?sentinel_password=word": {hosts: "a:26379", master: "main", more: "word", tls: true},
		"redis-cluster://a:7000,b":                        {hosts: "a:7000 b:6379"},
		"rediss-cluster://u:p@a:7000":                     {hosts: "a:7000", user: "u", password: "p", tls: true},
	} {
		o, err := redisq.ParseURL(url)
		if err != nil {
			t.Errorf("%s: %v", url, err)
		}
		got := want{
			hosts: strings.Join(o.InitAddress, " "), user: o.Username, password: o.Password, master: o.Sentinel.MasterSet,
			more: o.Sentinel.Password, db: o.SelectDB, tls: o.TLSConfig != nil, single: o.ForceSingleClient,
		}
		same(t, url, got, w)
	}
}

func TestParseURLRefuses(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"", "localhost:6379", "http://hidden@a", "redisx://hidden@a", "redis://", "redis://hidden@a:b", "redis://hidden@a:70000",
		"redis://a,b", "redis://a/hidden", "redis://a/-1", "redis-sentinel://a", "redis-cluster://a/1", "redis://:hid%zz@a",
		"rediss://a?ca=/nonexistent", "redis://a?%zz",
	} {
		_, err := redisq.ParseURL(url)
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("%q gives %v", url, err)
		} else if strings.Contains(err.Error(), "hid") {
			t.Errorf("%q shows in its error: %v", url, err)
		}
	}
	if _, err := redisq.New(redisq.Options{URL: "nonsense"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a queue of a URL that cannot be read gives %v", err)
	}
}
