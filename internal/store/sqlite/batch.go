package sqlite

import (
	"github.com/ncruces/go-sqlite3"
)

// batch is a Go slice that a statement reads as a table: bound with
// sqlite3.Pointer to the table-valued function of its name, it makes one
// statement serve a batch of any size, with no text or placeholders that grow
// (https://sqlite.org/vtab.html#tabfunc2).
type batch interface {
	rows() int
	column(ctx sqlite3.Context, row, col int)
}

// batchOf makes a batch from a slice and a function that gives a column.
type batchOf[T any] struct {
	items []T
	col   func(ctx sqlite3.Context, item *T, col int)
}

func (b batchOf[T]) rows() int { return len(b.items) }

func (b batchOf[T]) column(ctx sqlite3.Context, row, col int) { b.col(ctx, &b.items[row], col) }

// bind makes the argument for a statement.
func bind[T any](items []T, col func(ctx sqlite3.Context, item *T, col int)) any {
	return sqlite3.Pointer(batch(batchOf[T]{items, col}))
}

// batchTables are the table-valued functions and their columns.
func batchTables() map[string]string {
	return map[string]string{
		"b_identity":    "generation, tenant_id, key, seq",
		"b_seq":         "ord, tenant_id, seq",
		"b_probe":       "ord, tenant_id, key, address, enrollment",
		"b_id":          "tenant_id, id",
		"b_key":         "tenant_id, key, seq",
		"b_event":       "seq, id, tenant_id, source_id, scope, provider, kind, control, type, channel, provider_event_id, provider_message_id, action_id, lead_id, claimed_enrollment, email, campaign, step, bounce, machine, url, occurred_at, estimated, received_at, state, reason, detail, enrollment_id, instance_id, parked_at, settled_at, settled_by, identity, metadata, payload, enrolls",
		"b_bare":        "seq, tenant_id, provider_event_id, provider_message_id, campaign, claimed_enrollment, metadata, payload",
		"b_settle":      "seq, tenant_id, from_state, to_state, reason, detail, enrollment_id, instance_id, parked_at, settled_at, settled_by",
		"b_orphan":      "seq, tenant_id, route, attempts, due_at, seen, now",
		"b_dup":         "seq, tenant_id, n, at",
		"b_moment":      "tenant_id, seq, at, what, detail",
		"b_fact":        "tenant_id, instance_id, enrollment_id, type, qualifier, step, machine, provider, variant, count, first_at, last_at",
		"b_counter":     "tenant_id, instance_id, bucket, type, qualifier, step, machine, provider, variant, count",
		"b_status":      "tenant_id, id, status, at",
		"b_suppression": "tenant_id, key, email, unsubscribed_at, resubscribed_at, complained_at, bounced_at, at",
		"b_ledger":      "tenant_id, received, duplicates, applied, orphaned, dead, ignored, archived, undecodable",
		"b_source":      "tenant_id, id, n, at",
		"b_letter":      "id, tenant_id, seq, source_id, provider, reason, error, attempts, first_received_at, last_attempt_at",
		"b_enrollment":  "tenant_id, id, instance_id, address_key, email",
		"b_nonce":       "tenant_id, key, digest",
		"b_ref":         "tenant_id, key, enrollment_id, instance_id, provider, kind, value",
	}
}

func registerBatches(conn *sqlite3.Conn) error {
	for name, columns := range batchTables() {
		hidden := 1
		for _, r := range columns {
			if r == ',' {
				hidden++
			}
		}
		decl := "CREATE TABLE x(" + columns + ", batch HIDDEN)"
		err := sqlite3.CreateModule(conn, name, nil, //nolint:staticcheck // the method that replaces it needs Go 1.27
			func(db *sqlite3.Conn, _, _, _ string, _ ...string) (module, error) {
				return module{hidden}, db.DeclareVTab(decl)
			})
		if err != nil {
			return err
		}
	}
	return nil
}

type module struct{ hidden int }

func (m module) BestIndex(idx *sqlite3.IndexInfo) error {
	for i, cst := range idx.Constraint {
		if cst.Column == m.hidden && cst.Op == sqlite3.INDEX_CONSTRAINT_EQ && cst.Usable {
			idx.ConstraintUsage[i] = sqlite3.IndexConstraintUsage{Omit: true, ArgvIndex: 1}
			idx.EstimatedCost = 1
			idx.EstimatedRows = 100
			return nil
		}
	}
	return sqlite3.CONSTRAINT
}

func (module) Open() (sqlite3.VTabCursor, error) { return &cursor{}, nil }

type cursor struct {
	batch batch
	row   int
	n     int
}

func (c *cursor) Filter(_ int, _ string, arg ...sqlite3.Value) error {
	c.row, c.n = 0, 0
	b, ok := arg[0].Pointer().(batch)
	if !ok {
		return sqlite3.MISMATCH
	}
	c.batch, c.n = b, b.rows()
	return nil
}

func (c *cursor) EOF() bool             { return c.row >= c.n }
func (c *cursor) Next() error           { c.row++; return nil }
func (c *cursor) RowID() (int64, error) { return int64(c.row) + 1, nil }

func (c *cursor) Column(ctx sqlite3.Context, n int) error {
	c.batch.column(ctx, c.row, n)
	return nil
}
