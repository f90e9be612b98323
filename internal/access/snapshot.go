package access

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"

	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

// The file of a snapshot is a line that names its form, and parts: a byte that
// says what it is, its length in four bytes, and a sealed JSON value. The
// first part has the snapshot's id and time; each other one is bound to that
// id, to its place and to what it is, and the last says that it is the last.
// So no part can be changed, moved, left out or taken from another snapshot. A
// whole older file can be put in its place; the hour is what bounds that.
const (
	snapshotForm = "tallyhook access snapshot 1\n"

	partHead = 'h'
	partPage = 'p'
	partEnd  = 'e'
)

const (
	snapshotAge   = time.Hour       // until it is no longer believed
	snapshotEvery = time.Minute     // it is written at most so often
	snapshotFresh = 5 * time.Minute // it is written anew so often although nothing changed here: elsewhere it may have
	sourcePage    = 100             // rows read and sealed at once
	keyPage       = 1000
)

// snapshot is what is known without the database: the sources that are not
// deleted, and the keys that may write events.
type snapshot struct {
	at      time.Time // when reading it began
	keys    map[[32]byte]snapshotKey
	sources []store.Source
	byToken map[[32]byte]int
	byID    map[uuid.UUID]int
	former  map[[32]byte]store.FormerToken
}

// source finds a source by its token, or by one that works still. A token that
// became a former one while the snapshot was read is in both maps.
func (s *snapshot) source(hash [32]byte, now time.Time) (i int, ok bool) {
	if f, former := s.former[hash]; former {
		i, ok = s.byID[f.Source]
		return i, ok && now.Before(f.EndsAt)
	}
	i, ok = s.byToken[hash]
	return i, ok
}

type snapshotHead struct {
	ID uuid.UUID `json:"id"`
	At time.Time `json:"at"`
}

type snapshotPage struct {
	Sources []snapshotSource `json:"sources,omitempty"`
	Keys    []snapshotKey    `json:"keys,omitempty"`
	Former  []snapshotToken  `json:"former,omitempty"`
}

type snapshotSource struct {
	ID        uuid.UUID `json:"id"`
	Tenant    int64     `json:"tenant"`
	Provider  string    `json:"provider"`
	TokenHash [32]byte  `json:"token_hash"`
	Sealed    []byte    `json:"sealed"`
}

type snapshotKey struct {
	Hash      [32]byte  `json:"hash"`
	ID        uuid.UUID `json:"id"`
	Tenant    int64     `json:"tenant"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
}

type snapshotToken struct {
	Hash   [32]byte  `json:"hash"`
	Source uuid.UUID `json:"source"`
	EndsAt time.Time `json:"ends_at"`
}

// partOwner is what a part is bound to.
func partOwner(id uuid.UUID, kind byte, n uint64) []byte {
	return binary.BigEndian.AppendUint64(append(append([]byte("access snapshot "), id[:]...), kind), n)
}

// snapshotWriter writes the parts of one snapshot.
type snapshotWriter struct {
	sealer *sealer
	out    *bufio.Writer
	id     uuid.UUID
	n      uint64
}

func (w *snapshotWriter) part(kind byte, owner uuid.UUID, v any) error {
	plain, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	sealed := w.sealer.seal(plain, partOwner(owner, kind, w.n))
	w.n++
	head := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(sealed))) //nolint:gosec // a page has a bounded number of bounded rows
	if _, err := w.out.Write(append(head, sealed...)); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// writeSnapshot reads what is to be known page by page and replaces the file
// by it as a whole.
func (s *Service) writeSnapshot(ctx context.Context) (err error) {
	began := s.now()
	if err := os.MkdirAll(filepath.Dir(s.file), 0o700); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(s.file), filepath.Base(s.file)+".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	defer func() {
		if rerr := os.Remove(f.Name()); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}()
	werr := s.fillSnapshot(ctx, f, began)
	if werr == nil {
		werr = f.Sync()
	}
	if err := errors.Join(werr, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), s.file); err != nil {
		return fmt.Errorf("rename: %w", err)
	}
	return syncDir(filepath.Dir(s.file))
}

func (s *Service) fillSnapshot(ctx context.Context, f io.Writer, began time.Time) error {
	w := &snapshotWriter{sealer: s.sealer, out: bufio.NewWriter(f)}
	if _, err := rand.Read(w.id[:]); err != nil {
		return fmt.Errorf("read random bytes: %w", err)
	}
	if _, err := w.out.WriteString(snapshotForm); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if err := w.part(partHead, uuid.Nil, snapshotHead{w.id, began.UTC()}); err != nil {
		return err
	}
	for after, more := int64(0), true; more; more = after != 0 {
		rows, next, err := s.store.AllSources(ctx, after, sourcePage)
		if err != nil {
			return fmt.Errorf("list sources: %w", err)
		}
		var p snapshotPage
		for _, r := range rows {
			p.Sources = append(p.Sources, snapshotSource{r.ID, r.Tenant, r.Provider, r.TokenHash, r.Sealed})
		}
		if err := w.part(partPage, w.id, p); err != nil {
			return err
		}
		after = next
	}
	for after, more := int64(0), true; more; more = after != 0 {
		rows, next, err := s.store.AllKeys(ctx, after, keyPage)
		if err != nil {
			return fmt.Errorf("list keys: %w", err)
		}
		var p snapshotPage
		for _, k := range rows {
			if slices.Contains(k.Scopes, ScopeEventsWrite) || slices.Contains(k.Scopes, ScopeAdmin) {
				p.Keys = append(p.Keys, snapshotKey{k.Hash, k.ID, k.Tenant, k.ExpiresAt})
			}
		}
		if err := w.part(partPage, w.id, p); err != nil {
			return err
		}
		after = next
	}
	for after, more := int64(0), true; more; more = after != 0 {
		rows, next, err := s.store.FormerTokens(ctx, after, keyPage)
		if err != nil {
			return fmt.Errorf("list former tokens: %w", err)
		}
		var p snapshotPage
		for _, f := range rows {
			p.Former = append(p.Former, snapshotToken(f))
		}
		if err := w.part(partPage, w.id, p); err != nil {
			return err
		}
		after = next
	}
	if err := w.part(partEnd, w.id, struct{}{}); err != nil {
		return err
	}
	if err := w.out.Flush(); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

var errSnapshot = errors.New("it is damaged or was changed")

// readSnapshot reads a snapshot whole, or fails.
func readSnapshot(path string, sealer *sealer) (snap *snapshot, err error) {
	f, err := os.Open(path) //nolint:gosec // the operator names the folder
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	in := bufio.NewReader(f)
	form := make([]byte, len(snapshotForm))
	if _, err := io.ReadFull(in, form); err != nil || string(form) != snapshotForm {
		return nil, errSnapshot
	}
	snap = &snapshot{keys: map[[32]byte]snapshotKey{}, byToken: map[[32]byte]int{}, byID: map[uuid.UUID]int{}, former: map[[32]byte]store.FormerToken{}}
	var head snapshotHead
	for n := uint64(0); ; n++ {
		kind, sealed, err := readPart(in, info.Size())
		if err != nil {
			return nil, err
		}
		plain, err := sealer.open(sealed, partOwner(head.ID, kind, n))
		switch {
		case errors.Is(err, errSealKey):
			return nil, err
		case err != nil, (kind == partHead) != (n == 0):
			return nil, errSnapshot
		}
		switch kind {
		case partHead:
			if err := json.Unmarshal(plain, &head); err != nil {
				return nil, errSnapshot
			}
			snap.at = head.At
		case partPage:
			var p snapshotPage
			if err := json.Unmarshal(plain, &p); err != nil {
				return nil, errSnapshot
			}
			snap.add(p)
		case partEnd:
			if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
				return nil, errSnapshot
			}
			return snap, nil
		}
	}
}

// readPart reads one part of a file of that size.
func readPart(in io.Reader, size int64) (kind byte, sealed []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return 0, nil, errSnapshot
	}
	n := int64(binary.BigEndian.Uint32(head[1:]))
	if n > size {
		return 0, nil, errSnapshot
	}
	sealed = make([]byte, n)
	if _, err := io.ReadFull(in, sealed); err != nil {
		return 0, nil, errSnapshot
	}
	return head[0], sealed, nil
}

func (s *snapshot) add(p snapshotPage) {
	for _, k := range p.Keys {
		s.keys[k.Hash] = k
	}
	for _, f := range p.Former {
		s.former[f.Hash] = store.FormerToken(f)
	}
	for _, r := range p.Sources {
		s.byToken[r.TokenHash], s.byID[r.ID] = len(s.sources), len(s.sources)
		s.sources = append(s.sources, store.Source{ID: r.ID, Tenant: r.Tenant, Provider: r.Provider, TokenHash: r.TokenHash, Sealed: r.Sealed})
	}
}

// believed tells whether the snapshot may still be used. One from the future
// (a clock that was set back) may not.
func (s *snapshot) believed(now time.Time) bool {
	age := now.Sub(s.at)
	return age >= 0 && age <= snapshotAge
}

// memory holds the snapshot while the database is away, and only then.
type memory struct {
	mu   sync.Mutex
	read bool // it was tried
	snap *snapshot
	err  error
}

func (m *memory) get(read func() (*snapshot, error)) (snap *snapshot, first bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.read {
		m.snap, m.err = read()
		m.read, first = true, true
	}
	return m.snap, first, m.err
}

func (m *memory) drop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.read, m.snap, m.err = false, nil, nil
}

// loadSnapshot gives an error that says what to do.
func (s *Service) loadSnapshot() (*snapshot, error) {
	snap, err := readSnapshot(s.file, s.sealer)
	switch {
	case err == nil:
		return snap, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, fault.New(fault.Unavailable, "the database is away, and there is no snapshot %s yet to go by", s.file)
	case errors.Is(err, errSealKey):
		return nil, fault.New(fault.Invalid, "SECRETS_KEY is not the key that the snapshot %s was sealed with; start with the former one", s.file)
	case errors.Is(err, errSnapshot):
		return nil, fault.New(fault.Invalid, "the snapshot %s cannot be used: %v; delete it, and start when the database is back", s.file, err)
	}
	return nil, fmt.Errorf("read the snapshot: %w", err)
}
