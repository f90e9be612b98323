package event

import (
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Identity is what makes two submissions the same event, as a hash within
// the tenant. It is the provider's own choice (IdentityParts), else the
// provider's event id with its type, else every field that was submitted.
// The receipt time never takes part: a resent webhook has the same identity.
func (e *Event) Identity() Hash {
	switch {
	case len(e.IdentityParts) > 0:
		return HashOf(append([]string{"parts", e.Scope}, e.IdentityParts...)...)
	case e.ProviderEventID != "":
		return HashOf("id", e.Scope, e.ProviderEventID, string(e.Type), e.kindIfControl())
	}
	at := ""
	if !e.OccurredAtEstimated {
		at = e.OccurredAt.UTC().Format(time.RFC3339Nano)
	}
	return HashOf("fields", e.Scope, string(e.Type), e.kindIfControl(), string(e.Channel), e.Provider,
		NormalID(e.ProviderMessageID), e.ActionID, e.LeadID, e.EnrollmentID, NormalAddress(e.Email),
		e.Campaign, strconv.Itoa(e.StepNumber), string(e.Bounce), strconv.Itoa(int(e.Machine)),
		e.URL, at, canonicalJSON(e.Metadata))
}

// Signed ties an event without an id of its own to the signed id of the request
// that brought it: the retry of a webhook is the same event, two webhooks of
// equal content are two. The content takes part, so that another event under
// an id that was seen is kept, and never dropped as a duplicate.
func (e *Event) Signed(id string) {
	if id == "" || e.ProviderEventID != "" {
		return
	}
	content := *e
	content.Scope, content.IdentityParts = "", nil
	h := content.Identity()
	e.IdentityParts = []string{"webhook-id", id, string(h[:])}
}

func (e *Event) kindIfControl() string {
	if e.Control {
		return e.Kind
	}
	return ""
}

// canonicalJSON makes equal objects equal bytes (RFC 8785). Numbers keep the
// digits they were sent with: an id beyond 2^53 must not fold into another.
func canonicalJSON(raw []byte) string {
	if len(raw) == 0 {
		return ""
	}
	v := jsontext.Value(raw).Clone()
	if err := v.Format(jsontext.ReorderRawObjects(true), jsontext.CanonicalizeRawInts(false),
		jsontext.CanonicalizeRawFloats(false)); err != nil {
		return string(raw)
	}
	return string(v)
}
