package page_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"osx-builder/vm/vmtest/harness"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// timeout is the longest time that the page may take to show something.
const timeout = harness.Timeout

// browser is a Chromium that several tests share.
type browser struct{ ctx context.Context }

// newBrowser starts Chromium.
func newBrowser(t *testing.T) browser {
	t.Helper()
	path := chromium(t)
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()), chromedp.DisableGPU,
		chromedp.Flag("no-sandbox", os.Geteuid() == 0), // Chromium as root needs this
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
	)
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	harness.Must(t, chromedp.Do(ctx))
	return browser{ctx}
}

func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	harness.Without(t, "the page is not tested: Chromium is not installed (Debian: apt-get install chromium; make test does it)")
	return ""
}

// viewport is the size and colour scheme of a page.
type viewport struct {
	width, height int64
	dark          bool
}

var (
	desktop     = viewport{width: 1200, height: 900}
	desktopDark = viewport{width: 1200, height: 900, dark: true}
	phone       = viewport{width: 360, height: 740}
)

// clickTimeout bounds one try of a click, which hangs if the page replaces the element in the middle of it.
const clickTimeout = 10 * time.Second

// tab is an open page. The test fails at its end if the page threw an exception, violated its security policy, or sent
// a request to another host.
type tab struct {
	t          *testing.T
	ctx        context.Context
	url        string
	mu         sync.Mutex // guards what follows
	violations []string
	requests   []string // the paths of the requests so far
}

func (b browser) open(t *testing.T, address string, v viewport) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx)
	p := &tab{t: t, ctx: ctx, url: address}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the page shows:\n%s", p.text("body"))
		}
		cancel()
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.violations) > 0 {
			t.Errorf("the page:\n%s", strings.Join(p.violations, "\n"))
		}
	})
	u, err := url.Parse(address)
	harness.Must(t, err)
	harness.Must(t, chromedp.Listen(ctx, func(e any) { p.recordViolation(e, u.Hostname()) }))
	// Changes must arrive as events: switch the page's polling off.
	_, err = chromedp.Call(ctx, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: "window.setInterval = () => 0"})
	harness.Must(t, err)
	p.emulate(v)
	p.navigate(address)
	return p
}

func (p *tab) recordViolation(e any, host string) {
	violation := ""
	switch e := e.(type) {
	case *runtime.EventExceptionThrown:
		violation = "threw: " + fmt.Sprint(e.ExceptionDetails.Text, " ", e.ExceptionDetails.Exception)
	case *log.EventEntryAdded:
		if e.Entry.Source == log.EntrySourceSecurity || strings.Contains(e.Entry.Text, "Content Security Policy") {
			violation = "violated its policy: " + e.Entry.Text
		}
	case *network.EventRequestWillBeSent:
		u, err := url.Parse(e.Request.URL)
		if err == nil && u.Scheme != "blob" && u.Hostname() != host {
			violation = "sent a request to another host: " + e.Request.URL
		}
		if err == nil && u.Scheme != "blob" {
			p.mu.Lock()
			p.requests = append(p.requests, u.Path)
			p.mu.Unlock()
		}
	}
	if violation != "" {
		p.mu.Lock()
		p.violations = append(p.violations, violation)
		p.mu.Unlock()
	}
}

// do runs actions in the page.
func (p *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, timeout)
	defer cancel()
	harness.Must(p.t, chromedp.Do(ctx, steps...))
}

// value runs an action in the page and returns its value.
func value[T any](p *tab, a chromedp.Action[T]) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, timeout)
	defer cancel()
	v, err := chromedp.Run(ctx, a)
	harness.Must(p.t, err)
	return v
}

func (p *tab) navigate(address string) {
	p.t.Helper()
	p.do(chromedp.Navigate(address))
}

func (p *tab) emulate(v viewport) {
	p.t.Helper()
	scheme := "light"
	if v.dark {
		scheme = "dark"
	}
	p.do(chromedp.EmulateViewport(v.width, v.height))
	_, err := chromedp.Call(p.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
	}})
	harness.Must(p.t, err)
}

// eval evaluates an expression in the page. If it is a promise, eval waits for it.
func eval[T any](p *tab, expression string) T {
	p.t.Helper()
	return value(p, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
}

// until waits until an expression is true.
func (p *tab) until(what, expression string) {
	p.t.Helper()
	for deadline := time.Now().Add(timeout); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if eval[bool](p, "Boolean("+expression+")") {
			return
		}
	}
	p.t.Fatalf("not within %v: %s (%s)", timeout, what, expression)
}

// query returns the JavaScript expression for the first element that matches a selector.
func query(selector string) string {
	b, err := json.Marshal(selector)
	if err != nil {
		panic(err) // strings always marshal
	}
	return "document.querySelector(" + string(b) + ")"
}

// text returns an element's text, or "" if it does not exist.
func (p *tab) text(selector string) string {
	p.t.Helper()
	return eval[string](p, query(selector)+"?.innerText ?? ''")
}

// waitForText waits until an element is visible and contains text.
func (p *tab) waitForText(selector, text string) {
	p.t.Helper()
	p.until(selector+" shows "+text, fmt.Sprintf("%s?.checkVisibility() && %s.innerText.includes(%q)", query(selector), query(selector), text))
}

// click clicks an element. The page may replace the element between the search and the click; then click tries again.
func (p *tab) click(selector string) {
	p.t.Helper()
	for deadline := time.Now().Add(timeout); ; {
		p.until(selector+" is visible", query(selector)+"?.checkVisibility()")
		eval[bool](p, fmt.Sprintf(watchClick, selector))
		ctx, cancel := context.WithTimeout(p.ctx, clickTimeout)
		err := chromedp.Do(ctx, chromedp.ScrollIntoView(chromedp.CSS(selector)), chromedp.Click(chromedp.CSS(selector)))
		cancel()
		if err == nil && !eval[bool](p, "window.missed === true") {
			return
		}
		if time.Now().After(deadline) {
			harness.Must(p.t, err)
		}
	}
}

// watchClick finds out whether the next click misses an element, which the page may have moved since the browser was
// asked where it is.
const watchClick = `window.missed = true, document.addEventListener('click', (e) => {
	window.missed = !e.target.closest(%q);
}, { capture: true, once: true }), true`

// fill replaces the text of a form's field, like pasting does.
func (p *tab) fill(selector, text string) {
	p.t.Helper()
	p.until(selector+" is visible", query(selector)+"?.checkVisibility()")
	eval[bool](p, query(selector)+".value = '', "+query(selector)+".focus(), true")
	_, err := chromedp.Call(p.ctx, input.InsertText, input.InsertTextParams{Text: text})
	harness.Must(p.t, err)
}

// screenshot saves a screenshot of the page in the folder PAGE_SHOTS, if that is set.
func (p *tab) screenshot(name string) {
	p.t.Helper()
	dir := os.Getenv("PAGE_SHOTS")
	if dir == "" {
		return
	}
	harness.Must(p.t, os.WriteFile(filepath.Join(dir, name+".png"), value(p, chromedp.CaptureScreenshot()), 0o644))
}
