package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Names of what the demo makes.
const (
	templateName  = "Tallyhook demo"
	campaignStart = "Demo campaign "
)

// stage is what the play needs on the server.
type stage struct {
	instance string
	name     string
	hooks    map[string]hook // by the source's name
}

type ref struct {
	Provider string `json:"provider"`
	Kind     string `json:"kind"`
	Value    string `json:"value"`
}

type step struct {
	Number     int    `json:"step_number"`
	Channel    string `json:"channel"`
	Type       string `json:"type"`
	Subject    string `json:"subject,omitempty"`
	Body       string `json:"body,omitempty"`
	DelayHours int    `json:"delay_hours"`
	Variant    string `json:"variant,omitempty"`
}

type template struct {
	ID          string `json:"id,omitempty"`
	Name        string `json:"name"`
	Description string `json:"description"`
	Type        string `json:"type"`
	PathType    string `json:"path_type"`
	Steps       []step `json:"steps"`
}

type instance struct {
	ID                string            `json:"id,omitempty"`
	TemplateID        string            `json:"template_id"`
	Name              string            `json:"name"`
	Status            string            `json:"status,omitempty"`
	ProviderCampaigns map[string]string `json:"provider_campaigns"`
}

type source struct {
	ID       string         `json:"id,omitempty"`
	Provider string         `json:"provider"`
	Name     string         `json:"name"`
	Secret   string         `json:"secret,omitempty"`
	URL      string         `json:"url,omitempty"`
	Settings sourceSettings `json:"settings,omitzero"`
}

type sourceSettings struct {
	BasicAuth string `json:"basic_auth,omitempty"`
}

func theTemplate() template {
	return template{
		Name: templateName, Type: "multi_channel", PathType: "structured",
		Description: "Made by tallyhook serve --demo: two mails by Postmark, three steps on LinkedIn and a last mail by lemlist.",
		Steps: []step{
			{1, "email", "message", subjectOf(1), "Hello {{first_name}}, how do you keep count of what your outreach tools report?", 0, "A"},
			{1, "email", "message", "{{company}} and your follow-ups", "Hello {{first_name}}, a short question about {{company}}.", 0, "B"},
			{2, "linkedin", "profile_visit", "", "", 3, ""},
			{3, "linkedin", "invitation", "", "I would like to add you to my network.", 2, ""},
			{4, "email", "message", subjectOf(4), "Only in case my first mail got lost.", 44, "A"},
			{4, "email", "message", "One number you may like", "Teams lose one event in thirty before they count them.", 44, "B"},
			{5, "linkedin", "message", "", "Thank you for connecting! May I send you two pages?", 6, ""},
			{6, "email", "message", subjectOf(6), "I shall not write again after this.", 48, "A"},
			{6, "email", "message", "Last one, promised", "I shall not write again after this.", 48, "B"},
		},
	}
}

// setUp makes the campaign and its sources, and tidies what an earlier start left.
func (p *Play) setUp(ctx context.Context) error {
	templateID, err := p.findTemplate(ctx)
	if err != nil {
		return err
	}
	earlier, err := p.earlier(ctx)
	if err != nil {
		return err
	}
	number := 1
	for _, i := range earlier {
		n := 0
		if _, err := fmt.Sscanf(i.Name[strings.LastIndexByte(i.Name, ' ')+1:], "%d", &n); err == nil {
			number = max(number, n+1)
		}
	}
	if err := p.pickUp(ctx, earlier); err != nil {
		return err
	}
	name := fmt.Sprintf("%s%s %d", campaignStart, time.Now().Format(time.DateOnly), number)
	p.script = newScript(number, rand.Text(), name)
	in := instance{TemplateID: templateID, Name: name, ProviderCampaigns: map[string]string{"lemlist": p.script.lemCampaign}}
	var made data[instance]
	if err := p.client.call(ctx, "make a campaign", http.MethodPost, "/api/campaigns/instances", in, &made); err != nil {
		return err
	}
	id := made.Data.ID
	p.script.instance = id
	patch := map[string]string{"status": "active"}
	if err := p.client.call(ctx, "start the campaign", http.MethodPatch, "/api/campaigns/instances/"+id, patch, nil); err != nil {
		return err
	}
	p.stage = stage{instance: id, name: name, hooks: map[string]hook{}}
	if err := p.makeSources(ctx); err != nil {
		return err
	}
	p.introduce(number)
	return nil
}

func (p *Play) findTemplate(ctx context.Context) (string, error) {
	found, err := listAll[template](ctx, p.client, "list templates", "/api/campaigns/templates")
	if err != nil {
		return "", err
	}
	for _, t := range found {
		if t.Name == templateName {
			return t.ID, nil
		}
	}
	var made data[template]
	err = p.client.call(ctx, "make a template", http.MethodPost, "/api/campaigns/templates", theTemplate(), &made)
	return made.Data.ID, err
}

// earlier lists the campaigns of earlier starts.
func (p *Play) earlier(ctx context.Context) ([]instance, error) {
	all, err := listAll[instance](ctx, p.client, "list campaigns", "/api/campaigns/instances")
	if err != nil {
		return nil, err
	}
	var demo []instance
	for _, i := range all {
		if strings.HasPrefix(i.Name, campaignStart) {
			demo = append(demo, i)
		}
	}
	return demo, nil
}

// makeSources replaces the sources of an earlier start: their secrets were
// shown once, to a process that is gone.
func (p *Play) makeSources(ctx context.Context) error {
	old, err := listAll[source](ctx, p.client, "list sources", "/api/sources")
	if err != nil {
		return err
	}
	for _, s := range old {
		if s.Name != postmarkSource && s.Name != lemlistSource && s.Name != genericSource {
			continue
		}
		err := p.client.call(ctx, "delete an old source", http.MethodDelete, "/api/sources/"+s.ID, nil, nil)
		if r, ok := errors.AsType[*refusal](err); err != nil && (!ok || r.status != http.StatusNotFound) {
			return err
		}
	}
	basic := "postmark:" + rand.Text()
	p.script.lemSecret = rand.Text()
	for _, s := range []source{
		{Provider: "postmark", Name: postmarkSource, Settings: sourceSettings{BasicAuth: basic}},
		{Provider: "lemlist", Name: lemlistSource, Secret: p.script.lemSecret},
		{Provider: "generic", Name: genericSource},
	} {
		var made data[source]
		if err := p.client.call(ctx, "make a source", http.MethodPost, "/api/sources", s, &made); err != nil {
			return err
		}
		// The source's URL is what vendors call; this process may not be able to.
		u, err := url.Parse(made.Data.URL)
		at := -1
		if err == nil {
			at = strings.LastIndex(u.Path, "/webhooks/")
		}
		if at < 0 {
			return fmt.Errorf("the URL of the source %s has no /webhooks/ in it", s.Name)
		}
		h := hook{path: u.Path[at:], secret: made.Data.Secret}
		if s.Provider == "postmark" {
			h.basic = basic
		}
		p.stage.hooks[s.Name] = h
	}
	return nil
}

// listAll reads a list to its end.
func listAll[T any](ctx context.Context, c *client, what, path string) ([]T, error) {
	var all []T
	for cursor := ""; ; {
		mark := "?"
		if strings.Contains(path, "?") {
			mark = "&"
		}
		var page list[T]
		if err := c.call(ctx, what, http.MethodGet, path+mark+"limit=1000"+cursor, nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Data...)
		if page.Next == nil {
			return all, nil
		}
		cursor = "&cursor=" + url.QueryEscape(*page.Next)
	}
}

// waiting is what an event tells of who it is about.
type waiting struct {
	Email     *string `json:"email"`
	Provider  string  `json:"provider"`
	MessageID *string `json:"provider_message_id"`
	Metadata  *struct {
		Campaign string `json:"campaign_id"`
		Lead     string `json:"lead_id"`
	} `json:"metadata"`
}

// pickUp enrolls those for whom events still wait since the last play was
// stopped: nothing was lost in between.
func (p *Play) pickUp(ctx context.Context, earlier []instance) error {
	if len(earlier) == 0 {
		return nil
	}
	active := map[string]bool{}
	for _, i := range earlier {
		active[i.ID] = i.Status == "active"
	}
	events, err := listAll[waiting](ctx, p.client, "list waiting events", "/api/events?state=orphaned")
	if err != nil {
		return err
	}
	type key struct{ instance, email string }
	found := map[key]*enrollment{}
	byInstance := map[string][]*enrollment{}
	for _, e := range events {
		if e.Metadata == nil || e.Email == nil || !active[e.Metadata.Campaign] {
			continue
		}
		k := key{e.Metadata.Campaign, *e.Email}
		who := found[k]
		if who == nil {
			who = &enrollment{Email: k.email, OnConflict: "merge"}
			if e.Metadata.Lead != "" {
				who.Refs = append(who.Refs, ref{"lemlist", "lead", e.Metadata.Lead})
			}
			found[k] = who
			byInstance[k.instance] = append(byInstance[k.instance], who)
		}
		if e.Provider == "postmark" && e.MessageID != nil && len(who.Refs) < 90 {
			who.Refs = append(who.Refs, ref{"postmark", "message", *e.MessageID})
		}
	}
	people, adopted := 0, 0
	for id, who := range byInstance {
		got, err := p.bulk(ctx, id, who)
		if err != nil {
			return err
		}
		for _, r := range got.Results {
			adopted += r.Adopted + r.Adopting
		}
		people += got.Created + got.Merged
	}
	p.screen.print(fmt.Sprintf("  From before: %s with all that was counted in them.", plural(len(earlier), "demo campaign")))
	if people > 0 {
		p.screen.print(
			fmt.Sprintf("  Events about %s waited there all the while. Just enrolled: %s found %s place.",
				plural(people, "contact"), plural(adopted, "waiting event"), its(adopted)))
	}
	return nil
}

type enrollment struct {
	ContactID   string             `json:"contact_id,omitempty"`
	Email       string             `json:"email"`
	LinkedInURL string             `json:"linkedin_url,omitempty"`
	Refs        []ref              `json:"refs,omitempty"`
	Metadata    enrollmentMetadata `json:"metadata,omitzero"`
	OnConflict  string             `json:"on_conflict"`
}

type enrollmentMetadata struct {
	Name    string `json:"name,omitempty"`
	Company string `json:"company,omitempty"`
	Title   string `json:"title,omitempty"`
	Variant string `json:"variant,omitempty"`
}

type enrolled struct {
	ID       string `json:"id"`
	Adopted  int    `json:"adopted"`
	Adopting int    `json:"adopting"`
}

type bulkAnswer struct {
	Created int        `json:"created"`
	Merged  int        `json:"merged"`
	Results []bulkItem `json:"results"`
}

type bulkItem struct {
	Index  int    `json:"index"`
	Status string `json:"status"`
	Error  string `json:"error"`
	enrolled
}

func (p *Play) enrollmentOf(who *person) *enrollment {
	return &enrollment{
		ContactID: who.contactID, Email: who.email, LinkedInURL: who.profile,
		Refs:       append([]ref{{"lemlist", "lead", who.lead}}, who.refs...),
		Metadata:   enrollmentMetadata{who.name(), who.company, who.title, who.variant},
		OnConflict: "merge", // after an outage nobody knows whether the first attempt was heard
	}
}

// enroll adds one contact, and the events that wait for it find their place.
func (p *Play) enroll(ctx context.Context, who *person) error {
	var out data[enrolled]
	path := "/api/campaigns/instances/" + p.stage.instance + "/enrollments"
	if err := p.client.call(ctx, "enroll a contact", http.MethodPost, path, p.enrollmentOf(who), &out); err != nil {
		return err
	}
	p.admit(who, out.Data)
	return nil
}

// enrollAll adds many contacts in one request.
func (p *Play) enrollAll(ctx context.Context, all []*person) error {
	if len(all) == 0 {
		return nil
	}
	in := make([]*enrollment, len(all))
	for i, who := range all {
		in[i] = p.enrollmentOf(who)
	}
	got, err := p.bulk(ctx, p.stage.instance, in)
	if err != nil {
		return err
	}
	var failed error
	for _, r := range got.Results {
		if r.ID == "" || r.Index < 0 || r.Index >= len(all) {
			failed = fmt.Errorf("a contact was not enrolled: %s", r.Error)
			continue
		}
		p.admit(all[r.Index], r.enrolled)
	}
	p.screen.say(true, "%s got enrolled with one request", plural(got.Created+got.Merged, "contact"))
	return failed
}

func (p *Play) bulk(ctx context.Context, instance string, in []*enrollment) (bulkAnswer, error) {
	var out data[bulkAnswer]
	path := "/api/campaigns/instances/" + instance + "/enrollments/bulk"
	err := p.client.call(ctx, "enroll contacts", http.MethodPost, path, in, &out)
	return out.Data, err
}

func (p *Play) admit(who *person, got enrolled) {
	who.enrollment = got.ID
	n := got.Adopted + got.Adopting
	p.tally.adopt(n)
	if n > 0 {
		p.screen.say(who.told, "%s is enrolled now: %s found %s place", who.name(), plural(n, "waiting event"), its(n))
	}
}

// refer tells the enrollment the id of a message that goes out. Before there
// is an enrollment, the id is kept for it.
func (p *Play) refer(ctx context.Context, who *person, r ref) error {
	if who.enrollment == "" {
		who.refs = append(who.refs, r)
		return nil
	}
	var out data[enrolled]
	in := map[string][]ref{"refs": {r}}
	err := p.client.call(ctx, "add a reference", http.MethodPost, "/api/campaigns/enrollments/"+who.enrollment+"/refs", in, &out)
	p.tally.adopt(out.Data.Adopted + out.Data.Adopting)
	return err
}
