package httpapi

import (
	"context"

	"tallyhook/internal/store"
)

type balanceView struct {
	Difference int64         `json:"difference" doc:"What the whole is off by; 0 when all is well."`
	Tenants    []tenantView  `json:"tenants" nullable:"false"`
	Counters   []counterView `json:"counters" nullable:"false" doc:"Counters that differ from a recount of the events."`
}

type tenantView struct {
	Tenant     string     `json:"tenant" format:"uuid"`
	Difference int64      `json:"difference"`
	Ledger     ledgerView `json:"ledger" doc:"The durable account."`
	Recount    ledgerView `json:"recount" doc:"The same from the rows."`
	Counters   int64      `json:"counters" doc:"Sum of what counters and facts are off by."`
}

type ledgerView struct {
	Received    int64 `json:"received"`
	Applied     int64 `json:"applied"`
	Orphaned    int64 `json:"orphaned"`
	Dead        int64 `json:"dead"`
	Ignored     int64 `json:"ignored"`
	Duplicates  int64 `json:"duplicates"`
	Archived    int64 `json:"archived"`
	Undecodable int64 `json:"undecodable" doc:"Bodies kept as dead letters without an event; not in received."`
}

type counterView struct {
	Instance string `json:"instance" format:"uuid"`
	What     string `json:"what"`
	Counted  int64  `json:"counted"`
	Recount  int64  `json:"recount"`
}

func viewLedger(l store.Ledger) ledgerView {
	return ledgerView{
		Received: l.Received, Applied: l.Applied, Orphaned: l.Orphaned, Dead: l.Dead, Ignored: l.Ignored,
		Duplicates: l.Duplicates, Archived: l.Archived, Undecodable: l.Undecodable,
	}
}

// balance shows every tenant.
func (s *server) balance(ctx context.Context, _ *struct{}) (*one[balanceView], error) {
	b, err := s.Reports.Balance(ctx)
	if err != nil {
		return nil, err
	}
	v := balanceView{Difference: b.Difference, Tenants: make([]tenantView, len(b.Tenants)), Counters: make([]counterView, len(b.Counters))}
	for i, t := range b.Tenants {
		v.Tenants[i] = tenantView{t.Tenant.String(), t.Ledger.Difference(), viewLedger(t.Ledger), viewLedger(t.Recount), t.Counters}
	}
	for i, c := range b.Counters {
		v.Counters[i] = counterView{c.Instance.String(), c.What, c.Counted, c.Recount}
	}
	return reply(v), nil
}
