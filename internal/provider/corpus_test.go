package provider_test

import (
	"bytes"
	"encoding/base64"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"tallyhook/internal/event"
	"tallyhook/internal/provider"
)

// sharedCorpus is a corpus of vendors' bodies and signatures that lies beside
// the repository where we work, not in it.
const sharedCorpus = "../../../shared/providers"

// corpora are the repository's own fixtures and, where it is there, the shared
// corpus. Both have the same layout.
func corpora(t testing.TB) map[string]string {
	t.Helper()
	dirs := map[string]string{"Own": "testdata"}
	if _, err := os.Stat(filepath.Join(sharedCorpus, "expected.jsonl")); err == nil {
		dirs["Shared"] = sharedCorpus
	} else {
		t.Logf("no shared corpus at %s: own fixtures only", sharedCorpus)
	}
	return dirs
}

type expectedEvent struct {
	Type       string         `json:"type"`
	Control    string         `json:"control"`
	OccurredAt *string        `json:"occurred_at"`
	Recipient  string         `json:"recipient"`
	MessageID  string         `json:"message_id"`
	EventID    string         `json:"event_id"`
	Bounce     string         `json:"bounce"`
	Machine    jsontext.Value `json:"machine"`
	URL        string         `json:"url"`
	Step       int            `json:"step"`
	Campaign   idText         `json:"campaign"`
	Contact    idText         `json:"contact"`
	Callback   string         `json:"callback"`
}

// idText is an id that is a number with some vendors: its digits.
type idText string

// UnmarshalJSON implements json.Unmarshaler.
func (i *idText) UnmarshalJSON(raw []byte) error {
	*i = idText(strings.Trim(string(raw), `"`))
	return nil
}

// sparseCorpus are vendors whose links, campaigns and leads the corpus leaves
// out though their bodies have them: there, absent means not told.
func sparseCorpus(vendor string) bool {
	switch vendor {
	case "calendly", "mailersend", "mailjet", "sparkpost", "mailtrap":
		return true
	}
	return false
}

type expectedFile struct {
	File   string         `json:"file"`
	Events jsontext.Value `json:"events"` // read per vendor: ids are numbers with some
}

func TestDecodeCorpus(t *testing.T) {
	t.Parallel()
	for name, dir := range corpora(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, want := range expectedFiles(t, dir) {
				vendor, _, _ := strings.Cut(want.File, "/")
				p := provider.ByName(vendor)
				if p == nil {
					continue // a vendor of a later release
				}
				t.Run(want.File, func(t *testing.T) {
					t.Parallel()
					var events []expectedEvent
					if err := json.Unmarshal(want.Events, &events); err != nil {
						t.Fatalf("bad corpus: %v", err)
					}
					body := asPosted(vendor, read(t, filepath.Join(dir, "payloads", want.File)))
					got, err := p.Decode(request(body, nil))
					if err != nil {
						t.Fatalf("decode: %v", err)
					}
					if len(got) != len(events) {
						t.Fatalf("got %d events, want %d", len(got), len(events))
					}
					for i := range got {
						compare(t, &got[i], events[i])
						sound(t, &got[i], body)
					}
				})
			}
		})
	}
}

// compare holds an event against what the corpus says. What the corpus leaves
// out must be absent, except the hardness of a bounce: a bounce that does not
// say is soft.
func compare(t *testing.T, got *event.Event, want expectedEvent) {
	t.Helper()
	if want.Control != "" {
		if !got.Control || got.Kind != want.Control || got.Type != "" {
			t.Errorf("got type %q, kind %q, control %v, want control %q", got.Type, got.Kind, got.Control, want.Control)
		}
		return
	}
	at := ""
	if !got.OccurredAtEstimated {
		at = got.OccurredAt.Format(time.RFC3339Nano)
	}
	wantAt := ""
	if want.OccurredAt != nil {
		parsed, err := time.Parse(time.RFC3339Nano, *want.OccurredAt)
		if err != nil {
			t.Fatalf("bad corpus: %v", err)
		}
		wantAt = parsed.UTC().Format(time.RFC3339Nano)
	}
	machine := map[string]event.Machine{"": event.MachineUnknown, "null": event.MachineUnknown, "true": event.MachineYes, "false": event.MachineNo}
	bounce := want.Bounce
	if bounce == "" && want.Type == "bounced" {
		bounce = "soft"
	}
	for field, pair := range map[string][2]any{
		"type":        {string(got.Type), want.Type},
		"control":     {got.Control, false},
		"occurred_at": {at, wantAt},
		"recipient":   {got.Email, want.Recipient},
		"message_id":  {got.ProviderMessageID, want.MessageID},
		"event_id":    {got.ProviderEventID, want.EventID},
		"bounce":      {string(got.Bounce), bounce},
		"machine":     {got.Machine, machine[string(want.Machine)]},
		"step":        {got.StepNumber, want.Step},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: got %v, want %v", field, pair[0], pair[1])
		}
	}
	for field, pair := range map[string][2]string{
		"url":      {got.URL, want.URL},
		"campaign": {got.Campaign, string(want.Campaign)},
		"contact":  {got.LeadID, string(want.Contact)},
		"callback": {got.EnrollmentID + got.ActionID, want.Callback},
	} {
		if field == "callback" && want.Callback == "" || sparseCorpus(got.Provider) && pair[1] == "" {
			continue
		}
		if pair[0] != pair[1] {
			t.Errorf("%s: got %v, want %v", field, pair[0], pair[1])
		}
	}
}

// sound checks what holds for every event of every adapter.
func sound(t testing.TB, e *event.Event, body []byte) {
	t.Helper()
	if err := e.Check(); err != nil {
		t.Errorf("check: %v", err)
	}
	switch {
	case e.Provider == "" || e.Kind == "" || !e.Channel.Valid():
		t.Errorf("provider %q, kind %q or channel %q is missing", e.Provider, e.Kind, e.Channel)
	case e.Control != (e.Type == ""):
		t.Errorf("control is %v with type %q", e.Control, e.Type)
	case e.OccurredAtEstimated != e.OccurredAt.IsZero():
		t.Errorf("estimated is %v with time %v", e.OccurredAtEstimated, e.OccurredAt)
	case e.OccurredAt.Location() != time.UTC || e.OccurredAt.Nanosecond()%1000 != 0:
		t.Errorf("time %v is not UTC in whole microseconds", e.OccurredAt)
	// A masked secret is the one thing that a payload and its body differ in.
	// Mandrill's items come as a form, encoded.
	case len(e.Payload) == 0 ||
		(e.Provider != "mandrill" && !bytes.Contains(body, e.Payload) && !bytes.Contains(e.Payload, []byte(`"********"`))):
		t.Errorf("payload %.80q is not a part of the body", e.Payload)
	case !e.ReceivedAt.IsZero() || e.Scope != "" || e.Tenant != 0:
		t.Error("the adapter set what only ingest knows")
	case (e.Bounce != "") != (e.Type == event.Bounced):
		t.Errorf("bounce %q with type %q", e.Bounce, e.Type)
	}
}

type vector struct {
	Scheme string `json:"scheme"`
	Expect string `json:"expect"`
	Why    string `json:"why"`
	Key    struct {
		Secret    string `json:"secret"`
		PublicKey string `json:"public_key"`
		User      string `json:"user"`
		Password  string `json:"password"`
		Signing   string `json:"signing_key"` // calendly
		Webhook   string `json:"webhook_key"` // mandrill
		Token     string `json:"token"`       // url-token
		Header    string `json:"header"`      // static-header
		Value     string `json:"value"`       // static-header
	} `json:"key"`
	VerifyAt *int64 `json:"verify_at_unix"`
	Request  struct {
		Method  string            `json:"method"`
		URL     string            `json:"url"`
		Headers map[string]string `json:"headers"`
		Body    string            `json:"body_base64"`
	} `json:"request"`
}

func TestVerifyCorpus(t *testing.T) {
	t.Parallel()
	for name, dir := range corpora(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ran := 0
			for _, path := range jsonFiles(t, filepath.Join(dir, "vectors")) {
				var v vector
				if err := json.Unmarshal(read(t, path), &v); err != nil {
					t.Fatalf("%s: %v", path, err)
				}
				vendor := filepath.Base(filepath.Dir(path))
				var p *provider.Provider
				var cfgs []provider.Config
				switch {
				case strings.HasPrefix(v.Scheme, "standard-webhooks"): // Resend's too
					p = provider.ByName("generic")
					cfgs = []provider.Config{
						{Secrets: []string{v.Key.Secret + v.Key.PublicKey}},
						{Secrets: []string{strings.Repeat("QUJD", 8), v.Key.Secret + v.Key.PublicKey}}, // in its grace time
					}
				case vendor == "lemlist" && v.Scheme == "body-secret":
					p = provider.ByName("lemlist")
					cfgs = []provider.Config{{Secrets: []string{v.Key.Secret}}}
				case vendor == "postmark" && v.Scheme == "http-basic":
					p = provider.ByName("postmark")
					pair := v.Key.User + ":" + v.Key.Password
					cfgs = []provider.Config{{Secrets: []string{pair}}, {Settings: provider.Settings{BasicAuth: pair}}}
				case p == nil && slices.Contains(secretVendors(), vendor):
					p = provider.ByName(vendor)
					secret := v.Key.Secret + v.Key.Signing + v.Key.Webhook + v.Key.Token
					cfgs = []provider.Config{{Secrets: []string{secret}}, {Secrets: []string{"another-secret", secret}}}
				case vendor == "mailjet" && v.Scheme == "http-basic":
					p = provider.ByName(vendor)
					pair := v.Key.User + ":" + v.Key.Password
					cfgs = []provider.Config{{Secrets: []string{pair}}, {Settings: provider.Settings{BasicAuth: pair}}}
				case vendor == "instantly" && v.Scheme == "static-header":
					p = provider.ByName(vendor)
					cfgs = []provider.Config{{Settings: provider.Settings{Headers: map[string]string{v.Key.Header: v.Key.Value + v.Key.Secret}}}}
				default:
					continue // a scheme of a later release
				}
				if p == nil {
					continue
				}
				ran++
				t.Run(vendor+"/"+filepath.Base(path), func(t *testing.T) {
					t.Parallel()
					body, err := base64.StdEncoding.DecodeString(v.Request.Body)
					if err != nil {
						t.Fatal(err)
					}
					now := time.Unix(1_700_000_000, 0)
					if v.VerifyAt != nil {
						now = time.Unix(*v.VerifyAt, 0)
					}
					req := request(body, v.Request.Headers)
					if req.URL = v.Request.URL; req.URL == "" {
						req.URL = "https://hooks.example/webhooks/x"
					}
					for _, cfg := range cfgs {
						err := p.Verify(now, cfg, req)
						if (err == nil) != (v.Expect == "valid") {
							t.Errorf("got %v, want %s: %s", err, v.Expect, v.Why)
						}
					}
				})
			}
			if ran == 0 {
				t.Error("the corpus has no vector for our schemes")
			}
		})
	}
}

// secretVendors are those whose every vector is checked with the one secret.
func secretVendors() []string {
	return []string{"smartlead", "phantombuster", "heygen", "calendly", "mailersend", "mandrill"}
}

// asPosted is a file of the corpus as its vendor posts it: Mandrill's are the
// JSON inside the form field, in some with the other fields around it.
func asPosted(vendor string, body []byte) []byte {
	if vendor != "mandrill" {
		return body
	}
	events := body
	var fields map[string]jsontext.Value
	if json.Unmarshal(body, &fields) == nil {
		events = fields["mandrill_events"]
	}
	return []byte(url.Values{"mandrill_events": {string(events)}}.Encode())
}

func request(body []byte, headers map[string]string) provider.Request {
	h := http.Header{}
	for k, v := range headers {
		h.Set(k, v)
	}
	return provider.Request{
		Method: http.MethodPost, URL: "https://hooks.example/webhooks/x", Header: h, Body: body, RemoteAddr: "203.0.113.9",
	}
}

func expectedFiles(t testing.TB, dir string) []expectedFile {
	t.Helper()
	var files []expectedFile
	for line := range bytes.Lines(read(t, filepath.Join(dir, "expected.jsonl"))) {
		var f expectedFile
		if err := json.Unmarshal(line, &f); err != nil {
			t.Fatalf("expected.jsonl: %v", err)
		}
		files = append(files, f)
	}
	return files
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func jsonFiles(t testing.TB, dir string) []string {
	t.Helper()
	var paths []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && filepath.Ext(path) == ".json" {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(paths)
	return paths
}

// decodeOne decodes a body that must be one event.
func decodeOne(t testing.TB, name string, body []byte, headers map[string]string) *event.Event {
	t.Helper()
	got, err := provider.ByName(name).Decode(request(body, headers))
	if err != nil {
		t.Fatalf("decode %s: %v", body, err)
	}
	if len(got) != 1 {
		t.Fatalf("decode %s: got %d events, want 1", body, len(got))
	}
	sound(t, &got[0], body)
	return &got[0]
}

// with gives the JSON object with members replaced; nil takes one out.
func with(t testing.TB, body []byte, members map[string]any) []byte {
	t.Helper()
	var o map[string]jsontext.Value
	if err := json.Unmarshal(body, &o); err != nil {
		t.Fatal(err)
	}
	for k, v := range members {
		if v == nil {
			delete(o, k)
			continue
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		o[k] = b
	}
	b, err := json.Marshal(o, json.Deterministic(true))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
