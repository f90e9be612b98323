package ingest_test

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"

	"tallyhook/internal/event"
	"tallyhook/internal/provider"
	"tallyhook/internal/store"
)

// texts are headers by their names in lower case.
type texts map[string]string

func (h texts) Get(name string) string { return h[strings.ToLower(name)] }

// TestRedecode reads each vendor's bodies out of the dead letters: what was
// kept of a request, its secrets hidden, gives the very events that the request
// itself would have given, so that a vendor's retry of it is a duplicate.
func TestRedecode(t *testing.T) {
	t.Parallel()
	for _, p := range provider.All() {
		paths, err := filepath.Glob("../provider/testdata/payloads/" + p.Name + "/*.json")
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s: %d bodies, %v", p.Name, len(paths), err)
		}
		r := receive(t, p.Name, provider.Config{})
		for _, path := range paths {
			body, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			headers := texts{"content-type": "application/json", "svix-id": "msg_1", "svix-signature": "v1,AA=="}
			if p.Name == "mandrill" {
				body = []byte(url.Values{"mandrill_events": {string(body)}}.Encode())
				headers["content-type"] = "application/x-www-form-urlencoded"
			}
			want, err := p.Decode(provider.Request{Header: headers, Body: body})
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			kept := store.Letter{ID: uuid.New(), Tenant: 1, SourceID: r.source.ID, Provider: p.Name, Body: body, Headers: headers}
			if p.Mask != nil {
				kept.Body = p.Mask(body)
			}
			got, err := r.Redecode(t.Context(), kept)
			if err != nil || len(got) != len(want) {
				t.Errorf("%s: got %d events, %v, want %d", path, len(got), err, len(want))
				continue
			}
			for i := range got {
				want[i].Scope = r.source.ID.String()
				if got[i].Identity() != want[i].Identity() {
					t.Errorf("%s: event %d is another event", path, i)
				}
				if got[i].Tenant != 1 || got[i].SourceID != r.source.ID || got[i].Type != want[i].Type || event.NormalAddress(got[i].Email) != event.NormalAddress(want[i].Email) {
					t.Errorf("%s: event %d: got %+v, want %+v", path, i, got[i], want[i])
				}
			}
		}
	}
}
