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

	var state, title string
	if err := chromedp.Run(ctx,
		network.Enable(), runtime.Enable(), log.Enable(),
		chromedp.EmulateViewport(1400, 1000),
		chromedp.Navigate(server.URL+"/docs"),
		chromedp.Poll(`document.querySelectorAll("article").length > 0`, nil),
		chromedp.Text("#state", &state, chromedp.ByQuery), chromedp.Title(&title),
	); err != nil {
		t.Fatalf("open /docs: %v\n%s", err, page.problems())
	}
	if want := fmt.Sprintf("%d routes", routes); !strings.Contains(state, want) {
		t.Errorf("the page says %q, want %q", state, want)
	}
	if shown := visibleArticles(ctx, t); shown != routes {
		t.Errorf("the page shows %d routes, want %d", shown, routes)
	}
	page.screenshot(ctx, t, "docs.png")

	if err := chromedp.Run(ctx, chromedp.SendKeys("#q", "suppressions", chromedp.ByQuery)); err != nil {
		t.Fatalf("search: %v", err)
	}
	testenv.Eventually(t, 10*time.Second, "the search finds the four routes of suppressions", func() bool {
		return visibleArticles(ctx, t) == 4
	})
	var text string
	if err := chromedp.Run(ctx, chromedp.Text("main", &text, chromedp.ByQuery)); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text, "/api/suppressions/{email}") {
		t.Errorf("a search for suppressions does not show /api/suppressions/{email}")
	}
	page.screenshot(ctx, t, "search.png")
	if err := chromedp.Run(ctx, chromedp.EmulateViewport(390, 844), chromedp.Navigate(server.URL+"/docs#postEvents"),
		chromedp.Poll(`document.querySelectorAll("article").length > 0`, nil)); err != nil {
		t.Fatalf("open /docs on a phone: %v", err)
	}
	var overflow bool
	if err := chromedp.Run(ctx, chromedp.Evaluate(`document.documentElement.scrollWidth > innerWidth`, &overflow)); err != nil {
		t.Fatal(err)
	}
	if overflow {
		t.Error("on a narrow screen the page is wider than the screen")
	}
	page.screenshot(ctx, t, "phone.png")

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

func openBrowser(t *testing.T) (context.Context, *browserPage) {
	t.Helper()
	bound, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	t.Cleanup(cancel)
	alloc, cancelAlloc := chromedp.NewExecAllocator(bound,
		chromedp.ExecPath(chromium), chromedp.UserDataDir(t.TempDir()), chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.WSURLReadTimeout(60*time.Second),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-dev-shm-usage", true),
	)
	ctx, cancelPage := chromedp.NewContext(alloc, chromedp.WithErrorf(t.Logf))
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil { // closes the browser and waits for it
			t.Logf("close the browser: %v", err)
		}
		cancelPage()
		cancelAlloc()
	})
	page := &browserPage{}
	chromedp.ListenTarget(ctx, func(ev any) {
		switch e := ev.(type) {
		case *network.EventRequestWillBeSent:
			page.mu.Lock()
			page.requests = append(page.requests, e.Request.URL)
			page.mu.Unlock()
		case *network.EventLoadingFailed:
			page.fault("not loaded: %s %s", e.ErrorText, e.BlockedReason)
		case *runtime.EventConsoleAPICalled:
			if e.Type == runtime.APITypeError || e.Type == runtime.APITypeWarning {
				page.fault("console %s: %v", e.Type, e.Args)
			}
		case *runtime.EventExceptionThrown:
			page.fault("exception: %s", e.ExceptionDetails.Error())
		case *log.EventEntryAdded:
			page.fault("%s: %s %s", e.Entry.Level, e.Entry.Text, e.Entry.URL)
		}
	})
	return ctx, page
}

func visibleArticles(ctx context.Context, t *testing.T) int {
	t.Helper()
	var n int
	if err := chromedp.Run(ctx, chromedp.Evaluate(
		`Array.from(document.querySelectorAll("article")).filter(a => a.getClientRects().length > 0).length`, &n)); err != nil {
		t.Fatalf("count routes: %v", err)
	}
	return n
}

// screenshot keeps a picture in the folder that TEST_SCREENSHOTS names, for the eye.
func (p *browserPage) screenshot(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	dir := os.Getenv("TEST_SCREENSHOTS")
	if dir == "" {
		return
	}
	var picture []byte
	if err := chromedp.Run(ctx, chromedp.CaptureScreenshot(&picture)); err != nil {
		t.Fatalf("screenshot: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), picture, 0o600); err != nil {
		t.Fatal(err)
	}
}
