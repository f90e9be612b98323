package provider_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"tallyhook/internal/event"
	"tallyhook/internal/provider"
)

func FuzzDecodeMailtrap(f *testing.F) { fuzzDecode(f, "mailtrap") }

func mailtrapBody(kind string) []byte {
	return []byte(`{"events":[{"event":"` + kind + `","event_id":"e1","message_id":"m1","email":"a@x.example","timestamp":1770000000}]}`)
}

func TestDecodeMailtrap(t *testing.T) {
	t.Parallel()
	mapsTypes(t, "mailtrap", map[string]mapped{
		"delivery": {want: event.Delivered}, "open": {want: event.Opened}, "click": {want: event.Clicked},
		"bounce": {want: event.Bounced, bounce: event.Hard}, "soft bounce": {want: event.Deferred}, "soft_bounce": {want: event.Deferred},
		"suspension": {want: event.Deferred}, "spam": {want: event.Complained}, "unsubscribe": {want: event.Unsubscribed},
		"reject": {want: event.Dropped}, "activity_log.user.updated": {}, "something new": {},
	}, mailtrapBody)
}

func TestDecodeMailtrapShapes(t *testing.T) {
	t.Parallel()
	one := `{"event":"open","event_id":"e","custom_variables":{"enrollment_id":"0198c0de-0000-7000-8000-00000000cafe","step":"2"}}`
	for name, tt := range map[string]struct {
		body string
		want int // -1: an error
	}{
		"Object": {`{"events":[` + one + `,` + one + `]}`, 2}, "NoEvents": {`{"events":[]}`, 0}, "Array": {`[` + one + `]`, 1}, "Alone": {one, 1},
		"Lines": {one + "\n" + one + "\n\n" + one, 3}, "Empty": {"\n", -1}, "LinesOfArrays": {`{"events":[` + one + `]}` + "\n" + one, 2},
		"CutShort": {one + "\n" + `{"event":"op`, -1}, "NoName": {`{"events":[{"event_id":"e"}]}`, -1}, "Number": {`7`, -1},
		"Twice": {`{"event":"open","event":"spam"}`, -1}, "TooMany": {strings.Repeat(one, 5000+1), -1},
		"Nul": {`{"event":"open","custom_variables":{"a":"\u0000"}}`, -1},
	} {
		got, err := provider.ByName("mailtrap").Decode(request([]byte(tt.body), nil))
		if (err != nil) != (tt.want < 0) || (err == nil && len(got) != tt.want) {
			t.Errorf("%s: got %d events, %v, want %d", name, len(got), err, tt.want)
		}
		for i := range got {
			sound(t, &got[i], []byte(tt.body))
			if got[i].EnrollmentID == "" || got[i].StepNumber != 2 {
				t.Errorf("%s: enrollment %q, step %d", name, got[i].EnrollmentID, got[i].StepNumber)
			}
		}
	}
}

func TestIdentityMailtrap(t *testing.T) {
	t.Parallel()
	identifies(t, "mailtrap", string(mailtrapBody("open")),
		[][2]string{{"a@x", "A@x"}}, [][2]string{{"e1", "e2"}, {"m1", "m2"}, {"open", "click"}})
	bare := strings.Replace(string(mailtrapBody("open")), `"event_id":"e1",`, "", 1)
	identifies(t, "mailtrap", bare, [][2]string{{"a@x", "A@x"}}, [][2]string{{"a@x", "b@x"}, {"1770000000", "1770000001"}, {"m1", "m2"}})
}

func TestVerifyMailtrap(t *testing.T) {
	t.Parallel()
	body := mailtrapBody("open")
	good := map[string]string{"Mailtrap-Signature": hexHMAC("own", body)}
	for name, tt := range map[string]struct {
		secrets []string
		headers map[string]string
		want    error
	}{
		"NoSecret":     {nil, nil, nil},
		"Right":        {[]string{"own"}, good, nil},
		"InGrace":      {[]string{"u:p", "own"}, good, nil},
		"BasicInstead": {[]string{"own", "u:p"}, map[string]string{"Authorization": basic("u:p")}, nil},
		"OtherSecret":  {[]string{"x"}, good, provider.ErrMismatch},
		"Missing":      {[]string{"own"}, map[string]string{"Authorization": basic("own:own")}, provider.ErrMissing},
		"Mangled":      {[]string{"own"}, map[string]string{"Mailtrap-Signature": "zz"}, provider.ErrMalformed},
		"EmptySecret":  {[]string{""}, map[string]string{"Mailtrap-Signature": hexHMAC("", body)}, provider.ErrNoSecret},
	} {
		got := provider.ByName("mailtrap").Verify(time.Unix(0, 0), provider.Config{Secrets: tt.secrets}, request(body, tt.headers))
		if !errors.Is(got, tt.want) {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
	check := provider.ByName("mailtrap").CheckSecret
	for secret, ok := range map[string]bool{"own": true, "u:p": true, "u:": false, "": false} {
		if err := check(secret); (err == nil) != ok {
			t.Errorf("secret %q: got %v", secret, err)
		}
	}
}
