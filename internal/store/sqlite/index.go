package sqlite

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/google/uuid"
	"github.com/ncruces/go-sqlite3"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

// The identities of events, and what they are searched by, are in random
// order: kept in one B-tree each, every commit would rewrite about one page an
// event, and ever more slowly the more are stored. So they are kept as a
// log-structured merge tree of one level (O'Neil et al., 1996): the youngest
// events in memory, the older ones in generations, sorted runs that are
// written once at the end of their table. The event rows are the truth: what
// is in memory is read back from them at a start, and a run that a crash cut
// short is thrown away.

const defaultGeneration = 65_536 // events in one generation

type identityKey struct {
	tenant int64
	hash   event.Hash
}

func identityOf(w *store.Work) identityKey { return identityKey{w.Event.Tenant, w.Identity} }

type searchRef struct {
	tenant int64
	key    [8]byte
}

// searchRefs are what an event is searched by.
func searchRefs(tenant int64, email, message string, enrollment uuid.UUID) []searchRef {
	refs := make([]searchRef, 0, 3)
	if a := event.NormalAddress(email); a != "" {
		refs = append(refs, searchRef{tenant, row.SearchKey("email", a)})
	}
	if m := event.NormalID(message); m != "" {
		refs = append(refs, searchRef{tenant, row.SearchKey("message", m)})
	}
	if enrollment != uuid.Nil {
		refs = append(refs, enrollmentRef(tenant, enrollment))
	}
	return refs
}

func enrollmentRef(tenant int64, enrollment uuid.UUID) searchRef {
	return searchRef{tenant, row.SearchKey("enrollment", enrollment.String())}
}

// stretch is the index of a stretch of events in memory.
type stretch struct {
	after    int64 // events with a number above this one
	identity map[identityKey]int64
	search   map[searchRef][]int64
}

func newStretch(after int64) *stretch {
	return &stretch{after: after, identity: map[identityKey]int64{}, search: map[searchRef][]int64{}}
}

type generation struct {
	id     int64
	filter filter
}

// index is what the store holds in memory of its indexes. It is changed only
// by the holder of the writer's turn, after the commit of what it says; mu
// guards it against the searches of readers.
type index struct {
	size int

	mu          sync.RWMutex
	stale       bool       // a commit of unknown outcome: to be read again
	through     int64      // events up to here are in the index
	active      *stretch   // the youngest
	full        []*stretch // waiting to be written as generations, the oldest first
	generations []generation

	turn sync.Mutex // one caller of IndexNext at a time; guards run
	run  *run
}

// run is a generation on its way to the disk.
type run struct {
	from       *stretch // what it is made of
	generation int64
	last       int64
	identities []identityEntry
	searches   []searchEntry
	filter     filter
	written    int
}

type identityEntry struct {
	identityKey
	seq int64
}

type searchEntry struct {
	searchRef
	seq int64
}

// loadIndex reads the index from the store's rows, at a start. It takes as
// long as it takes: in parts, and not in a transaction with a deadline, so that
// no number of young events can keep a server from starting.
func (s *Store) loadIndex(ctx context.Context) error {
	x := &s.index
	rows, err := s.readers.QueryContext(ctx, `SELECT id, last_seq, filter FROM generation ORDER BY id`)
	if err != nil {
		return s.fail("load index", err)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	err = drain(rows, func(sc row.Scanner) error {
		var g generation
		var raw []byte
		if err := sc.Scan(&g.id, &x.through, &raw); err != nil {
			return err
		}
		g.filter = filterOf(raw)
		x.generations = append(x.generations, g)
		return nil
	})
	if err != nil {
		return s.fail("load index", err)
	}
	x.active = newStretch(x.through)
	for before := int64(-1); before != x.through; {
		before = x.through
		rows, err := s.readers.QueryContext(ctx, youngSQL, x.through, loadPart)
		if err != nil {
			return s.fail("load index", err)
		}
		if err := drain(rows, x.takeIn); err != nil {
			return s.fail("load index", err)
		}
	}
	return nil
}

const (
	loadPart = 20_000 // events read at once
	youngSQL = `SELECT seq, tenant_id, identity, email, provider_message_id, enrollment_id FROM event WHERE seq > ?1
		UNION ALL SELECT seq, tenant_id, identity, '', '', NULL FROM retired WHERE seq > ?1 ORDER BY seq LIMIT ?2`
)

// catchUp takes in events that are stored and not in the index: those of a
// commit of unknown outcome, or of another process. What it has read stays
// when it fails, and the next time goes on from there.
func (t *tx) catchUp() error {
	x := &t.s.index
	x.mu.Lock()
	defer x.mu.Unlock()
	for before := int64(-1); before != x.through; {
		before = x.through
		if err := t.query(youngSQL, x.takeIn, x.through, loadPart); err != nil {
			return err
		}
	}
	x.stale = false
	return nil
}

// takeIn puts a row of youngSQL into the index. mu is held.
func (x *index) takeIn(sc row.Scanner) error {
	var seq, tenant int64
	var identity, enrollment []byte
	var email, message string
	if err := sc.Scan(&seq, &tenant, &identity, &email, &message, &enrollment); err != nil {
		return err
	}
	x.put(seq, identityKey{tenant, event.Hash(identity)}, searchRefs(tenant, email, message, row.ID(enrollment)))
	return nil
}

// put adds a new event. A stretch that is full waits to be written.
func (x *index) put(seq int64, id identityKey, refs []searchRef) {
	if len(x.active.identity) >= x.size {
		x.full = append(x.full, x.active)
		x.active = newStretch(x.through)
	}
	x.active.identity[id] = seq
	for _, r := range refs {
		x.active.search[r] = append(x.active.search[r], seq)
	}
	x.through = seq
}

// identify finds what each event's identity has met: w.Met is the number of
// the first event of it, 0 when this one is the first. It gives the first ones.
func (t *tx) identify(works []*store.Work, last int64) ([]*store.Work, error) {
	x := &t.s.index
	if x.through != last {
		if err := t.catchUp(); err != nil {
			return nil, err
		}
	}
	type suspect struct {
		w          *store.Work
		generation int64
	}
	var suspects []suspect
	batch := make(map[identityKey]int64, len(works))
	for _, w := range works {
		w.Identity = w.Event.Identity()
		id := identityOf(w)
		if seq, ok := batch[id]; ok {
			w.Met = seq
			continue
		}
		if w.Met = x.met(id); w.Met != 0 {
			continue
		}
		batch[id] = w.Seq
		for _, g := range x.generations {
			if g.filter.has(id.tenant, id.hash) {
				suspects = append(suspects, suspect{w, g.id})
			}
		}
	}
	if len(suspects) > 0 {
		found := map[int64]int64{}
		err := t.query(`SELECT b.seq, i.event_seq FROM b_identity(?1) b
			CROSS JOIN identity i ON i.generation = b.generation AND i.tenant_id = b.tenant_id AND i.key = b.key`, func(sc row.Scanner) error {
			var mine, met int64
			err := sc.Scan(&mine, &met)
			found[mine] = met
			return err
		}, bind(suspects, func(c sqlite3.Context, p *suspect, col int) {
			switch col {
			case 0:
				c.ResultInt64(p.generation)
			case 1:
				c.ResultInt64(p.w.Event.Tenant)
			case 2:
				c.ResultBlob(p.w.Identity[:])
			case 3:
				c.ResultInt64(p.w.Seq)
			}
		}))
		if err != nil {
			return nil, err
		}
		if len(found) > 0 {
			for _, w := range works {
				if met := found[w.Seq]; met != 0 {
					w.Met = met
				} else if met := found[w.Met]; met != 0 {
					w.Met = met // a twin in the batch met it too
				}
			}
		}
	}
	first := make([]*store.Work, 0, len(works))
	for _, w := range works {
		if w.Met == 0 {
			first = append(first, w)
		}
	}
	return first, nil
}

func (x *index) met(id identityKey) int64 {
	if seq := x.active.identity[id]; seq != 0 {
		return seq
	}
	for _, f := range x.full {
		if seq := f.identity[id]; seq != 0 {
			return seq
		}
	}
	return 0
}

// indexNew adds new events to the index once they are committed.
func (t *tx) indexNew(works []*store.Work) {
	t.after = append(t.after, func() {
		x := &t.s.index
		x.mu.Lock()
		defer x.mu.Unlock()
		for _, w := range works {
			x.put(w.Seq, identityOf(w), searchRefs(w.Event.Tenant, w.Event.Email, w.Event.ProviderMessageID, w.Enrollment()))
		}
	})
}

// indexSettled adds the enrollments that stored events have found.
func (t *tx) indexSettled(works []*store.Work) error {
	x := &t.s.index
	var young []*store.Work
	var old []searchEntry
	for _, w := range works {
		if w.Seq > x.active.after {
			young = append(young, w)
		} else {
			old = append(old, searchEntry{enrollmentRef(w.Event.Tenant, w.Decision.Enrollment), w.Seq})
		}
	}
	if len(young) > 0 {
		// Also when the outcome of the commit is unknown: the search asks the row.
		t.either = append(t.either, func() {
			x.mu.Lock()
			defer x.mu.Unlock()
			for _, w := range young {
				r := enrollmentRef(w.Event.Tenant, w.Decision.Enrollment)
				x.active.search[r] = append(x.active.search[r], w.Seq)
			}
		})
	}
	if len(old) == 0 {
		return nil
	}
	return t.writeSearches(0, old)
}

func (t *tx) writeSearches(generation int64, entries []searchEntry) error {
	_, err := t.exec(`INSERT INTO event_search (generation, tenant_id, key, event_seq) SELECT ?2, tenant_id, key, seq FROM b_key(?1) WHERE true
		ON CONFLICT DO NOTHING`, bind(entries, func(c sqlite3.Context, e *searchEntry, col int) {
		switch col {
		case 0:
			c.ResultInt64(e.tenant)
		case 1:
			c.ResultBlob(e.key[:])
		case 2:
			c.ResultInt64(e.seq)
		}
	}), generation)
	return err
}

// young gives the events in memory that a search reference leads to.
func (x *index) young(r searchRef) []tenantSeq {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var seqs []tenantSeq
	for _, s := range append(slices.Clone(x.full), x.active) {
		for _, seq := range s.search[r] {
			seqs = append(seqs, tenantSeq{r.tenant, seq})
		}
	}
	return seqs
}

// searched is the SQL that gives the numbers of the events a reference leads
// to, with its arguments. What is in memory is read first, so that an event on
// its way to the disk is seen in one of the two.
func (s *Store) searched(r searchRef) (string, []any) {
	return `SELECT event_seq FROM event_search WHERE generation IN (SELECT id FROM generation UNION ALL SELECT 0) AND tenant_id = ? AND key = ?
		UNION ALL SELECT seq FROM b_seq(?)`, []any{r.tenant, r.key[:], bind(s.index.young(r), tenantSeqColumn)}
}

// IndexNext does one step of writing the oldest full stretch as a generation:
// n rows in a turn of its own, and twice as many for each further stretch that
// waits, so that it keeps pace with whatever comes in. more is false when there
// is nothing to do.
func (s *Store) IndexNext(ctx context.Context, n int) (more bool, err error) {
	x := &s.index
	x.turn.Lock()
	defer x.turn.Unlock()
	oldest, waiting := x.oldest()
	if oldest == nil {
		return false, nil
	}
	if x.run == nil || x.run.from != oldest {
		x.run = sorted(oldest)
	}
	done := false
	err = s.write(ctx, bulk, "write index", func(t *tx) error {
		return t.writeRun(x.run, n<<min(waiting-1, 5), &done)
	})
	if err == nil && done {
		x.run = nil
	}
	_, waiting = x.oldest()
	return err == nil && waiting > 0, err
}

// oldest is the stretch to be written next, and how many wait.
func (x *index) oldest() (*stretch, int) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if len(x.full) == 0 {
		return nil, 0
	}
	return x.full[0], len(x.full)
}

// maxWaiting is how many full stretches may wait before new events are held
// back: memory and the time of a start stay bounded.
const maxWaiting = 8

// Backlog is how many events are not yet in a generation.
func (s *Store) Backlog() int64 {
	s.index.mu.RLock()
	defer s.index.mu.RUnlock()
	n := int64(len(s.index.active.identity))
	for _, f := range s.index.full {
		n += int64(len(f.identity))
	}
	return n
}

func sorted(f *stretch) *run {
	r := &run{from: f, filter: newFilter(len(f.identity))}
	for k, seq := range f.identity {
		r.identities = append(r.identities, identityEntry{k, seq})
		r.filter.add(k.tenant, k.hash)
		r.last = max(r.last, seq)
	}
	for k, seqs := range f.search {
		for _, seq := range seqs {
			r.searches = append(r.searches, searchEntry{k, seq})
		}
	}
	slices.SortFunc(r.identities, func(a, b identityEntry) int {
		return cmp.Or(cmp.Compare(a.tenant, b.tenant), bytes.Compare(a.hash[:], b.hash[:]))
	})
	slices.SortFunc(r.searches, func(a, b searchEntry) int {
		return cmp.Or(cmp.Compare(a.tenant, b.tenant), bytes.Compare(a.key[:], b.key[:]), cmp.Compare(a.seq, b.seq))
	})
	return r
}

// writeRun writes the next n rows of a run; the last step makes it a
// generation. Every step may be repeated.
func (t *tx) writeRun(r *run, n int, done *bool) error {
	if r.written == 0 {
		if _, err := t.one(`SELECT coalesce(max(id), 0) + 1 FROM generation`, nil, &r.generation); err != nil {
			return err
		}
		for _, q := range []string{`DELETE FROM identity WHERE generation = ?1`, `DELETE FROM event_search WHERE generation = ?1`} {
			if _, err := t.exec(q, r.generation); err != nil { // left by a crash
				return err
			}
		}
	}
	at := r.written
	if part := r.identities[min(at, len(r.identities)):min(at+n, len(r.identities))]; len(part) > 0 {
		if _, err := t.exec(`INSERT INTO identity (generation, tenant_id, key, event_seq)
			SELECT generation, tenant_id, key, seq FROM b_identity(?1) WHERE true ON CONFLICT DO NOTHING`,
			bind(part, func(c sqlite3.Context, e *identityEntry, col int) {
				switch col {
				case 0:
					c.ResultInt64(r.generation)
				case 1:
					c.ResultInt64(e.tenant)
				case 2:
					c.ResultBlob(e.hash[:])
				case 3:
					c.ResultInt64(e.seq)
				}
			})); err != nil {
			return err
		}
		t.after = append(t.after, func() { r.written = at + len(part) })
		return nil
	}
	at -= len(r.identities)
	if part := r.searches[min(at, len(r.searches)):min(at+n, len(r.searches))]; len(part) > 0 {
		if err := t.writeSearches(r.generation, part); err != nil {
			return err
		}
		t.after = append(t.after, func() { r.written += len(part) })
		return nil
	}
	var before int64
	if _, err := t.one(`SELECT coalesce(max(last_seq), 0) FROM generation`, nil, &before); err != nil {
		return err
	}
	switch before {
	case r.last: // a commit of unknown outcome came through after all
	case r.from.after:
		if _, err := t.exec(`INSERT INTO generation (id, last_seq, filter) VALUES (?1, ?2, ?3)`,
			r.generation, r.last, r.filter.bytes()); err != nil {
			return err
		}
	default: // never leave a gap between generations
		return fault.New(fault.Internal, "the index's generations end at event %d, not at %d", before, r.from.after)
	}
	t.after = append(t.after, func() {
		x := &t.s.index
		x.mu.Lock()
		defer x.mu.Unlock()
		x.generations = append(x.generations, generation{r.generation, r.filter})
		x.full = x.full[1:]
		*done = true
	})
	return nil
}

// distrust makes the next writer look for rows that the index has not seen.
func (x *index) distrust() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.stale = true
}
