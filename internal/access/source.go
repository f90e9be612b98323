package access

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"

	"tallyhook/internal/fault"
	"tallyhook/internal/provider"
	"tallyhook/internal/store"
)

// Bounds of a source's secrets and settings.
const (
	maxSecret  = 8192 // bytes of a secret or a header's value
	maxHeaders = 32
	maxCIDRs   = 256
	maxTopics  = 64
)

// masked stands for a password or a header's value in what is shown. Sent
// back unchanged it means "as it was", so that what was read can be edited and
// written again.
const masked = "********"

// vault is what is sealed of a source.
type vault struct {
	Secrets  []string          `json:"secrets,omitempty"` // the current one, if any
	Former   []formerSecret    `json:"former,omitempty"`
	Settings provider.Settings `json:"settings"`
}

// CheckToken tells whether a token can be one of ours, from its check part
// alone and in constant time. A guessed one fails here and costs no lookup.
func (s *Service) CheckToken(token string) bool {
	_, ok := s.tokens.check(token)
	return ok
}

// SourceByToken finds the source of a webhook's URL. NotFound means that there
// is none for sure: the token's own check part says so, or the store has said
// so. When that cannot be told the answer is Unavailable. With either, the
// Provider is set where the token says whose it is. What it returns is shared:
// it is not to be changed.
func (s *Service) SourceByToken(ctx context.Context, token string) (Opened, error) {
	number, ok := s.tokens.check(token)
	if !ok {
		return Opened{}, noSource()
	}
	hash := sha256.Sum256([]byte(token))
	o, ok, err := s.byToken.find(hash, s.now(), "read source", func() (Opened, error) {
		return s.openRow(ask(ctx, s, func(ctx context.Context) (store.Source, error) { return s.store.SourceByToken(ctx, hash) }))
	})
	switch {
	case err != nil:
		o, err = s.sourceAway(ctx, func(n *snapshot) (int, bool) { return n.source(hash, s.now()) }, err)
		ok = true
	case ok && !o.gone:
		s.known.addSource(o.ID)
	}
	return s.found(o, ok, err, provider.ByNumber(number))
}

// OpenSource finds a source of any tenant by its id, with the guarantees of
// SourceByToken. It is for requests that are signed for the source.
func (s *Service) OpenSource(ctx context.Context, id uuid.UUID) (Opened, error) {
	o, ok, err := s.byID.find(id, s.now(), "read source", func() (Opened, error) {
		return s.openRow(ask(ctx, s, func(ctx context.Context) (store.Source, error) { return s.store.SourceByID(ctx, id) }))
	})
	switch {
	case err != nil:
		o, err = s.sourceAway(ctx, func(n *snapshot) (int, bool) { i, ok := n.byID[id]; return i, ok }, err)
		ok = true
	case ok && !o.gone:
		s.known.addSource(id)
	default:
		s.known.dropSource(id)
	}
	return s.found(o, ok, err, nil)
}

// found is the answer to a look. What is kept in memory says until when a
// former secret or token works; whether it does is asked at each use.
func (s *Service) found(o Opened, ok bool, err error, whose *provider.Provider) (Opened, error) {
	now := s.now()
	switch {
	case err != nil:
		return Opened{Provider: whose}, err
	case !ok:
		return Opened{Provider: whose}, noSource()
	case o.gone, !o.tokenEnds.IsZero() && !now.Before(o.tokenEnds):
		return Opened{Provider: o.Provider}, noSource()
	}
	o.Config.Secrets = o.secrets(now)
	return o, nil
}

func noSource() error { return fault.New(fault.NotFound, "there is no such source") }

// openRow makes a row ready to verify with. A deleted one is absent, but says
// whose it was: lemlist takes a 404 as an order to delete its hook for good.
func (s *Service) openRow(row store.Source, err error) (Opened, error) {
	switch {
	case err != nil:
		return Opened{}, err
	case !row.DeletedAt.IsZero():
		return Opened{Provider: provider.ByName(row.Provider), gone: true}, nil
	}
	p := provider.ByName(row.Provider)
	if p == nil {
		return Opened{}, fmt.Errorf("source %s is of provider %q, which this version does not know", row.ID, row.Provider)
	}
	v, err := s.unseal(row)
	if err != nil {
		return Opened{}, err
	}
	return Opened{
		ID: row.ID, Tenant: row.Tenant, Provider: p, Config: provider.Config{Secrets: v.Secrets, Settings: v.Settings},
		former: v.Former, tokenEnds: row.TokenEndsAt,
	}, nil
}

func (s *Service) seal(id uuid.UUID, v vault) ([]byte, error) {
	plain, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode secrets: %w", err)
	}
	return s.sealer.seal(plain, id[:]), nil
}

func (s *Service) unseal(row store.Source) (v vault, err error) {
	plain, err := s.sealer.open(row.Sealed, row.ID[:])
	if err != nil {
		return v, fmt.Errorf("open secrets of source %s: %w", row.ID, err)
	}
	if err := json.Unmarshal(plain, &v); err != nil {
		return vault{}, fmt.Errorf("decode secrets of source %s: %w", row.ID, err)
	}
	return v, nil
}

// CreateSource makes a source. Its URL, and its secret where one was made,
// are in the answer and never shown again.
func (s *Service) CreateSource(ctx context.Context, by Principal, in SourceInput) (CreatedSource, error) {
	wrong := checkName(nil, in.Name)
	p := provider.ByName(in.Provider)
	if p == nil {
		wrong = append(wrong, fault.Field{Location: "body.provider", Message: "is not one of: " + providerNames()})
	} else if in.Secret != "" {
		wrong = checkSecret(wrong, p, in.Secret)
	}
	settings, wrong := checkSettings(wrong, p, in.Settings, provider.Settings{})
	if len(wrong) > 0 {
		return CreatedSource{}, fault.BadInput(wrong...)
	}
	secret, made := in.Secret, ""
	if secret == "" && p.MakeSecret != nil {
		var err error
		if made, err = p.MakeSecret(); err != nil {
			return CreatedSource{}, fmt.Errorf("make secret: %w", err)
		}
		secret = made
	}
	token, err := s.tokens.make(p.Number)
	if err != nil {
		return CreatedSource{}, fmt.Errorf("make token: %w", err)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return CreatedSource{}, fmt.Errorf("make id: %w", err)
	}
	v := vault{Settings: settings}
	if secret != "" {
		v.Secrets = []string{secret}
	}
	sealed, err := s.seal(id, v)
	if err != nil {
		return CreatedSource{}, err
	}
	row := store.Source{
		ID: id, Tenant: by.Tenant, Provider: p.Name, Name: in.Name, TokenHash: sha256.Sum256([]byte(token)),
		Sealed: sealed, CreatedAt: s.at(),
	}
	row.UpdatedAt = row.CreatedAt
	if err := s.store.CreateSource(ctx, row); err != nil {
		return CreatedSource{}, fmt.Errorf("create source: %w", err)
	}
	s.Heard(store.Change{Kind: store.ChangedSource, ID: id}) // a look at the id has found nothing yet
	s.audit(ctx, by, "source.create", id, p.Name+": "+in.Name)
	return CreatedSource{
		SourceView: s.view(ctx, row),
		URL:        s.public + "/webhooks/" + token,
		Secret:     made,
		Warning:    s.warning(),
	}, nil
}

// PatchSource changes what is not nil. Settings are replaced as a whole; a
// masked value in them stays as it was. A secret ends the one before at once,
// and those in their grace time; an empty one takes it away where the scheme can
// do without.
func (s *Service) PatchSource(ctx context.Context, by Principal, id uuid.UUID, patch SourcePatch) (SourceView, error) {
	s.changes.Lock()
	defer s.changes.Unlock()
	was, err := s.row(ctx, by.Tenant, id)
	if err != nil {
		return SourceView{}, err
	}
	row := was
	v, err := s.unseal(row)
	if err != nil && (patch.Secret == nil || patch.Settings == nil) { // else nothing of the old is needed
		return SourceView{}, err
	}
	var wrong []fault.Field
	var changed []string
	if patch.Name != nil {
		wrong = checkName(wrong, *patch.Name)
		row.Name = *patch.Name
		changed = append(changed, "name")
	}
	if patch.Secret != nil {
		p := provider.ByName(row.Provider)
		switch {
		case *patch.Secret != "":
			wrong = checkSecret(wrong, p, *patch.Secret)
			v.Secrets = []string{*patch.Secret}
		case p != nil && p.MakeSecret != nil:
			wrong = append(wrong, fault.Field{Location: "body.secret", Message: "must not be empty: " + p.Title + " signs with it"})
		default:
			v.Secrets = nil
		}
		v.Former = nil
		changed = append(changed, "secret")
	}
	if patch.Settings != nil {
		v.Settings, wrong = checkSettings(wrong, provider.ByName(row.Provider), *patch.Settings, v.Settings)
		changed = append(changed, "settings")
	}
	switch {
	case len(wrong) > 0:
		return SourceView{}, fault.BadInput(wrong...)
	case len(changed) == 0:
		return s.view(ctx, row), nil
	}
	if row.Sealed, err = s.seal(id, v); err != nil {
		return SourceView{}, err
	}
	if row, err = s.update(ctx, was, row, time.Time{}); err != nil {
		return SourceView{}, err
	}
	s.audit(ctx, by, "source.update", id, strings.Join(changed, ", "))
	return s.view(ctx, row), nil
}

// DeleteSource ends a source: its URL is refused from now on. The row stays,
// since events refer to it.
func (s *Service) DeleteSource(ctx context.Context, by Principal, id uuid.UUID) error {
	s.changes.Lock()
	defer s.changes.Unlock()
	if _, err := s.row(ctx, by.Tenant, id); err != nil {
		return err
	}
	err := s.store.DeleteSource(ctx, by.Tenant, id, s.at())
	s.Heard(store.Change{Kind: store.ChangedSource, ID: id})
	switch {
	case fault.Is(err, fault.NotFound):
		return noSource()
	case err != nil:
		return fmt.Errorf("delete source: %w", err)
	}
	s.refused.forget(id)
	s.audit(ctx, by, "source.delete", id, "")
	return nil
}

// Source shows one source.
func (s *Service) Source(ctx context.Context, tenant int64, id uuid.UUID) (SourceView, error) {
	row, err := s.row(ctx, tenant, id)
	if err != nil {
		return SourceView{}, err
	}
	return s.view(ctx, row), nil
}

// Sources lists a tenant's sources.
func (s *Service) Sources(ctx context.Context, tenant int64, p store.Page) (rows []SourceView, next int64, err error) {
	listed, next, err := s.store.Sources(ctx, tenant, p)
	if err != nil {
		return nil, 0, fmt.Errorf("list sources: %w", err)
	}
	rows = make([]SourceView, 0, len(listed))
	for _, row := range listed {
		rows = append(rows, s.view(ctx, row))
	}
	return rows, next, nil
}

// Rejections are the recent refused requests of a source, newest first, since
// the start of this process.
func (s *Service) Rejections(ctx context.Context, tenant int64, id uuid.UUID) ([]Rejection, error) {
	if _, err := s.row(ctx, tenant, id); err != nil {
		return nil, err
	}
	return s.refused.list(id), nil
}

// row reads a tenant's source that is not deleted.
func (s *Service) row(ctx context.Context, tenant int64, id uuid.UUID) (store.Source, error) {
	row, err := s.store.Source(ctx, tenant, id)
	switch {
	case fault.Is(err, fault.NotFound), err == nil && !row.DeletedAt.IsZero():
		return store.Source{}, noSource()
	case err != nil:
		return store.Source{}, fmt.Errorf("read source: %w", err)
	}
	return row, nil
}

// view shows a source without its secrets. One whose secrets do not open is
// shown nevertheless: it is there, and can be mended or deleted.
func (s *Service) view(ctx context.Context, row store.Source) SourceView {
	v, err := s.unseal(row)
	if err != nil {
		s.log.ErrorContext(ctx, "secrets of a source do not open", slog.String("source_id", row.ID.String()), slog.Any("error", err))
	}
	out := SourceView{Source: row, HasSecret: len(v.Secrets) > 0, Settings: mask(v.Settings)}
	out.Sealed, out.TokenHash = nil, [32]byte{}
	out.Rejected, out.LastRejectedAt = s.refused.summary(row.ID)
	return out
}

func mask(in provider.Settings) provider.Settings {
	out := in
	if user, _, ok := strings.Cut(in.BasicAuth, ":"); ok {
		out.BasicAuth = user + ":" + masked
	}
	if in.Headers != nil {
		out.Headers = make(map[string]string, len(in.Headers))
		for name := range in.Headers {
			out.Headers[name] = masked
		}
	}
	out.AllowedCIDRs, out.TopicARNs = slices.Clone(in.AllowedCIDRs), slices.Clone(in.TopicARNs)
	return out
}

// checkSettings validates the settings of a provider's source and puts what was masked back from the old
// ones. Nothing secret is echoed.
func checkSettings(wrong []fault.Field, p *provider.Provider, in, old provider.Settings) (provider.Settings, []fault.Field) {
	out := in
	out.Headers, out.AllowedCIDRs, out.TopicARNs = maps.Clone(in.Headers), slices.Clone(in.AllowedCIDRs), slices.Clone(in.TopicARNs)
	bad := func(name, message string) {
		wrong = append(wrong, fault.Field{Location: "body.settings." + name, Message: message})
	}
	// check leaves the rules to the provider package, one setting at a time.
	check := func(name string, s provider.Settings) {
		if err := s.Check(); err != nil {
			bad(name, strings.TrimPrefix(err.Error(), name+": "))
		}
	}

	if user, password, _ := strings.Cut(in.BasicAuth, ":"); password == masked {
		oldUser, oldPassword, _ := strings.Cut(old.BasicAuth, ":")
		if oldPassword == "" || oldUser != user {
			bad("basic_auth", "has a masked password; give the password itself")
		}
		out.BasicAuth = old.BasicAuth
	}
	if !valid(out.BasicAuth) {
		bad("basic_auth", "is too long or not UTF-8")
	} else if out.BasicAuth != "" {
		check("basic_auth", provider.Settings{BasicAuth: out.BasicAuth})
	}

	if len(in.Headers) > maxHeaders {
		bad("headers", fmt.Sprintf("has more than %d entries", maxHeaders))
	}
	seen := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(out.Headers)) {
		value := out.Headers[name]
		if value == masked {
			if value = old.Headers[name]; value == "" {
				bad("headers", "has a masked value; give the value itself")
				continue
			}
			out.Headers[name] = value
		}
		folded := strings.ToLower(name)
		switch {
		case !valid(name) || !valid(value):
			bad("headers", "has a name or value that is too long or not UTF-8")
		case seen[folded]:
			bad("headers", "has the same header twice")
		default:
			check("headers", provider.Settings{Headers: map[string]string{name: value}})
		}
		seen[folded] = true
	}

	if len(in.AllowedCIDRs) > maxCIDRs {
		bad("allowed_cidrs", fmt.Sprintf("has more than %d entries", maxCIDRs))
	} else {
		for _, c := range in.AllowedCIDRs {
			if len(c) > 64 {
				bad("allowed_cidrs", "has an entry that is no address or range")
				continue
			}
			check("allowed_cidrs", provider.Settings{AllowedCIDRs: []string{c}})
		}
	}

	if len(in.TopicARNs) > maxTopics {
		bad("topic_arns", fmt.Sprintf("has more than %d entries", maxTopics))
	} else {
		check("topic_arns", provider.Settings{TopicARNs: in.TopicARNs})
	}

	if err := in.CheckAgents(); err != nil {
		bad("agents", strings.TrimPrefix(err.Error(), "agents: "))
	}

	if p != nil {
		if err := p.CheckAccept(in.Accept); err != nil {
			bad("accept", err.Error())
		}
	}

	if err := p.CheckUnmatched(in.OnUnmatched); err != nil {
		bad("on_unmatched", err.Error())
	}
	return out, wrong
}

func valid(s string) bool { return len(s) <= maxSecret && utf8.ValidString(s) }

func checkSecret(wrong []fault.Field, p *provider.Provider, secret string) []fault.Field {
	bad := func(message string) []fault.Field {
		return append(wrong, fault.Field{Location: "body.secret", Message: message})
	}
	switch {
	case secret == masked:
		return bad("is masked; give the secret itself")
	case !valid(secret):
		return bad(fmt.Sprintf("is longer than %d bytes or not UTF-8", maxSecret))
	case p != nil && p.CheckSecret != nil:
		if err := p.CheckSecret(secret); err != nil {
			return bad(err.Error())
		}
	}
	return wrong
}

func providerNames() string {
	all := provider.All()
	names := make([]string, 0, len(all))
	for _, p := range all {
		names = append(names, p.Name)
	}
	return strings.Join(names, ", ")
}
