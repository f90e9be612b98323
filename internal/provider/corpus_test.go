package provider_test

import (
	"bytes"
	"errors"
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

// ownCorpus are the repository's own fixtures.
const ownCorpus = "testdata"

// corpora are the repository's own fixtures and, where it is there, the shared
// corpus. Both have the same layout.
func corpora(t testing.TB) map[string]string {
	t.Helper()
	dirs := map[string]string{"Own": ownCorpus}
	if _, err := os.Stat(filepath.Join(sharedCorpus, "expected.jsonl")); err == nil {
		dirs["Shared"] = sharedCorpus
	} else {
		t.Logf("no shared corpus at %s: own fixtures only", sharedCorpus)
	}
	return dirs
}

// expectedEvent is what a corpus says of one event. A member that is absent is
// not told; one that is null is told to be absent.
type expectedEvent struct {
	Type       word  `json:"type"`
	Control    word  `json:"control"`
	OccurredAt word  `json:"occurred_at"`
	Recipient  word  `json:"recipient"`
	MessageID  word  `json:"message_id"`
	EventID    word  `json:"event_id"`
	Bounce     word  `json:"bounce"`
	Machine    word  `json:"machine"`
	URL        *word `json:"url"`
	Step       *word `json:"step"`
	Campaign   *word `json:"campaign"`
	Contact    *word `json:"contact"`
	Callback   *word `json:"callback"`
	ObjectID   *word `json:"object_id"` // of HubSpot's control events: what has changed
}

// complete says that what is not told of an event is not there: our own
// fixtures tell everything.
func (e *expectedEvent) complete() {
	for _, field := range []**word{&e.URL, &e.Step, &e.Campaign, &e.Contact} {
		if *field == nil && e.Control == "" {
			*field = new(word)
		}
	}
}

// word is a value of a corpus as text: ids are numbers with some vendors. Null
// is "".
type word string

// UnmarshalJSON implements json.Unmarshaler.
func (w *word) UnmarshalJSON(raw []byte) error {
	switch v := jsontext.Value(raw); v.Kind() {
	case 'n':
		*w = ""
	case '"':
		b, err := jsontext.AppendUnquote(nil, v)
		*w = word(b)
		return err
	default:
		*w = word(v)
	}
	return nil
}

type expectedFile struct {
	File   string          `json:"file"`
	Events []expectedEvent `json:"events"`
}

func TestDecodeCorpus(t *testing.T) {
	t.Parallel()
	for name, dir := range corpora(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files, bad, err := expectedFiles(dir)
			if err != nil || len(bad) > 0 {
				t.Fatal(err, bad)
			}
			said := map[string]bool{}
			for _, want := range files {
				said[want.File] = true
				t.Run(want.File, func(t *testing.T) {
					t.Parallel()
					for _, miss := range payloadMisses(dir, want) {
						t.Error(miss)
					}
				})
			}
			for _, path := range jsonFiles(t, filepath.Join(dir, "payloads")) { // a body that nothing is said of proves nothing
				if file := corpusName(filepath.Join(dir, "payloads"), path); !said[file] {
					t.Errorf("expected.jsonl has no line for %s", file)
				}
			}
		})
	}
}

// payloadMisses decodes one body of a corpus and tells in what it differs from
// what is expected of it; nothing when all is well.
func payloadMisses(dir string, want expectedFile) (misses []string) {
	defer func() {
		if r := recover(); r != nil { // one case must not end the run
			misses = append(misses, fmt.Sprintf("got a panic: %v", r))
		}
	}()
	vendor, _, _ := strings.Cut(want.File, "/")
	p := provider.ByName(vendor)
	if p == nil {
		return []string{"no adapter of this name"}
	}
	body, err := os.ReadFile(filepath.Join(dir, "payloads", filepath.FromSlash(want.File)))
	if err != nil {
		return []string{err.Error()}
	}
	body = asPosted(vendor, body)
	got, err := p.Decode(request(body, nil))
	if err != nil {
		return []string{fmt.Sprintf("got an error (%v), want %d events", err, len(want.Events))}
	}
	if len(got) != len(want.Events) {
		return []string{fmt.Sprintf("got %d events (%s), want %d", len(got), kinds(got), len(want.Events))}
	}
	if dir == ownCorpus {
		for i := range want.Events {
			want.Events[i].complete()
		}
	}
	misses = inOrder(got, want.Events)
	if len(misses) > 0 && inAnyOrder(got, want.Events) {
		misses = nil
	}
	for i := range got {
		for _, miss := range unsound(&got[i], body) {
			misses = append(misses, fmt.Sprintf("event %d: %s", i, miss))
		}
	}
	return misses
}

func kinds(events []event.Event) string {
	list := make([]string, len(events))
	for i := range events {
		list[i] = events[i].Kind
	}
	return strings.Join(list, ", ")
}

// inOrder tells the differences between events of the same place.
func inOrder(got []event.Event, want []expectedEvent) []string {
	var misses []string
	for i := range got {
		for _, miss := range differences(&got[i], want[i]) {
			misses = append(misses, fmt.Sprintf("event %d: %s", i, miss))
		}
	}
	return misses
}

// inAnyOrder tells whether each expected event is one of the others: what a
// vendor lists beside each other has no order.
func inAnyOrder(got []event.Event, want []expectedEvent) bool {
	left := slices.Clone(got)
	for _, w := range want {
		i := slices.IndexFunc(left, func(e event.Event) bool { return len(differences(&e, w)) == 0 })
		if i < 0 {
			return false
		}
		left = slices.Delete(left, i, i+1)
	}
	return true
}

// differences holds an event against what the corpus says. Of the fields that
// not every vendor has, and of a control event, only what is told is held
// against it. A bounce that is not told to be hard is soft, an event that is not
// told to be a machine's is nobody's or a person's.
func differences(got *event.Event, want expectedEvent) []string {
	at := ""
	if !got.OccurredAtEstimated {
		at = got.OccurredAt.Format(time.RFC3339Nano)
	}
	wantAt := ""
	if want.OccurredAt != "" {
		parsed, err := time.Parse(time.RFC3339Nano, string(want.OccurredAt))
		if err != nil {
			return []string{"bad corpus: " + err.Error()}
		}
		wantAt = parsed.UTC().Truncate(time.Microsecond).Format(time.RFC3339Nano)
	}
	// The case of an address is nobody's business.
	recipient, wantRecipient := event.NormalAddress(got.Email), event.NormalAddress(string(want.Recipient))
	fields := map[string][2]string{
		"type":       {string(got.Type), string(want.Type)},
		"is control": {strconv.FormatBool(got.Control), strconv.FormatBool(want.Control != "")},
	}
	told := func(field, got string, want *word) {
		if want != nil {
			fields[field] = [2]string{got, string(*want)}
		}
	}
	told("url", got.URL, want.URL)
	told("step", strings.TrimPrefix(strconv.Itoa(got.StepNumber), "0"), want.Step)
	told("campaign", got.Campaign, want.Campaign)
	told("contact", got.LeadID, want.Contact)
	told("callback", got.EnrollmentID+got.ActionID, want.Callback)
	told("object_id", got.LeadID, want.ObjectID)
	if want.Control != "" {
		fields["control"] = [2]string{got.Kind, string(want.Control)}
		for field, pair := range map[string][2]string{
			"occurred_at": {at, wantAt}, "event_id": {got.ProviderEventID, string(want.EventID)}, "recipient": {recipient, wantRecipient},
		} {
			if pair[1] != "" {
				fields[field] = pair
			}
		}
		return unequal(fields)
	}
	bounce := string(want.Bounce)
	if bounce == "" && want.Type == "bounced" {
		bounce = "soft"
	}
	machine := map[event.Machine]string{event.MachineUnknown: "", event.MachineYes: "true", event.MachineNo: "false"}[got.Machine]
	if want.Machine == "" && got.Machine == event.MachineNo {
		machine = ""
	}
	fields["occurred_at"] = [2]string{at, wantAt}
	fields["recipient"] = [2]string{recipient, wantRecipient}
	fields["message_id"] = [2]string{got.ProviderMessageID, string(want.MessageID)}
	fields["event_id"] = [2]string{got.ProviderEventID, string(want.EventID)}
	fields["bounce"] = [2]string{string(got.Bounce), bounce}
	fields["machine"] = [2]string{machine, string(want.Machine)}
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

// expectedFiles reads expected.jsonl; bad names the lines that are none of it.
func expectedFiles(dir string) (files []expectedFile, bad []string, err error) {
	lines, err := os.ReadFile(filepath.Join(dir, "expected.jsonl"))
	if err != nil {
		return nil, nil, err
	}
	n := 0
	for line := range bytes.Lines(bytes.TrimPrefix(lines, []byte("\uFEFF"))) {
		n++
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		var f expectedFile
		if err := json.Unmarshal(line, &f, jsontext.AllowDuplicateNames(true)); err != nil || f.File == "" {
			bad = append(bad, fmt.Sprintf("expected.jsonl, line %d: not a file with its events: %v", n, err))
			continue
		}
		files = append(files, f)
	}
	return files, bad, nil
}

// corpusName is a file of a folder as expected.jsonl names it.
func corpusName(dir, path string) string {
	name, err := filepath.Rel(dir, path)
	if err != nil {
		return path
	}
	return filepath.ToSlash(name)
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

// listJSON finds the cases of a folder; none when there is no such folder.
func listJSON(dir string) ([]string, error) {
	var paths []string
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
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
