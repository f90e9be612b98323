package httpapi

import (
	"net/http"
	"slices"

	jsonv2 "github.com/go-json-experiment/json"

	"tallyhook/internal/fault"
)

// write answers a value as JSON on a raw route.
func (s *server) write(w http.ResponseWriter, r *http.Request, status int, v any) {
	b, err := jsonv2.Marshal(v, writeOptions())
	if err != nil {
		s.refuse(w, r, fault.Wrap(fault.Internal, "write answer", err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if _, err := w.Write(b); err != nil {
		return // the caller went away: there is nobody left to tell
	}
}

// onlyQuery refuses query parameters that a raw route does not have.
func onlyQuery(r *http.Request, names ...string) error {
	if r.URL.RawQuery == "" {
		return nil
	}
	for name := range r.URL.Query() {
		if !slices.Contains(names, name) {
			return fault.BadInput(fault.Field{Location: "query." + name, Message: "is not a parameter of this route"})
		}
	}
	return nil
}
