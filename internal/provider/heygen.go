package provider

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/event"
)

// heygen posts one object for each request: event_type and event_data.
//
// Authentication: hex HMAC-SHA256 with the endpoint's secret, as shown, over
// the raw body; in "Signature" by the older API, in "Heygen-Signature" by v3
// (several integrators that cite HeyGen's documents). "Heygen-Timestamp" and
// "Heygen-Event-Id" are not signed: a window over the one would protect from
// nothing, and the other could be changed to make a replay a new event. So
// neither is used; a replayed body is a duplicate whenever it comes.
//
// HeyGen checks a new endpoint with OPTIONS and waits one second
// (https://docs.heygen.com/reference/add-a-webhook-endpoint); the edge answers.
// Retries are not documented.
//
// Identity: "event_id" of v3 bodies. Without one, the type takes part: success,
// failure and the gif of a video share its video_id.
//
// Nobody's view of a video is ever told: video_viewed needs a page of one's own.
func heygen() *Provider {
	return &Provider{
		Name:   "heygen",
		Number: 13,
		Title:  "HeyGen",
		Scheme: "Heygen-Signature or Signature: hex HMAC-SHA256 of the body",
		Events: []string{
			"avatar_video.success", "avatar_video.fail", "video_agent.success", "video_agent.fail",
			"video_translate.success", "video_translate.fail", "personalized_video", "personalized_video.success", "personalized_video.fail",
		},
		Setup: "POST the source's URL to https://api.heygen.com/v3/webhooks/endpoints (older API: /v1/webhook/endpoint.add) and give " +
			"the source the secret of the answer. Make videos with callback_id set to the enrollment's id, and every event is " +
			"tied without doubt.",
		CheckSecret: checkLemlistSecret, // any text
		Verify:      verifyHeygen,
		Decode:      decodeHeygen,
		Sample:      sampleHeygen,
	}
}

func verifyHeygen(_ time.Time, cfg Config, req Request) error {
	if err := cfg.Settings.authenticate(req); err != nil {
		return err
	}
	got := req.header("Heygen-Signature")
	if got == "" {
		got = req.header("Signature")
	}
	return verifyHexHMAC(cfg.Secrets, got, req.Body)
}

// verifyHexHMAC is the scheme of several vendors: hex HMAC-SHA256 over the
// parts, with any of the secrets as it is.
func verifyHexHMAC(secrets []string, got string, parts ...[]byte) error {
	if !hasSecret(secrets) {
		return ErrNoSecret
	}
	if got = strings.TrimSpace(got); got == "" {
		return ErrMissing
	}
	given, err := hex.DecodeString(got)
	if err != nil || len(given) != sha256.Size {
		return ErrMalformed
	}
	matched := false
	for _, secret := range secrets {
		if secret == "" {
			continue
		}
		mac := hmac.New(sha256.New, []byte(secret))
		for _, p := range parts {
			mac.Write(p)
		}
		matched = hmac.Equal(mac.Sum(nil), given) || matched
	}
	if !matched {
		return ErrMismatch
	}
	return nil
}

func sampleHeygen(s Sampling) Sample {
	body := s.fill(`{"event_type":"avatar_video.success","event_id":"$ID","event_data":{"video_id":"$ID"}}`)
	return s.signed(body, "Heygen-Signature", s.hexMAC(string(body)))
}

func decodeHeygen(req Request) ([]event.Event, error) {
	items, err := readItems(req.Body)
	if err != nil {
		return nil, err
	}
	return decodeEach("heygen", items, heygenEvent)
}

func heygenEvent(e *event.Event, o object) error {
	data := memberObject(o, "event_data")
	callback := strings.TrimSpace(data.text("callback_id"))
	e.Kind = o.text("event_type")
	e.Type = heygenType(e.Kind)
	e.Channel = event.Video
	e.ProviderEventID = o.text("event_id")
	e.ProviderMessageID = data.text("video_id", "video_translate_id")
	// callback_id is the customer's own: our enrollment's id, or what an
	// enrollment registers as an action.
	if e.EnrollmentID = ownID(callback); e.EnrollmentID == "" {
		e.ActionID = callback
	}
	at := firstTold(o["created_at"])
	if e.ProviderEventID == "" {
		e.IdentityParts = []string{
			"heygen", e.Kind, e.ProviderMessageID, callback, timeText(at), data.text("avatar_id", "photo_avatar_id", "group_id", "id"),
			data.text("session_id"),
		}
	}
	return setTime(e, at)
}

// heygenType maps what makes a video that can be sent. The gif of a video,
// avatars, voices and the like say nothing about outreach.
func heygenType(kind string) event.Type {
	what, result, told := strings.Cut(kind, ".")
	switch what {
	case "avatar_video", "video_agent", "video_translate", "personalized_video":
	default:
		return ""
	}
	switch result {
	case "": // "personalized_video" is the whole name of one that is made
		if what == "personalized_video" && !told {
			return event.VideoGenerated
		}
	case "success":
		return event.VideoGenerated
	case "fail":
		return event.VideoGenerationFailed
	}
	return ""
}

// ownID reads a customer's field that is wholly our enrollment's id, for
// vendors that pass back one text and no object.
func ownID(s string) string {
	if len(s) != 36 {
		return ""
	}
	id, err := uuid.Parse(s)
	if err != nil {
		return ""
	}
	return id.String()
}
