package provider

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"tallyhook/internal/event"
)

// Accept narrows what a source takes, for an account that sends more than
// outreach: what is not named is kept as ignored. Each list that has entries
// must have one that the event tells, in the same spelling; an event that does
// not tell any is not taken.
type Accept struct {
	Streams   []string `json:"streams,omitempty" maxItems:"256" doc:"Message streams (Postmark, Mailtrap), configuration sets (SES)."`
	Tags      []string `json:"tags,omitempty" maxItems:"256" doc:"Tags or categories; where tags have names: name:value."`
	Campaigns []string `json:"campaigns,omitempty" maxItems:"256" doc:"The provider's campaign ids."`
}

// Takes tells whether an event is one of those that the source is for.
func (a Accept) Takes(e *event.Event) bool {
	return takes(a.Streams, e.Stream) && takes(a.Tags, e.Tags...) && takes(a.Campaigns, e.Campaign)
}

func takes(list []string, told ...string) bool {
	return len(list) == 0 || slices.ContainsFunc(told, func(s string) bool { return s != "" && slices.Contains(list, s) })
}

// The names of the lists, as a provider says which of them its events tell.
const (
	tellsStreams   = "streams"
	tellsTags      = "tags"
	tellsCampaigns = "campaigns"
)

// maxAccept bounds each list.
const maxAccept = 256

// CheckAccept refuses what would make the source ignore everything: a list of
// what the provider's events never tell, and entries that nothing can match.
func (p *Provider) CheckAccept(a Accept) error {
	for _, l := range []struct {
		name string
		list []string
	}{{tellsStreams, a.Streams}, {tellsTags, a.Tags}, {tellsCampaigns, a.Campaigns}} {
		switch {
		case len(l.list) == 0:
		case !slices.Contains(p.Tells, l.name):
			return fmt.Errorf("%s tells no %s: nothing would be taken", p.Title, l.name)
		case len(l.list) > maxAccept:
			return fmt.Errorf("%s has more than %d entries", l.name, maxAccept)
		case slices.ContainsFunc(l.list, func(s string) bool { return strings.TrimSpace(s) != s || s == "" || len(s) > event.MaxID }):
			return errors.New(l.name + " has an entry that is empty, too long, or starts or ends with space")
		}
	}
	return nil
}

// namedTags gives tags that have names as "name:value", in their order by name.
func namedTags(tags map[string]string) []string {
	list := make([]string, 0, len(tags))
	for name, value := range tags {
		list = append(list, name+":"+value)
	}
	slices.Sort(list)
	return list
}
