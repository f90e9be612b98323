package demo

import (
	"encoding/base64"
	"fmt"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
)

// post is one webhook as its vendor sends it: what, and how it proves itself.
type post struct {
	source string // name of the source
	body   []byte
	id     string // webhook-id of the generic source: the same for a redelivery
}

// mail is one message to one person.
type mail struct {
	step    int
	id      string // Postmark MessageID or lemlist eml_
	subject string
}

// write makes JSON of what was built here from plain fields.
func write(v any) ([]byte, error) {
	b, err := jsonv2.Marshal(v, jsonv2.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("write body: %w", err)
	}
	return b, nil
}

// Postmark: https://postmarkapp.com/developer/webhooks/webhooks-overview.
// Every record has these; the sender chose Tag and Metadata when it sent.
type pmCommon struct {
	RecordType    string
	ServerID      int
	MessageStream string
	MessageID     string
	Tag           string
	Metadata      pmMetadata
}

// pmMetadata is what the sender had Postmark remember. It does not name the
// enrollment: often there is none yet.
type pmMetadata struct {
	Campaign string `json:"campaign_id"`
	Lead     string `json:"lead_id"`
	Step     string `json:"step"`
	Variant  string `json:"variant"`
}

type pmDelivery struct {
	pmCommon
	Recipient   string
	DeliveredAt string
	Details     string
}

type pmBounce struct {
	pmCommon
	ID            int64
	Type          string
	TypeCode      int
	Name          string
	Description   string
	Details       string
	Email         string
	From          string
	BouncedAt     string
	DumpAvailable bool
	Inactive      bool
	CanActivate   bool
	Subject       string
	Content       string
}

type pmAgent struct {
	Name, Company, Family string
}

type pmGeo struct {
	CountryISOCode, Country, RegionISOCode, Region, City, Zip, Coords, IP string
}

type pmOpen struct {
	pmCommon
	Recipient   string
	ReceivedAt  string
	FirstOpen   bool
	ReadSeconds int
	Platform    string
	Client      pmAgent
	OS          pmAgent
	UserAgent   string
	Geo         pmGeo
}

type pmClick struct {
	pmCommon
	Recipient     string
	ReceivedAt    string
	ClickLocation string
	OriginalLink  string
	Platform      string
	Client        pmAgent
	OS            pmAgent
	UserAgent     string
	Geo           pmGeo
}

type pmSubscription struct {
	pmCommon
	Recipient         string
	ChangedAt         string
	Origin            string
	SuppressSending   bool
	SuppressionReason *string
}

// sender is who the campaign is from.
const (
	senderName    = "Nora Fields"
	senderAddress = "nora@tallyhook-demo.example"
)

// postmarkBody makes the body of one happening. n is a number that no other
// happening has.
func (s *script) postmarkBody(h *happening, at time.Time, n int) ([]byte, error) {
	p, m := h.who, h.mail
	common := pmCommon{
		ServerID: 204_117, MessageStream: "outbound", MessageID: m.id, Tag: "demo-step-" + fmt.Sprint(m.step),
		Metadata: pmMetadata{Campaign: s.instance, Lead: p.lead, Step: fmt.Sprint(m.step), Variant: p.variant},
	}
	if h.stranger {
		common.Metadata = pmMetadata{Campaign: "spring-newsletter", Lead: p.lead, Step: "1", Variant: "A"}
		common.Tag = "newsletter"
	}
	stamp := at.UTC().Format("2006-01-02T15:04:05.0000000Z") // .NET's seven digits
	with := p.reader
	if h.machine {
		with = proxy()
	}
	client := pmAgent{with.client, with.clientCompany, with.family}
	system := pmAgent{with.os, with.osCompany, with.osFamily}
	geo := pmGeo{
		CountryISOCode: with.code, Country: with.country, RegionISOCode: "", Region: with.region, City: with.city,
		IP: fmt.Sprintf("203.0.113.%d", 1+n%250), // TEST-NET-3
	}
	bounce := func(kind string, code int, name, description, details string) any {
		common.RecordType = "Bounce"
		if kind == "SpamComplaint" {
			common.RecordType = kind
		}
		return pmBounce{
			pmCommon: common, ID: int64(s.crowd.number)*1_000_000_000 + int64(n), Type: kind, TypeCode: code, Name: name,
			Description: description, Details: details, Email: p.email, From: senderAddress, BouncedAt: stamp,
			DumpAvailable: true, Inactive: kind != "SoftBounce", CanActivate: kind != "SpamComplaint", Subject: m.subject,
		}
	}
	subscription := func(suppress bool, reason string) any {
		common.RecordType = "SubscriptionChange"
		v := pmSubscription{
			pmCommon: common, Recipient: p.email, ChangedAt: at.UTC().Format("2006-01-02T15:04:05Z"), Origin: "Recipient",
			SuppressSending: suppress,
		}
		if reason != "" {
			v.SuppressionReason = &reason
		}
		return v
	}
	switch h.what {
	case delivered:
		common.RecordType = "Delivery"
		return write(pmDelivery{common, p.email, stamp, "smtp;250 2.0.0 OK " + s.crowd.hex("queue", n, 10)})
	case opened:
		common.RecordType = "Open"
		seconds := 4 + n%17
		if h.machine {
			seconds = 0
		}
		return write(pmOpen{common, p.email, stamp, h.first, seconds, with.platform, client, system, with.agent, geo})
	case clicked:
		common.RecordType = "Click"
		return write(pmClick{common, p.email, stamp, "HTML", h.link, with.platform, client, system, with.agent, geo})
	case bouncedHard:
		return write(bounce("HardBounce", 1, "Hard bounce",
			"The server was unable to deliver your message (ex: unknown user, mailbox not found).",
			"smtp;550 5.1.1 <"+p.email+">: Recipient address rejected: User unknown"))
	case bouncedSoft:
		return write(bounce("SoftBounce", 4096, "Soft bounce",
			"Unable to temporarily deliver message (i.e. mailbox full, account disabled, exceeds quota, out of disk space).",
			"smtp;452 4.2.2 The recipient's mailbox is over quota"))
	case complained:
		return write(bounce("SpamComplaint", 512, "Spam complaint",
			"The subscriber explicitly marked this message as spam.", "Feedback loop report"))
	case suppressedBounce:
		return write(subscription(true, "HardBounce"))
	case suppressedSpam:
		return write(subscription(true, "SpamComplaint"))
	case unsubscribed:
		return write(subscription(true, "ManualSuppression"))
	case resubscribed:
		return write(subscription(false, ""))
	default:
		return nil, fmt.Errorf("postmark does not tell of %q", h.what)
	}
}

// lemActivity is a lemlist activity
// (https://developer.lemlist.com/api-reference/endpoints/webhooks). Mail has
// the lead's address; LinkedIn activities do not, only the lead's id.
type lemActivity struct {
	ID                string   `json:"_id"`
	Type              string   `json:"type"`
	CreatedAt         string   `json:"createdAt"`
	RelatedSentAt     string   `json:"relatedSentAt,omitempty"`
	IsFirst           bool     `json:"isFirst"`
	Stopped           bool     `json:"stopped"`
	Bot               bool     `json:"bot"`
	TeamID            string   `json:"teamId"`
	LeadID            string   `json:"leadId"`
	ContactID         string   `json:"contactId"`
	LeadEmail         string   `json:"leadEmail,omitempty"`
	LeadFirstName     string   `json:"leadFirstName"`
	LeadLastName      string   `json:"leadLastName"`
	LeadCompany       string   `json:"leadCompanyName"`
	LinkedInURL       string   `json:"linkedinUrl,omitempty"`
	JobTitle          string   `json:"jobTitle"`
	CampaignID        string   `json:"campaignId"`
	CampaignName      string   `json:"campaignName"`
	Name              string   `json:"name"`
	SequenceID        string   `json:"sequenceId"`
	SequenceStep      int      `json:"sequenceStep"`
	TotalSequenceStep int      `json:"totalSequenceStep"`
	SequenceTested    string   `json:"sequenceTested,omitempty"`
	StepTested        string   `json:"stepTested,omitempty"`
	EmailTemplateID   string   `json:"emailTemplateId"`
	EmailTemplateName string   `json:"emailTemplateName"`
	EmailID           string   `json:"emailId,omitempty"`
	MessageID         string   `json:"messageId,omitempty"`
	URL               string   `json:"url,omitempty"`
	Text              string   `json:"text,omitempty"`
	MessagePreview    string   `json:"messagePreview,omitempty"`
	InterestScore     float64  `json:"aiLeadInterestScore,omitzero"`
	CreatedBy         string   `json:"createdBy"`
	SendUserID        string   `json:"sendUserId"`
	SendUserEmail     string   `json:"sendUserEmail"`
	SendUserName      string   `json:"sendUserName"`
	Labels            []string `json:"labels"`
	MetaData          lemMeta  `json:"metaData"`
	Secret            string   `json:"secret,omitempty"`
}

type lemMeta struct {
	TeamID     string `json:"teamId"`
	CampaignID string `json:"campaignId"`
	LeadID     string `json:"leadId"`
	Type       string `json:"type"`
	CreatedBy  string `json:"createdBy"`
	TaskID     string `json:"taskId"`
}

func (s *script) lemlistBody(h *happening, at time.Time, n int) ([]byte, error) {
	p := h.who
	const layout = "2006-01-02T15:04:05.000Z"
	id := s.crowd.id
	a := lemActivity{
		ID: "act_" + id("activity", n), Type: string(h.what), CreatedAt: at.UTC().Format(layout), IsFirst: h.first,
		Stopped: h.stops, Bot: h.machine, TeamID: "tea_" + id("team", 0), LeadID: p.lead, ContactID: p.lemContact,
		LeadFirstName: p.first, LeadLastName: p.last, LeadCompany: p.company, JobTitle: p.title,
		CampaignID: s.lemCampaign, CampaignName: s.campaignName, Name: s.campaignName, SequenceID: "seq_" + id("sequence", 0),
		SequenceStep: h.step, TotalSequenceStep: steps, EmailTemplateID: "etp_" + id("template", h.step),
		EmailTemplateName: fmt.Sprintf("Step %d", h.step), CreatedBy: "usr_" + id("user", 0), SendUserID: "usr_" + id("user", 0),
		SendUserEmail: senderAddress, SendUserName: senderName, Labels: []string{}, Secret: s.lemSecret,
	}
	if h.stranger {
		a.CampaignID, a.CampaignName, a.Name = "cam_"+id("other campaign", 0), "Autumn webinar", "Autumn webinar"
	}
	switch h.what {
	case lemSent, lemOpened, lemClicked, lemReplied, lemContacted, lemInterested:
		a.LeadEmail, a.SequenceTested, a.StepTested = p.email, p.variant, p.variant
		if h.mail != nil {
			a.EmailID, a.EmailTemplateName = h.mail.id, h.mail.subject
		}
	case inviteAccepted:
		a.RelatedSentAt = at.Add(-between(s.rnd, time.Hour, 30*time.Hour)).UTC().Format(layout)
		a.LinkedInURL = p.profile
	default:
		a.LinkedInURL = p.profile
	}
	if h.what == lemClicked {
		a.URL = h.link
	}
	if h.text != "" {
		a.Text, a.MessagePreview, a.InterestScore = h.text, h.text, 0.82
	}
	a.MetaData = lemMeta{a.TeamID, a.CampaignID, p.lead, string(h.what), a.CreatedBy, "tsk_" + id("task", n)}
	return write(a)
}

// genericEvent is a canonical event, as a team's own script posts it.
type genericEvent struct {
	EventType       string          `json:"event_type"`
	Channel         string          `json:"channel"`
	Timestamp       string          `json:"timestamp"`
	ProviderEventID string          `json:"provider_event_id"`
	EnrollmentID    string          `json:"enrollment_id,omitempty"`
	Email           string          `json:"email"`
	StepNumber      int             `json:"step_number,omitzero"`
	Metadata        genericMetadata `json:"metadata"`
}

type genericMetadata struct {
	Campaign string `json:"campaign_id"`
	Lead     string `json:"lead_id"`
	From     string `json:"from"`
	Text     string `json:"text,omitempty"`
	Variant  string `json:"variant,omitempty"`
}

func (s *script) genericBody(h *happening, at time.Time, n int) ([]byte, error) {
	p := h.who
	e := genericEvent{
		EventType: "replied", Channel: "email", Timestamp: at.UTC().Format(time.RFC3339Nano),
		ProviderEventID: "inbox-" + s.crowd.hex("inbox", n, 16), Email: p.email, StepNumber: h.step,
		Metadata: genericMetadata{s.instance, p.lead, "mailbox watcher", h.text, p.variant},
	}
	if h.what == meetingBooked {
		e.EventType, e.Channel, e.StepNumber = "meeting_booked", "meeting", 0
		e.ProviderEventID = "booking-" + s.crowd.hex("booking", n, 16)
		e.Metadata.From = "calendar"
		e.EnrollmentID = p.enrollment // the booking link had it
	}
	if h.stranger {
		e.Metadata.Campaign, e.StepNumber = "", 0
	}
	return write(e)
}

// body makes the webhook of a happening.
func (s *script) body(h *happening, at time.Time) (post, error) {
	s.posts++
	n := s.posts
	out := post{source: h.source}
	var err error
	switch h.source {
	case postmarkSource:
		out.body, err = s.postmarkBody(h, at, n)
	case lemlistSource:
		out.body, err = s.lemlistBody(h, at, n)
	default:
		out.body, err = s.genericBody(h, at, n)
		out.id = "msg_" + s.crowd.id("webhook", n)
	}
	return out, err
}

// basicAuth is the header that Postmark sends for credentials.
func basicAuth(pair string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(pair))
}
