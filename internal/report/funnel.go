package report

import (
	"maps"
	"slices"

	"github.com/google/uuid"

	"tallyhook/internal/event"
	"tallyhook/internal/store"
)

// manual is the provider of what a person did by hand.
const manual = "manual"

// stage is how far an enrollment has come in the funnel.
type stage int

const (
	stageNone stage = iota
	stageSent
	stageDelivered
	stageOpened
	stageClicked
	stageReplied
)

// stageOf is the stage that a fact proves. Providers tell different parts of
// the story (Postmark no sent, lemlist no delivered), so a fact proves what
// must have come before it too:
//
//   - replied, message_replied: a person answered. As the last stage it stands
//     for all before it, clicked too, although one can answer without a click:
//     how many clicked is in the uniques.
//   - clicked, by a person: the message was open.
//   - opened, message_read, by a person.
//   - opened or clicked by a machine: a scanner in front of the mailbox, or a
//     proxy in it, had the message; it was delivered, and nobody read it.
//   - delivered. complained, autoresponded: only a message that arrived can be
//     called spam, or be answered by the mailbox. unsubscribed: the link is in
//     the message; unless a person set it by hand, which proves nothing.
//     connection_accepted, connection_rejected: the invitation arrived.
//   - sent, bounced: it left, in whatever way it ended. connection_sent,
//     message_sent, voice_message_sent: the same on LinkedIn, which tells no
//     delivery.
//
// Everything else proves nothing: queued, deferred, dropped and failed are of
// messages that have not left; a profile visit is no message; a video is made
// before it is sent, and seen wherever its link went; a meeting can come about
// in any way; resubscribed is about the address.
func stageOf(u store.UniqueRow) stage {
	machine := u.Machine == event.MachineYes
	switch u.Type {
	case event.Replied, event.MessageReplied:
		return stageReplied
	case event.Clicked:
		if machine {
			return stageDelivered
		}
		return stageClicked
	case event.Opened, event.MessageRead:
		if machine {
			return stageDelivered
		}
		return stageOpened
	case event.Delivered, event.Complained, event.Autoresponded, event.ConnectionAccepted, event.ConnectionRejected:
		return stageDelivered
	case event.Unsubscribed:
		if u.Provider == manual {
			return stageNone
		}
		return stageDelivered
	case event.Sent, event.Bounced, event.ConnectionSent, event.MessageSent, event.VoiceMessageSent:
		return stageSent
	case event.Queued, event.Deferred, event.Dropped, event.Failed, event.Resubscribed, event.ProfileVisited,
		event.VideoGenerated, event.VideoGenerationFailed, event.VideoViewed, event.VideoCompleted, event.VideoShared,
		event.MeetingBooked:
		return stageNone
	}
	return stageNone
}

// onLinkedIn tells the types of the network's own messages, to which the
// rates of mail do not apply.
func onLinkedIn(t event.Type) bool { return event.DefaultChannel(t) == event.LinkedIn }

// person is what rates need to know of one enrollment.
type person struct {
	any  stage               // over all channels
	mail stage               // without LinkedIn
	has  map[event.Type]bool // opened and clicked: by a person
	// arrived tells that a mail message was delivered, as far as that can be
	// told: see arrivals.
	arrived bool
	tellers map[string]bool // providers of the mail
}

// peopleOf folds the facts to one person for each enrollment.
func peopleOf(uniques []store.UniqueRow) []*person {
	people := map[uuid.UUID]*person{}
	deliver := map[string]bool{} // providers that tell deliveries
	for _, u := range uniques {
		p := people[u.Enrollment]
		if p == nil {
			p = &person{has: map[event.Type]bool{}, tellers: map[string]bool{}}
			people[u.Enrollment] = p
		}
		st := stageOf(u)
		p.any = max(p.any, st)
		if !onLinkedIn(u.Type) {
			p.mail = max(p.mail, st)
			if st > stageNone {
				p.tellers[u.Provider] = true
			}
		}
		if u.Type == event.Delivered {
			deliver[u.Provider] = true
		}
		if u.Machine != event.MachineYes || (u.Type != event.Opened && u.Type != event.Clicked) {
			p.has[u.Type] = true
		}
	}
	list := slices.Collect(maps.Values(people))
	arrivals(list, deliver)
	return list
}

// arrivals decides whose mail counts as arrived in the denominators of
// open_rate and its like. That is who has a fact that proves it; and, where
// none of the providers concerned has told a single delivery in this report
// (lemlist never does), also who was sent to without a bounce. Else only those
// who opened would count as reached, and every open rate would be 100%.
func arrivals(people []*person, deliver map[string]bool) {
	for _, p := range people {
		told := false
		for name := range p.tellers {
			told = told || deliver[name]
		}
		p.arrived = p.mail >= stageDelivered || (p.mail == stageSent && !told && !p.has[event.Bounced])
	}
}

// funnel counts enrollments by stage; who reached a stage reached those before.
func funnel(people []*person) []Stage {
	stages := []Stage{
		{Name: string(event.Sent)},
		{Name: string(event.Delivered)},
		{Name: string(event.Opened)},
		{Name: string(event.Clicked)},
		{Name: string(event.Replied)},
	}
	for _, p := range people {
		for i := range stages {
			if p.any >= stageSent+stage(i) {
				stages[i].Count++
			}
		}
	}
	return stages
}

// rates are percentages of enrollments. A numerator counts only who is in the
// denominator, so that none exceeds 100%; opens and clicks are those of people.
func rates(people []*person) map[string]Rate {
	sent := func(p *person) bool { return p.any >= stageSent }
	mailed := func(p *person) bool { return p.mail >= stageSent }
	arrived := func(p *person) bool { return p.arrived }
	has := func(t event.Type) func(*person) bool {
		return func(p *person) bool { return p.has[t] }
	}
	read := func(p *person) bool { return p.has[event.Opened] || p.has[event.Clicked] }
	invited := func(p *person) bool {
		return p.has[event.ConnectionSent] || p.has[event.ConnectionAccepted] || p.has[event.ConnectionRejected]
	}
	const (
		ofSent    = "enrollments that anything was sent to, on any channel"
		ofMailed  = "enrollments that a message was sent to"
		ofArrived = "enrollments that a message was delivered to; where the provider tells no deliveries, that one was sent to without a bounce"
		ofRead    = "enrollments with a message opened or clicked by a person"
		ofInvited = "enrollments that were invited to connect"
	)
	return map[string]Rate{
		"delivery_rate":          rate(people, func(p *person) bool { return p.mail >= stageDelivered }, mailed, ofMailed),
		"bounce_rate":            rate(people, has(event.Bounced), mailed, ofMailed),
		"open_rate":              rate(people, has(event.Opened), arrived, ofArrived),
		"click_rate":             rate(people, has(event.Clicked), arrived, ofArrived),
		"click_to_open_rate":     rate(people, has(event.Clicked), read, ofRead),
		"reply_rate":             rate(people, func(p *person) bool { return p.any == stageReplied }, sent, ofSent),
		"unsubscribe_rate":       rate(people, has(event.Unsubscribed), arrived, ofArrived),
		"complaint_rate":         rate(people, has(event.Complained), arrived, ofArrived),
		"connection_accept_rate": rate(people, has(event.ConnectionAccepted), invited, ofInvited),
		"meeting_rate":           rate(people, has(event.MeetingBooked), sent, ofSent),
	}
}

func rate(people []*person, counts, base func(*person) bool, of string) Rate {
	r := Rate{Of: of}
	for _, p := range people {
		if !base(p) {
			continue
		}
		r.Denominator++
		if counts(p) {
			r.Numerator++
		}
	}
	r.Value = percent(r.Numerator, r.Denominator)
	return r
}

// percent has two decimals, rounded half away from zero in whole numbers; nil
// when undefined. Enrollments are far fewer than the 2^49 it would overflow at.
func percent(n, of int64) *float64 {
	if of == 0 {
		return nil
	}
	v := float64((n*20_000+of)/(2*of)) / 100
	return &v
}
