package sqlite

import (
	"github.com/google/uuid"
	"github.com/ncruces/go-sqlite3"

	"tallyhook/internal/event"
)

// The columns of works as the processor's statements read them, in the order
// of batchTables.

func (t *tx) eventColumn(c sqlite3.Context, p **work, col int) {
	w := *p
	e := w.ev
	switch col {
	case 0:
		c.ResultInt64(w.seq)
	case 1:
		c.ResultBlob(e.ID[:])
	case 2:
		c.ResultInt64(e.Tenant)
	case 3:
		if e.SourceID != uuid.Nil {
			c.ResultBlob(e.SourceID[:])
		}
	case 4:
		c.ResultText(e.Scope)
	case 5:
		c.ResultText(e.Provider)
	case 6:
		c.ResultText(e.Kind)
	case 7:
		c.ResultBool(e.Control)
	case 8:
		c.ResultText(string(e.Type))
	case 9:
		c.ResultText(string(e.Channel))
	case 10:
		c.ResultText(e.ProviderEventID)
	case 11:
		c.ResultText(e.ProviderMessageID)
	case 12:
		c.ResultText(e.ActionID)
	case 13:
		c.ResultText(e.LeadID)
	case 14:
		c.ResultText(e.EnrollmentID)
	case 15:
		c.ResultText(e.Email)
	case 16:
		c.ResultText(e.Campaign)
	case 17:
		c.ResultInt(e.StepNumber)
	case 18:
		c.ResultText(string(e.Bounce))
	case 19:
		c.ResultInt(int(e.Machine))
	case 20:
		c.ResultText(e.URL)
	case 21:
		c.ResultInt64(us(e.OccurredAt))
	case 22:
		c.ResultBool(e.OccurredAtEstimated)
	case 23:
		c.ResultInt64(us(e.ReceivedAt))
	case 24:
		c.ResultText(string(w.to))
	case 25:
		c.ResultText(w.decision.Reason)
	case 26:
		c.ResultText(w.decision.Detail)
	case 27:
		if w.to == event.Applied {
			c.ResultBlob(w.decision.Enrollment[:])
		}
	case 28:
		if w.to == event.Applied {
			c.ResultBlob(w.instance[:])
		}
	case 29:
		if w.to == event.Orphaned {
			c.ResultInt64(us(t.now))
		} else {
			c.ResultInt64(0)
		}
	case 30:
		if w.to == event.Applied || w.to == event.Ignored {
			c.ResultInt64(us(t.now))
		} else {
			c.ResultInt64(0)
		}
	case 31:
		if w.to == event.Applied {
			c.ResultText(w.by)
		} else {
			c.ResultText("")
		}
	case 32:
		c.ResultBlob(w.identity.hash[:])
	case 33:
		if len(e.Metadata) > 0 {
			c.ResultBlob(e.Metadata)
		}
	case 34:
		c.ResultBlob(e.Payload)
	}
}

func (t *tx) settleColumn(c sqlite3.Context, p **work, col int) {
	w := *p
	applied := w.to == event.Applied
	switch col {
	case 0:
		c.ResultInt64(w.seq)
	case 1:
		c.ResultInt64(w.ev.Tenant)
	case 2:
		c.ResultText(string(w.from))
	case 3:
		c.ResultText(string(w.to))
	case 4:
		c.ResultText(w.decision.Reason)
	case 5:
		c.ResultText(w.decision.Detail)
	case 6:
		if applied {
			c.ResultBlob(w.decision.Enrollment[:])
		}
	case 7:
		if applied {
			c.ResultBlob(w.instance[:])
		}
	case 8:
		if w.to == event.Orphaned && w.parkedAt.IsZero() {
			c.ResultInt64(us(t.now))
		} else {
			c.ResultInt64(us(w.parkedAt))
		}
	case 9:
		if applied {
			c.ResultInt64(us(t.now))
		} else {
			c.ResultInt64(0)
		}
	case 10:
		if applied {
			c.ResultText(w.by)
		} else {
			c.ResultText("")
		}
	}
}

func (t *tx) orphanColumn(c sqlite3.Context, p **work, col int) {
	w := *p
	switch col {
	case 0:
		c.ResultInt64(w.seq)
	case 1:
		c.ResultInt64(w.ev.Tenant)
	case 2:
		c.ResultText(string(w.ev.Route()))
	case 3:
		c.ResultInt(w.attempts)
	case 4:
		c.ResultInt64(us(w.result.NextAttemptAt))
	case 5:
		c.ResultInt(w.attempts)
	case 6:
		c.ResultInt64(us(t.now))
	}
}

func (t *tx) letterColumn(c sqlite3.Context, p **work, col int) {
	w := *p
	switch col {
	case 0:
		id := newID()
		c.ResultBlob(id[:])
	case 1:
		c.ResultInt64(w.ev.Tenant)
	case 2:
		c.ResultInt64(w.seq)
	case 3:
		if w.ev.SourceID != uuid.Nil {
			c.ResultBlob(w.ev.SourceID[:])
		}
	case 4:
		c.ResultText(w.ev.Provider)
	case 5:
		c.ResultText(w.decision.Reason)
	case 6:
		c.ResultText(w.decision.Detail)
	case 7:
		n := w.attempts
		if w.by == byRetry && w.bury == "" {
			n++
		}
		c.ResultInt(n)
	case 8:
		c.ResultInt64(us(w.ev.ReceivedAt))
	case 9:
		c.ResultInt64(us(t.now))
	}
}
