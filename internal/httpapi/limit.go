package httpapi

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/access"
	"tallyhook/internal/fault"
	"tallyhook/internal/limit"
)

// limit refuses who asks too often.
func (s *server) limit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.meter(w, r); err != nil {
			s.refuse(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// meter spends one of the budget that a request belongs to, once for each
// request. A good key has a budget of its own and is never refused for its
// address; everything else counts against its address, and is refused before
// the store is asked about it. A key or a source that is known in memory is
// not held for a guess.
func (s *server) meter(w http.ResponseWriter, r *http.Request) error {
	c := callOf(r.Context())
	if c.metered || s.Budgets == nil || c.route != nil && c.route.unlimited() {
		return c.over
	}
	c.metered = true
	stranger := limit.Address(c.client)
	key, given := apiKey(r.Header)
	switch {
	case c.route != nil && c.route.Class == classWebhook && r.Method == http.MethodPost:
		// Its source has a budget, spent once its signature is seen to be good.
		return nil
	case !given && c.route != nil && c.route.Class == classSigned && r.Header.Get("webhook-signature") != "":
		if id, err := uuid.Parse(r.Header.Get("X-Source-ID")); err == nil && s.Access.KnownSource(id) {
			return nil // the same
		}
		c.tentative = true
		c.over = s.spend(w, limit.Anonymous, stranger)
		return c.over
	case key == "":
		c.over = s.spend(w, limit.Anonymous, stranger)
		return c.over
	}
	known := s.Access.KnownKey(key)
	if !known {
		// Spent first and given back when the key is good, so that of a thousand
		// guesses at once no more reach the store than the address may make.
		if c.over = s.spend(w, limit.Anonymous, stranger); c.over != nil {
			return c.over
		}
	}
	who, err := s.authenticate(r.Context(), c, key)
	switch {
	case err == nil:
		if !known {
			s.Budgets.Give(limit.Anonymous, stranger)
		}
		c.who = who
		if c.over = s.spend(w, limit.API, limit.Of(who.KeyID)); c.over == nil {
			c.over = s.Budgets.Whole(limit.API, who.Tenant, who.PerSecond)
			tellExceeded(w, c.over)
		}
	case errors.Is(err, access.ErrSuspended): // the key is good
		if !known {
			s.Budgets.Give(limit.Anonymous, stranger)
		}
		c.over = s.spend(w, limit.API, limit.Of(who.KeyID))
	case errors.Is(err, access.ErrAddress): // here it is as good as none, and its own budget is not for strangers
		if known {
			c.over = s.spend(w, limit.Anonymous, stranger)
		}
	case kindOf(err) == fault.Unauthenticated && known: // it was revoked a moment ago
		c.over = s.spend(w, limit.Anonymous, stranger)
	case kindOf(err) != fault.Unauthenticated && !known: // whether it is good cannot be told now
		s.Budgets.Give(limit.Anonymous, stranger)
	}
	return c.over
}

// unlimited tells the routes that a machine asks all the time.
func (r *Route) unlimited() bool { return r.probe() || r.Path == "/metrics" }

// spend takes one of a budget and tells in the answer what is left of it.
func (s *server) spend(w http.ResponseWriter, kind limit.Kind, k limit.Key) error {
	if s.Budgets == nil {
		return nil
	}
	d := s.Budgets.Take(kind, k)
	tellBudget(w, kind, d)
	if d.Allowed {
		return nil
	}
	what := "too many requests of this address without a valid API key"
	if kind == limit.API {
		what = "too many requests with this API key"
	}
	return limit.Refuse(kind, d, what+fmt.Sprintf(" (%d in %s); try again later", d.Rate.Count, d.Rate.Period))
}

// tellBudget writes the fields of draft-ietf-httpapi-ratelimit-headers. Their
// times are whole seconds, rounded up: who waits so long is let through.
func tellBudget(w http.ResponseWriter, kind limit.Kind, d limit.Decision) {
	if !d.Limited() {
		return
	}
	name := strconv.Quote(string(kind))
	w.Header().Set("RateLimit-Policy", fmt.Sprintf("%s;q=%d;w=%d", name, d.Rate.Count, seconds(d.Rate.Period)))
	w.Header().Set("RateLimit", fmt.Sprintf("%s;r=%d;t=%d", name, d.Remaining, seconds(d.Reset)))
}

// tellExceeded does so for a refusal that came from within.
func tellExceeded(w http.ResponseWriter, err error) {
	if e, ok := errors.AsType[*limit.Exceeded](err); ok {
		tellBudget(w, e.Kind, e.Decision)
	}
}

func seconds(d time.Duration) int { return max(1, int(math.Ceil(d.Seconds()))) }
