package provider_test

import (
	"encoding/base64"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"tallyhook/internal/event"
	"tallyhook/internal/provider"
)

// hostile are bodies of about n parts that an adapter might take too long over.
func hostile(vendor string, n int) map[string]string {
	s := samples()[vendor]
	item := s.text(like{id: "1", message: "5", address: "ada@x.example"})
	items := make([]string, n)
	for i := range items {
		items[i] = item
	}
	bodies := map[string]string{
		"Deep":    strings.Repeat("[", 9*n) + strings.Repeat("]", 9*n),
		"DeepIn":  `{"event":` + strings.Repeat(`{"data":`, 9*n) + "1" + strings.Repeat("}", 9*n+1),
		"Members": `{"a":1` + members(n) + `}`,
		"Escapes": strings.Replace(item, "ada@", strings.Repeat(`\u0041`, n)+"@", 1),
		"Space":   item + strings.Repeat(" ", 20*n),
	}
	if s.batch != nil {
		bodies["Batch"] = s.batch(items)
	}
	wide := members(n)
	for name, list := range map[string]string{
		"Tags": `"tags":[` + strings.Repeat(`"t",`, n) + `"t"],"tag":"x","category":[` + strings.Repeat(`"t",`, n) + `"t"]`,
		"Data": `"data":{"a":1` + wide + `},"event-data":{"a":1` + wide + `},"metadata":{"a":1` + wide + `},"custom_variables":{"a":1` + wide + `}`,
		"To":   `"to":[` + strings.Repeat(`"a@x.example",`, n) + `"b@x.example"]`,
	} {
		if i := strings.LastIndex(item, "}"); i >= 0 && vendor != "phantombuster" {
			body := item[:i] + "," + list + "}"
			if s.batch != nil {
				body = s.batch([]string{body})
			}
			bodies[name] = body
		}
	}
	switch vendor {
	case "mandrill":
		for name, body := range bodies {
			bodies[name] = url.Values{"mandrill_events": {body}}.Encode()
		}
		bodies["Fields"] = "mandrill_events=[]" + fields(n)
	case "mailgun":
		bodies["Fields"] = "event=opened&token=t" + fields(n)
		bodies["Headers"] = url.Values{"event": {"opened"}, "message-headers": {"[" + strings.Repeat(`["a","b"],`, n) + `["c","d"]]`}}.Encode()
	case "ses":
		bodies["Recipients"] = `{"eventType":"Bounce","mail":{"messageId":"m","tags":{"a":["b"]},"headers":[` + strings.Repeat(`{"name":"a","value":"b"},`, n) +
			`{}]},"bounce":{"bouncedRecipients":[` + strings.Repeat(`{"emailAddress":"a@x.example"},`, n) + `{}]}}`
	case "sparkpost":
		bodies["Classes"] = `[{"msys":{"a":{"type":"open"}` + strings.ReplaceAll(members(n), ":1", `:{"type":"open"}`) + `}}]`
	}
	return bodies
}

// members are n different members of an object, after one.
func members(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(`,"m` + strings.Repeat("x", i%7) + base64.RawURLEncoding.EncodeToString([]byte{byte(i >> 8), byte(i)}) + `":1`)
	}
	return b.String()
}

func fields(n int) string {
	return strings.NewReplacer(`,"`, "&", `":`, "=").Replace(members(n))
}

// memory is how much f allocates, in bytes. It wants nothing else to run.
func memory(f func()) uint64 {
	var before, after runtime.MemStats
	f() // what is made once
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestGrowth: twice the body takes no more than about twice the memory, and
// not much of it; so does twice the header. It counts and takes no time, and
// runs by itself, as others would be counted.
func TestGrowth(t *testing.T) { //nolint:paralleltest // see above
	const n = 400
	for _, p := range provider.All() {
		one, two := hostile(p.Name, n), hostile(p.Name, 2*n)
		for name, body := range one {
			use := func(body string) (bytes uint64) {
				req := request([]byte(body), map[string]string{"Content-Type": "application/x-www-form-urlencoded"})
				req.Settings.Agents = map[string]provider.Agent{"1": {EventType: event.ConnectionSent}}
				cfg := provider.Config{Secrets: []string{stranger(p.Name)}}
				return memory(func() {
					_ = p.Verify(time.Unix(1_770_000_000, 0), cfg, req)
					_, _ = p.Decode(req)
					if p.Mask != nil {
						_ = p.Mask(req.Body)
					}
				})
			}
			small, large := use(body), use(two[name])
			if large > 3*small+1<<16 {
				t.Errorf("%s, %s: %d bytes for %d, %d for twice as many", p.Name, name, small, n, large)
			}
			// Most is what the JSON decoder keeps for each level of a deep body.
			if bound := uint64(200*len(two[name]) + 1<<16); large > bound {
				t.Errorf("%s, %s: %d bytes for a body of %d", p.Name, name, large, len(two[name]))
			}
		}
		if got := memory(func() {
			entry := "v1," + strings.Repeat("A", 43) + "= "
			_ = p.Verify(time.Unix(1_770_000_000, 0), provider.Config{Secrets: []string{stranger(p.Name)}}, request([]byte(`{}`), map[string]string{
				"webhook-id": "m", "webhook-timestamp": "1770000000", "webhook-signature": strings.Repeat(entry, 20_000),
				"Calendly-Webhook-Signature": "t=1770000000" + strings.Repeat(",v1=00", 20_000), "Signature": strings.Repeat("00", 20_000),
				"Authorization": "Basic " + strings.Repeat("QUFB", 20_000), "X-HubSpot-Signature": strings.Repeat("00", 20_000),
			}))
		}); got > 8<<20 {
			t.Errorf("%s: %d bytes for long headers", p.Name, got)
		}
	}
}
