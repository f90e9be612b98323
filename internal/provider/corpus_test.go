package provider_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
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
func sparseCorpus(vendor, field string) bool {
	switch vendor {
	case "calendly", "mailersend", "mailjet", "sparkpost", "mailtrap", "mailgun":
		return true
	case "sendgrid", "resend", "brevo":
		return field == "campaign"
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
			files, err := expectedFiles(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range files {
				t.Run(want.File, func(t *testing.T) {
					t.Parallel()
					for _, miss := range payloadMisses(dir, want) {
						t.Error(miss)
					}
				})
			}
		})
	}
}

// payloadMisses decodes one body of a corpus and tells in what it differs from
// what is expected of it; nothing when all is well.
func payloadMisses(dir string, want expectedFile) []string {
	vendor, _, _ := strings.Cut(want.File, "/")
	p := provider.ByName(vendor)
	if p == nil {
		return []string{"no adapter of this name"}
	}
	var events []expectedEvent
	if err := json.Unmarshal(want.Events, &events); err != nil {
		return []string{"bad corpus: " + err.Error()}
	}
	body, err := os.ReadFile(filepath.Join(dir, "payloads", filepath.FromSlash(want.File)))
	if err != nil {
		return []string{err.Error()}
	}
	body = asPosted(vendor, body)
	got, err := p.Decode(request(body, nil))
	if err != nil {
		return []string{"decode: " + err.Error()}
	}
	if len(got) != len(events) {
		return []string{fmt.Sprintf("got %d events, want %d", len(got), len(events))}
	}
	var misses []string
	for i := range got {
		for _, miss := range append(differences(&got[i], events[i]), unsound(&got[i], body)...) {
			misses = append(misses, fmt.Sprintf("event %d: %s", i, miss))
		}
	}
	return misses
}

// differences holds an event against what the corpus says. What the corpus
// leaves out must be absent, except the hardness of a bounce: a bounce that
// does not say is soft. Of a control event only what is told is held against it.
func differences(got *event.Event, want expectedEvent) []string {
	at := ""
	if !got.OccurredAtEstimated {
		at = got.OccurredAt.Format(time.RFC3339Nano)
	}
	wantAt := ""
	if want.OccurredAt != nil {
		parsed, err := time.Parse(time.RFC3339Nano, *want.OccurredAt)
		if err != nil {
			return []string{"bad corpus: " + err.Error()}
		}
		wantAt = parsed.UTC().Format(time.RFC3339Nano)
	}
	fields := map[string][2]string{}
	if want.Control != "" {
		fields["control"] = [2]string{got.Kind, want.Control}
		fields["type"] = [2]string{string(got.Type), ""}
		fields["is control"] = [2]string{strconv.FormatBool(got.Control), "true"}
		if want.OccurredAt != nil {
			fields["occurred_at"] = [2]string{at, wantAt}
		}
		if want.EventID != "" {
			fields["event_id"] = [2]string{got.ProviderEventID, want.EventID}
		}
		return unequal(fields)
	}
	machine := map[event.Machine]string{event.MachineUnknown: "null", event.MachineYes: "true", event.MachineNo: "false"}
	wantMachine := string(want.Machine)
	if wantMachine == "" {
		wantMachine = "null"
	}
	bounce := want.Bounce
	if bounce == "" && want.Type == "bounced" {
		bounce = "soft"
	}
	fields = map[string][2]string{
		"type":        {string(got.Type), want.Type},
		"is control":  {strconv.FormatBool(got.Control), "false"},
		"occurred_at": {at, wantAt},
		"recipient":   {got.Email, want.Recipient},
		"message_id":  {got.ProviderMessageID, want.MessageID},
		"event_id":    {got.ProviderEventID, want.EventID},
		"bounce":      {string(got.Bounce), bounce},
		"machine":     {machine[got.Machine], wantMachine},
		"step":        {strconv.Itoa(got.StepNumber), strconv.Itoa(want.Step)},
	}
	for field, pair := range map[string][2]string{
		"url":      {got.URL, want.URL},
		"campaign": {got.Campaign, string(want.Campaign)},
		"contact":  {got.LeadID, string(want.Contact)},
		"callback": {got.EnrollmentID + got.ActionID, want.Callback},
	} {
		if field == "callback" && want.Callback == "" || sparseCorpus(got.Provider, field) && pair[1] == "" {
			continue
		}
		fields[field] = pair
	}
	return unequal(fields)
}

func unequal(fields map[string][2]string) []string {
	var misses []string
	for _, field := range slices.Sorted(maps.Keys(fields)) {
		if pair := fields[field]; pair[0] != pair[1] {
			misses = append(misses, fmt.Sprintf("%s: got %q, want %q", field, pair[0], pair[1]))
		}
	}
	return misses
}

// sound checks what holds for every event of every adapter.
func sound(t testing.TB, e *event.Event, body []byte) {
	t.Helper()
	for _, miss := range unsound(e, body) {
		t.Error(miss)
	}
}

func unsound(e *event.Event, body []byte) []string {
	var misses []string
	miss := func(format string, args ...any) { misses = append(misses, fmt.Sprintf(format, args...)) }
	if err := e.Check(); err != nil {
		miss("check: %v", err)
	}
	// Their items come as a form, encoded.
	form := e.Provider == "mandrill" || e.Provider == "mailgun" && jsontext.Value(body).Kind() != '{'
	switch {
	case e.Provider == "" || e.Kind == "" || !e.Channel.Valid():
		miss("provider %q, kind %q or channel %q is missing", e.Provider, e.Kind, e.Channel)
	case e.Control != (e.Type == ""):
		miss("control is %v with type %q", e.Control, e.Type)
	case e.OccurredAtEstimated != e.OccurredAt.IsZero():
		miss("estimated is %v with time %v", e.OccurredAtEstimated, e.OccurredAt)
	case e.OccurredAt.Location() != time.UTC || e.OccurredAt.Nanosecond()%1000 != 0:
		miss("time %v is not UTC in whole microseconds", e.OccurredAt)
	// A masked secret is the one thing that a payload and its body differ in.
	case len(e.Payload) == 0 || (!form && !bytes.Contains(body, e.Payload) && !bytes.Contains(e.Payload, []byte(`"********"`))):
		miss("payload %.80q is not a part of the body", e.Payload)
	case !e.ReceivedAt.IsZero() || e.Scope != "" || e.Tenant != 0:
		miss("the adapter set what only ingest knows")
	case (e.Bounce != "") != (e.Type == event.Bounced):
		miss("bounce %q with type %q", e.Bounce, e.Type)
	}
	return misses
}

// asPosted is a file of the corpus as its vendor posts it: Mandrill's are the
// JSON inside the form field, in some with the other fields around it; Mailgun's
// legacy ones are the fields of a form, a list where a field comes more than once.
func asPosted(vendor string, body []byte) []byte {
	var fields map[string]jsontext.Value
	object := json.Unmarshal(body, &fields) == nil
	switch {
	case vendor == "mandrill" && object:
		return []byte(url.Values{"mandrill_events": {string(fields["mandrill_events"])}}.Encode())
	case vendor == "mandrill":
		return []byte(url.Values{"mandrill_events": {string(body)}}.Encode())
	case vendor == "mailgun" && fields["token"] != nil:
		form := url.Values{}
		for name, v := range fields {
			var values []string
			if json.Unmarshal(v, &values) != nil {
				values = []string{strings.Trim(string(v), `"`)}
				var s string
				if json.Unmarshal(v, &s) == nil {
					values = []string{s}
				}
			}
			form[name] = values
		}
		return []byte(form.Encode())
	}
	return body
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

func expectedFiles(dir string) ([]expectedFile, error) {
	lines, err := os.ReadFile(filepath.Join(dir, "expected.jsonl"))
	if err != nil {
		return nil, err
	}
	var files []expectedFile
	for line := range bytes.Lines(lines) {
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var f expectedFile
		if err := json.Unmarshal(line, &f); err != nil {
			return nil, fmt.Errorf("expected.jsonl: %w", err)
		}
		files = append(files, f)
	}
	return files, nil
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
	paths, err := listJSON(dir)
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func listJSON(dir string) ([]string, error) {
	var paths []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && filepath.Ext(path) == ".json" {
			paths = append(paths, path)
		}
		return err
	})
	slices.Sort(paths)
	return paths, err
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
