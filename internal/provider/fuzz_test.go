package provider_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"tallyhook/internal/provider"
)

func FuzzDecodeGeneric(f *testing.F)  { fuzzDecode(f, "generic") }
func FuzzDecodeLemlist(f *testing.F)  { fuzzDecode(f, "lemlist") }
func FuzzDecodePostmark(f *testing.F) { fuzzDecode(f, "postmark") }

// fuzzDecode: any body gives sound events or an error, and the same ones each
// time.
func fuzzDecode(f *testing.F, name string) {
	f.Helper()
	for _, path := range jsonFiles(f, filepath.Join("testdata", "payloads", name)) {
		f.Add(read(f, path))
	}
	f.Add([]byte(`[]`))
	f.Add([]byte(`{"type":"emailsOpened","createdAt":1e11,"RecordType":"Bounce","Type":"HardBounce"}`))
	p := provider.ByName(name)
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := p.Decode(request(body, nil))
		if err != nil {
			if got != nil {
				t.Fatal("events beside an error")
			}
			return
		}
		again, err := p.Decode(request(body, nil))
		if err != nil || len(again) != len(got) {
			t.Fatalf("the second time: %d events, not %d, %v", len(again), len(got), err)
		}
		for i := range got {
			sound(t, &got[i], body)
			if got[i].Identity() != again[i].Identity() {
				t.Error("the identity changed")
			}
		}
	})
}

// FuzzVerifyGeneric: what verifies under the symmetric scheme carries the
// very signature that a second implementation makes.
func FuzzVerifyGeneric(f *testing.F) {
	for _, path := range jsonFiles(f, filepath.Join("testdata", "vectors", "standard-webhooks")) {
		var v vector
		if err := json.Unmarshal(read(f, path), &v); err != nil {
			f.Fatal(err)
		}
		h := v.headers()
		f.Add(h["webhook-id"], h["webhook-timestamp"], h["webhook-signature"], v.Key.Secret+v.Key.PublicKey, []byte(v.Request.Body), *v.VerifyAt)
	}
	good := []byte(`{"event_type":"opened"}`)
	f.Add("m", "1770000000", sign("m", 1_770_000_000, good, ownSecret()), ownSecret(), good, int64(1_770_000_000))
	p := provider.ByName("generic")
	f.Fuzz(func(t *testing.T, id, timestamp, signature, secret string, body []byte, now int64) {
		headers := map[string]string{"webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": signature}
		at := time.Unix(now, 0)
		// The fuzzer's secret must only not panic. A fixed one it cannot know
		// must not verify, but for the seed above and its like.
		_ = p.Verify(at, provider.Config{Secrets: []string{secret}}, request(body, headers))
		err := p.Verify(at, provider.Config{Secrets: []string{ownSecret()}}, request(body, headers))
		if err == nil && !verifiesBySpec(id, timestamp, signature, ownSecret(), body) {
			t.Errorf("%q verifies", signature)
		}
	})
}
