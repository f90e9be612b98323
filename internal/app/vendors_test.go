package app_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"net/url"
	"strconv"
	"strings"
	"time"

	"tallyhook/internal/testenv"
)

func mac(h func() hash.Hash, secret string, parts ...string) []byte {
	m := hmac.New(h, []byte(secret))
	m.Write([]byte(strings.Join(parts, "")))
	return m.Sum(nil)
}

func hexMAC(secret string, parts ...string) string {
	return hex.EncodeToString(mac(sha256.New, secret, parts...))
}

// inHeader is a signature of the body in a header.
func inHeader(name string) func(w webhook) ([]byte, []testenv.Header) {
	return func(w webhook) ([]byte, []testenv.Header) {
		return w.body, []testenv.Header{{Name: name, Value: hexMAC(w.secret, string(w.body))}}
	}
}

// credentials are Basic ones, the secret being user:password.
func credentials(w webhook) ([]byte, []testenv.Header) {
	return w.body, []testenv.Header{{Name: "Authorization", Value: "Basic " + base64.StdEncoding.EncodeToString([]byte(w.secret))}}
}

func bearer(w webhook) ([]byte, []testenv.Header) {
	return w.body, []testenv.Header{{Name: "Authorization", Value: "Bearer " + w.secret}}
}

// inBody puts the secret where the body says $S.
func inBody(w webhook) ([]byte, []testenv.Header) {
	return []byte(strings.ReplaceAll(string(w.body), "$S", w.secret)), nil
}

// standard signs by Standard Webhooks, under either family of names.
func standard(family string) func(w webhook) ([]byte, []testenv.Header) {
	return func(w webhook) ([]byte, []testenv.Header) {
		headers, err := testenv.Sign(w.secret, "msg_"+w.n, time.Now(), w.body)
		if err != nil {
			w.t.Fatal(err)
		}
		for i := range headers {
			headers[i].Name = family + strings.TrimPrefix(headers[i].Name, "webhook")
		}
		return w.body, headers
	}
}

func signCalendly(w webhook) ([]byte, []testenv.Header) {
	at := strconv.FormatInt(time.Now().Unix(), 10)
	return w.body, []testenv.Header{{Name: "Calendly-Webhook-Signature", Value: "t=" + at + ",v1=" + hexMAC(w.secret, at, ".", string(w.body))}}
}

func signHubspot(w webhook) ([]byte, []testenv.Header) {
	at := strconv.FormatInt(time.Now().UnixMilli(), 10)
	sum := mac(sha256.New, w.secret, "POST", w.url, string(w.body), at)
	return w.body, []testenv.Header{
		{Name: "X-HubSpot-Signature-v3", Value: base64.StdEncoding.EncodeToString(sum)}, {Name: "X-HubSpot-Request-Timestamp", Value: at},
	}
}

func signMailgun(w webhook) ([]byte, []testenv.Header) {
	at, token := strconv.FormatInt(time.Now().Unix(), 10), "token-"+w.n
	return fmt.Appendf(nil, `{"signature":{"timestamp":%q,"token":%q,"signature":%q},"event-data":%s}`, at, token, hexMAC(w.secret, at, token), w.body), nil
}

func signMandrill(w webhook) ([]byte, []testenv.Header) {
	sum := mac(sha1.New, w.secret, w.url, "mandrill_events", string(w.body))
	return []byte(url.Values{"mandrill_events": {string(w.body)}}.Encode()), []testenv.Header{
		{Name: "X-Mandrill-Signature", Value: base64.StdEncoding.EncodeToString(sum)},
		{Name: "Content-Type", Value: "application/x-www-form-urlencoded"},
	}
}

// sendgridKey gives the key that a secret of the stories stands for: it is made
// of the secret, since the source knows only its public half.
func sendgridKey(w webhook) *ecdsa.PrivateKey {
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), mac(sha256.New, "sendgrid", w.secret))
	if err != nil {
		w.t.Fatal(err)
	}
	return key
}

func signSendgrid(w webhook) ([]byte, []testenv.Header) {
	at := strconv.FormatInt(time.Now().Unix(), 10)
	sum := sha256.Sum256([]byte(at + string(w.body)))
	signature, err := ecdsa.SignASN1(rand.Reader, sendgridKey(w), sum[:])
	if err != nil {
		w.t.Fatal(err)
	}
	return w.body, []testenv.Header{
		{Name: "X-Twilio-Email-Event-Webhook-Timestamp", Value: at},
		{Name: "X-Twilio-Email-Event-Webhook-Signature", Value: base64.StdEncoding.EncodeToString(signature)},
	}
}

// sendgridPublic is what a source has: the public half of a secret's key.
func sendgridPublic(secret string) string {
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), mac(sha256.New, "sendgrid", secret))
	if err != nil {
		return ""
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return ""
	}
	return base64.StdEncoding.EncodeToString(der)
}

// sendgridSecret is what the source of the stories has.
func sendgridSecret() string { return sendgridPublic("right") }

// wrongSecret is a secret of the right form that no source has.
func wrongSecret(name string) string {
	switch name {
	case "generic", "resend":
		return "whsec_" + base64.StdEncoding.EncodeToString([]byte("nobody has this one, 24+ bytes"))
	case "postmark", "brevo", "mailjet", "sparkpost":
		return "nobody:has-this"
	}
	return "nobody has this"
}

// vendors are the providers with a webhook of each, from the fields that their
// documents name.
func vendors(cloud *aws) map[string]vendor {
	const secret, pair = "a-secret-of-theirs", "user:a-password"
	whsec := "whsec_" + base64.StdEncoding.EncodeToString([]byte("a secret of theirs, 24+ bytes"))
	return map[string]vendor{
		"generic": {
			sign: standard("webhook"), ways: []string{byEnrollment, byMessage, byCampaign, byAddress},
			body: `{"event_type":"opened","channel":"email","provider_event_id":"$N","provider_message_id":"$M","metadata":{"enrollment_id":"$E"},"email":"$R","campaign":"$C"}`,
		},
		"lemlist": {
			secret: secret, sign: inBody, ways: []string{byEnrollment, byMessage, byLead, byCampaign, byAddress},
			body: `{"_id":"act_$N","type":"emailsOpened","createdAt":"2026-11-20T09:30:00.000Z","secret":"$S","leadEmail":"$R","campaignId":"$C","leadId":"$L","emailId":"$M","enrollment_id":"$E"}`,
		},
		"hubspot": {
			secret: secret, sign: signHubspot,
			body: `[{"eventId":100,"portalId":1,"occurredAt":1763631000000,"attemptNumber":0,"subscriptionType":"contact.creation","objectId":$N}]`,
		},
		"postmark": {
			secret: pair, sign: credentials, ways: []string{byEnrollment, byMessage, byAddress},
			body: `{"RecordType":"Open","MessageID":"$M","Recipient":"$R","ReceivedAt":"2026-11-20T09:30:00Z","Metadata":{"enrollment_id":"$E"}}`,
		},
		"sendgrid": {
			secret: sendgridSecret(), ways: []string{byEnrollment, byMessage, byCampaign, byAddress},
			sign: func(w webhook) ([]byte, []testenv.Header) {
				if w.secret == sendgridSecret() {
					w.secret = "right"
				}
				return signSendgrid(w)
			},
			body: "[{\"event\":\"open\",\"email\":\"$R\",\"timestamp\":1763631000,\"sg_event_id\":\"ev-$N\",\"sg_message_id\":\"$M.filter1.2\",\"singlesend_id\":\"$C\",\"enrollment_id\":\"$E\"}]\r\n",
		},
		"mailgun": {
			secret: secret, sign: signMailgun, ways: []string{byEnrollment, byMessage, byCampaign, byAddress},
			body: `{"event":"opened","id":"ev-$N","timestamp":1763631000.123456,"recipient":"$R","message":{"headers":{"message-id":"$M"}},"campaigns":[{"id":"$C"}],"user-variables":{"enrollment_id":"$E"}}`,
		},
		"ses": {
			settings: map[string]any{"topic_arns": []string{awsTopic}}, sign: cloud.sign, ways: []string{byEnrollment, byMessage, byAddress},
			body: `{"eventType":"Open","mail":{"messageId":"$M","destination":["$R"],"tags":{"enrollment_id":["$E"]}},"open":{"timestamp":"2026-11-20T09:30:00.000Z"}}`,
		},
		"resend": {
			secret: whsec, sign: standard("svix"), ways: []string{byEnrollment, byMessage, byCampaign, byAddress},
			body: `{"type":"email.opened","created_at":"2026-11-20T09:30:00.000Z","data":{"email_id":"$M","to":["$R"],"broadcast_id":"$C","tags":{"enrollment_id":"$E"}}}`,
		},
		"brevo": {
			secret: pair, sign: credentials, ways: []string{byEnrollment, byMessage, byCampaign, byAddress},
			body: `{"event":"opened","email":"$R","message-id":"<$M>","ts_epoch":1763631000123,"camp_id":"$C","X-Mailin-custom":"{\"enrollment_id\":\"$E\"}"}`,
		},
		"smartlead": {
			secret: secret, sign: inBody, ways: []string{byEnrollment, byMessage, byLead, byCampaign, byAddress},
			body: `{"event_type":"EMAIL_OPEN","event_timestamp":"2026-11-20T09:30:00Z","stats_id":"$N","secret_key":"$S","sl_lead_email":"$R","campaign_id":"$C","sl_email_lead_id":"$L","sent_message":{"message_id":"$M"},"custom_fields":{"enrollment_id":"$E"}}`,
		},
		"instantly": {
			secret: secret, sign: bearer, ways: []string{byEnrollment, byMessage, byCampaign, byAddress},
			body: `{"event_type":"email_opened","timestamp":"2026-11-20T09:30:00Z","workspace":"w","campaign_id":"$C","lead_email":"$R","email_id":"$M","enrollment_id":"$E"}`,
		},
		"phantombuster": {
			settings: map[string]any{"agents": map[string]any{"campaign-phantombuster": map[string]any{"event_type": "connection_sent"}}},
			ways:     []string{byEnrollment, byLead, byCampaign},
			body:     `{"agentId":"campaign-phantombuster","containerId":"run-$N","exitMessage":"finished","resultObject":"[{\"profileUrl\":\"$L\",\"email\":\"$R\",\"enrollment_id\":\"$E\"}]"}`,
		},
		"heygen": {
			secret: secret, sign: inHeader("Heygen-Signature"), ways: []string{byEnrollment, byMessage},
			body: `{"event_type":"avatar_video.success","event_id":"ev-$N","event_data":{"video_id":"$M","callback_id":"$E"}}`,
		},
		"calendly": {
			secret: secret, sign: signCalendly, ways: []string{byEnrollment, byCampaign, byAddress},
			body: `{"event":"invitee.created","created_at":"2026-11-20T09:30:00.000000Z","payload":{"uri":"https://api.calendly.com/$N","email":"$R","tracking":{"utm_content":"$E"},"scheduled_event":{"event_type":"$C"}}}`,
		},
		"mailersend": {
			secret: secret, sign: inHeader("Signature"), ways: []string{byEnrollment, byMessage, byAddress},
			body: `{"type":"activity.opened","created_at":"2026-11-20T09:30:00.000000Z","data":{"id":"ev-$N","email":{"message":{"id":"$M"},"recipient":{"email":"$R"},"tags":["enrollment_id:$E"]}}}`,
		},
		"mailjet": {
			secret: pair, sign: credentials, ways: []string{byEnrollment, byMessage, byLead, byCampaign, byAddress},
			body: `{"event":"open","time":1763631000,"MessageID":"$M","Message_GUID":"$N","email":"$R","mj_contact_id":"$L","customcampaign":"$C","CustomID":"$E"}`,
		},
		"mandrill": {
			secret: secret, sign: signMandrill, ways: []string{byEnrollment, byMessage, byAddress},
			body: `[{"event":"open","ts":1763631000,"ip":"$N","_id":"$M","msg":{"_id":"$M","email":"$R","metadata":{"enrollment_id":"$E"}}}]`,
		},
		"sparkpost": {
			secret: pair, sign: credentials, ways: []string{byEnrollment, byMessage, byCampaign, byAddress},
			body: `[{"msys":{"track_event":{"type":"open","event_id":"ev-$N","timestamp":"1763631000","transmission_id":"$M","rcpt_to":"$R","campaign_id":"$C","rcpt_meta":{"enrollment_id":"$E"}}}}]`,
		},
		"mailtrap": {
			secret: secret, sign: inHeader("Mailtrap-Signature"), ways: []string{byEnrollment, byMessage, byCampaign, byAddress},
			body: `{"events":[{"event":"open","event_id":"ev-$N","timestamp":1763631000,"message_id":"$M","email":"$R","category":"$C","custom_variables":{"enrollment_id":"$E"}}]}`,
		},
	}
}
