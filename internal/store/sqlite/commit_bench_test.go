package sqlite_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/campaign"
	"tallyhook/internal/event"
	"tallyhook/internal/orphan"
	"tallyhook/internal/store"
	"tallyhook/internal/store/sqlite"
)

// BenchmarkCommit measures one transaction of so many events that all match,
// in one instance of 1,000 enrollments; ns/op is for one event.
func BenchmarkCommit(b *testing.B) {
	for _, size := range []int{1, 50, 500} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			ctx := b.Context()
			s, err := sqlite.Open(ctx, sqlite.Options{
				Path: filepath.Join(b.TempDir(), "x.db"), TxTimeout: 5 * time.Second, Now: time.Now, Delay: orphan.Schedule{time.Hour}.Delay,
			})
			if err != nil {
				b.Fatal(err)
			}
			defer func() {
				if err := s.Close(); err != nil {
					b.Error(err)
				}
			}()
			tpl, err := s.CreateTemplate(ctx, campaign.Template{Tenant: 1, Name: "x"}, store.Idempotency{})
			if err != nil {
				b.Fatal(err)
			}
			ins, err := s.CreateInstance(ctx, campaign.Instance{Tenant: 1, TemplateID: tpl.ID, Name: "i", Status: campaign.Active}, store.Idempotency{})
			if err != nil {
				b.Fatal(err)
			}
			people := make([]campaign.Enrollment, 1000)
			for i := range people {
				people[i].Email = fmt.Sprintf("p%d@example.com", i)
			}
			if _, err := s.Enroll(ctx, 1, ins.ID, people, false, store.Idempotency{}); err != nil {
				b.Fatal(err)
			}
			payload := make([]byte, 600)
			n := 0
			b.ResetTimer()
			for n < b.N {
				batch := make([]event.Event, min(size, b.N-n))
				now := time.Now().UTC()
				for i := range batch {
					batch[i] = event.Event{
						ID: uuid.Must(uuid.NewV7()), Tenant: 1, Scope: "api:x", Provider: "x", Type: event.Opened, Channel: event.Email,
						ProviderEventID: fmt.Sprint(n + i), ProviderMessageID: fmt.Sprint("m", n+i), Email: people[(n+i)%1000].Email,
						OccurredAt: now, ReceivedAt: now, Payload: payload, StepNumber: 1,
					}
				}
				if _, err := s.Commit(ctx, batch); err != nil {
					b.Fatal(err)
				}
				n += len(batch)
			}
		})
	}
}
