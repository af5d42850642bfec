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

// patience is what the page may take for what it is to show.
const patience = harness.Patience

// browser is one Chromium for many stories.
type browser struct{ ctx context.Context }

// newBrowser starts Chromium, or says why there is none.
func newBrowser(t *testing.T) browser {
	t.Helper()
	path := chromium(t)
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()), chromedp.DisableGPU,
		chromedp.Flag("no-sandbox", os.Geteuid() == 0), // as root it starts in no other way
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
	harness.Without(t, "the page is not tested: there is no Chromium (Debian: apt-get install chromium; make test does it)")
	return ""
}

// look is how a page is looked at.
type look struct {
	width, height int64
	dark          bool
}

var (
	desk  = look{width: 1200, height: 900}
	night = look{width: 1200, height: 900, dark: true}
	phone = look{width: 360, height: 740}
)

// tab is an open page. What it must never do is found at the test's end: throw,
// break its own policy, or ask another host for anything.
type tab struct {
	t    *testing.T
	ctx  context.Context
	mu   sync.Mutex // guards sins
	sins []string
}

func (b browser) open(t *testing.T, address string, l look) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx)
	p := &tab{t: t, ctx: ctx}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the page shows:\n%s", p.text("body"))
		}
		cancel()
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.sins) > 0 {
			t.Errorf("the page:\n%s", strings.Join(p.sins, "\n"))
		}
	})
	u, err := url.Parse(address)
	harness.Must(t, err)
	harness.Must(t, chromedp.Listen(ctx, func(e any) { p.watch(e, u.Hostname()) }))
	// News come by events alone: the slow reading of everything is off.
	_, err = chromedp.Call(ctx, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: "window.setInterval = () => 0"})
	harness.Must(t, err)
	p.look(l)
	p.navigate(address)
	return p
}

func (p *tab) watch(e any, host string) {
	sin := ""
	switch e := e.(type) {
	case *runtime.EventExceptionThrown:
		sin = "threw: " + fmt.Sprint(e.ExceptionDetails.Text, " ", e.ExceptionDetails.Exception)
	case *log.EventEntryAdded:
		if e.Entry.Source == log.EntrySourceSecurity || strings.Contains(e.Entry.Text, "Content Security Policy") {
			sin = "broke its policy: " + e.Entry.Text
		}
	case *network.EventRequestWillBeSent:
		u, err := url.Parse(e.Request.URL)
		if err == nil && u.Scheme != "blob" && u.Hostname() != host {
			sin = "asked another host: " + e.Request.URL
		}
	}
	if sin != "" {
		p.mu.Lock()
		p.sins = append(p.sins, sin)
		p.mu.Unlock()
	}
}

// do takes steps in the page, each within patience.
func (p *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	harness.Must(p.t, chromedp.Do(ctx, steps...))
}

// value is what an action in the page returns.
func value[T any](p *tab, a chromedp.Action[T]) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, a)
	harness.Must(p.t, err)
	return v
}

func (p *tab) navigate(address string) {
	p.t.Helper()
	p.do(chromedp.Navigate(address))
}

func (p *tab) look(l look) {
	p.t.Helper()
	scheme := "light"
	if l.dark {
		scheme = "dark"
	}
	p.do(chromedp.EmulateViewport(l.width, l.height))
	_, err := chromedp.Call(p.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
	}})
	harness.Must(p.t, err)
}

// eval is the value of an expression in the page; a promise's is waited for.
func eval[T any](p *tab, expression string) T {
	p.t.Helper()
	return value(p, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
}

// until waits for an expression to hold.
func (p *tab) until(what, expression string) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if eval[bool](p, "Boolean("+expression+")") {
			return
		}
	}
	p.t.Fatalf("not within %v: %s (%s)", patience, what, expression)
}

// one is JavaScript for the element of a selector.
func one(selector string) string {
	b, err := json.Marshal(selector)
	if err != nil {
		panic(err) // of a string
	}
	return "document.querySelector(" + string(b) + ")"
}

// text is what an element shows; nothing where it is not there.
func (p *tab) text(selector string) string {
	p.t.Helper()
	return eval[string](p, one(selector)+"?.innerText ?? ''")
}

// shows waits until an element is visible and its text has words in it.
func (p *tab) shows(selector, words string) {
	p.t.Helper()
	p.until(selector+" shows "+words, fmt.Sprintf("%s?.checkVisibility() && %s.innerText.includes(%q)", one(selector), one(selector), words))
}

func (p *tab) click(selector string) {
	p.t.Helper()
	p.until(selector+" is to be seen", one(selector)+"?.checkVisibility()")
	p.do(chromedp.ScrollIntoView(chromedp.CSS(selector)), chromedp.Click(chromedp.CSS(selector)))
}

// fill puts a text into a form's field, as pasting does.
func (p *tab) fill(selector, text string) {
	p.t.Helper()
	p.until(selector+" is to be seen", one(selector)+"?.checkVisibility()")
	eval[bool](p, one(selector)+".value = '', "+one(selector)+".focus(), true")
	_, err := chromedp.Call(p.ctx, input.InsertText, input.InsertTextParams{Text: text})
	harness.Must(p.t, err)
}

// shot keeps a picture of the page in PAGE_SHOTS, where that is set, for
// people to look at.
func (p *tab) shot(name string) {
	p.t.Helper()
	dir := os.Getenv("PAGE_SHOTS")
	if dir == "" {
		return
	}
	harness.Must(p.t, os.WriteFile(filepath.Join(dir, name+".png"), value(p, chromedp.CaptureScreenshot()), 0o644))
}
