package postgres

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"

	"tallyhook/internal/event"
	"tallyhook/internal/store/row"
)

// searchRef is what event_search finds an event by: 8 bytes of a hash, so that
// the index stays narrow. Two of a tenant's ten million addresses share them
// in one of 300,000 such tenants, and then a search shows a row too many.
type searchRef struct {
	tenant int64
	key    [8]byte
}

// searchRefs are what an event is searched by.
func searchRefs(tenant int64, email, message string, enrollment uuid.UUID) []searchRef {
	refs := make([]searchRef, 0, 3)
	if a := event.NormalAddress(email); a != "" {
		refs = append(refs, searchRef{tenant, row.SearchKey("email", a)})
	}
	if m := event.NormalID(message); m != "" {
		refs = append(refs, searchRef{tenant, row.SearchKey("message", m)})
	}
	if enrollment != uuid.Nil {
		refs = append(refs, enrollmentRef(tenant, enrollment))
	}
	return refs
}

func enrollmentRef(tenant int64, enrollment uuid.UUID) searchRef {
	return searchRef{tenant, row.SearchKey("enrollment", enrollment.String())}
}

// conditions gather the parts of a WHERE and what they are about.
type conditions struct {
	parts []string
	args  []any
}

// add joins a condition; each ? in it stands for the next of its arguments.
func (c *conditions) add(cond string, args ...any) {
	c.parts = append(c.parts, c.bind(cond, args...))
}

// text joins a condition on one text. What PostgreSQL cannot store, a NUL or
// what is not UTF-8, no row has.
func (c *conditions) text(cond, value string) {
	if strings.ContainsRune(value, 0) || !utf8.ValidString(value) {
		c.parts = append(c.parts, "false")
		return
	}
	c.add(cond, value)
}

// bind numbers the arguments of a part of the query.
func (c *conditions) bind(part string, args ...any) string {
	for _, a := range args {
		c.args = append(c.args, a)
		part = strings.Replace(part, "?", "$"+strconv.Itoa(len(c.args)), 1)
	}
	return part
}

func (c *conditions) String() string { return strings.Join(c.parts, " AND ") }
