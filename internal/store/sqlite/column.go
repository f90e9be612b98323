package sqlite

import (
	"github.com/google/uuid"
	"github.com/ncruces/go-sqlite3"

	"tallyhook/internal/event"
	"tallyhook/internal/store"
	"tallyhook/internal/store/row"
)

// The columns of works as the processor's statements read them, in the order
// of batchTables.

func (t *tx) eventColumn(c sqlite3.Context, p **store.Work, col int) {
	w := *p
	e := w.Event
	switch col {
	case 0:
		c.ResultInt64(w.Seq)
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
		c.ResultInt64(row.US(e.OccurredAt))
	case 22:
		c.ResultBool(e.OccurredAtEstimated)
	case 23:
		c.ResultInt64(row.US(e.ReceivedAt))
	case 24:
		c.ResultText(string(w.To))
	case 25:
		c.ResultText(w.Decision.Reason)
	case 26:
		c.ResultText(w.Decision.Detail)
	case 27:
		if w.To == event.Applied {
			c.ResultBlob(w.Decision.Enrollment[:])
		}
	case 28:
		if w.To == event.Applied {
			c.ResultBlob(w.Instance[:])
		}
	case 29:
		if w.To == event.Orphaned {
			c.ResultInt64(row.US(t.now))
		} else {
			c.ResultInt64(0)
		}
	case 30:
		if w.To == event.Applied || w.To == event.Ignored {
			c.ResultInt64(row.US(t.now))
		} else {
			c.ResultInt64(0)
		}
	case 31:
		if w.To == event.Applied {
			c.ResultText(w.By)
		} else {
			c.ResultText("")
		}
	case 32:
		c.ResultBlob(w.Identity[:])
	case 33:
		if len(e.Metadata) > 0 {
			c.ResultBlob(e.Metadata)
		}
	case 34:
		c.ResultBlob(e.Payload)
	case 35:
		c.ResultBool(e.EnrollUnmatched)
	}
}

func (t *tx) settleColumn(c sqlite3.Context, p **store.Work, col int) {
	w := *p
	applied := w.To == event.Applied
	switch col {
	case 0:
		c.ResultInt64(w.Seq)
	case 1:
		c.ResultInt64(w.Event.Tenant)
	case 2:
		c.ResultText(string(w.From))
	case 3:
		c.ResultText(string(w.To))
	case 4:
		c.ResultText(w.Decision.Reason)
	case 5:
		c.ResultText(w.Decision.Detail)
	case 6:
		if applied {
			c.ResultBlob(w.Decision.Enrollment[:])
		}
	case 7:
		if applied {
			c.ResultBlob(w.Instance[:])
		}
	case 8:
		if w.To == event.Orphaned && w.ParkedAt.IsZero() {
			c.ResultInt64(row.US(t.now))
		} else {
			c.ResultInt64(row.US(w.ParkedAt))
		}
	case 9:
		if applied {
			c.ResultInt64(row.US(t.now))
		} else {
			c.ResultInt64(0)
		}
	case 10:
		if applied {
			c.ResultText(w.By)
		} else {
			c.ResultText("")
		}
	}
}

func (t *tx) orphanColumn(c sqlite3.Context, p **store.Work, col int) {
	w := *p
	switch col {
	case 0:
		c.ResultInt64(w.Seq)
	case 1:
		c.ResultInt64(w.Event.Tenant)
	case 2:
		c.ResultText(string(w.Event.Route()))
	case 3:
		c.ResultInt(w.Attempts)
	case 4:
		c.ResultInt64(row.US(w.Result.NextAttemptAt))
	case 5:
		c.ResultInt(w.Attempts)
	case 6:
		c.ResultInt64(row.US(t.now))
	}
}

func (t *tx) letterColumn(c sqlite3.Context, p **store.Work, col int) {
	w := *p
	switch col {
	case 0:
		id := row.NewID()
		c.ResultBlob(id[:])
	case 1:
		c.ResultInt64(w.Event.Tenant)
	case 2:
		c.ResultInt64(w.Seq)
	case 3:
		if w.Event.SourceID != uuid.Nil {
			c.ResultBlob(w.Event.SourceID[:])
		}
	case 4:
		c.ResultText(w.Event.Provider)
	case 5:
		c.ResultText(w.Decision.Reason)
	case 6:
		c.ResultText(w.Decision.Detail)
	case 7:
		c.ResultInt(w.Spent())
	case 8:
		c.ResultInt64(row.US(w.Event.ReceivedAt))
	case 9:
		c.ResultInt64(row.US(t.now))
	}
}
