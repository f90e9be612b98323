package app_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"

	"tallyhook/internal/testenv"
)

// TestPathTricks: none reaches a route under another name, none is answered by
// the mux or a redirect of its own, and what is no request at all is refused
// like everything else, and the connection closed.
func TestPathTricks(t *testing.T) {
	t.Parallel()
	e := startEdge(t, "RATE_LIMIT_ANONYMOUS=0", "RATE_LIMIT_API=0")
	for path, want := range map[string]int{
		// Encoded and doubled slashes, dot segments.
		"/api%2Fkeys": 404, "/api/%2e%2e/api/keys": 404, "/api/../api/keys": 404, "/api/./keys": 404, "/api//keys": 404, "//api/keys": 404,
		"/api/keys/": 404, "/api/keys/.": 404, "/api/keys/..": 404, "/api/keys.": 404, "/api/keys%2e": 404, "/api/keys%20": 404, "/api/keys;x=1": 404,
		"/livez/../api/keys": 404, "/livez%2f..%2fapi%2fkeys": 404, "/webhooks/../api/keys": 404, "/webhooks/%2e%2e/api/keys": 404,
		"/webhooks/x%2F..%2F..%2Fapi%2Fkeys": 404, "/webhooks/..%2fhealth": 404, "/webhooks%2Fx": 404, `/api\keys`: 404, "/api/%5ckeys": 404, "/API/keys": 404,
		"/api/%6beys": 200, // another spelling of the same, as RFC 3986 has it
		// NUL and other bytes that no name has.
		"/api/keys%00": 404, "/api/keys%00.json": 404, "/%00": 404, "/api/keys%0d%0a": 404, "/api/%ff%fe": 404, "/api/events/%00": 404, "/api/events/%F0%9F%98%80": 404,
		"/..%c0%af..%c0%afetc/passwd": 404, "/api/%252e%252e/keys": 404,
		// Absolute URIs: the path counts, the host never.
		"http://evil.example/api/keys": 200, "http://evil.example": 404, "http://evil.example/../api/keys": 404, "https://user:pw@evil.example:1/livez": 200,
		"http:///api/keys": 200, "*": 404, "?": 400, "": 400, "api/keys": 400, "/%zz": 400, "/%": 400,
		// Long ones.
		"/api/events/" + strings.Repeat("a", 60_000): 404, "/" + strings.Repeat("a/", 30_000): 404, "/" + strings.Repeat("a", 80_000): 431,
		"/api/keys?" + strings.Repeat("a", 80_000): 431, "/" + strings.Repeat("%2e%2e%2f", 5_000): 404,
	} {
		a := e.raw(request("GET", path, "", goodKey))
		name := path[:min(len(path), 60)]
		if a.Status != want {
			t.Errorf("%q: got %d %.100s, want %d", name, a.Status, a.Body, want)
		}
		e.whole(name, a)
		if a.Header.Get("Location") != "" {
			t.Errorf("%q is redirected to %s", name, a.Header.Get("Location"))
		}
	}
	for name, tc := range map[string]struct {
		text string
		want int
	}{
		"TwoHosts":         {request("GET", "/livez", "", "Host: other"), 400},
		"NoHost":           {"GET /livez HTTP/1.1\r\n\r\n", 400},
		"StrangeHost":      {"GET /livez HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
		"HostWithPath":     {"GET /livez HTTP/1.1\r\nHost: a/../b\r\nConnection: close\r\n\r\n", 400},
		"TwoLengths":       {request("POST", "/api/events", "{}", goodKey, "Content-Length: 3"), 400},
		"NegativeLength":   {"POST /api/events HTTP/1.1\r\nHost: test\r\nContent-Length: -1\r\n\r\n", 400},
		"PlusLength":       {"POST /api/events HTTP/1.1\r\nHost: test\r\nContent-Length: +2\r\n\r\n{}", 400},
		"HugeLength":       {"POST /api/events HTTP/1.1\r\nHost: test\r\nContent-Length: 99999999999999999999\r\n\r\n", 400},
		"UnknownCoding":    {"POST /api/events HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: xchunked\r\n\r\n", 501},
		"TwoCodings":       {"POST /api/events HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 501},
		"SpaceBeforeColon": {"GET /livez HTTP/1.1\r\nHost : test\r\n\r\n", 400},
		"Expectation":      {request("POST", "/api/events", "{}", goodKey, "Expect: a-miracle"), 417},
		"FoldedHeader":     {"GET /livez HTTP/1.1\r\nHost: test\r\nX-A: b\r\n c\r\nConnection: close\r\n\r\n", 200},
		"NulInHeader":      {"GET /livez HTTP/1.1\r\nHost: test\r\nX-A: a\x00b\r\n\r\n", 400},
		"NoVersion":        {"GET /livez\r\n\r\n", 400},
		"Version9":         {"GET /livez HTTP/9.9\r\nHost: test\r\n\r\n", 505},
		"BadMethod":        {"G(T /livez HTTP/1.1\r\nHost: test\r\n\r\n", 400},
		"LongMethod":       {strings.Repeat("G", 5000) + " /livez HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n", 405},
		"LongHeader":       {request("GET", "/livez", "", "X-A: "+strings.Repeat("a", 80_000)), 431},
		"Connect":          {"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\nConnection: close\r\n\r\n", 404},
		"Trace":            {request("TRACE", "/livez", ""), 405},
		"OptionsOfAll":     {request("OPTIONS", "*", ""), 404},
		"NotHTTP":          {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400},
	} {
		a := e.raw(tc.text)
		if a.Status != tc.want {
			t.Errorf("%s: got %d %.200s, want %d", name, a.Status, a.Body, tc.want)
		}
		e.whole(name, a)
	}
}

// TestSmuggling: of bytes that a proxy may take for one request nothing is
// taken for a second one here.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	e := startEdge(t, "RATE_LIMIT_ANONYMOUS=0", "RATE_LIMIT_API=0")
	const hidden = "GET /livez HTTP/1.1\r\nHost: test\r\n\r\n"
	post := func(headers string) string { return "POST /api/events HTTP/1.1\r\nHost: test\r\n" + headers + "\r\n" }
	for name, tc := range map[string]struct {
		text    string
		answers int
		first   int
	}{
		"LengthThenCoding":   {post("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n" + hidden, 1, 401},
		"CodingThenLength":   {post("Transfer-Encoding: chunked\r\nContent-Length: 50\r\n") + "0\r\n\r\n" + hidden, 1, 401},
		"CodingAlone":        {post("Transfer-Encoding: chunked\r\n") + "2\r\n{}\r\n0\r\n\r\n" + hidden, 1, 401},
		"CodingInUpperCase":  {post("TRANSFER-ENCODING: CHUNKED\r\nContent-Length: 4\r\n") + "0\r\n\r\n" + hidden, 1, 401},
		"CodingInOldHTTP":    {strings.Replace(post("Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n"), "1.1", "1.0", 1) + "2\r\n{}\r\n0\r\n\r\n" + hidden, 1, 401},
		"OldHTTPKeptAlive":   {"GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + hidden, 1, 200},
		"CodingAfterSpace":   {post("Content-Length: 4\r\nTransfer-Encoding : chunked\r\n") + "0\r\n\r\n" + hidden, 1, 400},
		"CodingAfterFold":    {post("Content-Length: 4\r\nX-A: b\r\n Transfer-Encoding: chunked\r\nConnection: close\r\n") + "0\r\n\r\n" + hidden, 1, 401},
		"CodingFolded":       {post("Content-Length: 4\r\nTransfer-Encoding:\r\n chunked\r\n") + "0\r\n\r\n" + hidden, 1, 401},
		"CodingAfterBareCR":  {post("Content-Length: 4\r\nX-A: b\rTransfer-Encoding: chunked\r\n") + "0\r\n\r\n" + hidden, 1, 400},
		"CodingWithTab":      {post("Content-Length: 4\r\nTransfer-Encoding: \x0bchunked\r\n") + "0\r\n\r\n" + hidden, 1, 400},
		"CodingTwice":        {post("Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n") + "0\r\n\r\n" + hidden, 1, 501},
		"CodingList":         {post("Transfer-Encoding: gzip, chunked\r\n") + "0\r\n\r\n" + hidden, 1, 501},
		"TwoLengths":         {post("Content-Length: 0\r\nContent-Length: 40\r\n") + hidden, 1, 400},
		"LengthList":         {post("Content-Length: 0, 40\r\n") + hidden, 1, 400},
		"LengthWithSpaces":   {post("Content-Length: 4 0\r\n") + hidden, 1, 400},
		"LengthInHex":        {post("Content-Length: 0x28\r\n") + hidden, 1, 400},
		"LengthCoversHidden": {post("Content-Length: "+strconv.Itoa(len(hidden))+"\r\nConnection: close\r\n") + hidden, 1, 401},
		"BodyOfGet":          {"GET /livez HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: " + strconv.Itoa(len(hidden)) + "\r\n\r\n" + hidden, 1, 200},
		"ChunkWithBareLF":    {post("Transfer-Encoding: chunked\r\n") + "2\n{}\n0\n\n" + hidden, 1, 400},
		"ChunkOfTooManyHex":  {post("Transfer-Encoding: chunked\r\n") + "00000000000000000\r\n\r\n" + hidden, 1, 400},
		"ChunkExtensions":    {post("Transfer-Encoding: chunked\r\n") + "2;" + strings.Repeat("x", 5000) + "\r\n{}\r\n0\r\n\r\n" + hidden, 1, 400},
		"ChunkExtensionLF":   {post("Transfer-Encoding: chunked\r\n") + "2;\n\r\n{}\r\n0\r\n\r\n" + hidden, 1, 400},
		"ChunkLongerThan":    {post("Transfer-Encoding: chunked\r\n") + "2\r\n{}GET /livez HTTP/1.1\r\n\r\n0\r\n\r\n" + hidden, 1, 400},
		"Trailers":           {post("Transfer-Encoding: chunked\r\nTrailer: X-API-Key\r\n") + "2\r\n{}\r\n0\r\n" + goodKey + "\r\n\r\n" + hidden, 1, 401},
		// And what is two requests is two.
		"Pipelined": {"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n" + strings.Replace(hidden, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1), 2, 200},
	} {
		conn := e.dial()
		if _, err := io.WriteString(conn, tc.text); err != nil {
			t.Log(err) // the server may close before the end
		}
		all, err := io.ReadAll(conn)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the connection is still open", name)
		}
		if n := bytes.Count(all, []byte("HTTP/1.1 ")) + bytes.Count(all, []byte("HTTP/1.0 ")); n != tc.answers {
			t.Errorf("%s: %d answers, want %d:\n%s", name, n, tc.answers, all)
		}
		if got := string(all[min(len(all), 9):min(len(all), 12)]); got != strconv.Itoa(tc.first) {
			t.Errorf("%s: got %s, want %d:\n%.300s", name, got, tc.first, all)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestCompressedBodies: gzip is read, bounded by what comes out of it; nothing
// else is.
func TestCompressedBodies(t *testing.T) {
	t.Parallel()
	e := startEdge(t, "RATE_LIMIT_ANONYMOUS=0", "RATE_LIMIT_API=0", "MAX_BODY_BYTES=65536")
	c := e.client(testenv.AdminKey)
	zip := func(text string) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err := io.WriteString(z, text); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	event := `{"event_type":"opened","channel":"email","email":"ada@example.com","provider_event_id":"1"}`
	gz := testenv.Header{Name: "Content-Encoding", Value: "gzip"}
	bomb := zip(strings.Repeat(" ", 40<<20))
	c.Post(202, "/api/events", zip(event), gz) // what follows are duplicates of it
	for name, tc := range map[string]struct {
		body   any
		coding string
		want   int
	}{
		"Bomb": {bomb, "gzip", 413}, "ChunkedBomb": {io.MultiReader(bytes.NewReader(bomb)), "gzip", 413}, "JustOver": {zip(strings.Repeat(" ", 65537)), "gzip", 413},
		"TwoMembers": {append(zip(event[:20]), zip(event[20:])...), "gzip", 200}, "Upper": {zip(event), "GZIP", 200}, "CutSmall": {zip(event)[:30], "gzip", 400},
		"NotGzip": {event, "gzip", 400}, "Trailing": {append(zip(event), "garbage"...), "gzip", 400}, "Twice": {zip(string(zip(event))), "gzip, gzip", 415},
		"Deflate": {event, "deflate", 415}, "Brotli": {event, "br", 415}, "Unknown": {event, "x", 415}, "Identity": {event, "identity", 200},
		"Forbidden": {zip(`{"__proto__":1}`), "gzip", 400},
	} {
		a := c.Do(0, http.MethodPost, "/api/events", tc.body, testenv.Header{Name: "Content-Encoding", Value: tc.coding})
		if a.Status != tc.want {
			t.Errorf("%s: got %d %.200s, want %d", name, a.Status, a.Body, tc.want)
		}
		e.whole(name, a)
		if tc.want == 415 && a.Header.Get("Accept-Encoding") != "gzip, identity" {
			t.Errorf("%s: Accept-Encoding %q", name, a.Header.Get("Accept-Encoding"))
		}
	}
	if n := len(c.Rows("/api/events")); n != 1 {
		t.Errorf("%d events, want 1", n)
	}
}
