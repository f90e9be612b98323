package campaign_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/fault"
)

// locations names the wrong fields of an error, sorted.
func locations(f *fault.Error) []string {
	if f == nil {
		return nil
	}
	var all []string
	for _, x := range f.Fields {
		all = append(all, x.Location)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func check(t *testing.T, name string, f *fault.Error, want ...string) {
	t.Helper()
	if f != nil && f.Kind != fault.Invalid {
		t.Errorf("%s: kind is %s", name, f.Kind)
	}
	if got := locations(f); !slices.Equal(got, want) {
		t.Errorf("%s: wrong fields are %q, want %q", name, got, want)
	}
}

func TestTemplateValidate(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*campaign.Template)
		want   []string
	}{
		"Fine":                 {func(*campaign.Template) {}, nil},
		"NoName":               {func(m *campaign.Template) { m.Name = " " }, []string{"body.name"}},
		"LongestName":          {func(m *campaign.Template) { m.Name = strings.Repeat("ü", 255) }, nil},
		"TooLongName":          {func(m *campaign.Template) { m.Name = strings.Repeat("ü", 256) }, []string{"body.name"}},
		"NameWithNUL":          {func(m *campaign.Template) { m.Name = "a\x00" }, []string{"body.name"}},
		"NameNotUTF8":          {func(m *campaign.Template) { m.Name = "a\xff" }, []string{"body.name"}},
		"LongestDescription":   {func(m *campaign.Template) { m.Description = strings.Repeat("ü", 2000) }, nil},
		"TooLongDescription":   {func(m *campaign.Template) { m.Description = strings.Repeat("ü", 2001) }, []string{"body.description"}},
		"UnknownTypes":         {func(m *campaign.Template) { m.Type, m.PathType = "fax", "" }, []string{"body.path_type", "body.type"}},
		"LargeSettings":        {func(m *campaign.Template) { m.Settings = make([]byte, campaign.MaxObject+1) }, []string{"body.settings"}},
		"SettingsWithNUL":      {func(m *campaign.Template) { m.Settings = []byte(`{"a":"\u0000"}`) }, []string{"body.settings"}},
		"StepNumbers":          {func(m *campaign.Template) { m.Steps[0].Number, m.Steps[1].Number = 0, 51 }, []string{"body.steps[0].step_number", "body.steps[1].step_number"}},
		"StepChannel":          {func(m *campaign.Template) { m.Steps[0].Channel = "pigeon" }, []string{"body.steps[0].channel"}},
		"StepDelay":            {func(m *campaign.Template) { m.Steps[0].DelayHours, m.Steps[1].DelayHours = 720, 721 }, []string{"body.steps[1].delay_hours"}},
		"StepDelayNegative":    {func(m *campaign.Template) { m.Steps[0].DelayHours = -1 }, []string{"body.steps[0].delay_hours"}},
		"StepSubject":          {func(m *campaign.Template) { m.Steps[0].Subject = strings.Repeat("x", 999) }, []string{"body.steps[0].subject"}},
		"StepBody":             {func(m *campaign.Template) { m.Steps[0].Body = strings.Repeat("x", campaign.MaxBody+1) }, []string{"body.steps[0].body"}},
		"StepBodyWithNUL":      {func(m *campaign.Template) { m.Steps[0].Body = "\x00" }, []string{"body.steps[0].body"}},
		"StepVariantTooLong":   {func(m *campaign.Template) { m.Steps[0].Variant = strings.Repeat("x", 65) }, []string{"body.steps[0].variant"}},
		"SameStepTwice":        {func(m *campaign.Template) { m.Steps[1] = m.Steps[0] }, []string{"body.steps[1].variant"}},
		"VariantsOfOneStep":    {func(m *campaign.Template) { m.Steps[1] = m.Steps[0]; m.Steps[1].Variant = "B" }, nil},
		"AsManyStepsAsMayBe":   {func(m *campaign.Template) { m.Steps = steps(50, 4) }, nil},
		"MoreStepsThanMayBe":   {func(m *campaign.Template) { m.Steps = steps(50, 5) }, []string{"body.steps"}},
		"NoSteps":              {func(m *campaign.Template) { m.Steps = nil }, nil},
		"EveryWrongFieldNamed": {func(m *campaign.Template) { *m = campaign.Template{} }, []string{"body.name", "body.path_type", "body.type"}},
	} {
		m := campaign.Template{
			Name: "n", Type: "email", PathType: "structured",
			Steps: []campaign.Step{{Number: 1, Channel: "email"}, {Number: 50, Channel: "linkedin"}},
		}
		c.change(&m)
		check(t, name, m.Validate("body"), c.want...)
	}
	check(t, "WithoutLocation", (&campaign.Template{Name: "n", Type: "email"}).Validate(""), "path_type")
}

func steps(n, variants int) []campaign.Step {
	var all []campaign.Step
	for i := range n {
		for v := range variants {
			all = append(all, campaign.Step{Number: i + 1, Channel: "email", Variant: fmt.Sprint(v)})
		}
	}
	return all
}

func TestInstanceValidate(t *testing.T) {
	t.Parallel()
	many := map[string]string{}
	for i := range 33 {
		many[fmt.Sprint("p", i)] = "c"
	}
	for name, c := range map[string]struct {
		change func(*campaign.Instance)
		want   []string
	}{
		"Fine":            {func(*campaign.Instance) {}, nil},
		"NoName":          {func(i *campaign.Instance) { i.Name = "" }, []string{"body.name"}},
		"UnknownStatus":   {func(i *campaign.Instance) { i.Status = "archived" }, []string{"body.status"}},
		"TooMany":         {func(i *campaign.Instance) { i.ProviderCampaigns = many }, []string{"body.provider_campaigns"}},
		"EmptyCampaign":   {func(i *campaign.Instance) { i.ProviderCampaigns = map[string]string{"lemlist": ""} }, []string{"body.provider_campaigns.lemlist"}},
		"EmptyProvider":   {func(i *campaign.Instance) { i.ProviderCampaigns = map[string]string{"": "c"} }, []string{"body.provider_campaigns"}},
		"LargeSettings":   {func(i *campaign.Instance) { i.Settings = make([]byte, campaign.MaxObject+1) }, []string{"body.settings"}},
		"CampaignTooLong": {func(i *campaign.Instance) { i.ProviderCampaigns["lemlist"] = strings.Repeat("x", event.MaxID+1) }, []string{"body.provider_campaigns.lemlist"}},
	} {
		i := campaign.Instance{Name: "n", Status: campaign.Draft, ProviderCampaigns: map[string]string{"lemlist": "c"}}
		c.change(&i)
		check(t, name, i.Validate("body"), c.want...)
	}
}

func TestTransitions(t *testing.T) {
	t.Parallel()
	all := []campaign.InstanceStatus{campaign.Draft, campaign.Active, campaign.Paused, campaign.Completed}
	allowed := map[campaign.InstanceStatus]string{
		campaign.Draft: "active", campaign.Active: "paused or completed", campaign.Paused: "active or completed", campaign.Completed: "nothing: it is final",
	}
	for _, from := range all {
		for _, to := range all {
			err := from.Move(to)
			if ok := from == to || strings.Contains(allowed[from], string(to)); ok != (err == nil) {
				t.Errorf("%s to %s: %v", from, to, err)
			}
			if err != nil && (err.Kind != fault.Conflict || !strings.Contains(err.Msg, "allowed from here: "+allowed[from])) {
				t.Errorf("%s to %s does not say what is allowed: %v", from, to, err)
			}
		}
	}
	if next := campaign.InstanceStatus("archived").Next(); next != nil {
		t.Errorf("an unknown status leads to %v", next)
	}
}

func TestEnrollmentValidate(t *testing.T) {
	t.Parallel()
	refs := func(n int) []event.Ref {
		all := make([]event.Ref, n)
		for i := range all {
			all[i] = event.Ref{Provider: "lemlist", Kind: event.RefLead, Value: fmt.Sprint(i)}
		}
		return all
	}
	for name, c := range map[string]struct {
		e    campaign.Enrollment
		want []string
	}{
		"Address":       {campaign.Enrollment{Email: "Ada <ada@example.com>"}, nil},
		"Contact":       {campaign.Enrollment{ContactID: "7"}, nil},
		"Profile":       {campaign.Enrollment{LinkedInURL: "https://linkedin.com/in/ada"}, nil},
		"References":    {campaign.Enrollment{Refs: refs(100)}, nil},
		"Nobody":        {campaign.Enrollment{Metadata: []byte(`{}`)}, []string{"body"}},
		"BadAddress":    {campaign.Enrollment{Email: "ada"}, []string{"body.email"}},
		"AddressNUL":    {campaign.Enrollment{Email: "a\x00da@example.com"}, []string{"body.email"}},
		"BlankContact":  {campaign.Enrollment{ContactID: " "}, []string{"body.contact_id"}},
		"LongContact":   {campaign.Enrollment{ContactID: strings.Repeat("x", 1025)}, []string{"body.contact_id"}},
		"ProfileScheme": {campaign.Enrollment{LinkedInURL: "javascript:alert(1)"}, []string{"body.linkedin_url"}},
		"ProfileNoHost": {campaign.Enrollment{LinkedInURL: "https:///in/ada"}, []string{"body.linkedin_url"}},
		"ProfileLong":   {campaign.Enrollment{LinkedInURL: "https://x/" + strings.Repeat("x", 2048)}, []string{"body.linkedin_url"}},
		"LargeMetadata": {campaign.Enrollment{ContactID: "7", Metadata: make([]byte, campaign.MaxObject+1)}, []string{"body.metadata"}},
		"TooManyRefs":   {campaign.Enrollment{Refs: refs(101)}, []string{"body.refs"}},
		"BadRef":        {campaign.Enrollment{Refs: []event.Ref{{Kind: "thread"}}}, []string{"body.refs[0].kind", "body.refs[0].provider", "body.refs[0].value"}},
	} {
		check(t, name, c.e.Validate("body"), c.want...)
	}
	check(t, "ValidRefs", campaign.ValidRefs("body", refs(1)))
	check(t, "ValidRefs", campaign.ValidRefs("body", refs(101)), "body.refs")
}

func TestContactKeys(t *testing.T) {
	t.Parallel()
	a := campaign.Enrollment{ContactID: "7", Email: "Ada <ADA@example.com>", LinkedInURL: "https://www.linkedin.com/in/Ada/?utm=1"}
	b := campaign.Enrollment{ContactID: "7", Email: "ada@example.com", LinkedInURL: "http://linkedin.com/in/ada"}
	if got, want := a.ContactKeys(), b.ContactKeys(); len(got) != 3 || !slices.Equal(got, want) {
		t.Errorf("one contact has two sets of keys: %x and %x", got, want)
	}
	other := campaign.Enrollment{Email: "7"}
	if slices.Contains(a.ContactKeys(), other.ContactKeys()[0]) {
		t.Error("a contact id is taken for an address")
	}
}

func TestNormalProfile(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"https://www.LinkedIn.com/in/Ada/":    "linkedin.com/in/ada",
		" http://linkedin.com/in/ada?trk=x#y": "linkedin.com/in/ada",
		"https://de.linkedin.com/in/ada":      "de.linkedin.com/in/ada",
		"://":                                 "://",
	} {
		if got := campaign.NormalProfile(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestSuppressionReason(t *testing.T) {
	t.Parallel()
	day := func(n int) time.Time { return time.Date(2026, 11, n, 0, 0, 0, 0, time.UTC) }
	for name, c := range map[string]struct {
		s     campaign.Suppression
		want  string
		since time.Time
	}{
		"Nothing":            {campaign.Suppression{}, "", time.Time{}},
		"Unsubscribed":       {campaign.Suppression{UnsubscribedAt: day(1)}, "unsubscribed", day(1)},
		"Lifted":             {campaign.Suppression{UnsubscribedAt: day(1), ResubscribedAt: day(2)}, "", time.Time{}},
		"EqualLoses":         {campaign.Suppression{UnsubscribedAt: day(1), ResubscribedAt: day(1)}, "unsubscribed", day(1)},
		"LiftsNoBounce":      {campaign.Suppression{UnsubscribedAt: day(1), ResubscribedAt: day(2), BouncedAt: day(1)}, "bounced", day(1)},
		"ComplainedFirst":    {campaign.Suppression{UnsubscribedAt: day(3), ComplainedAt: day(1), ManualAt: day(2)}, "complained", day(1)},
		"Manual":             {campaign.Suppression{ManualAt: day(2)}, "manual", day(2)},
		"RemovedIsVoid":      {campaign.Suppression{ComplainedAt: day(1), BouncedAt: day(1), ManualAt: day(2), UnsubscribedAt: day(2), RemovedAt: day(2)}, "", time.Time{}},
		"AfterRemovedCounts": {campaign.Suppression{ComplainedAt: day(3), RemovedAt: day(2)}, "complained", day(3)},
	} {
		if got := c.s.Reason(); got != c.want {
			t.Errorf("%s: reason is %q, want %q", name, got, c.want)
		}
		if got := c.s.Since(); !got.Equal(c.since) {
			t.Errorf("%s: since %v, want %v", name, got, c.since)
		}
	}
}
