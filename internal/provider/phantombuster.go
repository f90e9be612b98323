package provider

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"tallyhook/internal/event"
)

// phantombuster posts one object at the end of each run of an agent
// (https://hub.phantombuster.com/docs/using-webhooks). What the run did is in
// "resultObject", a text that holds JSON: one row for each profile, or where the
// full result lies, or null.
//
// Authentication: PhantomBuster can neither sign nor set headers; a secret can
// be in the URL only. The source's URL has one already. A source that has a
// secret of its own requires it in addition, as the query's "token" or "secret".
//
// Retries and timeout are not documented. It follows at most two redirections.
//
// What a run means is not in the body: an agent may visit profiles or send
// invitations. The setting "agents" tells it for each agentId; then each row is
// one event. A run of any other agent, and one without rows, is one control
// event named after how it ended.
//
// Identity: a run is its containerId. A row is its containerId, its profile and
// its action, so a run that is told twice counts once.
func phantombuster() *Provider {
	return &Provider{
		Name:   "phantombuster",
		Number: 12,
		Title:  "PhantomBuster",
		Scheme: "the URL's token; optionally a second one in the query",
		Events: []string{"resultObject rows"},
		Setup: "In PhantomBuster open the agent's setup, Settings, Advanced notification settings, and paste the source's URL as " +
			"its webhook. Tell what each agent does in the source's settings: \"agents\": {\"<agentId>\": {\"event_type\": " +
			"\"connection_sent\"}}. Enroll people with a ref of kind lead whose value is the profile's URL as the agent gives it.",
		Tells:       []string{tellsCampaigns},
		Nested:      true,               // resultObject
		CheckSecret: checkLemlistSecret, // any text
		Verify:      verifyPhantombuster,
		Decode:      decodePhantombuster,
		Sample:      samplePhantombuster,
	}
}

// Agent says what the runs of one PhantomBuster agent do.
type Agent struct {
	EventType event.Type `json:"event_type"` // of each row of its results
}

// CheckAgents tells what in the settings of agents could never be met.
func (s Settings) CheckAgents() error {
	for id, a := range s.Agents {
		switch {
		case strings.TrimSpace(id) == "" || len(id) > event.MaxID:
			return errors.New("agents: an agent's id is empty or too long")
		case !a.EventType.Valid():
			return fmt.Errorf("agents: the event_type of %.80q is not canonical", id)
		}
	}
	return nil
}

func verifyPhantombuster(_ time.Time, cfg Config, req Request) error {
	if err := cfg.Settings.authenticate(req); err != nil {
		return err
	}
	if len(cfg.Secrets) == 0 {
		return nil
	}
	if !hasSecret(cfg.Secrets) {
		return ErrNoSecret
	}
	u, err := url.Parse(req.URL)
	if err != nil {
		return ErrMalformed
	}
	query := u.Query()
	got := query.Get("token")
	if got == "" {
		got = query.Get("secret")
	}
	switch {
	case got == "":
		return ErrMissing
	case !anySecret(cfg.Secrets, got):
		return ErrMismatch
	}
	return nil
}

// samplePhantombuster is a run of the first agent of the settings.
func samplePhantombuster(s Sampling) Sample {
	agent := "sample"
	if named := slices.Sorted(maps.Keys(s.Config.Settings.Agents)); len(named) > 0 {
		agent = named[0]
	}
	rows := string(s.fill(`[{"profileUrl":"https://www.linkedin.com/in/sample-$ID","email":"$TO"}]`))
	out := Sample{Body: append([]byte(`{"agentId":`+quoted(agent)+`,"resultObject":`+quoted(rows)), s.fill(`,"containerId":"$ID","exitMessage":"finished"}`)...)}
	if s.secret() != "" {
		out.URL = s.URL + "?token=" + url.QueryEscape(s.secret())
	}
	return out
}

func decodePhantombuster(req Request) ([]event.Event, error) {
	runs, err := readItems(req.Body)
	if err != nil {
		return nil, err
	}
	var events []event.Event
	for i, raw := range runs {
		got, err := phantomRun(raw, req.Settings.Agents)
		if err != nil {
			return nil, fmt.Errorf("run %d: %w", i, err)
		}
		events = append(events, got...)
	}
	return events, nil
}

func phantomRun(raw jsontext.Value, agents map[string]Agent) ([]event.Event, error) {
	run, err := readObject(raw)
	if err != nil {
		return nil, err
	}
	// Some relays wrap the run: {"event": "agent.finished", "data": {...}}.
	if data := memberObject(run, "data"); data != nil && run.text("containerId") == "" {
		run = data
	}
	container, agent := run.text("containerId"), run.text("agentId")
	if container == "" && agent == "" {
		return nil, errors.New("names neither a containerId nor an agentId")
	}
	kind, known := agents[agent]
	var rows []jsontext.Value
	if known && kind.EventType.Valid() {
		if rows, err = phantomRows(run["resultObject"]); err != nil {
			return nil, err
		}
	}
	if len(rows) == 0 {
		e, err := phantomControl(run, raw)
		if err != nil {
			return nil, err
		}
		return []event.Event{e}, nil
	}
	events := make([]event.Event, 0, len(rows))
	for i, row := range rows {
		e, err := phantomRow(row, container, agent, kind.EventType)
		if err != nil {
			return nil, fmt.Errorf("row %d: %w", i, err)
		}
		if len(rows) == 1 { // a run with several profiles is no one person's
			e.ActionID = container
		}
		events = append(events, e)
	}
	return events, nil
}

// phantomControl is the run itself: run_finished, run_killed, run_global_timeout.
func phantomControl(run object, raw jsontext.Value) (event.Event, error) {
	ended := run.text("exitMessage")
	if ended == "" {
		ended = "ended"
	}
	e := event.Event{
		Provider:            "phantombuster",
		Kind:                "run_" + strings.ReplaceAll(ended, " ", "_"),
		Control:             true,
		Channel:             event.LinkedIn,
		ProviderEventID:     run.text("containerId"),
		ActionID:            run.text("containerId"),
		Campaign:            run.text("agentId"),
		OccurredAtEstimated: true,
		Payload:             raw,
	}
	if e.ProviderEventID == "" {
		e.IdentityParts = []string{
			"phantombuster", e.Kind, e.Campaign, run.text("launchDuration"), run.text("runDuration"), string(run["resultObject"]),
		}
	}
	if err := e.Check(); err != nil {
		return event.Event{}, fmt.Errorf("%.80q: %w", e.Kind, err)
	}
	return e, nil
}

// phantomRows reads the result: a text that holds a list of rows or one row.
// Anything else, such as {"csvURL": ...} of a result too large to send, has no
// rows.
func phantomRows(v jsontext.Value) ([]jsontext.Value, error) {
	if v.Kind() == '"' {
		inner, err := jsontext.AppendUnquote(nil, v)
		if err != nil {
			return nil, fmt.Errorf("read resultObject: %w", err)
		}
		if v = bytes.TrimSpace(inner); len(v) == 0 || (v[0] != '[' && v[0] != '{') {
			return nil, nil // a plain message
		}
		if !v.IsValid() { // rows cut short are not no rows
			return nil, errors.New("the resultObject is not valid JSON")
		}
	}
	if event.IsArray(v) {
		return readItems(v)
	}
	if o, err := readObject(v); err == nil && phantomProfile(o) != "" {
		return []jsontext.Value{v}, nil
	}
	return nil, nil
}

// phantomProfile is the profile that a row is about, by the names that
// PhantomBuster's LinkedIn agents use.
func phantomProfile(row object) string {
	return strings.TrimSpace(row.text("profileUrl", "linkedinProfileUrl", "linkedInProfileUrl", "profileLink", "linkedinUrl"))
}

func phantomRow(raw jsontext.Value, container, agent string, t event.Type) (event.Event, error) {
	row, err := readObject(raw)
	if err != nil {
		return event.Event{}, err
	}
	action := row.text("action")
	e := event.Event{
		Provider:     "phantombuster",
		Kind:         action,
		Type:         t,
		Channel:      event.DefaultChannel(t),
		LeadID:       phantomProfile(row),
		Email:        bareAddress(row.text("email", "mail", "professionalEmail")),
		Campaign:     agent,
		EnrollmentID: event.PassedBack(raw),
		Payload:      raw,
	}
	if e.Kind == "" {
		e.Kind = string(t)
	}
	if row.text("error") != "" { // the agent says that it did not do it
		e.Kind, e.Type, e.Control = "row_error", "", true
	}
	if t == event.Bounced && e.Type == t {
		e.Bounce = event.Soft
	}
	// A row's time is its agent's own affair: what cannot be read is not told.
	if err := setTime(&e, firstTold(row["timestamp"])); err != nil || !event.PlausibleTime(e.OccurredAt) {
		e.OccurredAt, e.OccurredAtEstimated = time.Time{}, true
	}
	who := strings.TrimRight(e.LeadID, "/")
	if who == "" {
		who = string(raw) // no name: what it says is all there is
	}
	e.IdentityParts = []string{"phantombuster", container, agent, who, action, row.text("error")}
	if err := e.Check(); err != nil {
		return event.Event{}, fmt.Errorf("%.80q: %w", e.Kind, err)
	}
	return e, nil
}
