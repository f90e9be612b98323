package sqlite_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/orphan"
	"tallyhook/internal/store"
	"tallyhook/internal/store/sqlite"
)

func TestSmoke(t *testing.T) {
	ctx := context.Background()
	s, err := sqlite.Open(ctx, sqlite.Options{Path: t.TempDir() + "/x.db", TxTimeout: 5 * time.Second, Now: time.Now, Delay: orphan.Schedule{time.Millisecond, time.Millisecond}.Delay})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	tpl, err := s.CreateTemplate(ctx, campaign.Template{Tenant: 1, Name: "x", Type: "email", PathType: "structured"}, store.Idempotency{})
	if err != nil {
		t.Fatal(err)
	}
	ins, err := s.CreateInstance(ctx, campaign.Instance{Tenant: 1, TemplateID: tpl.ID, Name: "i", Status: campaign.Active, ProviderCampaigns: map[string]string{"lemlist": "cam_1"}}, store.Idempotency{})
	if err != nil {
		t.Fatal(err)
	}
	mk := func(id, email string, typ event.Type) event.Event {
		return event.Event{ID: uuid.Must(uuid.NewV7()), Tenant: 1, Scope: "api:x", Provider: "x", Type: typ, Channel: event.Email, ProviderEventID: id, Email: email, OccurredAt: time.Now().UTC(), ReceivedAt: time.Now().UTC(), Payload: []byte("{}"), ProviderMessageID: "m-" + id, Campaign: "cam"}
	}
	enr, err := s.Enroll(ctx, 1, ins.ID, []campaign.Enrollment{{Email: "a@x.de"}}, false, store.Idempotency{})
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.Commit(ctx, []event.Event{mk("1", "a@x.de", event.Opened), mk("1", "a@x.de", event.Opened), mk("2", "b@x.de", event.Unsubscribed), mk("3", "a@x.de", event.Replied)})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range res {
		t.Logf("%+v", r)
	}
	enr2, err := s.Enroll(ctx, 1, ins.ID, []campaign.Enrollment{{Email: "b@x.de"}, {Email: "a@x.de"}}, false, store.Idempotency{})
	t.Logf("%+v %+v %v", enr, enr2, err)
	e, err := s.Enrollment(ctx, 1, enr2[0].ID)
	t.Log(e, err)
	tl, err := s.Timeline(ctx, 1, res[2].ID)
	t.Log(tl, err)
	if _, err := s.Commit(ctx, []event.Event{mk("9", "c@x.de", event.Opened)}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		time.Sleep(5 * time.Millisecond)
		c, err := s.Claim(ctx, 50, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.Retry(ctx, c)
		t.Log(c, r, err)
	}
	ls, _, err := s.Letters(ctx, 1, store.LetterFilter{}, store.Page{Limit: 10})
	t.Log(len(ls), err)
	m, err := s.ReplayLetters(ctx, 1, []uuid.UUID{ls[0].ID})
	t.Log(m, err)
	evs, _, err := s.Events(ctx, 1, store.EventFilter{Email: "A@x.de"}, store.Page{Limit: 10})
	t.Log(len(evs), err)
	more, err := s.IndexNext(ctx, 100)
	t.Log(more, err)
	evs, _, err = s.Events(ctx, 1, store.EventFilter{Email: "A@x.de", MessageID: "m-1"}, store.Page{Limit: 10})
	t.Log(len(evs), err)
	as, err := s.Assign(ctx, 1, res[0].ID, enr2[0].ID, "me")
	t.Log(as, err)
	r, err := s.StartReplay(ctx, 1, nil, store.LetterFilter{}, true, "me")
	t.Log(r, err)
	sup, _, err := s.Suppressions(ctx, 1, time.Time{}, store.Page{Limit: 10})
	t.Log(sup, err)
	st, err := s.QueueStats(ctx)
	t.Log(st, err)
	n, err := s.Numbers(ctx, 1, ins.ID, time.Time{}, time.Time{})
	t.Log(n, err)
	b, err := s.Balance(ctx)
	t.Logf("%+v %v", b, err)
	// speed
	for _, size := range []int{1, 50, 500} {
		for pass := range 2 {
			start := time.Now()
			total := 0
			for time.Since(start) < 2*time.Second {
				batch := make([]event.Event, size)
				for i := range batch {
					batch[i] = mk(fmt.Sprintf("%d-%d-%d-%d", size, pass, total, i), "a@x.de", event.Opened)
					batch[i].Payload = make([]byte, 600)
				}
				if _, err := s.Commit(ctx, batch); err != nil {
					t.Fatal(err)
				}
				total += size
			}
			t.Logf("size %d: %.0f events/s", size, float64(total)/time.Since(start).Seconds())
		}
	}
}
