package page_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"osx-builder/vm/vmtest/harness"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"osx-builder/vm/vmtest/e2e"
)

// TestPage tells what people do with the page, in a real browser.
func TestPage(t *testing.T) {
	b := newBrowser(t)
	t.Run("a real machine", func(t *testing.T) { pageMachine(t, b) })
	memory := harness.MemoryDaemon(t)
	for _, story := range []struct {
		name string
		tell func(*testing.T, browser, *harness.Harness)
	}{
		{"a restart meanwhile", pageRestart},
		{"a failing image", pageFailure},
		{"errors at their fields", pageErrors},
		{"keyboard alone", pageKeyboard},
		{"a phone", pagePhone},
		{"hostile words", pageHostile},
		{"images", pageImages},
		{"power", pagePower},
		{"a hidden tab", pageHidden},
		{"a token", pageToken},
	} {
		t.Run(story.name, func(t *testing.T) { story.tell(t, b, memoryStage(t, memory)) })
	}
}

// memoryStage is a stage whose daemon has machines that are files.
func memoryStage(t *testing.T, daemon string) *harness.Harness {
	t.Helper()
	images := harness.MemoryImages(t)
	s := harness.NewOf(t, daemon, nil, "-listen", harness.FreeAddress(t))
	s.Site.Serve = func(w http.ResponseWriter, _ *http.Request, file string) { _, _ = w.Write(images[filepath.Base(file)]) }
	return s
}

// A machine is made through the form, comes up before one's eyes, shows its
// screen and console, stays through a restart of the daemon, is paused and goes.
func pageMachine(t *testing.T, b browser) {
	s := harness.New(t, "-listen", harness.FreeAddress(t))
	i := s.Image(harness.TinyVM)
	p := b.open(t, s.URL+"/", desk)
	p.shows("#empty", "no machines")
	p.accessible("with no machines")
	eval[bool](p, "window.first = true") // gone after a reload
	p.click("#new")
	p.fill("[name='image.url']", i.URL)
	p.fill("[name='image.checksum']", "SHA256:"+i.SHA256)
	p.fill("[name=cpus]", "1")
	p.fill("[name=memory]", "192mib")
	p.click("#create summary")
	p.fill("[name=tools_init_timeout]", "2m")
	p.accessible("the form")
	p.shot("form")
	p.click("#create [type=submit]")
	p.shows(".card", harness.TinyVM)
	p.shows(".card", "ready")
	p.shows(".card", "powered-on")
	id := eval[string](p, one(".card")+".dataset.id")
	p.shows(".card .address", s.Get(id).IPAddress)

	p.until("the screen is on the card", one(".thumb img")+".naturalWidth > 100")
	p.click(".thumb")
	p.until("the screen is shown", one("#screen-image")+".naturalWidth > 100")
	p.accessible("the screen")
	p.shot("screen")
	p.click("#screen button")
	p.click("[data-ref=console] summary")
	p.shows("[data-ref=log]", "tinyvm: ready")
	p.in3(func(what string) { p.accessible("with a machine, " + what); p.shot("machine-" + what) })

	harness.Must(t, s.Kill())
	p.shows("#gone", "does not answer")
	p.shows("#link", "Offline")
	s.Start()
	p.shows("#link", "Live")
	p.until("the banner goes", one("#gone")+".hidden")
	p.shows("[data-ref=log]", "tinyvm: ready")

	p.click("[data-power=suspend]")
	p.shows(".card", "suspended")
	p.click("[data-power=resume]")
	p.shows(".card", "powered-on")

	p.click("[data-ref=destroy]")
	p.shows("#confirm", "go for good")
	p.click("#confirm [value=no]")
	p.click("[data-ref=destroy]")
	p.click("#confirm [value=yes]")
	p.shows("#empty", "no machines")
	p.shows("#images-list", "not used")
	if !eval[bool](p, "window.first === true") {
		t.Error("the page was loaded anew, want that it followed by itself")
	}
	if n := s.Machines(); n != 0 {
		t.Errorf("%d machines run, want none", n)
	}
}

// in3 tells a story in the light, in the dark and on a phone.
func (p *tab) in3(tell func(what string)) {
	p.t.Helper()
	for _, l := range []struct {
		what string
		look
	}{{"dark", night}, {"narrow", phone}, {"light", desk}} {
		p.look(l.look)
		tell(l.what)
	}
}

// order fills the form with an image of the memory daemon's and sends it.
func (p *tab) order(url, sum string) {
	p.t.Helper()
	p.click("#new")
	p.fill("[name='image.url']", url)
	p.fill("[name='image.checksum']", sum)
	p.click("#create [type=submit]")
}

// A download is watched; the daemon is killed in its midst and comes back, and
// the machine becomes ready on the same page.
func pageRestart(t *testing.T, b browser, s *harness.Harness) {
	archive := harness.MemoryImages(t)["image0"]
	whole := make(chan struct{})
	s.Site.Serve = func(w http.ResponseWriter, r *http.Request, _ string) {
		w.Header().Set("Content-Length", strconv.Itoa(len(archive)))
		half := len(archive) / 2
		_, _ = w.Write(archive[:half])
		for left := archive[half:]; len(left) > 0; left = left[1:] {
			select {
			case <-whole:
				_, _ = w.Write(left)
				return
			case <-r.Context().Done():
				return
			case <-time.After(100 * time.Millisecond): // slow, but not stalled
				_, _ = w.Write(left[:1])
				_ = http.NewResponseController(w).Flush()
			}
		}
	}
	p := b.open(t, s.URL+"/", desk)
	eval[bool](p, "window.first = true")
	p.order(s.Site.ImageURL("image0"), fmt.Sprintf("%x", sha256.Sum256(archive)))
	p.shows(".card", "downloading")
	p.shows(".card .progress", fmt.Sprintf(" of %d B, ", len(archive)))
	p.until("the bar is over the half", one(".card progress")+".position > 0.5")
	p.in3(func(what string) { p.accessible("a download, " + what); p.shot("download-" + what) })
	harness.Must(t, s.Kill())
	p.shows("#gone", "does not answer")
	p.shows(".card", "downloading")
	p.in3(func(what string) { p.accessible("without the daemon, " + what); p.shot("gone-" + what) })
	close(whole)
	s.Start()
	p.shows("#link", "Live")
	p.shows(".card", "ready")
	if !eval[bool](p, "window.first === true") {
		t.Error("the page was loaded anew, want that it followed by itself")
	}
}

// An image that is not what it should be says so on the machine's card.
func pageFailure(t *testing.T, b browser, s *harness.Harness) {
	p := b.open(t, s.URL+"/", desk)
	p.order(s.Site.ImageURL("image0"), strings.Repeat("ab", 32))
	p.shows(".card", "failed")
	p.shows(".card .error", "image-checksum-mismatch")
	p.shows(".card .error", strings.Repeat("ab", 32))
	if eval[bool](p, one(".thumb")+".checkVisibility() || "+one("[data-ref=console]")+".checkVisibility() || "+one("[data-ref=actions]")+".checkVisibility()") {
		t.Error("a machine that never was has a screen, a console or a power button")
	}
	p.in3(func(what string) { p.accessible("with a failed machine, " + what); p.shot("failed-" + what) })
	p.click("[data-ref=destroy]")
	p.click("#confirm [value=yes]")
	p.shows("#empty", "no machines")
}

// The API's words stand at the field that they are about, which has the focus.
func pageErrors(t *testing.T, b browser, s *harness.Harness) {
	p := b.open(t, s.URL+"/", desk)
	p.click("#new")
	p.click("#create summary")
	good := map[string]string{"image.url": s.Site.ImageURL("image0"), "image.checksum": strings.Repeat("ab", 32)}
	for _, c := range []struct{ field, value, words string }{
		{"image.url", "", "must be an absolute http or https URL"},
		{"image.url", "ftp://x/y", "must be an absolute http or https URL"},
		{"image.checksum", "abc", "checksum"},
		{"cpus", "-1", "must be from 1"},
		{"cpus", "two", "cpus"},
		{"memory", "1gb", "IEC units"},
		{"tools_init_timeout", "soon", "a whole number of seconds"},
		{"expires_in", "2000000h", "a whole number of seconds"},
		{"forward", "22, x", "forward"},
		{"forward", "22, 22", "forward"},
		{"callback_url", "/x", "must be an absolute http or https URL"},
	} {
		eval[bool](p, one("#create form")+".reset(), true")
		for name, value := range good {
			p.fill("[name='"+name+"']", value)
		}
		p.fill("[name='"+c.field+"']", c.value)
		p.click("#create [type=submit]")
		p.shows("[data-error='"+c.field+"']", c.words)
		p.until(c.field+" has the focus and is marked", one("[name='"+c.field+"']")+".matches(':focus[aria-invalid=true]')")
		if n := eval[int](p, "[...document.querySelectorAll('[data-error]')].filter((e) => e.checkVisibility()).length"); n != 1 {
			t.Errorf("%s %q: got %d errors, want one", c.field, c.value, n)
		}
	}
	p.in3(func(what string) { p.accessible("the form with an error, " + what); p.shot("error-" + what) })
	harness.Must(t, s.Kill())
	p.click("#create [type=submit]")
	p.shows("[data-error='']", "does not answer")
}

// Everything can be done without a mouse, and the focus is never lost.
func pageKeyboard(t *testing.T, b browser, s *harness.Harness) {
	p := b.open(t, s.URL+"/", desk)
	p.shows("#empty", "no machines")
	p.tabTo("#new")
	p.keys(kb.Enter)
	p.until("the first field has the focus", one("[name='image.url']")+".matches(':focus')")
	p.keys(s.Site.ImageURL("image0"))
	p.tabTo("[name='image.checksum']")
	p.keys(strings.Repeat("ab", 32))
	p.keys(kb.Enter)
	p.shows(".card .error", "image-checksum-mismatch")
	p.until("the button has the focus again", one("#new")+".matches(':focus')")
	p.tabTo("[data-ref=destroy]")
	p.keys(kb.Enter)
	p.until("Cancel has the focus", one("#confirm [value=no]")+".matches(':focus')")
	p.keys(kb.Escape)
	p.until("Destroy has the focus again", one("[data-ref=destroy]")+".matches(':focus')")
	p.keys(kb.Enter)
	p.tabTo("#confirm [value=yes]")
	p.keys(kb.Enter)
	p.shows("#empty", "no machines")
	p.until("the heading has the focus", one("#machines")+".matches(':focus')")
}

// tabTo presses the tab key until an element has the focus, which must be seen.
func (p *tab) tabTo(selector string) {
	p.t.Helper()
	for range 40 {
		p.keys(kb.Tab)
		if !eval[bool](p, one(selector)+"?.matches(':focus') ?? false") {
			continue
		}
		if eval[string](p, "getComputedStyle(document.activeElement).outlineStyle") == "none" {
			p.t.Errorf("%s does not show that it has the focus", selector)
		}
		return
	}
	p.t.Fatalf("the tab key does not lead to %s", selector)
}

func (p *tab) keys(keys string) {
	p.t.Helper()
	p.do(chromedp.KeyEvent(keys))
}

// Nothing is wider than a phone, and what is pressed is large enough.
func pagePhone(t *testing.T, b browser, s *harness.Harness) {
	p := b.open(t, s.URL+"/", phone)
	fits := func(what string) {
		if w := eval[int](p, "document.documentElement.scrollWidth"); w > int(phone.width) {
			t.Errorf("%s is %d px wide, want %d at most", what, w, phone.width)
		}
		small := eval[[]string](p, `[...document.querySelectorAll('button, input:not([type=checkbox]), select')].filter((e) => e.checkVisibility() && e.getBoundingClientRect().height < 44).map((e) => e.outerHTML)`)
		if len(small) > 0 {
			t.Errorf("%s has controls under 44 px: %v", what, small)
		}
	}
	p.shows("#empty", "no machines")
	fits("the empty page")
	p.click("#new")
	p.click("#create summary")
	fits("the form")
	p.shot("phone-form")
	p.click("#create [data-close]")
	p.order(s.Site.ImageURL(strings.Repeat("long-name-", 12)+".tar.gz"), strings.Repeat("ab", 32))
	p.shows(".card", "failed")
	p.click(".card details:last-child summary")
	fits("a failed machine")
	p.shot("phone-failed")
	p.click("[data-ref=destroy]")
	fits("the confirmation")
	p.click("#confirm [value=yes]")
	p.shows("#empty", "no machines")
}

// Words of others are words, whatever they look like.
func pageHostile(t *testing.T, b browser, s *harness.Harness) {
	p := b.open(t, s.URL+"/", desk)
	const evil = `<img src=x onerror=alert(1)>"'&amp;`
	p.order(s.Site.URL+"/images/x?"+evil, strings.Repeat("ab", 32))
	p.shows(".card", "failed")
	p.click(".card details:last-child summary")
	p.shows(".card .facts", evil)
	if n := eval[int](p, "document.querySelectorAll('.card img').length"); n != 1 {
		t.Errorf("got %d pictures on the card, want its own alone", n)
	}
}

// The image cache is listed; an image goes when it is told to, unless in use.
func pageImages(t *testing.T, b browser, s *harness.Harness) {
	sum := fmt.Sprintf("%x", sha256.Sum256(harness.MemoryImages(t)["image0"]))
	p := b.open(t, s.URL+"/", desk)
	for _, fact := range []string{"Health\nok", "Hypervisor\nmemory", "Limits creations\n16", "Limits memory promised\n0b", "Disk free\n", "Network nat\navailable"} {
		p.shows("#host-facts", fact)
	}
	p.order(s.Site.ImageURL("image0"), sum)
	p.shows(".card", "ready")
	p.shows("#images-list", "used by 1 machine")
	if eval[bool](p, one("[data-ref=remove]")+".checkVisibility()") {
		t.Error("an image in use can be removed, want no button")
	}
	p.click("[data-ref=destroy]")
	p.click("#confirm [value=yes]")
	p.shows("#images-list", "not used")
	p.click("[data-ref=remove]")
	p.click("#confirm [value=yes]")
	p.shows("#images-empty", "No image")
	a, err := s.Do("GET", "/images", "", nil)
	harness.Must(t, err)
	if bytes.Contains(a.Body, []byte(sum)) {
		t.Errorf("GET /images: got %s, want that it is gone", a.Body)
	}
}

// A machine's buttons are those that its state allows; what loses data is asked
// about. Only a few consoles are followed at once.
func pagePower(t *testing.T, b browser, s *harness.Harness) {
	p := b.open(t, s.URL+"/", desk)
	archive := harness.MemoryImages(t)["image0"]
	p.order(s.Site.ImageURL("image0"), fmt.Sprintf("%x", sha256.Sum256(archive)))
	p.shows(".card", "ready")
	p.shows(".card", "powered-on")
	for _, step := range []struct{ action, status, buttons string }{
		{"suspend", "suspended", "resume off"},
		{"resume", "powered-on", "shutdown suspend reset off"},
		{"shutdown", "powered-off", "on"},
		{"on", "powered-on", "shutdown suspend reset off"},
		{"off", "powered-off", "on"},
	} {
		p.click("[data-power=" + step.action + "]")
		if step.action == "off" {
			p.shows("#confirm", "is lost")
			p.keys(kb.Escape)
			p.click("[data-power=off]")
			p.click("#confirm [value=yes]")
		}
		p.shows(".card", step.status)
		p.until("the buttons are "+step.buttons, "[...document.querySelectorAll('[data-power]')].filter((b) => b.checkVisibility()).map((b) => b.dataset.power).join(' ') === '"+step.buttons+"'")
	}
	for range 4 {
		s.Settled(s.Create(e2e.Image{URL: s.Site.ImageURL("image0"), SHA256: fmt.Sprintf("%x", sha256.Sum256(archive))}.Body(nil)).ID)
	}
	p.until("there are five machines", "document.querySelectorAll('.card').length === 5")
	for i := range 4 {
		p.click(fmt.Sprintf(".card:nth-child(%d) [data-ref=console] summary", i+1))
	}
	p.until("three consoles are open, the newest", "[...document.querySelectorAll('.card')].map((c) => +c.querySelector('[data-ref=console]').open).join('') === '01110'")
	p.shows("#link", "Live")
}

// A tab that is not looked at lets go of its connection, and catches up once
// it is looked at again. It learns what others do.
func pageHidden(t *testing.T, b browser, s *harness.Harness) {
	p := b.open(t, s.URL+"/", desk)
	p.shows("#link", "Live")
	hide := func(away bool) {
		eval[bool](p, fmt.Sprintf("Object.defineProperty(document, 'hidden', {configurable: true, value: %v}), document.dispatchEvent(new Event('visibilitychange'))", away))
	}
	hide(true)
	ended := func() bool { return strings.Contains(s.Log(), `"path":"/events"`) }
	for deadline := time.Now().Add(patience); !ended(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: the stream of events ends", patience)
		}
	}
	v := s.Create(e2e.Image{URL: s.Site.ImageURL("image0"), SHA256: strings.Repeat("ab", 32)}.Body(nil))
	hide(false)
	p.shows(".card", "failed")
	s.Destroy(v.ID)
	p.shows("#empty", "no machines")
}

// Where the daemon wants a token, the page asks for it, says when it is not the
// right one, keeps it over a reload and forgets it when told to.
func pageToken(t *testing.T, b browser, s *harness.Harness) {
	harness.Must(t, s.Stop())
	file := filepath.Join(t.TempDir(), "tokens")
	const token = "a-token-of-thirty-two-characters"
	harness.Must(t, os.WriteFile(file, []byte(token+"\n"), 0o600))
	s.Args = append(s.Args, "-token-file", file)
	s.Start()
	p := b.open(t, s.URL+"/", desk)
	p.shows("#token", "Token")
	p.in3(func(what string) { p.accessible("asking for the token, " + what); p.shot("token-" + what) })
	p.click("#token [type=submit]")
	p.shows("#e-token", "empty")
	p.fill("#f-token", "not-the-token-of-this-daemon-here")
	p.keys(kb.Enter)
	p.shows("#e-token", "does not take")
	p.fill("#f-token", token)
	p.keys(kb.Enter)
	p.shows("#link", "Live")
	p.shows("#empty", "no machines")
	p.navigate(s.URL + "/")
	p.shows("#link", "Live")
	p.order(s.Site.ImageURL("image0"), strings.Repeat("ab", 32))
	p.shows(".card", "failed")
	p.click("[data-ref=destroy]")
	p.click("#confirm [value=yes]")
	p.shows("#empty", "no machines")
	p.click("#forget")
	p.shows("#token", "Token")
	harness.Must(t, s.Stop())
}

// accessible holds the page against axe-core's rules.
func (p *tab) accessible(what string) {
	p.t.Helper()
	files, err := filepath.Glob(filepath.Join(harness.BuildDir(p.t), "axe-*/node_modules/axe-core/axe.min.js"))
	harness.Must(p.t, err)
	if len(files) == 0 {
		const why = "accessibility is not checked: there is no axe-core; make test gets it, with npm"
		if os.Getenv("CI") != "" {
			p.t.Fatal(why)
		}
		p.t.Log(why)
		return
	}
	script, err := os.ReadFile(files[len(files)-1])
	harness.Must(p.t, err)
	p.do(chromedp.Evaluate[chromedp.Void]("window.axe || (() => {" + string(script) + "})(), 0"))
	const run = `axe.run({resultTypes: ['violations']}).then((r) => r.violations.filter((v) => ['serious', 'critical'].includes(v.impact))
		.map((v) => v.id + ': ' + v.help + '\n' + v.nodes.map((n) => '  ' + n.html + '\n  ' + n.failureSummary).join('\n')))`
	for _, finding := range eval[[]string](p, run) {
		p.t.Errorf("%s: %s", what, finding)
	}
}
