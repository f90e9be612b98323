package app_test

import (
	"strings"
	"testing"
)

// TestForwarded: the header of RFC 7239 is believed like X-Forwarded-For, of
// trusted proxies alone, from the right, as far as they are trusted; and where
// both are there, only when they agree.
func TestForwarded(t *testing.T) {
	t.Parallel()
	e := startEdge(t, "RATE_LIMIT_ANONYMOUS=1/1h", "TRUSTED_PROXIES=127.0.0.0/8,10.0.0.0/8,fd00::/8")
	// The address of each first one is new, and is let in; the others name the same.
	for name, same := range map[string][][]string{
		"Plain":        {{"Forwarded: for=192.0.2.1"}, {"Forwarded: For=192.0.2.1;proto=http;by=10.0.0.1"}, {`Forwarded: proto=http; for="192.0.2.1"`}},
		"Port":         {{`Forwarded: for="192.0.2.2:4711"`}, {"Forwarded: for=192.0.2.2:80"}},
		"Six":          {{`Forwarded: for="[2001:db8:1::1]"`}, {`Forwarded: for="[2001:db8:1::2]:443"`}},
		"Mapped":       {{`Forwarded: for="[::ffff:192.0.2.3]"`}, {"Forwarded: for=192.0.2.3"}},
		"TwoProxies":   {{"Forwarded: for=192.0.2.4, for=10.1.1.1"}, {`Forwarded: for=evil,for=192.0.2.4;by=_a,for="[fd00::1]:1"`}},
		"TwoLines":     {{"Forwarded: for=192.0.2.5", "Forwarded: for=10.1.1.1"}, {"Forwarded: for=198.51.100.1", "Forwarded: for=192.0.2.5", "Forwarded:"}},
		"WrittenByIt":  {{"Forwarded: for=192.0.2.6"}, {"Forwarded: for=198.51.100.6, for=192.0.2.6"}, {"Forwarded: for=\"10.1.1.1\";secret=\"a,b\\\"c\", for=192.0.2.6"}},
		"Empties":      {{"Forwarded: for=192.0.2.7"}, {"Forwarded: , ,for=192.0.2.7 , ,"}, {"Forwarded: ;for=192.0.2.7;"}},
		"BrokenBefore": {{"Forwarded: for=192.0.2.8"}, {`Forwarded: for="198.51.100.8`, "Forwarded: for=192.0.2.8"}},
		"BothAgree":    {{"X-Forwarded-For: 192.0.2.9"}, {"X-Forwarded-For: 198.51.100.9, 192.0.2.9", "Forwarded: for=198.51.100.1, for=192.0.2.9"}},
		"Obfuscated":   {{"Forwarded: for=10.5.5.5"}, {"Forwarded: for=_hidden, for=10.5.5.5"}, {"Forwarded: for=unknown, for=10.5.5.5"}, {`Forwarded: for="_SEVKISEK", for="10.5.5.5:_gazonk", for=10.5.5.5`}},
		// What cannot be read, or is contradicted, counts as the proxy itself.
		"Proxy": {
			{"Forwarded: for=_hidden"},
			{"Forwarded: for=unknown"},
			{"Forwarded: by=192.0.2.10"},
			{"Forwarded: proto=https"},
			{"Forwarded: nonsense"},
			{`Forwarded: for=192.0.2.10;x="`},
			{`Forwarded: for=192.0.2.11;x=", for="[2001:db8:2::1]"`},
			{`Forwarded: for="192.0.2.12\`},
			{"Forwarded: for = 192.0.2.13"},
			{"Forwarded: for=192.0.2.14 192.0.2.15"},
			{"Forwarded: for=192.0.2.16;for=192.0.2.17"},
			{"Forwarded: =192.0.2.18"},
			{"Forwarded: for=;proto=http"},
			{"Forwarded: for=999.1.1.1"},
			{`Forwarded: for="[2001:db8::1"`},
			{"Forwarded: for=192.0.2.19", "X-Forwarded-For: 192.0.2.20"},
			{"X-Forwarded-For: 192.0.2.21", "Forwarded: for=_x"},
			{"Forwarded:"},
			{"Forwarded: ,"},
			{""},
		},
	} {
		for i, lines := range same {
			want := 429
			if i == 0 {
				want = 200
			}
			if len(lines) == 1 && lines[0] == "" {
				lines = nil
			}
			if a := e.raw(request("GET", "/docs", "", lines...)); a.Status != want {
				t.Errorf("%s: %s: got %d, want %d", name, strings.Join(lines, " | "), a.Status, want)
			}
		}
	}
}

// TestForwardedOfAStranger is not believed.
func TestForwardedOfAStranger(t *testing.T) {
	t.Parallel()
	e := startEdge(t, "RATE_LIMIT_ANONYMOUS=1/1h", "TRUSTED_PROXIES=10.0.0.1")
	e.raw(request("GET", "/docs", "", "Forwarded: for=192.0.2.1"))
	e.refused("a forged header", "anonymous", 1, 3600, e.raw(request("GET", "/docs", "", "Forwarded: for=192.0.2.2")))
}

// TestForwardedProtoOfRFC7239: behind a proxy that says so in Forwarded nobody
// is sent round in circles either.
func TestForwardedProtoOfRFC7239(t *testing.T) {
	t.Parallel()
	e := startTLS(t, "RATE_LIMIT_ANONYMOUS=0", "TRUSTED_PROXIES=127.0.0.1")
	for header, want := range map[string]int{
		"Forwarded: for=192.0.2.1;proto=https": 200, `Forwarded: proto="HTTPS"`: 200, "Forwarded: proto=http, for=_x;proto=https": 200,
		"Forwarded: proto=https, proto=http": 308, "Forwarded: for=192.0.2.1": 308, `Forwarded: proto=https;x="`: 308,
	} {
		if a := e.raw(request("GET", "/docs", "", header)); a.Status != want {
			t.Errorf("%q: got %d, want %d", header, a.Status, want)
		}
	}
	if a := e.raw(request("GET", "/docs", "", "X-Forwarded-Proto: http", "Forwarded: proto=https")); a.Status != 308 {
		t.Errorf("both: got %d, want 308: the header that a proxy usually writes counts", a.Status)
	}
}
