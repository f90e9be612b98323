package provider_test

import (
	"errors"
	"testing"
	"time"

	"tallyhook/internal/event"
	"tallyhook/internal/provider"
)

func FuzzDecodeBrevo(f *testing.F) { fuzzDecode(f, "brevo") }

func TestDecodeBrevoTypes(t *testing.T) {
	t.Parallel()
	mapsTypes(t, "brevo", map[string]mapped{
		"request": {want: event.Sent}, "sent": {want: event.Sent}, "delivered": {want: event.Delivered}, "deferred": {want: event.Deferred},
		"soft_bounce": {want: event.Bounced, bounce: event.Soft}, "softBounce": {want: event.Bounced, bounce: event.Soft},
		"hard_bounce": {want: event.Bounced, bounce: event.Hard}, "hardBounce": {want: event.Bounced, bounce: event.Hard},
		"invalid_email": {want: event.Bounced, bounce: event.Hard}, "invalid": {want: event.Bounced, bounce: event.Hard},
		"blocked": {want: event.Dropped}, "error": {want: event.Failed}, "opened": {want: event.Opened},
		"unique_opened": {want: event.Opened}, "uniqueOpened": {want: event.Opened},
		"proxy_open":        {want: event.Opened, machine: event.MachineYes},
		"unique_proxy_open": {want: event.Opened, machine: event.MachineYes}, "loaded_by_proxy": {want: event.Opened, machine: event.MachineYes}, "uniqueProxyOpen": {want: event.Opened, machine: event.MachineYes},
		"click": {want: event.Clicked}, "complaint": {want: event.Complained}, "spam": {want: event.Complained},
		"unsubscribe": {want: event.Unsubscribed}, "unsubscribed": {want: event.Unsubscribed},
		"list_addition": {}, "contact_deleted": {}, "inbound_email_processed": {}, "something_new": {},
	}, func(kind string) []byte {
		return []byte(`{"event":"` + kind + `","email":"a@x.example","message-id":"<m@x>","ts_epoch":1778052367891}`)
	})
}

func TestDecodeBrevoTimes(t *testing.T) {
	t.Parallel()
	for members, want := range map[string]string{
		`"ts_epoch":1778052367891,"ts_event":1,"ts":2`:  "2026-05-06T07:26:07.891Z",
		`"ts_epoch":1778052367,"ts_event":1778059567`:   "2026-05-06T07:26:07Z",
		`"ts_event":1778052367,"ts":1778052000`:         "2026-05-06T07:26:07Z",
		`"ts":1778052367`:                               "2026-05-06T07:26:07Z",
		`"ts_epoch":null,"date":"2026-05-06 09:26:07"`:  "",
		`"s_epoch":1778052367000`:                       "",
		`"ts_epoch":"1778052367891","ts_event":"never"`: "2026-05-06T07:26:07.891Z",
	} {
		e := decodeOne(t, "brevo", []byte(`{"event":"opened","email":"a@x.example",`+members+`}`), nil)
		got := ""
		if !e.OccurredAtEstimated {
			got = e.OccurredAt.Format(time.RFC3339Nano)
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", members, got, want)
		}
	}
}

func TestDecodeBrevoCustom(t *testing.T) {
	t.Parallel()
	const id = "0198c0de-0000-7000-8000-00000000cafe"
	for members, want := range map[string]string{
		`"X-Mailin-custom":"{\"enrollment_id\":\"` + id + `\"}"`:     id,
		`"X-Mailin-custom":{"tallyhook_enrollment_id":"` + id + `"}`: id,
		`"X-Mailin-custom":"` + id + `"`:                             id,
		`"X-Mailin-custom":"a:1|enrollment_id:` + id + `"`:           id,
		`"X-Mailin-custom":"some_custom_header"`:                     "",
		`"tags":["spring","enrollment_id:` + id + `"]`:               id,
		`"tag":"[\"enrollment_id=` + id + `\"]"`:                     id,
		`"tag":["enrollment_id=` + id + `"]`:                         id,
		`"tag":"enrollment_id=` + id + `"`:                           id,
		`"tag":"[not a list"`:                                        "",
	} {
		if e := decodeOne(t, "brevo", []byte(`{"event":"opened",`+members+`}`), nil); e.EnrollmentID != want {
			t.Errorf("%s: got %q, want %q", members, e.EnrollmentID, want)
		}
	}
	if got, err := provider.ByName("brevo").Decode(request([]byte(`{"event":"opened","X-Mailin-custom":"{\"a\":\"\\u0000\"}"}`), nil)); err == nil {
		t.Errorf("what cannot be stored is taken: %d events", len(got))
	}
}

func TestIdentityBrevo(t *testing.T) {
	t.Parallel()
	const one = `{"event":"click","email":"a@x.example","id":9007199254740993,"camp_id":9007199254740993,"message-id":"<m@x>","ts_epoch":1778052367891,"link":"l1"}`
	identifies(t, "brevo", one,
		[][2]string{{"a@x", "A@x"}, {"<m@x>", "m@x"}, {`"id":9007199254740993,"camp`, `"id":5,"camp`}},
		[][2]string{
			{"click", "opened"},
			{"a@x", "b@x"},
			{"<m@x>", "<n@x>"},
			{"891", "892"},
			{"l1", "l2"},
			{`"camp_id":9007199254740993`, `"camp_id":9007199254740992`}, // one and the same as a float64
		})
	newIn(t, "brevo", one, "["+one+`,{"event":"click","email":"b@x.example","ts_epoch":1778052367891}]`, 1)
}

func TestVerifyBrevo(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		secrets []string
		header  string
		want    error
	}{
		"None":         {nil, "", nil},
		"Basic":        {[]string{"u:p"}, basic("u:p"), nil},
		"BasicInGrace": {[]string{"u:new", "u:p"}, basic("u:p"), nil},
		"BasicWrong":   {[]string{"u:p"}, basic("u:q"), provider.ErrMismatch},
		"BasicMissing": {[]string{"u:p"}, "", provider.ErrMissing},
		"Token":        {[]string{"own-token"}, "Bearer own-token", nil},
		"TokenBare":    {[]string{"own-token"}, "own-token", nil},
		"TokenWrong":   {[]string{"own-token"}, "Bearer own", provider.ErrMismatch},
		"TokenMissing": {[]string{"own-token"}, "", provider.ErrMissing},
		"TokenToBasic": {[]string{"u:p", "own-token"}, "Bearer own-token", nil},
		"BasicToToken": {[]string{"own-token", "u:p"}, basic("u:p"), nil},
		"EmptySecret":  {[]string{""}, "Bearer ", provider.ErrNoSecret},
	} {
		got := provider.ByName("brevo").Verify(time.Unix(0, 0), provider.Config{Secrets: tt.secrets}, request([]byte(`{}`), map[string]string{"Authorization": tt.header}))
		if !errors.Is(got, tt.want) {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
}
