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
	"sync"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/harness"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"osx-builder/vm/vmtest/e2e"
)

// TestPage runs scenarios of users in a real browser.
func TestPage(t *testing.T) {
	b := newBrowser(t)
	t.Run("a real machine", func(t *testing.T) { pageMachine(t, b) })
	memory := harness.MemoryDaemon(t)
	for _, scenario := range []struct {
		name string
		run  func(*testing.T, browser, *harness.Harness)
	}{
		{"a restart of the daemon", pageRestart},
		{"a wrong checksum", pageFailure},
		{"errors at fields", pageErrors},
		{"keyboard only", pageKeyboard},
		{"phone", pagePhone},
		{"HTML in names", pageHTMLInNames},
		{"images", pageImages},
		{"power", pagePower},
		{"two hundred machines", pageTwoHundred},
		{"one machine", pageOneMachine},
		{"errors of actions", pageActionErrors},
		{"hidden tab", pageHidden},
		{"token", pageToken},
	} {
		t.Run(scenario.name, func(t *testing.T) { scenario.run(t, b, newMemoryHarness(t, memory)) })
	}
}

// newMemoryHarness returns a harness whose daemon has the in-memory driver.
func newMemoryHarness(t *testing.T, daemon string) *harness.Harness {
	t.Helper()
	images := harness.MemoryImages(t)
	s := harness.NewProgram(t, daemon, nil, "-listen", harness.FreeAddress(t), "-log-level", "debug", "-creations", "250")
	s.Site.Serve = func(w http.ResponseWriter, _ *http.Request, file string) { _, _ = w.Write(images[filepath.Base(file)]) }
	return s
}

// The form creates a machine. The page shows its progress, screen and console, reconnects after a restart of the
// daemon, and suspends, resumes and destroys the machine.
func pageMachine(t *testing.T, b browser) {
	s := harness.New(t, "-listen", harness.FreeAddress(t))
	i := s.Image(harness.TinyVM)
	p := b.open(t, s.URL+"/", desktop)
	p.waitForText("#no-machines", "no machines")
	p.checkAccessibility("with no machines")
	eval[bool](p, "window.loadedOnce = true") // a reload would remove it
	p.click("#new-machine")
	p.fill("[name='image.url']", i.URL)
	p.fill("[name='image.checksum']", "SHA256:"+i.SHA256)
	p.fill("[name=cpus]", "1")
	p.fill("[name=memory]", "0.1875GiB")
	p.until("the unit moves to its selector", "document.querySelector('[name=memory]').value === '0.1875' && document.querySelector('[name=memory_unit]').value === 'gib'")
	p.fill("[name=memory]", "192MiB")
	p.click("#create-dialog summary")
	p.fill("[name=tools_init_timeout]", "2m")
	p.checkAccessibility("the form")
	p.screenshot("form")
	p.click("#create-dialog [type=submit]")
	p.waitForText(".machine", harness.TinyVM)
	p.waitForText(".machine .badge", "ready")
	id := eval[string](p, query(".machine")+".dataset.id")
	p.waitForText(".machine .cell-address", s.Get(id).IPAddress)
	p.click(".toggle")
	p.waitForText(".card .addresses", s.Get(id).IPAddress)
	p.checkWarnings(s.Get(id).Warnings)

	p.until("the screen is on the card", query(".thumbnail img")+".naturalWidth > 100")
	p.click(".thumbnail")
	p.until("the screen is shown", query("#screen-image")+".naturalWidth > 100")
	p.checkAccessibility("the screen")
	p.screenshot("screen")
	p.click("#screen-dialog button")
	p.click("[data-ref=console] summary")
	p.waitForText("[data-ref=log]", "tinyvm: ready")
	p.inEachStyle(func(style string) { p.checkAccessibility("with a machine, " + style); p.screenshot("machine-" + style) })

	harness.Must(t, s.Kill())
	p.waitForText("#offline", "does not answer")
	p.waitForText("#connection", "Offline")
	s.Start()
	p.waitForText("#connection", "Live")
	p.until("the banner disappears", query("#offline")+".hidden")
	p.waitForText("[data-ref=log]", "tinyvm: ready")
	if !eval[bool](p, "window.loadedOnce === true") {
		t.Error("the page was reloaded, want it to reconnect")
	}
	p.navigate(s.URL + "/")
	p.waitForText("[data-ref=log]", "tinyvm: ready") // an open console survives a reload

	p.until("the screen is on the card again", query(".thumbnail img")+".naturalWidth > 100")
	p.click("[data-power=suspend]")
	p.waitForText(".machine .badge", "suspended")
	if eval[bool](p, query(".thumbnail img")+".hidden") {
		t.Error("a suspended machine does not show its last screen")
	}
	p.inEachStyle(func(style string) { p.checkAccessibility("suspended, " + style); p.screenshot("suspended-" + style) })
	p.click("[data-power=resume]")
	p.waitForText(".machine .badge", "ready")

	p.click(".card [data-ref=destroy]")
	p.waitForText("#confirm-dialog", "are deleted")
	p.click("#confirm-dialog [value=no]")
	p.click(".card [data-ref=destroy]")
	p.click("#confirm-dialog [value=yes]")
	p.waitForText("#no-machines", "no machines")
	p.click("[data-view=images]")
	p.waitForText("#image-list", "not used")
	p.inEachStyle(func(style string) { p.checkAccessibility("images, " + style); p.screenshot("images-" + style) })
	p.click("[data-view=host]")
	p.waitForText("#hypervisor-facts", "qemu")
	p.inEachStyle(func(style string) { p.checkAccessibility("host, " + style); p.screenshot("host-" + style) })
	if n := s.QEMUCount(); n != 0 {
		t.Errorf("%d machines run, want none", n)
	}
}

// checkWarnings checks that the row counts the machine's warnings, and that its card lists them.
func (p *tab) checkWarnings(warnings vm.Warnings) {
	p.t.Helper()
	if len(warnings) == 0 {
		p.t.Fatal("the machine has no warnings, want those of its image")
	}
	p.waitForText(".warned", fmt.Sprintf("⚠ %d", len(warnings)))
	p.click("[data-ref=warnings] summary")
	for _, w := range warnings {
		p.waitForText("[data-ref=warningList]", w.Message)
	}
	p.click("[data-ref=warnings] summary")
}

// inEachStyle calls f in dark and light mode and at the width of a phone.
func (p *tab) inEachStyle(f func(style string)) {
	p.t.Helper()
	for _, s := range []struct {
		name string
		viewport
	}{{"dark", desktopDark}, {"narrow", phone}, {"light", desktop}} {
		p.emulate(s.viewport)
		f(s.name)
	}
}

// submit fills the form with an image and submits it.
func (p *tab) submit(url, sum string) {
	p.t.Helper()
	p.click("#new-machine")
	p.fill("[name='image.url']", url)
	p.fill("[name='image.checksum']", sum)
	p.click("#create-dialog [type=submit]")
}

// The daemon is killed during a download and started again. The page shows the progress and the outage, and then the
// ready machine, without a reload.
func pageRestart(t *testing.T, b browser, s *harness.Harness) {
	archive := harness.MemoryImages(t)["image0"]
	release := make(chan struct{})
	s.Site.Serve = func(w http.ResponseWriter, r *http.Request, _ string) {
		w.Header().Set("Content-Length", strconv.Itoa(len(archive)))
		half := len(archive) / 2
		_, _ = w.Write(archive[:half])
		for rest := archive[half:]; len(rest) > 0; rest = rest[1:] {
			select {
			case <-release:
				_, _ = w.Write(rest)
				return
			case <-r.Context().Done():
				return
			case <-time.After(100 * time.Millisecond): // slow, but not stalled
				_, _ = w.Write(rest[:1])
				_ = http.NewResponseController(w).Flush()
			}
		}
	}
	p := b.open(t, s.URL+"/", desktop)
	eval[bool](p, "window.loadedOnce = true")
	p.submit(s.Site.ImageURL("image0"), fmt.Sprintf("%x", sha256.Sum256(archive)))
	p.waitForText(".machine .badge", "downloading 5")
	p.waitForText(".machine .cell-address", fmt.Sprintf(" of %d B", len(archive)))
	p.click(".toggle")
	p.waitForText(".card .progress", fmt.Sprintf(" of %d B, ", len(archive)))
	p.until("the progress bar is past half", query(".card progress")+".position > 0.5")
	p.inEachStyle(func(style string) { p.checkAccessibility("a download, " + style); p.screenshot("download-" + style) })
	eval[bool](p, `window.countdown = [], new MutationObserver(() => {
		countdown.push(parseInt(document.querySelector('#offline-countdown').textContent.match(/\d+/)?.[0]));
	}).observe(document.querySelector('#offline-countdown'), {childList: true}), true`)
	harness.Must(t, s.Kill())
	p.waitForText("#offline", "does not answer")
	p.waitForText("#offline-countdown", "Trying again in ")
	p.until("the seconds count down", "countdown.some((n, i) => i > 0 && n === countdown[i - 1] - 1)")
	p.waitForText(".machine", "downloading")
	p.until("buttons are disabled", "[...document.querySelectorAll('.needs-daemon')].every((b) => b.ariaDisabled === 'true')")
	p.click(".card [data-ref=destroy]")
	if eval[bool](p, query("#confirm-dialog")+".open") {
		t.Error("a button acts while the daemon does not answer")
	}
	p.inEachStyle(func(style string) {
		p.checkAccessibility("without the daemon, " + style)
		p.screenshot("gone-" + style)
	})
	close(release)
	s.Start()
	p.waitForText("#connection", "Live")
	p.waitForText(".machine .badge", "ready")
	p.until("buttons are enabled", "[...document.querySelectorAll('.needs-daemon')].every((b) => !b.ariaDisabled)")
	if !eval[bool](p, "window.loadedOnce === true") {
		t.Error("the page was reloaded, want it to reconnect")
	}
}

// The card of a machine shows that the checksum of its image does not match.
func pageFailure(t *testing.T, b browser, s *harness.Harness) {
	p := b.open(t, s.URL+"/", desktop)
	p.submit(s.Site.ImageURL("image0"), strings.Repeat("ab", 32))
	p.waitForText(".machine .badge", "failed")
	p.waitForText(".machine .cell-address", "image checksum mismatch")
	p.click(".toggle")
	p.waitForText(".card .failed", "image-checksum-mismatch")
	p.waitForText(".card .failed", "abababab…")
	p.click("[data-ref=details] summary")
	p.waitForText(".card .facts", strings.Repeat("ab", 32))
	if eval[bool](p, query(".thumbnail")+".checkVisibility() || "+query("[data-ref=console]")+".checkVisibility() || "+query("[data-power=on]")+".checkVisibility()") {
		t.Error("the card of a machine that was not created has a screen, a console or a power button")
	}
	p.inEachStyle(func(style string) {
		p.checkAccessibility("with a failed machine, " + style)
		p.screenshot("failed-" + style)
	})
	failed := eval[string](p, query(".machine")+".dataset.id")
	p.navigate(s.URL + "/#/machines/" + failed)
	p.click("[data-ref=retry]")
	p.until("the machine is created again", query(".machine")+"?.dataset.id !== '"+failed+"' && location.hash !== '#/machines/"+failed+"'")
	p.waitForText(".machine .badge", "failed")
	if got := s.Get(eval[string](p, query(".machine")+".dataset.id")); got.Image.URL != s.Site.ImageURL("image0") || got.CPUs != 2 {
		t.Errorf("trying again: got %+v, want the same request", got)
	}
	p.click(".card [data-ref=destroy]")
	p.waitForText("#not-found", "does not exist")
	p.click("#not-found a")
	p.waitForText("#no-machines", "no machines")
}

// The API's error is shown at its field, which gets the focus.
func pageErrors(t *testing.T, b browser, s *harness.Harness) {
	p := b.open(t, s.URL+"/", desktop)
	p.click("#new-machine")
	p.click("#create-dialog summary")
	good := map[string]string{"image.url": s.Site.ImageURL("image0"), "image.checksum": strings.Repeat("ab", 32)}
	for _, c := range []struct{ field, value, message string }{
		{"image.url", "", "Enter the URL"},
		{"image.url", "ftp://x/y", "must be an absolute http or https URL"},
		{"image.checksum", "", "Enter the checksum"},
		{"image.checksum", "abc", "This has 3 digits. A checksum of the type sha256 has 64."},
		{"cpus", "-1", "must be from 1"},
		{"cpus", "two", "Enter a whole number"},
		{"memory", "1gb", "IEC units"},
		{"disk", "40gb", "IEC units"},
		{"ssh_authorized_keys", "x", "key 1 is not one line"},
		{"hostname", "a b", "RFC 1123"},
		{"tools_init_timeout", "soon", "a whole number of seconds"},
		{"expires_in", "2000000h", "a whole number of seconds"},
		{"forward", "22, x", "Enter port numbers"},
		{"forward", "22, 22", "without repeats"},
		{"callback_url", "/x", "must be an absolute http or https URL"},
	} {
		eval[bool](p, query("#create-dialog form")+".reset(), true")
		for name, value := range good {
			p.fill("[name='"+name+"']", value)
		}
		p.fill("[name='"+c.field+"']", c.value)
		p.click("#create-dialog [type=submit]")
		p.waitForText("[data-error='"+c.field+"']", c.message)
		p.until(c.field+" has the focus and is marked", query("[name='"+c.field+"']")+".matches(':focus[aria-invalid=true]')")
		if n := eval[int](p, "[...document.querySelectorAll('[data-error]')].filter((e) => e.checkVisibility()).length"); n != 1 {
			t.Errorf("%s %q: got %d errors, want one", c.field, c.value, n)
		}
		p.fill("[name='"+c.field+"']", "1")
		p.until(c.field+" has no error once it is corrected", "![...document.querySelectorAll('[data-error]')].some((e) => e.checkVisibility())")
	}
	eval[bool](p, query("#create-dialog form")+".reset(), true")
	p.fill("[name=cpus]", "many")
	p.click("#create-dialog [type=submit]")
	for field, message := range map[string]string{"image.url": "Enter the URL", "image.checksum": "Enter the checksum", "cpus": "Enter a whole number"} {
		p.waitForText("[data-error='"+field+"']", message) // all at once
	}
	p.until("the first field has the focus", query("[name='image.url']")+".matches(':focus')")
	for name, value := range map[string]string{"image.url": "ftp://x/y", "image.checksum": good["image.checksum"], "name": "Web", "cpus": "1", "memory": "1"} {
		p.fill("[name='"+name+"']", value)
	}
	p.click("#create-dialog [type=submit]")
	for field, message := range map[string]string{"image.url": "absolute http or https URL", "memory": "at least 32mib", "name": "lower-case letters"} {
		p.waitForText("[data-error='"+field+"']", message) // the daemon's errors too
	}
	if !eval[bool](p, "(() => { const b = document.querySelector('#create-dialog [type=submit]').getBoundingClientRect(); return b.bottom <= innerHeight; })()") {
		t.Error("Create is not visible")
	}
	p.inEachStyle(func(style string) {
		p.checkAccessibility("the form with an error, " + style)
		p.screenshot("error-" + style)
	})
	harness.Must(t, s.Kill())
	p.waitForText("#form-offline", "does not answer")
	p.until("Create is disabled", query("#create-dialog [type=submit]")+".ariaDisabled === 'true'")
}

// The page can be used with the keyboard only, and the focus is never lost.
func pageKeyboard(t *testing.T, b browser, s *harness.Harness) {
	p := b.open(t, s.URL+"/", desktop)
	p.waitForText("#no-machines", "no machines")
	p.tabTo("#new-machine")
	p.keys(kb.Enter)
	p.until("the first field has the focus", query("[name='image.url']")+".matches(':focus')")
	p.keys(s.Site.ImageURL("image0"))
	p.tabTo("[name='image.checksum']")
	p.keys(strings.Repeat("ab", 32))
	p.keys(kb.Enter)
	p.waitForText(".machine .badge", "failed")
	p.until("the button has the focus again", query("#new-machine")+".matches(':focus')")
	p.tabTo(".toggle")
	p.keys(kb.Enter)
	p.waitForText(".card .failed", "image-checksum-mismatch")
	p.tabTo(".card [data-ref=destroy]")
	p.keys(kb.Enter)
	p.waitForText("#no-machines", "no machines")
	p.until("the heading has the focus", query("#machines")+".matches(':focus')")
}

// tabTo presses Tab until an element has the focus, and checks that the focus is visible.
func (p *tab) tabTo(selector string) {
	p.t.Helper()
	for range 40 {
		p.keys(kb.Tab)
		if !eval[bool](p, query(selector)+"?.matches(':focus') ?? false") {
			continue
		}
		if eval[string](p, "getComputedStyle(document.activeElement).outlineStyle") == "none" {
			p.t.Errorf("%s does not show that it has the focus", selector)
		}
		return
	}
	p.t.Fatalf("Tab does not reach %s", selector)
}

func (p *tab) keys(keys string) {
	p.t.Helper()
	p.do(chromedp.KeyEvent(keys))
}

// On a phone nothing is wider than the screen, and controls are large enough.
func pagePhone(t *testing.T, b browser, s *harness.Harness) {
	p := b.open(t, s.URL+"/", phone)
	checkFits := func(what string) {
		if w := eval[int](p, "document.documentElement.scrollWidth"); w > int(phone.width) {
			t.Errorf("%s is %d px wide, want %d at most", what, w, phone.width)
		}
		small := eval[[]string](p, `[...document.querySelectorAll('button, input:not([type=checkbox], [type=radio]), select')].filter((e) => e.checkVisibility() && e.getBoundingClientRect().height < 44).map((e) => e.outerHTML)`)
		if len(small) > 0 {
			t.Errorf("%s has controls under 44 px: %v", what, small)
		}
	}
	p.waitForText("#no-machines", "no machines")
	checkFits("the empty page")
	p.click("#new-machine")
	p.click("#create-dialog summary")
	checkFits("the form")
	p.screenshot("phone-form")
	p.click("#create-dialog [data-close]")
	p.submit(s.Site.ImageURL(strings.Repeat("long-name-", 12)+".tar.gz"), strings.Repeat("ab", 32))
	p.waitForText(".machine .badge", "failed")
	p.click(".toggle")
	p.click("[data-ref=details] summary")
	checkFits("a failed machine")
	p.screenshot("phone-failed")
	p.click(".card [data-ref=destroy]")
	p.waitForText("#no-machines", "no machines")
	p.submit(s.Site.ImageURL("image0"), fmt.Sprintf("%x", sha256.Sum256(harness.MemoryImages(t)["image0"])))
	p.waitForText(".machine .badge", "ready")
	checkFits("a machine")
	p.click(".toggle")
	p.click(".card [data-ref=destroy]")
	checkFits("the confirmation")
	p.click("#confirm-dialog [value=yes]")
	p.waitForText("#no-machines", "no machines")
}

// HTML in an image's URL is shown as text.
func pageHTMLInNames(t *testing.T, b browser, s *harness.Harness) {
	p := b.open(t, s.URL+"/", desktop)
	const html = `<img src=x onerror=alert(1)>"'&amp;`
	p.submit(s.Site.URL+"/images/x?"+html, strings.Repeat("ab", 32))
	p.waitForText(".machine .badge", "failed")
	p.click(".toggle")
	p.click("[data-ref=details] summary")
	p.waitForText(".card .facts", html)
	if n := eval[int](p, "document.querySelectorAll('.card img').length"); n != 1 {
		t.Errorf("got %d images on the card, want one", n)
	}
}

// checkPull pulls an image that does not match its checksum: the page shows that without an event.
func (p *tab) checkPull(s *harness.Harness) {
	p.t.Helper()
	served := make(chan struct{})
	release := sync.OnceFunc(func() { close(served) })
	defer release() // the web server waits for its answers also if the test fails
	serve := s.Site.Serve
	s.Site.Serve = func(w http.ResponseWriter, r *http.Request, name string) { <-served; serve(w, r, name) }
	body := fmt.Sprintf(`{"url": %q, "checksum": %q}`, s.Site.ImageURL("image1"), strings.Repeat("cd", 32))
	a, err := s.Do("POST", "/images", "application/json", []byte(body))
	harness.Must(p.t, err)
	if a.Status != http.StatusAccepted {
		p.t.Fatalf("POST /images: got %d %s", a.Status, a.Body)
	}
	p.click("[data-view=host]")
	p.navigate(p.url)
	p.waitForText("[data-view=images]", "1") // until then the header changes, and the link can move from under the mouse
	p.click("[data-view=images]")
	p.waitForText("#image-list", "downloading")
	p.checkAccessibility("an image that is pulled")
	p.screenshot("pull")
	release()
	p.waitForText("#image-list .failed", "not cdcdcdcd…")
	p.click("[data-ref=remove]")
	p.click("#confirm-dialog [value=yes]")
	p.waitForText("#no-images", "no images")
}

// Cached images are listed. Unused ones can be removed.
func pageImages(t *testing.T, b browser, s *harness.Harness) {
	sum := fmt.Sprintf("%x", sha256.Sum256(harness.MemoryImages(t)["image0"]))
	p := b.open(t, s.URL+"/", desktop)
	p.click("[data-view=host]")
	for list, fact := range map[string]string{
		"#host-facts": "Health\nok", "#hypervisor-facts": "Hypervisor\nmemory", "#network-facts": "nat\navailable", "#meters": "0 B of 1024 TiB",
	} {
		p.waitForText(list, fact)
	}
	p.waitForText("#capacity-facts", "Machines\n0")
	p.click("[data-view=machines]")
	p.submit(s.Site.ImageURL("image0"), sum)
	p.waitForText(".machine .badge", "ready")
	p.click("[data-view=host]")
	p.waitForText("#capacity-facts", "Machines\n1")
	p.click("[data-view=images]")
	p.waitForText("#image-list", "used by 1 machine")
	if eval[bool](p, query("[data-ref=remove]")+".checkVisibility()") {
		t.Error("an image in use has a remove button")
	}
	p.click("[data-view=machines]")
	p.click("[data-ref=destroy]")
	p.click("#confirm-dialog [value=yes]")
	p.waitForText("#no-machines", "no machines")
	p.click("[data-view=images]")
	p.waitForText("#image-list", "not used")
	p.click("[data-ref=pin]")
	p.waitForText("#image-list", "pinned")
	p.click("[data-ref=use]")
	p.until("the form has the image", fmt.Sprintf("document.querySelector('[name=\"image.url\"]').value === %q && document.querySelector('[name=\"image.checksum\"]').value === %q", s.Site.ImageURL("image0"), sum))
	p.click("#create-dialog [data-close]")
	p.click("[data-ref=remove]")
	p.click("#confirm-dialog [value=yes]")
	p.waitForText("#no-images", "no images")
	p.checkPull(s)
	a, err := s.Do("GET", "/images", "", nil)
	harness.Must(t, err)
	if bytes.Contains(a.Body, []byte(sum)) {
		t.Errorf("GET /images: got %s, want no image", a.Body)
	}
}

// A card has only the buttons that the machine's state allows. Actions that may lose data ask for confirmation. Only a
// few consoles are open at once.
func pagePower(t *testing.T, b browser, s *harness.Harness) {
	p := b.open(t, s.URL+"/", desktop)
	archive := harness.MemoryImages(t)["image0"]
	p.submit(s.Site.ImageURL("image0"), fmt.Sprintf("%x", sha256.Sum256(archive)))
	p.waitForText(".machine .badge", "ready")
	p.click(".toggle")
	for _, step := range []struct{ action, status, buttons string }{
		{"suspend", "suspended", "resume off"},
		{"resume", "ready", "shutdown suspend reset off"},
		{"shutdown", "powered-off", "on"},
		{"on", "ready", "shutdown suspend reset off"},
		{"off", "powered-off", "on"},
	} {
		p.click("[data-power=" + step.action + "]")
		if step.action == "off" {
			p.waitForText("#confirm-dialog", "is lost")
			p.keys(kb.Escape)
			p.click("[data-power=off]")
			p.click("#confirm-dialog [value=yes]")
		}
		p.waitForText(".machine .badge", step.status)
		p.until("the buttons are "+step.buttons, "[...document.querySelectorAll('[data-power]')].filter((b) => b.checkVisibility()).map((b) => b.dataset.power).join(' ') === '"+step.buttons+"'")
	}
	for range 4 {
		s.WaitSettled(s.Create(e2e.Image{URL: s.Site.ImageURL("image0"), SHA256: fmt.Sprintf("%x", sha256.Sum256(archive))}.Body(nil)).ID)
	}
	p.until("there are five machines", "document.querySelectorAll('.machine').length === 5")
	for i := range 4 {
		row := fmt.Sprintf(".machine:nth-child(%d) ", i+2) // after the head
		p.click(row + ".toggle")
		p.click(row + "[data-ref=console] summary")
	}
	p.until("only the last three consoles are open", "[...document.querySelectorAll('.card')].map((c) => +c.querySelector('[data-ref=console]').open).join('') === '01110'")
	p.waitForText("#connection", "Live")
}

// A hidden tab closes its connection. When it is visible again, it shows what has changed.
func pageHidden(t *testing.T, b browser, s *harness.Harness) {
	p := b.open(t, s.URL+"/", desktop)
	p.waitForText("#connection", "Live")
	setHidden := func(hidden bool) {
		eval[bool](p, fmt.Sprintf("Object.defineProperty(document, 'hidden', {configurable: true, value: %v}), document.dispatchEvent(new Event('visibilitychange'))", hidden))
	}
	setHidden(true)
	ended := func() bool { return strings.Contains(s.Log(), `"path":"/events"`) }
	for deadline := time.Now().Add(timeout); !ended(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: the stream of events ends", timeout)
		}
	}
	v := s.Create(e2e.Image{URL: s.Site.ImageURL("image0"), SHA256: strings.Repeat("ab", 32)}.Body(nil))
	setHidden(false)
	p.waitForText(".machine .badge", "failed")
	s.Destroy(v.ID)
	p.waitForText("#no-machines", "no machines")
}

// If the daemon requires a token, the page asks for it, shows if it is wrong, keeps it after a reload, and forgets it
// on request. A token with scopes sees what it may see, and why it sees nothing else.
func pageToken(t *testing.T, b browser, s *harness.Harness) {
	harness.Must(t, s.Stop())
	file := filepath.Join(t.TempDir(), "tokens")
	const token = "a-token-of-thirty-two-characters"
	const limited = "a-token-that-owns-its-machines"
	harness.Must(t, os.WriteFile(file, []byte(token+"\n"+limited+" name=ci scopes=create,own\n"), 0o600))
	s.Args = append(s.Args, "-token-file", file)
	s.Start()
	p := b.open(t, s.URL+"/", desktop)
	p.waitForText("#token-dialog", "Token")
	p.waitForText("#connection", "Locked")
	p.inEachStyle(func(style string) {
		p.checkAccessibility("asking for the token, " + style)
		p.screenshot("token-" + style)
	})
	p.click("#token-dialog [type=submit]")
	p.waitForText("#e-token", "empty")
	p.fill("#f-token", "not-the-token-of-this-daemon-here")
	p.keys(kb.Enter)
	p.waitForText("#e-token", "does not accept")
	p.fill("#f-token", token)
	p.keys(kb.Enter)
	p.waitForText("#connection", "Live")
	p.waitForText("#no-machines", "no machines")
	p.navigate(s.URL + "/")
	p.waitForText("#connection", "Live")
	p.submit(s.Site.ImageURL("image0"), strings.Repeat("ab", 32))
	p.waitForText(".machine .badge", "failed")
	p.click("[data-ref=destroy]")
	p.waitForText("#no-machines", "no machines")
	p.click("#forget-token")
	p.waitForText("#token-dialog", "Token")
	p.fill("#f-token", limited)
	p.keys(kb.Enter)
	p.waitForText("#connection", "Live")
	p.navigate(s.URL + "/#/images")
	p.waitForText("#images-error", "scope read or admin")
	p.navigate(s.URL + "/#/")
	p.submit(s.Site.ImageURL("image0"), strings.Repeat("ab", 32))
	p.waitForText(".machine .badge", "failed")
	p.click("[data-ref=destroy]")
	p.waitForText("#no-machines", "no machines")
	harness.Must(t, s.Stop())
}

// checkAccessibility checks the page with axe-core.
func (p *tab) checkAccessibility(what string) {
	p.t.Helper()
	files, err := filepath.Glob(filepath.Join(harness.BuildDir(p.t), "axe-*/node_modules/axe-core/axe.min.js"))
	harness.Must(p.t, err)
	if len(files) == 0 {
		const why = "accessibility is not checked: axe-core is not installed; make test installs it with npm"
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
