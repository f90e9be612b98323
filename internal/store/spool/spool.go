// Package spool keeps what was accepted while the database was away, in an
// SQLite file of its own: WAL, synchronous=FULL, mode 0600.
//
// Guarantees: what Append took is on disk (fsynced) and stays there until Done,
// whatever becomes of the process; entries are read in the order in which they
// were put in; the bytes held never exceed the bound; one process at a time has
// the file.
package spool

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/driver"

	"tallyhook/internal/event"
	"tallyhook/internal/fault"
	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

const (
	file     = "spool.db"
	schema   = 1                // of the file, as its user_version
	overhead = 128              // bytes that an entry costs beside its encoding
	deadline = 10 * time.Second // of one transaction
	compact  = 16 << 20         // bytes taken in since the file was last empty: then it is worth making small again
)

// Options are what a spool is opened with.
type Options struct {
	Dir      string           // made with mode 0700 when it is not there
	MaxBytes int64            // of entries, overhead included; 0: 1 GiB
	Now      func() time.Time // nil: time.Now
}

// Spool is an open spool. It is safe for concurrent use.
type Spool struct {
	db    *sql.DB
	path  string
	file  os.FileInfo // at Open
	now   func() time.Time
	limit int64

	turn chan struct{} // who holds it has the database to himself

	mu       sync.Mutex // guards what follows
	closed   bool
	pending  []*job
	reserved int64 // bytes of pending jobs and of those being written
	stats    store.SpoolStats
	taken    int64 // bytes put in since the spool was last empty
}

// job is one call of Append on its way to the disk.
type job struct {
	rows  [][]byte
	bytes int64
	err   error
	done  chan struct{}
}

// Open opens the spool of a folder, or makes one. What a former process left
// is in it. A fault of kind Conflict means that another process has it.
func Open(ctx context.Context, o Options) (*Spool, error) {
	s := &Spool{path: filepath.Join(o.Dir, file), now: o.Now, limit: o.MaxBytes, turn: make(chan struct{}, 1)}
	if s.now == nil {
		s.now = time.Now
	}
	if s.limit == 0 {
		s.limit = 1 << 30
	}
	if err := s.open(ctx, o.Dir); err != nil {
		if s.db != nil {
			err = errors.Join(err, s.db.Close())
		}
		return nil, fmt.Errorf("open spool %s: %w", s.path, err)
	}
	return s, nil
}

func (s *Spool) open(ctx context.Context, dir string) (err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the folder: %w", err)
	}
	f, err := os.OpenFile(s.path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("make the file: %w", err)
	}
	if err := errors.Join(f.Chmod(0o600), f.Close()); err != nil {
		return fmt.Errorf("protect the file: %w", err)
	}
	if s.db, err = driver.Open(dsn(s.path)); err != nil {
		return err
	}
	// In exclusive mode the one connection is the lock, and it keeps the index
	// of its log in its own memory: no file is shared with anybody.
	s.db.SetMaxOpenConns(1)
	if err := s.migrate(ctx); err != nil {
		switch {
		case errors.Is(err, sqlite3.BUSY), errors.Is(err, sqlite3.LOCKED):
			return fault.New(fault.Conflict, "another tallyhook uses this SPOOL_DIR; stop it first, or give this one a folder of its own")
		case errors.Is(err, sqlite3.NOTADB), errors.Is(err, sqlite3.CORRUPT):
			return fmt.Errorf("the file is damaged: move it away and keep it, its events are not yet in the database: %w", err)
		}
		return err
	}
	if s.file, err = os.Stat(s.path); err != nil {
		return err
	}
	return errors.Join(syncDir(dir), s.count(ctx))
}

func dsn(path string) string {
	q := url.Values{"_txlock": {"immediate"}, "modeof": {path}}
	for _, p := range []string{"busy_timeout(2000)", "locking_mode(exclusive)", "journal_mode(wal)", "synchronous(full)", "secure_delete(1)"} {
		q.Add("_pragma", p)
	}
	// SQLite does not read a plus as a space, which modeof may have.
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + strings.ReplaceAll(q.Encode(), "+", "%20")
}

func (s *Spool) migrate(ctx context.Context) error {
	return s.transact(ctx, func(ctx context.Context, tx *sql.Tx) error {
		var has int
		if err := tx.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&has); err != nil {
			return err
		}
		switch has {
		case schema:
			// What was set aside has another chance with each start: this release
			// may be able to do what the former was not.
			_, err := tx.ExecContext(ctx, `UPDATE entry SET aside = 0 WHERE aside <> 0`)
			return err
		case 0:
		default:
			return fmt.Errorf("the file was made by a later release (its schema is %d, this release has %d)", has, schema)
		}
		// AUTOINCREMENT: a number that was done with is never given again.
		_, err := tx.ExecContext(ctx, `CREATE TABLE entry (
			seq   INTEGER PRIMARY KEY AUTOINCREMENT,
			at    INTEGER NOT NULL,           -- when it was put in, microseconds since 1970
			size  INTEGER NOT NULL,           -- bytes, overhead included
			aside INTEGER NOT NULL DEFAULT 0, -- 1: not to be read until the next start
			data  BLOB NOT NULL
		) STRICT;
		CREATE INDEX entry_waiting ON entry (seq) WHERE aside = 0;
		PRAGMA user_version = 1`)
		return err
	})
}

func (s *Spool) count(ctx context.Context) error {
	s.stats.Limit = s.limit
	var oldest int64
	err := s.db.QueryRowContext(ctx, `SELECT count(*), coalesce(sum(size), 0), coalesce((SELECT at FROM entry ORDER BY seq LIMIT 1), 0) FROM entry`).
		Scan(&s.stats.Events, &s.stats.Bytes, &oldest)
	if err != nil {
		return fmt.Errorf("count entries: %w", err)
	}
	s.stats.OldestAt, s.taken = row.At(oldest), s.stats.Bytes
	return nil
}

// Append puts events in, all or none, and returns when they are on disk. Calls
// that come while one is being written share the next transaction. An error is
// of kind Unavailable and means that nothing is known to be kept; when the
// spool is full nothing was.
func (s *Spool) Append(ctx context.Context, events []event.Event) error {
	rows := make([][]byte, len(events))
	for i := range events {
		rows[i] = encodeEvent(events[i])
	}
	return s.add(ctx, rows)
}

// AppendBody puts an authentic body that cannot be read in, with the
// guarantees of Append.
func (s *Spool) AppendBody(ctx context.Context, l store.Letter) error {
	return s.add(ctx, [][]byte{encodeBody(l)})
}

func (s *Spool) add(ctx context.Context, rows [][]byte) error {
	if len(rows) == 0 {
		return nil
	}
	j := &job{rows: rows, done: make(chan struct{})}
	for _, r := range rows {
		j.bytes += int64(len(r)) + overhead
	}
	if err := s.enqueue(j); err != nil {
		return err
	}
	select {
	case <-j.done: // by whoever had the turn
		return j.err
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		if s.withdraw(j) {
			return unavailable("append to the spool", ctx.Err())
		}
		<-j.done
		return j.err
	}
	s.writePending(ctx)
	<-s.turn
	<-j.done
	return j.err
}

func (s *Spool) enqueue(j *job) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return fault.New(fault.Unavailable, "the spool is closed")
	case s.stats.Bytes+s.reserved+j.bytes > s.limit:
		return &fault.Error{
			Kind: fault.Unavailable, Op: "append to the spool", Msg: "the database is away and the spool is full", RetryAfter: 30 * time.Second,
		}
	}
	s.reserved += j.bytes
	s.pending = append(s.pending, j)
	return nil
}

// withdraw takes back a job that nobody has begun to write.
func (s *Spool) withdraw(j *job) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, p := range s.pending {
		if p == j {
			s.pending = append(s.pending[:i], s.pending[i+1:]...)
			s.reserved -= j.bytes
			return true
		}
	}
	return false
}

// writePending writes what is waiting as one transaction. The caller has the turn.
func (s *Spool) writePending(ctx context.Context) {
	s.mu.Lock()
	jobs := s.pending
	s.pending = nil
	s.mu.Unlock()
	if len(jobs) == 0 {
		return
	}
	when := s.now()
	err := s.present()
	if err == nil {
		// The writer works for others too: its own caller's end is not theirs.
		err = s.transact(context.WithoutCancel(ctx), func(ctx context.Context, tx *sql.Tx) error { return insert(ctx, tx, jobs, when) })
	}
	err = unavailable("append to the spool", err)
	s.mu.Lock()
	for _, j := range jobs {
		s.reserved -= j.bytes
		if err == nil {
			if s.stats.Events == 0 {
				s.stats.OldestAt = row.At(when.UnixMicro())
			}
			s.stats.Events += int64(len(j.rows))
			s.stats.Bytes += j.bytes
			s.taken += j.bytes
		}
	}
	s.mu.Unlock()
	for _, j := range jobs {
		j.err = err
		close(j.done)
	}
}

func insert(ctx context.Context, tx *sql.Tx, jobs []*job, when time.Time) (err error) {
	st, err := tx.PrepareContext(ctx, `INSERT INTO entry (at, size, data) VALUES (?, ?, ?)`)
	if err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	for _, j := range jobs {
		for _, r := range j.rows {
			if _, err := st.ExecContext(ctx, when.UnixMicro(), len(r)+overhead, r); err != nil {
				return err
			}
		}
	}
	return nil
}

// Next reads the oldest entries, at most n and, but for a single one, at most
// maxBytes. An entry that this release cannot read is set aside: it stays, and
// its number is in unread.
func (s *Spool) Next(ctx context.Context, n int, maxBytes int64) (entries []store.Spooled, unread []int64, err error) {
	release, err := s.take(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	entries, unread, err = s.read(ctx, n, maxBytes)
	if err != nil {
		return nil, nil, unavailable("read the spool", err)
	}
	if len(unread) > 0 {
		err = s.mark(ctx, unread)
	}
	return entries, unread, unavailable("set entries aside", err)
}

func (s *Spool) read(ctx context.Context, n int, maxBytes int64) (entries []store.Spooled, unread []int64, err error) {
	rows, err := s.db.QueryContext(ctx, `SELECT seq, size, data FROM entry WHERE aside = 0 ORDER BY seq LIMIT ?`, n)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var bytes int64
	for rows.Next() {
		var seq, size int64
		var data sql.RawBytes
		if err := rows.Scan(&seq, &size, &data); err != nil {
			return nil, nil, err
		}
		if bytes += size; bytes > maxBytes && len(entries) > 0 {
			break
		}
		e, err := decode(data)
		if err != nil {
			unread = append(unread, seq)
			continue
		}
		e.Seq = seq
		entries = append(entries, e)
	}
	return entries, unread, rows.Err()
}

// Aside keeps entries from being read until the next start. They stay.
func (s *Spool) Aside(ctx context.Context, seqs []int64) error {
	release, err := s.take(ctx)
	if err != nil {
		return err
	}
	defer release()
	return unavailable("set entries aside", s.mark(ctx, seqs))
}

func (s *Spool) mark(ctx context.Context, seqs []int64) error {
	var n int64
	err := s.transact(ctx, func(ctx context.Context, tx *sql.Tx) error {
		return each(ctx, tx, `UPDATE entry SET aside = 1 WHERE seq = ? AND aside = 0 RETURNING size, aside`, seqs, func(_, _ int64) { n++ })
	})
	if err == nil {
		s.mu.Lock()
		s.stats.Aside += n
		s.mu.Unlock()
	}
	return err
}

// Done removes entries that are in the database by now. A number that is not
// there any more is passed over.
func (s *Spool) Done(ctx context.Context, seqs []int64) error {
	release, err := s.take(ctx)
	if err != nil {
		return err
	}
	defer release()
	left := s.Stats()
	var oldest int64
	err = s.transact(ctx, func(ctx context.Context, tx *sql.Tx) error {
		err := each(ctx, tx, `DELETE FROM entry WHERE seq = ? RETURNING size, aside`, seqs, func(size, aside int64) {
			left.Events--
			left.Bytes -= size
			left.Aside -= aside
		})
		if err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, `SELECT coalesce((SELECT at FROM entry ORDER BY seq LIMIT 1), 0)`).Scan(&oldest)
	})
	if err != nil {
		return unavailable("remove from the spool", err)
	}
	left.OldestAt = row.At(oldest)
	s.mu.Lock()
	s.stats = left
	empty, large := left.Events == 0, s.taken > compact
	if empty {
		s.taken = 0
	}
	s.mu.Unlock()
	if empty {
		return unavailable("clean the spool", s.clean(ctx, large))
	}
	return nil
}

// clean leaves nothing of what an empty spool held in its files: who is erased
// from the database must not be found here. A large one also gives its room
// back to the file system.
func (s *Spool) clean(ctx context.Context, large bool) error {
	steps := []string{`PRAGMA wal_checkpoint(TRUNCATE)`}
	if large {
		steps = append([]string{`VACUUM`}, steps...)
	}
	for _, q := range steps {
		if _, err := s.db.ExecContext(ctx, q); err != nil {
			return err
		}
	}
	return nil
}

// each runs a statement for each number and tells the size and state of the
// entries that it met.
func each(ctx context.Context, tx *sql.Tx, query string, seqs []int64, met func(size, aside int64)) (err error) {
	st, err := tx.PrepareContext(ctx, query)
	if err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	for _, seq := range seqs {
		var size, aside int64
		switch err := st.QueryRowContext(ctx, seq).Scan(&size, &aside); {
		case err == nil:
			met(size, aside)
		case !errors.Is(err, sql.ErrNoRows):
			return err
		}
	}
	return nil
}

// Stats say what the spool holds. They cost nothing.
func (s *Spool) Stats() store.SpoolStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// Close ends the spool after what is being written; what it holds stays for
// the next Open.
func (s *Spool) Close() error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		return nil
	}
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	s.writePending(context.Background())
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("close spool: %w", err)
	}
	return nil
}

// take waits for the database.
func (s *Spool) take(ctx context.Context) (release func(), err error) {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, unavailable("wait for the spool", ctx.Err())
	}
	if err := s.present(); err != nil {
		<-s.turn
		return nil, err
	}
	return func() { <-s.turn }, nil
}

func (s *Spool) transact(ctx context.Context, fn func(ctx context.Context, tx *sql.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	if err := fn(ctx, tx); err != nil {
		return errors.Join(err, rollback(tx))
	}
	if err := tx.Commit(); err != nil {
		return errors.Join(fmt.Errorf("commit: %w", err), rollback(tx))
	}
	return nil
}

// rollback: some errors end the transaction by themselves.
func rollback(tx *sql.Tx) error {
	if err := tx.Rollback(); err != nil && !errors.Is(err, sql.ErrTxDone) {
		return fmt.Errorf("roll back: %w", err)
	}
	return nil
}

// present checks that the file that is open is still the one of that name:
// what goes into one that was removed is seen by no later process.
func (s *Spool) present() error {
	now, err := os.Stat(s.path)
	if err != nil || !os.SameFile(now, s.file) {
		return fault.New(fault.Unavailable, "the file of the spool was removed or replaced; restart the server")
	}
	return nil
}

func unavailable(op string, err error) error {
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	return fault.Wrap(fault.Unavailable, op, err)
}

// syncDir makes the file's name as durable as what is in it.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" { // cannot sync a folder
		return nil
	}
	d, err := os.Open(dir) //nolint:gosec // the operator names the folder
	if err != nil {
		return fmt.Errorf("open folder: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil && !errors.Is(err, fs.ErrInvalid) {
		return fmt.Errorf("sync folder: %w", err)
	}
	return nil
}
