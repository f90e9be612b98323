package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

const (
	channel    = "tallyhook"
	beat       = 2 * time.Second // between two looks at whether the listening connection is alive
	beatWait   = 2 * time.Second // for its answer
	listenWait = 5 * time.Second // for a connection to listen on
	listenPace = 250 * time.Millisecond
)

// tell has every replica that listens hear of a change, this one included, when
// and only when the transaction is committed. The server commits transactions
// that tell one after the other: it is for what happens seldom, never for the
// commit of events.
func (t *tx) tell(c store.Change) { t.later(`SELECT pg_notify($1, $2)`, channel, c.String()) }

// Tell has the replicas hear of a change that no transaction of the store's made.
func (s *Store) Tell(ctx context.Context, c store.Change) error {
	return s.read(ctx, "tell replicas", `SELECT pg_notify($1, $2)`, func(row.Scanner) error { return nil }, channel, c.String())
}

// Listen hands over what replicas tell, on a connection of its own, until ctx
// ends. listening is called with a nil error each time it begins to hear (what
// was told before is lost), and with the reason when it hears no more, at the
// latest 4 seconds after the connection was lost without a sign. The functions
// are called one after the other, and hold up what follows.
//
// A connection that a pooler hands from one session to another (PgBouncer's
// transaction mode) does not stay the one that listens: that is found out by
// the next look, and is a loss like others.
func (s *Store) Listen(ctx context.Context, heard func(store.Change), listening func(error)) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		err := s.listen(ctx, heard, listening)
		if ctx.Err() != nil {
			return
		}
		listening(s.fail("listen", err))
		timer.Reset(listenPace)
	}
}

// listen listens on one connection until it is lost.
func (s *Store) listen(ctx context.Context, heard func(store.Change), listening func(error)) (err error) {
	c, err := pgx.ParseConfig(s.opt.URL)
	if err != nil {
		return badURL()
	}
	c.RuntimeParams["application_name"] = "tallyhook listener"
	// A statement is sent once and without a name: a pooler has no memory of it.
	c.DefaultQueryExecMode = pgx.QueryExecModeExec
	begin, cancel := context.WithTimeout(ctx, listenWait)
	defer cancel()
	conn, err := pgx.ConnectConfig(begin, c)
	if err != nil {
		return err
	}
	defer hangUp(ctx, conn)
	if _, err := conn.Exec(begin, `LISTEN `+channel); err != nil {
		return err
	}
	listening(nil)
	for {
		wait, cancel := context.WithTimeout(ctx, beat)
		n, err := conn.WaitForNotification(wait)
		quiet := wait.Err() != nil
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			heard(store.ParseChange(n.Payload))
		case !quiet:
			return err
		default:
			if err := alive(ctx, conn); err != nil {
				return err
			}
		}
	}
}

// alive makes sure that the connection is there and still the one that listens.
func alive(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, beatWait)
	defer cancel()
	var n int
	if err := conn.QueryRow(ctx, `SELECT count(*) FROM pg_listening_channels() c WHERE c = $1`, channel).Scan(&n); err != nil {
		return err
	}
	if n == 0 {
		return errors.New("the connection does not listen any more: is a pooler before the database?")
	}
	return nil
}
