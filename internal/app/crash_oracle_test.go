package app_test

import (
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"tallyhook/internal/testenv"
)

// The oracle: what must be true of the store, computed from what was sent and
// answered, with rules of its own.

// visible checks, right after a start, that what was acknowledged last is there.
func (st *storm) visible(c *testenv.Client) {
	st.t.Helper()
	st.mu.Lock()
	var last []string
	for _, m := range slices.Backward(st.order) {
		if s := st.sent[m]; s.acked > 0 && s.id != "" {
			last = append(last, s.id)
		}
		if len(last) == 20 {
			break
		}
	}
	st.mu.Unlock()
	for _, id := range last {
		if a := c.Do(0, "GET", "/api/events/"+id, nil); a.Status != 200 {
			st.t.Errorf("event %s was acknowledged before the crash; after it: status %d: %s", id, a.Status, a.Body)
		}
	}
}

// enrollRest enrolls those whose turn has not come: they adopt out of the
// dead letters too.
func (st *storm) enrollRest(c *testenv.Client) {
	st.t.Helper()
	for _, who := range st.contacts {
		if !who.begun && who.way != never {
			who.begun = true
			st.enroll(c, who)
		}
	}
}

// settle waits until replays have ended and nothing is being adopted.
func (st *storm) settle(c *testenv.Client) {
	st.t.Helper()
	for _, id := range st.replays {
		testenv.Eventually(st.t, 3*time.Minute, "the bulk replay "+id+" is done", func() bool {
			return c.Get("/api/admin/dlq/replays/"+id).At("data.status").Text() == "done"
		})
		r := c.Get("/api/admin/dlq/replays/" + id).At("data")
		sum := r.At("applied").Int() + r.At("orphaned").Int() + r.At("duplicate").Int() + r.At("dead").Int() + r.At("skipped").Int()
		if r.At("matched").Int() != sum {
			st.t.Errorf("replay %s: matched %d, but its outcomes sum to %d", id, r.At("matched").Int(), sum)
		}
	}
	testenv.Eventually(st.t, 3*time.Minute, "everything that has an enrollment is applied", func() bool {
		for _, state := range []string{"orphaned", "dead"} {
			for _, row := range c.Rows("/api/events?state=" + state) {
				if s := st.sent[markerOf(row)]; s != nil && s.home() != nil {
					return false
				}
			}
		}
		return true
	})
}

func markerOf(row testenv.Value) string {
	if m := row.At("metadata.marker").Text(); m != "" {
		return m
	}
	return row.At("provider_event_id").Text()
}

// home is the contact whose enrollment the event belongs to; nil when it
// belongs to none.
func (s *sent) home() *contact {
	if s.contact.way == byEmail || (s.contact.way == byRefs && s.findable) {
		return s.contact
	}
	return nil
}

// verify holds the store against the record.
func (st *storm) verify(c *testenv.Client) {
	st.t.Helper()
	rows := map[string]testenv.Value{}
	var repeats int64
	all := c.Rows("/api/events")
	for _, row := range all {
		m := markerOf(row)
		if _, twice := rows[m]; twice {
			st.t.Errorf("%s is there twice", m)
		}
		rows[m] = row
		repeats += row.At("duplicates").Int()
		if st.sent[m] == nil {
			st.t.Errorf("the event %s (%s) was never sent", row.At("id").Text(), m)
		}
	}
	for _, m := range st.order {
		st.verifyEvent(st.sent[m], rows)
	}
	st.verifySearch(c, rows)
	st.verifyByID(c, rows)
	model := st.model(rows)
	model.verifyStatus(st.t, c, st.contacts)
	for i, id := range st.instances {
		model.verifyPerformance(st.t, c, i, id)
	}
	model.verifySuppressions(st.t, c)

	b := c.Get("/api/admin/balance").At("data")
	if d := b.At("difference").Int(); d != 0 || len(b.At("counters").List()) != 0 {
		st.t.Errorf("balance: difference %d, counters that drift: %d", d, len(b.At("counters").List()))
	}
	ledger, recount := b.At("tenants.0.ledger").Map(), b.At("tenants.0.recount").Map()
	for name := range ledger {
		if ledger[name].Text() != recount[name].Text() {
			st.t.Errorf("balance: %s is %s in the ledger, %s by a recount", name, ledger[name].Text(), recount[name].Text())
		}
	}
	if got, want := ledger["received"].Int(), int64(len(all))+repeats; got != want {
		st.t.Errorf("the ledger has received %d, want %d: %d events and %d duplicates", got, want, len(all), repeats)
	}
}

func (st *storm) verifyEvent(s *sent, rows map[string]testenv.Value) {
	row, there := rows[s.marker]
	if !there {
		if s.acked > 0 {
			st.t.Errorf("%s was acknowledged %d times and is not there", s.marker, s.acked)
		}
		return
	}
	// Every acknowledgement but one was of a duplicate, and what was not
	// acknowledged may have been stored.
	if n := row.At("duplicates").Int(); n < int64(s.acked-1) || n > int64(s.attempts-1) {
		st.t.Errorf("%s was sent %d times and acknowledged %d times, but has %d duplicates", s.marker, s.attempts, s.acked, n)
	}
	if s.first > 1 || (s.first == 0 && !s.blurred && s.acked > 0 && s.attempts == s.acked) {
		st.t.Errorf("%s was answered %d times as if it was new, in %d answers to %d attempts", s.marker, s.first, s.acked, s.attempts)
	}
	if s.id != "" && row.At("id").Text() != s.id {
		st.t.Errorf("%s has the id %s, and was answered %s", s.marker, row.At("id").Text(), s.id)
	}
	state, home := row.At("state").Text(), s.home()
	switch {
	case home != nil && (state != "applied" || row.At("enrollment_id").Text() != home.id):
		st.t.Errorf("%s is %s to %q, want applied to %s", s.marker, state, row.At("enrollment_id").Text(), home.id)
	case home == nil && state != "orphaned" && state != "dead":
		st.t.Errorf("%s is %s, but nothing it names is enrolled", s.marker, state)
	}
	if got := row.At("event_type").Text(); got != s.kind {
		st.t.Errorf("%s is a %s, want %s", s.marker, got, s.kind)
	}
}

// verifySearch finds each contact's events by address.
func (st *storm) verifySearch(c *testenv.Client, rows map[string]testenv.Value) {
	want := map[string][]string{}
	for m := range rows {
		if s := st.sent[m]; s != nil {
			want[s.contact.email()] = append(want[s.contact.email()], m)
		}
	}
	for _, who := range st.contacts {
		var got []string
		for _, row := range c.Rows("/api/events?email=" + who.email()) {
			got = append(got, markerOf(row))
		}
		slices.Sort(got)
		slices.Sort(want[who.email()])
		if !slices.Equal(got, want[who.email()]) {
			st.t.Errorf("a search for %s finds %d events, want %d", who.email(), len(got), len(want[who.email()]))
		}
	}
}

// verifyByID reads acknowledged events one by one; of very many, a part.
func (st *storm) verifyByID(c *testenv.Client, rows map[string]testenv.Value) {
	var ids []string
	for _, m := range st.order {
		if s := st.sent[m]; s.acked > 0 {
			ids = append(ids, rows[m].At("id").Text())
		}
	}
	step := max(1, len(ids)/2000)
	var readers sync.WaitGroup
	for n := range 4 {
		readers.Go(func() {
			for i := n * step; i < len(ids); i += 4 * step {
				a, err := c.Try("GET", "/api/events/"+ids[i], nil)
				if err != nil || a.Status != 200 || a.At("data.id").Text() != ids[i] {
					st.t.Errorf("GET event %s: status %d, error %v: %s", ids[i], a.Status, err, a.Body)
				}
			}
		})
	}
	readers.Wait()
}

// model is what the numbers must be.
type model struct {
	instances    []instanceModel
	status       map[*contact]string
	suppressions map[string]string // address to reason
}

type instanceModel struct {
	totals  map[string]int64
	who     map[string]map[*contact]bool
	human   map[string]int64
	machine map[string]int64
	status  map[string]int64
}

// facts are what decides a status, of an enrollment or an address.
type facts struct {
	complained, hard, replied bool
	off, on                   time.Time // latest unsubscribed, latest resubscribed
}

func (f *facts) add(s *sent) {
	switch s.kind {
	case "complained":
		f.complained = true
	case "bounced":
		f.hard = f.hard || s.bounce == "hard"
	case "replied":
		f.replied = true
	case "unsubscribed":
		if s.at.After(f.off) {
			f.off = s.at
		}
	case "resubscribed":
		if s.at.After(f.on) {
			f.on = s.at
		}
	}
}

func (f *facts) status() string {
	switch {
	case f.complained:
		return "complained"
	case !f.off.IsZero() && !f.on.After(f.off):
		return "unsubscribed"
	case f.hard:
		return "bounced"
	case f.replied:
		return "completed"
	}
	return "active"
}

// model computes from every event that is there, whatever was answered.
func (st *storm) model(rows map[string]testenv.Value) model {
	m := model{status: map[*contact]string{}, suppressions: map[string]string{}}
	for range st.instances {
		m.instances = append(m.instances, instanceModel{
			totals: map[string]int64{}, who: map[string]map[*contact]bool{}, human: map[string]int64{}, machine: map[string]int64{},
			status: map[string]int64{},
		})
	}
	enrollment, address := map[*contact]*facts{}, map[*contact]*facts{}
	for _, who := range st.contacts {
		enrollment[who], address[who] = &facts{}, &facts{}
	}
	for marker := range rows {
		s := st.sent[marker]
		if s == nil {
			continue
		}
		address[s.contact].add(s)
		home := s.home()
		if home == nil {
			continue
		}
		enrollment[home].add(s)
		in := &m.instances[home.instance]
		keys := []string{s.kind}
		if s.kind == "bounced" {
			keys = append(keys, "bounced_"+s.bounce)
		}
		for _, k := range keys {
			in.totals[k]++
			if in.who[k] == nil {
				in.who[k] = map[*contact]bool{}
			}
			in.who[k][home] = true
		}
		if s.kind == "opened" || s.kind == "clicked" {
			if s.machine == "yes" {
				in.machine[s.kind]++
			} else {
				in.human[s.kind]++
			}
		}
	}
	for _, who := range st.contacts {
		if who.way != never {
			m.status[who] = enrollment[who].status()
			m.instances[who.instance].status[m.status[who]]++
		}
		switch reason := address[who].status(); reason {
		case "complained", "unsubscribed", "bounced":
			m.suppressions[who.email()] = reason
		}
	}
	return m
}

func (m *model) verifyStatus(t *testing.T, c *testenv.Client, contacts []*contact) {
	t.Helper()
	for _, who := range contacts {
		if who.way == never {
			continue
		}
		if got := c.Get("/api/campaigns/enrollments/" + who.id).At("data.status").Text(); got != m.status[who] {
			t.Errorf("the enrollment of contact %d is %s, want %s", who.n, got, m.status[who])
		}
	}
}

func (m *model) verifyPerformance(t *testing.T, c *testenv.Client, i int, id string) {
	t.Helper()
	p := c.Get("/api/campaigns/instances/" + id + "/performance").At("data")
	want := m.instances[i]
	uniques := map[string]int64{}
	for k, who := range want.who {
		uniques[k] = int64(len(who))
	}
	for name, want := range map[string]map[string]int64{
		"totals": want.totals, "uniques": uniques, "human": want.human, "machine": want.machine, "enrollment_status": want.status,
	} {
		got := map[string]int64{}
		for k, v := range p.At(name).Map() {
			if v.Int() != 0 {
				got[k] = v.Int()
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("performance of instance %d, %s: got %v, want %v", i, name, got, want)
		}
	}
	var series int64
	for _, point := range p.At("time_series").List() {
		series += point.At("totals.opened").Int()
	}
	if series != want.totals["opened"] {
		t.Errorf("performance of instance %d: the time series has %d opens, want %d", i, series, want.totals["opened"])
	}
}

func (m *model) verifySuppressions(t *testing.T, c *testenv.Client) {
	t.Helper()
	got := map[string]string{}
	for _, row := range c.Rows("/api/suppressions") {
		got[row.At("email").Text()] = row.At("reason").Text()
	}
	if !maps.Equal(got, m.suppressions) {
		for _, address := range slices.Sorted(maps.Keys(m.suppressions)) {
			if got[address] != m.suppressions[address] {
				t.Errorf("suppression of %s: got %q, want %q", address, got[address], m.suppressions[address])
			}
		}
		t.Errorf("suppressions: got %d, want %d", len(got), len(m.suppressions))
	}
}
