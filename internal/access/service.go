package access

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"tallyhook/internal/fault"
	"tallyhook/internal/store"
)

// How long and how much is kept in memory. A change made here is seen at
// once, and one made by another replica as soon as it is heard of (Heard).
// While this replica is deaf, what it holds counts for a second, or for its
// time to live where the store cannot be asked. The time to live is the net
// under all this, and what bounds a change made past the server.
const (
	knownTTL    = 30 * time.Second
	absentTTL   = 5 * time.Second
	deafTTL     = time.Second
	knownLimit  = 10_000 // entries of one generation
	absentLimit = 10_000
	usedLimit   = 100_000 // keys whose last use waits to be written
)

// canaryTimeout bounds the reading of the canary at the start.
const canaryTimeout = 15 * time.Second

// Options are what the service is made with.
type Options struct {
	SecretsKey [32]byte
	PublicURL  string           // what vendors call us by
	Snapshot   string           // file to go by while the store is away; empty: none
	Now        func() time.Time // nil: time.Now
	Logger     *slog.Logger     // nil: none
}

// Service knows keys and sources. It is safe for concurrent use; of its locks
// (changes, mu, those of the caches and of the rejections) only changes is
// held while another is taken or the store is asked.
type Service struct {
	store  Store
	public string
	now    func() time.Time
	log    *slog.Logger
	sealer *sealer
	tokens tokens

	deaf    atomic.Bool // other replicas are not heard; read by the lookups
	keys    lookup[[32]byte, store.Key]
	byToken lookup[[32]byte, Opened]
	byID    lookup[uuid.UUID, Opened]

	changes sync.Mutex // one change of a source at a time: read, merge, write

	mu   sync.Mutex // guards used
	used map[uuid.UUID]time.Time

	refused rejections

	file      string // of the snapshot; empty: none
	outage    outage
	offline   memory      // the snapshot, while the store is away
	changed   atomic.Bool // since the snapshot was written
	unchecked atomic.Bool // started without the store: the canary is still to be looked at

	keeping sync.Mutex // guards what follows
	written time.Time  // when reading the snapshot began that was last written
	pending string     // the API key for a Bootstrap that is still to be done

	known known
}

// New makes the service. It asks the store for one setting: a CanarySetting, which
// tells in one line when SECRETS_KEY is not the key that the stored secrets
// were sealed with. While the store is away a snapshot does instead, which is
// sealed with the same key.
func New(st Store, o Options) (*Service, error) {
	s := &Service{
		store:   st,
		public:  strings.TrimRight(o.PublicURL, "/"),
		now:     o.Now,
		log:     o.Logger,
		used:    map[uuid.UUID]time.Time{},
		refused: rejections{of: map[uuid.UUID]*refusals{}},
		file:    o.Snapshot,
		known:   known{keys: map[[32]byte]struct{}{}, sources: map[uuid.UUID]struct{}{}},
	}
	s.keys, s.byToken, s.byID = newLookup[[32]byte, store.Key](&s.deaf), newLookup[[32]byte, Opened](&s.deaf), newLookup[uuid.UUID, Opened](&s.deaf)
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if s.sealer, err = newSealer(o.SecretsKey); err != nil {
		return nil, err
	}
	if s.tokens, err = newTokens(o.SecretsKey); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), canaryTimeout)
	defer cancel()
	err = s.checkCanary(ctx)
	if err != nil && s.file != "" && !fault.Is(err, fault.Invalid) {
		err = s.startAway(ctx, err)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// CanarySetting names the setting that SECRETS_KEY is tried on.
const CanarySetting = "secrets_canary"

func (s *Service) checkCanary(ctx context.Context) error {
	sealed, err := s.store.Setting(ctx, CanarySetting)
	if fault.Is(err, fault.NotFound) {
		if err := s.store.PutSetting(ctx, CanarySetting, s.sealer.seal([]byte(CanarySetting), []byte(CanarySetting))); err != nil {
			return fmt.Errorf("store canary: %w", err)
		}
		sealed, err = s.store.Setting(ctx, CanarySetting) // another process may have been faster
	}
	if err != nil {
		return fmt.Errorf("read canary: %w", err)
	}
	if plain, err := s.sealer.open(sealed, []byte(CanarySetting)); err != nil || string(plain) != CanarySetting {
		return fault.New(fault.Invalid, "SECRETS_KEY is not the key that this database's secrets were sealed with; start with the former one")
	}
	return nil
}

// audit writes who did what. The act is done by then, and its answer (a key or
// a secret that is shown once) must not be lost for want of the line: a
// failure is logged with what the line would have said.
func (s *Service) audit(ctx context.Context, by Principal, action string, subject uuid.UUID, detail string) {
	actor := by.Actor()
	if by.KeyID == uuid.Nil {
		actor = "system"
	}
	err := s.store.Audit(context.WithoutCancel(ctx), store.Audit{
		At: s.at(), Tenant: by.Tenant, Actor: actor, Action: action, Subject: subject.String(), Detail: detail,
	})
	if err != nil {
		s.log.ErrorContext(ctx, "audit line not written", slog.String("action", action),
			slog.String("actor", actor), slog.String("subject", subject.String()), slog.Any("error", err))
	}
}

// at is the time as stores keep it.
func (s *Service) at() time.Time { return s.now().UTC().Truncate(time.Microsecond) }

// warning tells what keeps vendors from reaching the public URL.
func (s *Service) warning() string {
	u, err := url.Parse(s.public)
	if err != nil {
		return ""
	}
	host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	local := host == "localhost" || strings.HasSuffix(host, ".localhost")
	if a, err := netip.ParseAddr(host); err == nil {
		a = a.Unmap()
		local = a.IsLoopback() || a.IsUnspecified()
	}
	if !local {
		return ""
	}
	return "PUBLIC_URL is " + s.public + ", which only this machine can reach: set it to the address that the provider shall call"
}
