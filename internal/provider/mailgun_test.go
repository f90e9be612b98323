package provider_test

import (
	"bytes"
	"errors"
	"mime/multipart"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"tallyhook/internal/event"
	"tallyhook/internal/provider"
)

func FuzzDecodeMailgun(f *testing.F) { fuzzDecode(f, "mailgun") }

func FuzzDecodeMailgunForm(f *testing.F) {
	f.Add("application/x-www-form-urlencoded", []byte("event=opened&token=t&timestamp=1778052370&recipient=a%40x.example"))
	f.Add("multipart/form-data; boundary=b", []byte("--b\r\nContent-Disposition: form-data; name=\"event\"\r\n\r\nopened\r\n--b--\r\n"))
	p := provider.ByName("mailgun")
	f.Fuzz(func(t *testing.T, kind string, body []byte) {
		req := request(body, map[string]string{"Content-Type": kind})
		got, err := p.Decode(req)
		if err != nil && got != nil {
			t.Fatal("events beside an error")
		}
		for i := range got {
			sound(t, &got[i], body)
		}
		if err := p.Verify(time.Unix(1_778_052_370, 0), provider.Config{Secrets: []string{"own"}}, req); err == nil {
			t.Fatal("verified without the key")
		}
	})
}

func mailgunData(event string) string {
	return `{"event":"` + event + `","id":"i1","timestamp":1778052367.891234,"recipient":"a@x.example","message":{"headers":{"message-id":"m1"}}}`
}

func TestDecodeMailgunTypes(t *testing.T) {
	t.Parallel()
	mapsTypes(t, "mailgun", map[string]mapped{
		"accepted": {want: event.Queued}, "delivered": {want: event.Delivered}, "failed": {want: event.Bounced, bounce: event.Soft},
		"opened": {want: event.Opened}, "clicked": {want: event.Clicked}, "unsubscribed": {want: event.Unsubscribed},
		"complained": {want: event.Complained}, "rejected": {want: event.Dropped}, "bounced": {want: event.Bounced, bounce: event.Hard},
		"dropped": {want: event.Dropped}, "stored": {}, "list_member_uploaded": {}, "something_new": {},
	}, func(kind string) []byte {
		return []byte(`{"signature":{"token":"t"},"event-data":` + mailgunData(kind) + `}`)
	})
}

func TestDecodeMailgunMachines(t *testing.T) {
	t.Parallel()
	for client, want := range map[string]event.Machine{
		`{"client-type":"browser"}`:                 event.MachineUnknown,
		`{"client-type":"robot"}`:                   event.MachineYes,
		`{"bot":"gmail","client-type":"browser"}`:   event.MachineYes,
		`{"bot":"","client-type":"mobile browser"}`: event.MachineUnknown,
		`{"bot":false}`:                             event.MachineNo,
		`{"bot":true}`:                              event.MachineYes,
		`null`:                                      event.MachineUnknown,
	} {
		body := strings.Replace(mailgunData("opened"), `{"event"`, `{"client-info":`+client+`,"event"`, 1)
		if e := decodeOne(t, "mailgun", []byte(body), nil); e.Machine != want {
			t.Errorf("%s: got %v, want %v", client, e.Machine, want)
		}
	}
}

func TestDecodeMailgunRecipients(t *testing.T) {
	t.Parallel()
	for to, want := range map[string]string{
		"a@x.example": "a@x.example", "A B <a@x.example>": "a@x.example", `"B, A" <a@x.example>`: "a@x.example",
		"a@x.example, b@x.example": "", "Undisclosed": "", "": "",
	} {
		body := `{"event-data":{"event":"rejected","message":{"headers":{"to":` + strconv.Quote(to) + `}}}}`
		if e := decodeOne(t, "mailgun", []byte(body), nil); e.Email != want {
			t.Errorf("%q: got %q, want %q", to, e.Email, want)
		}
	}
}

// TestDecodeMailgunForms reads the legacy form in both encodings, and turned
// into JSON, as one and the same event.
func TestDecodeMailgunForms(t *testing.T) {
	t.Parallel()
	const id = "0198c0de-0000-7000-8000-00000000cafe"
	fields := [][2]string{
		{"event", "bounced"},
		{"recipient", "A <a@x.example>"},
		{"code", "550"},
		{"Message-Id", "<m1@x>"},
		{"token", "theirs"},
		{"enrollment_id", id},
		{"timestamp", "theirs"},
		{"timestamp", "1778052370"},
		{"token", "ours"},
		{"signature", "s"},
	}
	form := url.Values{}
	var multi bytes.Buffer
	w := multipart.NewWriter(&multi)
	for _, f := range fields {
		form.Add(f[0], f[1])
		if err := w.WriteField(f[0], f[1]); err != nil {
			t.Fatal(err)
		}
	}
	file, err := w.CreateFormFile("attachment-1", "token")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.Write([]byte("a file is no field")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	asJSON := `{"event":"bounced","recipient":"A <a@x.example>","code":"550","Message-Id":"<m1@x>","token":["theirs","ours"],` +
		`"enrollment_id":"` + id + `","timestamp":["theirs",1778052370],"signature":"s"}`
	want := event.HashOf()
	for name, tt := range map[string]struct{ kind, body string }{
		"URLEncoded": {"application/x-www-form-urlencoded", form.Encode()},
		"Multipart":  {w.FormDataContentType(), multi.String()},
		"JSON":       {"application/json", asJSON},
	} {
		e := decodeOne(t, "mailgun", []byte(tt.body), map[string]string{"Content-Type": tt.kind})
		if e.Type != event.Bounced || e.Bounce != event.Hard || e.Email != "a@x.example" || e.ProviderMessageID != "m1@x" ||
			e.EnrollmentID != id || e.ProviderEventID != "ours" || e.OccurredAt.Unix() != 1778052370 {
			t.Errorf("%s: got %+v", name, e)
		}
		if got := e.Identity(); want == event.HashOf() {
			want = got
		} else if got != want {
			t.Errorf("%s: another event", name)
		}
	}
	for name, tt := range map[string]struct{ kind, body string }{
		"NoBoundary": {"multipart/form-data", multi.String()},
		"Cut":        {w.FormDataContentType(), multi.String()[:200]},
		"NoEvent":    {"application/x-www-form-urlencoded", "token=t"},
		"Escape":     {"application/x-www-form-urlencoded", "event=%zz"},
	} {
		if got, err := provider.ByName("mailgun").Decode(request([]byte(tt.body), map[string]string{"Content-Type": tt.kind})); err == nil {
			t.Errorf("%s: got %d events and no error", name, len(got))
		}
	}
}

func TestIdentityMailgun(t *testing.T) {
	t.Parallel()
	identifies(t, "mailgun", `{"signature":{"timestamp":"1778052370","token":"t1","signature":"s"},"event-data":`+mailgunData("opened")+`}`,
		[][2]string{{"t1", "t2"}, {"1778052370", "1778055970"}, {"a@x", "A@x"}}, // a retry is signed anew
		[][2]string{{"i1", "i2"}, {"891234", "891235"}, {`"opened"`, `"clicked"`}, {"a@x", "b@x"}})
	withoutID := strings.Replace(mailgunData("rejected"), `"id":"i1",`, "", 1)
	identifies(t, "mailgun", `{"signature":{"timestamp":"1778052370","token":"t1","signature":"s"},"event-data":`+withoutID+`}`,
		nil, [][2]string{{"t1", "t2"}})
	identifies(t, "mailgun", `{"event":"opened","token":"t1","timestamp":"1778052370","signature":"s","recipient":"a@x.example"}`,
		[][2]string{{"a@x", "b@x"}, {"opened", "unsubscribed"}}, // not signed: the token's first event is the one
		[][2]string{{"t1", "t2"}})
}

func TestNonceMailgun(t *testing.T) {
	t.Parallel()
	nonce := provider.ByName("mailgun").Nonce
	for body, want := range map[string]string{
		`{"signature":{"token":"t1"},"event-data":{}}`: "t1", "event=opened&token=a&token=b": "b", `{"event":"opened"}`: "", "{": "",
	} {
		if got := nonce(request([]byte(body), nil)); got != want {
			t.Errorf("%s: got %q, want %q", body, got, want)
		}
	}
}

func TestVerifyMailgun(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_770_000_000, 0)
	data := []byte(mailgunData("opened"))
	good := mailgunSign(t, "own", "t1", now, data)
	change := func(from, to string) []byte { return bytes.Replace(good, []byte(from), []byte(to), 1) }
	for name, tt := range map[string]struct {
		secrets []string
		body    []byte
		at      time.Duration
		want    error
	}{
		"Right":         {[]string{"own"}, good, 0, nil},
		"InGrace":       {[]string{"new", "own"}, good, 0, nil},
		"TimeAsNumber":  {[]string{"own"}, change(`"1770000000"`, `1770000000`), 0, nil},
		"FirstRetry":    {[]string{"own"}, good, 5*time.Minute + 10*time.Second, nil},
		"Old":           {[]string{"own"}, good, 10*time.Minute + time.Second, provider.ErrExpired},
		"Ahead":         {[]string{"own"}, good, -10*time.Minute - time.Second, provider.ErrExpired},
		"OtherKey":      {[]string{"other"}, good, 0, provider.ErrMismatch},
		"OtherToken":    {[]string{"own"}, change("t1", "t2"), 0, provider.ErrMismatch},
		"OtherTime":     {[]string{"own"}, change("1770000000", "1770000001"), 0, provider.ErrMismatch},
		"NoToken":       {[]string{"own"}, change(`"token"`, `"tok"`), 0, provider.ErrMissing},
		"NoSignature":   {[]string{"own"}, data, 0, provider.ErrMissing},
		"TokenTwice":    {[]string{"own"}, change(`"token":"t1"`, `"token":"t1","token":"t1"`), 0, provider.ErrMalformed},
		"TimeNoNumber":  {[]string{"own"}, change("1770000000", "now"), 0, provider.ErrMalformed},
		"NotAForm":      {[]string{"own"}, []byte("%zz"), 0, provider.ErrMalformed},
		"NoSecret":      {nil, mailgunSign(t, "", "t1", now, data), 0, provider.ErrNoSecret},
		"EmptySecret":   {[]string{""}, mailgunSign(t, "", "t1", now, data), 0, provider.ErrNoSecret},
		"EmptyAndOther": {[]string{"", "own"}, mailgunSign(t, "", "t1", now, data), 0, provider.ErrMismatch},
	} {
		got := provider.ByName("mailgun").Verify(now.Add(tt.at), provider.Config{Secrets: tt.secrets}, request(tt.body, nil))
		if !errors.Is(got, tt.want) {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
}
