// Package app wires everything: the only place that sees all packages.
//
// Guarantees: New either gives a server that is ready to start or leaves
// nothing behind; Stop follows the order of design.md: not ready, listener
// closed, requests in flight finished and committed, workers settled, stores
// closed, each step logged with its time.
package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tallyhook/internal/access"
	"tallyhook/internal/config"
	"tallyhook/internal/deadletter"
	"tallyhook/internal/httpapi"
	"tallyhook/internal/ingest"
	"tallyhook/internal/limit"
	"tallyhook/internal/orphan"
	"tallyhook/internal/provider"
	"tallyhook/internal/redisq"
	"tallyhook/internal/report"
	"tallyhook/internal/store"
	"tallyhook/internal/store/spool"
	"tallyhook/internal/telemetry"
)

// App is one server.
type App struct {
	cfg      config.Config
	version  string
	log      *slog.Logger
	registry *prometheus.Registry
	metrics  *telemetry.Metrics

	store     *engine
	access    *access.Service
	committer *ingest.Committer
	receiver  *ingest.Receiver
	worker    atomic.Pointer[orphan.Worker] // set by Start
	redis     *redisq.Queue                 // nil: none
	spool     *spool.Spool                  // nil: none
	letters   *deadletter.Service
	keeper    *keeper
	hearing   *hearing

	server        *http.Server
	listener      net.Listener
	metricsServer *http.Server
	metricsOn     net.Listener
	connections   *connections
	certificate   *certificate // nil: no TLS
	budgets       *limit.Budgets
	exchange      *limit.Exchange // nil: limits are this replica's own
	ready         atomic.Bool
	failed        chan error
	serving       sync.WaitGroup

	gauges  snapshots
	retired atomic.Pointer[lastRetention] // nil: no pass has ended yet

	adminKey string // made at the first start, shown once
	keyFile  string // where the secrets key is kept; empty when it was given
}

// Options are what New needs beside the settings.
type Options struct {
	Version string
	Logger  *slog.Logger
	Strict  bool // refuse a Redis that is down or not safe
}

// New opens the store, brings its schema up to date, and makes everything
// that a server consists of. Nothing listens yet.
func New(ctx context.Context, cfg config.Config, o Options) (*App, error) {
	a := &App{cfg: cfg, version: o.Version, log: o.Logger, registry: prometheus.NewRegistry(), failed: make(chan error, 2)}
	a.metrics = telemetry.NewMetrics(a.registry, o.Version)
	for _, w := range cfg.Warnings {
		a.log.WarnContext(ctx, "setting", slog.String("warning", w))
	}
	if err := a.listen(ctx); err != nil {
		return nil, err
	}
	if err := a.open(ctx, o.Strict); err != nil {
		return nil, errors.Join(err, a.unlisten())
	}
	return a, nil
}

func (a *App) listen(ctx context.Context) error {
	var lc net.ListenConfig
	var err error
	if a.cfg.TLS() {
		if a.certificate, err = loadCertificate(a.cfg.TLSCert, a.cfg.TLSKey, a.log); err != nil {
			return err
		}
	}
	a.listener, err = lc.Listen(ctx, "tcp", a.cfg.Addr())
	if err != nil {
		return fmt.Errorf("listen on %s: %w", a.cfg.Addr(), err)
	}
	if a.certificate != nil {
		a.listener = listenTLS(a.listener, a.certificate.config(), usual.header, a.refusal())
	} else {
		a.listener = &frontListener{a.listener, a.refusal()}
	}
	if !a.cfg.Given("PUBLIC_URL") {
		a.cfg.PublicURL = a.URL()
	}
	if a.cfg.MetricsAddr == "" {
		return nil
	}
	a.metricsOn, err = lc.Listen(ctx, "tcp", a.cfg.MetricsAddr)
	if err != nil {
		return errors.Join(fmt.Errorf("listen on METRICS_ADDR %s: %w", a.cfg.MetricsAddr, err), a.listener.Close())
	}
	return nil
}

func (a *App) unlisten() error {
	errs := []error{a.listener.Close()}
	if a.metricsOn != nil {
		errs = append(errs, a.metricsOn.Close())
	}
	return errors.Join(errs...)
}

func (a *App) open(ctx context.Context, strict bool) (err error) {
	defer func() { //nolint:contextcheck // closing waits for what is under way, whatever became of the start
		if err != nil {
			err = errors.Join(err, a.closeStores())
		}
	}()
	existed := missing(a.cfg) == nil
	if a.cfg.SpoolDir != "" {
		if a.spool, err = spool.Open(ctx, spool.Options{Dir: a.cfg.SpoolDir, MaxBytes: a.cfg.SpoolMaxBytes}); err != nil {
			return fmt.Errorf("SPOOL_DIR: %w", err)
		}
	}
	if a.store, err = openEngine(ctx, a.cfg, true, hooks{adopted: a.adopted, parked: a.parked, gone: a.gone, missed: a.missed}); err != nil {
		return err
	}
	secretsKey, err := a.unlock(ctx, existed)
	if err != nil {
		return err
	}
	if a.redis, err = openRedis(a.cfg, installationOf(secretsKey), a.log); err != nil { //nolint:contextcheck // it connects for as long as it lives
		return err
	}
	if strict {
		if err := a.unsafe(ctx); err != nil {
			return err
		}
	}
	a.budgets = limit.NewBudgets(limit.Rates{
		Anonymous: limit.Rate(a.cfg.RateAnonymous), API: limit.Rate(a.cfg.RateAPI), Webhook: limit.Rate(a.cfg.RateWebhook),
	}, time.Now)
	if a.redis != nil {
		a.exchange = a.budgets.Share(a.redis.Ledger(), sharing(secretsKey)) //nolint:contextcheck // it books for as long as the server lives
	}
	a.budgets.Refused = func(k limit.Kind) { a.metrics.RateLimited.WithLabelValues(string(k)).Inc() }
	committing := ingest.Options{Writers: a.store.writers, Now: time.Now, Logger: a.log, Metrics: a.metrics}
	if a.spool != nil {
		committing.Spool = a.spool
	}
	a.committer = ingest.NewCommitter(a.store, committing)
	a.receiver = &ingest.Receiver{
		Sources: a.access, Budgets: a.budgets, Bodies: a.committer, Committer: a.committer, Now: time.Now, Logger: a.log, Metrics: a.metrics,
		Certificate: access.NewCertificates(fetch, time.Now).Get, Confirm: call,
	}
	a.letters = deadletter.New(a.store, deadletter.Options{
		Decode: a.receiver.Redecode, Accept: a.committer.Accept, Now: time.Now, Logger: a.log, Metrics: a.metrics,
	})
	handler, err := a.handler()
	if err != nil {
		a.committer.Close()
		return err
	}
	a.connections = newConnections()
	a.server = newServer(handler, usual)
	if a.certificate != nil {
		a.server.TLSConfig = a.certificate.config() // says that HTTP/2 is spoken
	}
	a.server.ConnState = a.connections.track
	a.server.ErrorLog = slog.NewLogLogger(a.log.Handler(), slog.LevelDebug)
	if a.metricsOn != nil {
		a.metricsServer = newServer(telemetry.Handler(a.registry), usual)
	}
	return nil
}

// closeStores closes what keeps data, and the connection to Redis.
func (a *App) closeStores() error {
	var errs []error
	if a.exchange != nil {
		a.exchange.Close()
	}
	if a.redis != nil {
		a.redis.Close()
	}
	if a.spool != nil {
		errs = append(errs, a.spool.Close())
	}
	if a.store != nil {
		errs = append(errs, a.store.Close())
	}
	return errors.Join(errs...)
}

// unlock gets the key of the secrets and the first API key. A key file is
// only made for a database that is new: beside an old one it would hide that
// the right one is missing.
func (a *App) unlock(ctx context.Context, existed bool) (key [32]byte, err error) {
	if s := a.cfg.SecretsKey.Reveal(); s != "" {
		key, err = access.ParseKey(s)
	} else {
		a.keyFile = a.cfg.SQLitePath() + ".key"
		if _, serr := os.Stat(a.keyFile); errors.Is(serr, fs.ErrNotExist) && existed {
			if _, serr := a.store.Setting(ctx, access.CanarySetting); serr == nil {
				return key, fmt.Errorf("the key file %s is missing, and the database holds secrets sealed with it: restore it, or give SECRETS_KEY", a.keyFile)
			}
		}
		key, err = access.LoadOrCreateKeyFile(a.keyFile)
	}
	if err != nil {
		return key, err
	}
	a.store.Unlock(store.NewTombstones(key))
	snapshot := ""
	if a.cfg.SpoolDir != "" {
		snapshot = filepath.Join(a.cfg.SpoolDir, "access.sealed")
	}
	a.access, err = access.New(a.store, access.Options{SecretsKey: key, PublicURL: a.cfg.PublicURL, Snapshot: snapshot, Now: time.Now, Logger: a.log}) //nolint:contextcheck // New bounds its one look at the store itself
	if err != nil {
		return key, err
	}
	plain, made, err := a.access.Bootstrap(ctx, a.cfg.APIKey.Reveal())
	if err != nil {
		return key, fmt.Errorf("first API key: %w", err)
	}
	if made {
		a.adminKey = plain
	}
	if err := a.access.Learn(ctx); err != nil { // the keeper tries again
		a.log.WarnContext(ctx, "keys and sources not read ahead", slog.Any("error", err))
	}
	return key, nil
}

func (a *App) handler() (http.Handler, error) {
	services := httpapi.Services{
		Campaigns: a.store, Enrollments: a.store, Events: a.store, Acceptor: a.committer, Receiver: a.receiver,
		Suppressions: a.store, Erasures: a.store, Letters: a.letters, Access: a.access, Reports: report.New(a.store), Health: a,
		Observer: a.observer(),
		Budgets:  a.budgets,
	}
	a.registry.MustRegister(telemetry.NewCertificateExpiry(a.certificate.expiry))
	a.registry.MustRegister(telemetry.NewStoreCollector(a.snapshot), telemetry.NewSpoolCollector(func() (events, bytes int64) {
		if a.spool == nil {
			return 0, 0
		}
		st := a.spool.Stats()
		return st.Events, st.Bytes
	}))
	if a.redis != nil {
		a.registry.MustRegister(telemetry.NewRedisUp(func() bool { return a.redis.State().Up }))
	}
	if a.metricsOn == nil {
		services.MetricsHandler = telemetry.Handler(a.registry)
	}
	return httpapi.New(services, httpapi.Options{
		MaxBodyBytes: a.cfg.MaxBodyBytes, PublicURL: a.cfg.PublicURL, Version: a.version,
		Development: a.cfg.Development(), Logger: a.log, Now: time.Now,
		AllowedOrigins: a.cfg.AllowedOrigins, TrustedProxies: a.cfg.TrustedProxies, TLS: a.cfg.TLS(),
	})
}

// observer counts what the edge sees.
func (a *App) observer() httpapi.Observer {
	return httpapi.Observer{
		InFlight: func(n int) { a.metrics.HTTPInFlight.Add(float64(n)) },
		Request: func(method, route string, status int, took time.Duration) {
			a.metrics.HTTPDuration.WithLabelValues(method, route, fmt.Sprint(status)).Observe(took.Seconds())
		},
		WebhookRejected: a.rejected,
		AuthFailure:     func(reason string) { a.metrics.AuthFailures.WithLabelValues(reason).Inc() },
		OriginRefused:   a.metrics.CORSRefused.Inc,
	}
}

// Start begins to serve and to work the queues. It returns at once.
func (a *App) Start() {
	a.hearing = newHearing(a)
	working := orphan.Options{Batch: a.cfg.BatchSize, Lease: 3 * a.cfg.TxTimeout, Now: time.Now, Logger: a.log, Metrics: a.metrics, Due: a.hearing.due}
	if a.redis != nil {
		working.Index = a.redis
	}
	a.worker.Store(orphan.Start(a.store, working))
	a.letters.Start()
	a.keeper = startKeeper(a)
	a.hearing.start()
	serve := func(s *http.Server, l net.Listener) {
		if err := s.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			a.failed <- fmt.Errorf("serve on %s: %w", l.Addr(), err)
		}
	}
	a.serving.Go(func() { serve(a.server, a.listener) })
	if a.metricsServer != nil {
		a.serving.Go(func() { serve(a.metricsServer, a.metricsOn) })
	}
	a.ready.Store(true)
}

// Failed gives the error that ended a listener before Stop.
func (a *App) Failed() <-chan error { return a.failed }

// URL is where the server listens.
func (a *App) URL() string {
	scheme := "http://"
	if a.certificate != nil {
		scheme = "https://"
	}
	return scheme + a.listener.Addr().String()
}

// Config is the configuration in force, with what was decided at the start.
func (a *App) Config() config.Config { return a.cfg }

// Data is where the data is: the absolute path of the file, or the URL of the
// database without its password.
func (a *App) Data() string { return a.store.where }

// AdminKey is the key that was made at the first start; empty at later ones.
func (a *App) AdminKey() string { return a.adminKey }

// KeyFile is where the key of the secrets is kept; empty when it was given.
func (a *App) KeyFile() string { return a.keyFile }

// TemporaryKey makes an admin key for a part of this process that talks to it
// as a client does. revoke ends it and must be called before Stop.
func (a *App) TemporaryKey(ctx context.Context, name string) (plain string, revoke func(), err error) {
	by := access.Principal{Tenant: store.DefaultTenant, Scopes: []string{access.ScopeAdmin}}
	k, plain, err := a.access.CreateKey(ctx, by, name, []string{access.ScopeAdmin}, time.Now().Add(24*time.Hour))
	if err != nil {
		return "", nil, err
	}
	return plain, func() {
		if err := a.access.RevokeKey(context.WithoutCancel(ctx), by, k.ID); err != nil {
			a.log.ErrorContext(ctx, "temporary key not revoked", slog.Any("error", err))
		}
	}, nil
}

// rejected counts the refusals that only the edge knows of; the receiver
// counts its own, with finer reasons.
func (a *App) rejected(name, reason string) {
	switch provider.Refusal(reason) {
	case provider.RefuseAuth, provider.RefuseUnknown:
		return
	case provider.RefuseTooLarge, provider.RefuseThrottled, provider.RefuseUnavailable:
	}
	if name == "" {
		name = "unknown"
	}
	a.metrics.WebhooksRejected.WithLabelValues(name, reason).Inc()
}

// missed says that the database failed in the moment after a commit.
func (a *App) missed(err error) {
	a.log.Warn("second look failed, the schedule finds the event later", slog.Any("error", err))
}

// parked tells the queue beside the database of events that came to wait.
func (a *App) parked(events []store.Parked) {
	if w := a.worker.Load(); w != nil { // what came before Start is found by the first rebuild
		w.Park(events)
	}
}

// gone tells it of events that wait no longer, so that it does not claim them.
func (a *App) gone(events []store.Claimed) {
	if w := a.worker.Load(); w != nil {
		w.Gone(events)
	}
}

// adopted counts what adoptions settled.
func (a *App) adopted(results []store.Result) {
	for _, r := range results {
		a.metrics.OrphansResolved.WithLabelValues(r.By).Inc()
		a.metrics.OrphanWait.Observe(r.Waited.Seconds())
	}
}
