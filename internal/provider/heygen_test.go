package provider_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"tallyhook/internal/event"
	"tallyhook/internal/provider"
)

func FuzzDecodeHeygen(f *testing.F) { fuzzDecode(f, "heygen") }

// hexHMAC is the signature of several vendors.
func hexHMAC(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

func TestDecodeHeygenTypes(t *testing.T) {
	t.Parallel()
	mapsTypes(t, "heygen", map[string]mapped{
		"avatar_video.success": {want: event.VideoGenerated}, "avatar_video.fail": {want: event.VideoGenerationFailed},
		"video_agent.success": {want: event.VideoGenerated}, "video_agent.fail": {want: event.VideoGenerationFailed},
		"video_translate.success": {want: event.VideoGenerated}, "video_translate.fail": {want: event.VideoGenerationFailed},
		"personalized_video": {want: event.VideoGenerated}, "personalized_video.": {},
		"personalized_video.success": {want: event.VideoGenerated}, "personalized_video.fail": {want: event.VideoGenerationFailed},
		"avatar_video_gif.success": {}, "avatar_video_gif.fail": {}, "instant_avatar.success": {}, "photo_avatar_train.success": {},
		"avatar_video.started": {}, "avatar_video": {}, "something.new": {},
	}, setting(t, "testdata/payloads/heygen/success.json", "event_type"))
}

func TestDecodeHeygenCallback(t *testing.T) {
	t.Parallel()
	for callback, want := range map[string][2]string{
		`"0198C0DE-0000-7000-8000-00000000CAFE"`: {"0198c0de-0000-7000-8000-00000000cafe", ""},
		`"row-7"`:                                {"", "row-7"},
		`42`:                                     {"", "42"},
		`null`:                                   {"", ""},
		`"{0198c0de-0000-7000-8000-00000000caf}"`: {"", "{0198c0de-0000-7000-8000-00000000caf}"},
	} {
		body := `{"event_type":"avatar_video.success","event_data":{"video_id":"v","callback_id":` + callback + `}}`
		e := decodeOne(t, "heygen", []byte(body), nil)
		if e.EnrollmentID != want[0] || e.ActionID != want[1] || e.ProviderMessageID != "v" || e.Channel != event.Video {
			t.Errorf("%s: got enrollment %q, action %q, message %q on %q", callback, e.EnrollmentID, e.ActionID, e.ProviderMessageID, e.Channel)
		}
	}
}

func TestIdentityHeygen(t *testing.T) {
	t.Parallel()
	identifies(t, "heygen", string(read(t, "testdata/payloads/heygen/legacy-fail.json")),
		[][2]string{{"no credit", "no time"}},
		[][2]string{{"video.fail", "video.success"}, {"avatar_video.", "avatar_video_gif."}, {"vid_own", "vid_2"}, {"row-7", "row-8"}})
	identifies(t, "heygen", string(read(t, "testdata/payloads/heygen/success.json")),
		[][2]string{{"v.mp4", "v.mp4?Expires=2"}},
		[][2]string{{"evt_own_1", "evt_own_2"}})
}

// The headers are not signed: another id on a replayed body is the same event.
func TestHeygenReplay(t *testing.T) {
	t.Parallel()
	body := read(t, "testdata/payloads/heygen/legacy-fail.json")
	first := decodeOne(t, "heygen", body, map[string]string{"Heygen-Event-Id": "evt_1"})
	again := decodeOne(t, "heygen", body, map[string]string{"Heygen-Event-Id": "evt_2"})
	if first.Identity() != again.Identity() || first.ProviderEventID != "" {
		t.Errorf("an unsigned header makes another event (%q)", first.ProviderEventID)
	}
}

func TestVerifyHeygen(t *testing.T) {
	t.Parallel()
	body := []byte(`{"event_type":"avatar_video.success"}`)
	good := hexHMAC("whsec_own", body)
	for name, tt := range map[string]struct {
		secrets []string
		headers map[string]string
		want    error
	}{
		"V3":             {[]string{"whsec_own"}, map[string]string{"Heygen-Signature": good}, nil},
		"V3OldTimestamp": {[]string{"whsec_own"}, map[string]string{"Heygen-Signature": good, "Heygen-Timestamp": "1"}, nil},
		"Older":          {[]string{"whsec_own"}, map[string]string{"Signature": good}, nil},
		"UpperCase":      {[]string{"whsec_own"}, map[string]string{"Signature": strings.ToUpper(good)}, nil},
		"InGrace":        {[]string{"new", "whsec_own"}, map[string]string{"Heygen-Signature": good}, nil},
		"V3Decides":      {[]string{"whsec_own"}, map[string]string{"Heygen-Signature": hexHMAC("x", body), "Signature": good}, provider.ErrMismatch},
		"OtherSecret":    {[]string{"own"}, map[string]string{"Heygen-Signature": good}, provider.ErrMismatch},
		"OtherName":      {[]string{"whsec_own"}, map[string]string{"X-Heygen-Signature": good}, provider.ErrMissing},
		"Short":          {[]string{"whsec_own"}, map[string]string{"Heygen-Signature": good[:62]}, provider.ErrMalformed},
		"NotHex":         {[]string{"whsec_own"}, map[string]string{"Heygen-Signature": "sha256=" + good}, provider.ErrMalformed},
		"Missing":        {[]string{"whsec_own"}, nil, provider.ErrMissing},
		"NoSecret":       {nil, map[string]string{"Heygen-Signature": hexHMAC("", body)}, provider.ErrNoSecret},
		"EmptySecret":    {[]string{""}, map[string]string{"Heygen-Signature": hexHMAC("", body)}, provider.ErrNoSecret},
	} {
		got := provider.ByName("heygen").Verify(time.Unix(1_770_000_000, 0), provider.Config{Secrets: tt.secrets}, request(body, tt.headers))
		if !errors.Is(got, tt.want) {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
}
