package app_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"tallyhook/internal/testenv"
)

const chromium = "/usr/bin/chromium"

// TestDocsInABrowser opens /docs as a reader does: it shows every route,
// finds what is looked for, asks no other host for anything, and the browser
// has nothing to complain about.
func TestDocsInABrowser(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat(chromium); err != nil {
		t.Fatalf("%v; install it with: apt-get update && apt-get install -y chromium", err)
	}
	server := testenv.Start(t, testenv.Options{Env: []string{"LOG_LEVEL=warn"}})
	routes := len(operations(t, server.Client("")))
	ctx, page := openBrowser(t)

	page.do(ctx, "open /docs", chromedp.EmulateViewport(1400, 1000), chromedp.Navigate(server.URL+"/docs"))
	page.eventually(ctx, "the page shows every route", routes)
	if state, want := run(ctx, t, chromedp.Text("#state")), fmt.Sprintf("%d routes", routes); !strings.Contains(state, want) {
		t.Errorf("the page says %q, want %q", state, want)
	}
	page.screenshot(ctx, "docs.png")

	page.do(ctx, "search", chromedp.SendKeys("#q", "suppressions"))
	page.eventually(ctx, "the search finds the four routes of suppressions", 4)
	if text := run(ctx, t, chromedp.Text("main")); !strings.Contains(text, "/api/suppressions/{email}") {
		t.Error("a search for suppressions does not show /api/suppressions/{email}")
	}
	page.screenshot(ctx, "search.png")

	page.do(ctx, "open /docs on a phone", chromedp.EmulateViewport(390, 844), chromedp.Navigate(server.URL+"/docs#postEvents"), chromedp.Reload())
	page.eventually(ctx, "the page shows every route", routes)
	if wide := run(ctx, t, chromedp.Evaluate[bool](`document.documentElement.scrollWidth > innerWidth`)); wide {
		t.Error("on a narrow screen the page is wider than the screen")
	}
	page.screenshot(ctx, "phone.png")

	if p := page.problems(); p != "" {
		t.Errorf("the browser complains:\n%s", p)
	}
	page.mu.Lock()
	defer page.mu.Unlock()
	at := strings.TrimPrefix(server.URL, "http://")
	for _, u := range page.requests {
		if parsed, err := url.Parse(u); err != nil || parsed.Host != at && parsed.Scheme != "data" {
			t.Errorf("the page asks another host: %s", u)
		}
	}
	if len(page.requests) < 2 {
		t.Errorf("the browser has made %d requests, which cannot be all", len(page.requests))
	}
}

// browserPage is what the browser has told.
type browserPage struct {
	t        *testing.T
	mu       sync.Mutex
	requests []string
	faults   []string
}

func (p *browserPage) problems() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.faults, "\n")
}

func (p *browserPage) fault(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = append(p.faults, fmt.Sprintf(format, args...))
}

// take notes an event of the browser.
func (p *browserPage) take(ev any) {
	switch e := ev.(type) {
	case *network.EventRequestWillBeSent:
		p.mu.Lock()
		p.requests = append(p.requests, e.Request.URL)
		p.mu.Unlock()
	case *network.EventLoadingFailed:
		p.fault("not loaded: %s %s", e.ErrorText, e.BlockedReason)
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
			p.fault("console %s with %d arguments", e.Type, len(e.Args))
		}
	case *runtime.EventExceptionThrown:
		p.fault("exception: %s", e.ExceptionDetails.Text)
	case *log.EventEntryAdded:
		p.fault("%s: %s %s", e.Entry.Level, e.Entry.Text, e.Entry.URL)
	}
}

func openBrowser(t *testing.T) (context.Context, *browserPage) {
	t.Helper()
	page := &browserPage{t: t}
	bound, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	t.Cleanup(cancel)
	alloc, cancelAlloc := chromedp.NewExecAllocator(bound,
		chromedp.ExecPath(chromium), chromedp.UserDataDir(t.TempDir()), chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.WSURLReadTimeout(time.Minute),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-dev-shm-usage", true),
	)
	ctx, cancelPage := chromedp.NewContext(alloc, chromedp.WithErrorf(t.Logf), chromedp.WithListener(page.take))
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil { // closes the browser and waits for it
			t.Logf("close the browser: %v", err)
		}
		cancelPage()
		cancelAlloc()
	})
	if _, err := chromedp.Call(ctx, network.Enable, network.EnableParams{}); err != nil {
		t.Fatalf("start the browser: %v", err)
	}
	if _, err := chromedp.Call(ctx, log.Enable, cdp.Empty{}); err != nil {
		t.Fatalf("listen to the browser's log: %v", err)
	}
	return ctx, page
}

func (p *browserPage) do(ctx context.Context, what string, steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if err := chromedp.Do(ctx, steps...); err != nil {
		p.t.Fatalf("%s: %v\n%s", what, err, p.problems())
	}
}

func run[T any](ctx context.Context, t *testing.T, a chromedp.Action[T]) T {
	t.Helper()
	v, err := chromedp.Run(ctx, a)
	if err != nil {
		t.Fatalf("ask the page: %v", err)
	}
	return v
}

// eventually waits until so many routes can be seen.
func (p *browserPage) eventually(ctx context.Context, what string, routes int) {
	p.t.Helper()
	shown := -1
	if !testenv.Poll(time.Minute, func() bool {
		shown = run(ctx, p.t, chromedp.Evaluate[int](
			`Array.from(document.querySelectorAll("article")).filter(a => a.getClientRects().length > 0).length`))
		return shown == routes
	}) {
		p.t.Fatalf("%s: it shows %d, want %d\n%s", what, shown, routes, p.problems())
	}
}

// screenshot keeps a picture in the folder that TEST_SCREENSHOTS names, for
// the eye.
func (p *browserPage) screenshot(ctx context.Context, name string) {
	p.t.Helper()
	dir := os.Getenv("TEST_SCREENSHOTS")
	if dir == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(dir, name), run(ctx, p.t, chromedp.CaptureScreenshot()), 0o600); err != nil {
		p.t.Fatal(err)
	}
}
