package provider_test

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// folder writes a corpus of one's own: contents by name.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const (
	postmarkOpen = `{"RecordType":"Open","MessageID":"m1","Recipient":"Ada@X.example","ReceivedAt":"2026-05-06T07:08:09Z"}`
	postmarkLine = `{"file":"postmark/open.json","events":[{"type":"opened","occurred_at":"2026-05-06T07:08:09Z","recipient":"ada@x.example","message_id":"m1","event_id":null}]}`
)

func basicVector(expect, credentials string) string {
	return `{"scheme":"http-basic","expect":"` + expect + `","why":"","key":{"user":"u","password":"p"},"verify_at_unix":null,` +
		`"request":{"headers":{"Authorization":["` + credentials + `"]},"body_base64":"` + base64.StdEncoding.EncodeToString([]byte("{}")) + `"}}`
}

// TestRunCorpus runs folders that differ from the one that we know: nothing in
// them ends the run, and every case that cannot be read is a miss.
func TestRunCorpus(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		files map[string]string
		want  []string // what the output has, in this order
		ok    bool
	}{
		"AllWell": {
			files: map[string]string{"payloads/postmark/open.json": postmarkOpen, "expected.jsonl": postmarkLine + "\n", "vectors/postmark/v.json": basicVector("valid", basic("u:p"))},
			want:  []string{"2 of 2"}, ok: true,
		},
		"NoVectors":  {files: map[string]string{"payloads/postmark/open.json": postmarkOpen, "expected.jsonl": postmarkLine}, want: []string{"1 of 1"}, ok: true},
		"NoPayloads": {files: map[string]string{"vectors/postmark/v.json": basicVector("invalid", basic("u:x"))}, want: []string{"1 of 1"}, ok: true},
		"CRLFAndMark": {
			files: map[string]string{"payloads/postmark/open.json": postmarkOpen, "expected.jsonl": "\uFEFF\r\n" + postmarkLine + "\r\n\r\n"},
			want:  []string{"1 of 1"}, ok: true,
		},
		"FurtherFiles": {
			files: map[string]string{
				"payloads/postmark/open.json": postmarkOpen, "payloads/postmark/more.json": postmarkOpen, "payloads/README.md": "x", "facts.md": "x",
				"vectors/notes.txt": "x", "expected.jsonl": postmarkLine,
			},
			want: []string{"payloads/postmark/more.json: not counted", "1 of 1"}, ok: true,
		},
		"LinesThatAreNone": {
			files: map[string]string{"payloads/postmark/open.json": postmarkOpen, "expected.jsonl": "{\n[]\n" + postmarkLine},
			want:  []string{"expected.jsonl, line 1:", "expected.jsonl, line 2:", "1 of 3"},
		},
		"NamesNotKnown": {
			files: map[string]string{
				"payloads/nobody/a.json": "{}", "expected.jsonl": `{"file":"nobody/a.json","events":[]}` + "\n" + `{"file":"postmark/gone.json","events":[]}` + "\n" + postmarkLine,
				"payloads/postmark/open.json": postmarkOpen, "vectors/nobody/v.json": basicVector("valid", ""), "vectors/v.json": `{"scheme":"new","expect":"valid"}`,
				"vectors/postmark/v.json": `{"scheme":"new","expect":"valid"}`, "vectors/postmark/w.json": "{", "vectors/postmark/x.json": `{"scheme":"http-basic"}`,
			},
			want: []string{
				"payloads/nobody/a.json: no adapter", "payloads/postmark/gone.json: ", "vectors/nobody/v.json: no adapter", "vectors/postmark/v.json: no scheme",
				"vectors/postmark/w.json: bad corpus", "vectors/postmark/x.json: bad corpus", "vectors/v.json: no adapter", "1 of 8",
			},
		},
		"GotAndExpected": {
			files: map[string]string{
				"payloads/postmark/open.json": postmarkOpen, "vectors/postmark/v.json": basicVector("valid", basic("u:x")),
				"expected.jsonl": strings.NewReplacer(`"opened"`, `"clicked"`, `"m1"`, `1`, `[{`, `[{"url":null,"step":2,`).Replace(postmarkLine),
			},
			want: []string{
				`event 0: message_id: got "m1", want "1"`, `event 0: step: got "", want "2"`, `event 0: type: got "opened", want "clicked"`,
				"vectors/postmark/v.json: got invalid (the signature does not match), want valid", "0 of 2",
			},
		},
		"AnyOrderOfEvents": {
			files: map[string]string{
				"payloads/mailtrap/b.json": `{"events":[{"event":"open","event_id":"e1","message_id":"m"},{"event":"click","event_id":"e2","message_id":"m"}]}`,
				"expected.jsonl":           `{"file":"mailtrap/b.json","events":[{"type":"clicked","message_id":"m","event_id":"e2"},{"type":"opened","message_id":"m","event_id":"e1"}]}`,
			},
			want: []string{"1 of 1"}, ok: true,
		},
		"Nothing": {want: []string{"0 of 0"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			ok, err := runCorpus(&out, folder(t, tt.files))
			if err != nil || ok != tt.ok {
				t.Fatalf("got %v, %v, want %v:\n%s", ok, err, tt.ok, out.String())
			}
			rest := out.String()
			for _, want := range tt.want {
				_, after, found := strings.Cut(rest, want)
				if !found {
					t.Errorf("%q is missing, or not in its place:\n%s", want, out.String())
				}
				rest = after
			}
		})
	}
	t.Run("NoFolder", func(t *testing.T) {
		t.Parallel()
		if ok, err := runCorpus(new(bytes.Buffer), filepath.Join(t.TempDir(), "gone")); ok || err == nil {
			t.Errorf("got %v, %v, want an error", ok, err)
		}
	})
}
