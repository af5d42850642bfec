package page_test

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/e2e"
	"osx-builder/vm/vmtest/harness"

	"github.com/chromedp/chromedp/kb"
)

// create creates n machines from the image, or failed ones if sum is wrong, and returns them once they are settled. They
// are named name-000 and so on, unless name is empty.
func create(s *harness.Harness, n int, name, sum string) (list []vm.VM) {
	s.T.Helper()
	for i := range n {
		var fields map[string]any
		if name != "" {
			fields = map[string]any{"name": fmt.Sprintf("%s-%03d", name, i)}
		}
		list = append(list, s.Create(e2e.Image{URL: s.Site.ImageURL("image0"), SHA256: sum}.Body(fields)))
	}
	for i, v := range list {
		list[i] = s.WaitSettled(v.ID)
	}
	return list
}

func goodSum(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("%x", sha256.Sum256(harness.MemoryImages(t)["image0"]))
}

// setPower changes a machine's power state without the page.
func setPower(s *harness.Harness, id, action string) {
	s.T.Helper()
	a, err := s.Do("POST", "/vms/"+id+"/power", "application/json", []byte(`{"action": "`+action+`"}`))
	harness.Must(s.T, err)
	if a.Status != 200 {
		s.T.Fatalf("%s: got %d %s", action, a.Status, a.Body)
	}
}

// tabStops counts how often Tab moves the focus until it leaves the page.
func (p *tab) tabStops() (n int) {
	p.t.Helper()
	for n < 2000 {
		p.keys(kb.Tab)
		if eval[bool](p, "document.activeElement === document.body") {
			return n
		}
		n++
	}
	return n
}

// shown returns the number of rows that the list shows.
const shown = "[...document.querySelectorAll('.machine')].filter((e) => e.checkVisibility()).length"

// Two hundred machines are one line each and one tab stop together. The page reads each document once and no
// screenshot. Search, filters and order find machines, and a selection is destroyed at once.
func pageTwoHundred(t *testing.T, b browser, s *harness.Harness) {
	machines := create(s, 155, "web", goodSum(t))
	create(s, 5, "", strings.Repeat("ab", 32))
	machines = append(machines, create(s, 40, "build", goodSum(t))...)
	for i, v := range machines[190:] {
		setPower(s, v.ID, []string{"suspend", "suspend", "suspend", "off", "off"}[i])
	}
	p := b.open(t, s.URL+"/", desktop)
	p.waitForText("#machine-count", "200")
	p.waitForText("#image-count", "1")
	p.waitForText("#filters [data-group='']", "All 200")
	p.checkLoad()
	eval[bool](p, "scrollTo(0, 0), true")
	p.inEachStyle(func(style string) { p.screenshot("many-" + style) })
	p.checkAccessibility("with many machines")
	p.checkFilters(machines)
	p.checkGridKeys()
	p.checkSelection()
}

// checkLoad logs and checks what loading the page costs.
func (p *tab) checkLoad() {
	p.t.Helper()
	p.mu.Lock()
	requests := slices.Clone(p.requests)
	p.mu.Unlock()
	files, height := 0, eval[int](p, "document.documentElement.scrollHeight")
	var api []string
	for _, path := range requests {
		if path == "/" || strings.HasPrefix(path, "/page/") {
			files++
		} else {
			api = append(api, path)
		}
	}
	paint := eval[float64](p, "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? -1")
	useful := eval[float64](p, "performance.getEntriesByName('machines-shown')[0].startTime")
	stops := p.tabStops()
	p.t.Logf("200 machines: first paint after %.0f ms, machines after %.0f ms, %d files, requests to the API %v, %d px high, %d tab stops",
		paint, useful, files, api, height, stops)
	slices.Sort(api)
	if want := []string{"/events", "/healthz", "/images", "/vms"}; !slices.Equal(api, want) {
		p.t.Errorf("loading the page sends the requests %v, want %v", api, want)
	}
	if stops > 25 || height > 200*60 {
		p.t.Errorf("got %d tab stops and a height of %d px, want at most 25 and 60 px for each machine", stops, height)
	}
}

// checkFilters finds machines by state and by text.
func (p *tab) checkFilters(machines []vm.VM) {
	p.t.Helper()
	p.click("#filters [data-group=suspended]")
	p.until("the suspended ones are shown", shown+" === 3")
	p.click("#filters [data-group=off]")
	p.until("those that are off are shown", shown+" === 2")
	p.fill("#search", "ready")
	p.waitForText("#none-shown", "No machine matches")
	p.click("#show-all")
	p.until("all are shown", shown+" === 200")
	p.fill("#search", machines[7].ID[:13])
	p.until("the machine is found", shown+" === 1")
	p.waitForText(".machine:not([hidden])", machines[7].Name)
	p.click("#filters [data-group='']")
	p.navigate(p.url)
	p.until("a reload keeps the search", shown+" === 1")
	p.fill("#search", "")
	p.keys(" " + kb.Backspace)
	p.until("all are shown again", shown+" === 200")
	p.click("[data-sort=state]")
	p.until("the state sorts", "document.querySelector('.machine').dataset.group === 'ready' && [...document.querySelectorAll('.machine')].at(-1).dataset.group === 'failed'")
	p.click("[data-sort=state]")
	p.until("the order is reversed", "document.querySelector('.machine').dataset.group === 'failed'")
	p.click("[data-sort=created]")
	p.until("the newest are first", "document.querySelector('.machine').dataset.id === '"+machines[194].ID+"' && [...document.querySelectorAll('.machine')].at(-1).dataset.id === '"+machines[0].ID+"'")
	p.click("[data-sort=name]")
	p.until("the names sort", "document.querySelector('.machine').innerText.includes('build-000')")
}

// checkGridKeys moves in the list with the keyboard.
func (p *tab) checkGridKeys() {
	p.t.Helper()
	focused := func(what, selector string) {
		p.t.Helper()
		p.until(what, "document.activeElement === [...document.querySelectorAll('.machine')].at("+selector)
	}
	eval[bool](p, "document.querySelector('.machine .toggle').focus(), true")
	p.keys(kb.ArrowDown)
	focused("down", "1).querySelector('.toggle')")
	p.keys(kb.ArrowRight)
	focused("right", "1).querySelector('[data-cell=copy]')")
	p.keys(kb.Home)
	focused("home", "1).querySelector('[data-cell=select]')")
	p.keys(kb.ArrowDown)
	focused("the same column", "2).querySelector('[data-cell=select]')")
	p.keys(kb.End)
	focused("end", "2).querySelector('[data-cell=destroy]')")
	p.keys(kb.PageDown)
	focused("page down", "12).querySelector('[data-cell=destroy]')")
	p.keys(kb.ArrowUp)
	focused("up", "11).querySelector('[data-cell=destroy]')")
	const belowHeader = "scrollBy(0, document.querySelectorAll('.machine')[20].getBoundingClientRect().top - 30), document.querySelectorAll('.machine')[21].querySelector('.toggle').focus({preventScroll: true}), true"
	eval[bool](p, belowHeader)
	p.keys(kb.ArrowUp)
	focused("up to the row that the header covers", "20).querySelector('.toggle')")
	if eval[bool](p, "(() => { const a = document.activeElement.getBoundingClientRect(), h = document.querySelector('.page-header').getBoundingClientRect(); return a.top < h.bottom; })()") {
		p.t.Error("the header covers the focus")
	}
	if n := eval[int](p, "document.querySelectorAll('[data-cell][tabindex=\"0\"]').length"); n != 1 {
		p.t.Errorf("the list has %d tab stops, want one", n)
	}
}

// checkSelection destroys a range of machines at once.
func (p *tab) checkSelection() {
	p.t.Helper()
	p.click("#filters [data-group=failed]")
	p.until("the failed ones are shown", shown+" === 5")
	p.click("#select-all")
	p.waitForText("#selection-count", "5 machines selected")
	p.click("#filters [data-group=ready]")
	p.until("what is not shown is not selected", query("#selection")+".hidden")
	p.fill("#search", "build-01") // axe-core needs seconds for a long list
	p.click("#filters [data-group='']")
	p.until("ten are shown", shown+" === 10")
	p.click(".machine:not([hidden]) [data-cell=select]")
	eval[bool](p, "[...document.querySelectorAll('.machine:not([hidden])')].at(9).querySelector('[data-cell=select]').dispatchEvent(new MouseEvent('click', {bubbles: true, shiftKey: true})), true")
	p.waitForText("#selection-count", "10 machines selected")
	p.checkAccessibility("with a selection")
	p.screenshot("selection")
	p.click("#destroy-selected")
	p.waitForText("#confirm-dialog", "Destroy 10 machines?")
	p.waitForText("#confirm-dialog", "and 2 more")
	p.screenshot("confirm-selection")
	p.click("#confirm-dialog [value=yes]")
	p.waitForText("#machine-count", "190")
	p.until("nothing is selected", query("#selection")+".hidden")
}

// A machine has an address of its own, which shows it alone and open, and says if it does not exist.
func pageOneMachine(t *testing.T, b browser, s *harness.Harness) {
	list := create(s, 2, "", goodSum(t))
	named := s.Create(e2e.Image{URL: s.Site.ImageURL("image0"), SHA256: goodSum(t)}.Body(map[string]any{"name": "web"}))
	p := b.open(t, s.URL+"/#/machines/"+list[1].ID, desktop)
	p.waitForText(".card .addresses", list[1].IPAddress)
	p.until("the others are hidden", shown+" === 1")
	p.until("the title names it", "document.title.includes('"+list[1].ID[:8]+"')")
	p.checkAccessibility("one machine")
	p.screenshot("one-machine")
	s.Destroy(list[1].ID)
	p.waitForText("#not-found", "does not exist")
	p.click("#not-found a")
	p.until("all are shown", shown+" === 2")
	p.until("the title counts them", "document.title.startsWith('2 machines')")
	p.waitForText(".machine .toggle", "web")
	p.navigate(s.URL + "/#/machines/web")
	p.waitForText("#machines", "web")
	p.until("one is shown", shown+" === 1")
	p.click("#one-machine a")
	p.until("all are shown again", shown+" === 2")
	p.click(".machine:last-child .toggle")
	p.click(".machine:last-child [data-ref=link]")
	p.until("one is shown", shown+" === 1")
	s.WaitSettled(named.ID)
	p.screenshot("one-machine-of-list")
	for _, link := range []string{"api.md", "client.md", "openapi.json"} {
		if n := eval[int](p, "fetch('/page/"+link+"').then((r) => r.ok ? r.text() : '').then((text) => text.length)"); n < 1000 {
			t.Errorf("the document %s has %d bytes", link, n)
		}
	}
}

// The error of an action is shown at its machine. It disappears when the daemon answers again, or when the state changes.
func pageActionErrors(t *testing.T, b browser, s *harness.Harness) {
	v := create(s, 1, "", goodSum(t))[0]
	p := b.open(t, s.URL+"/", desktop)
	p.waitForText(".machine .badge", "ready")
	eval[bool](p, "(() => { const real = fetch; window.fetch = (...a) => a[1].method === 'POST' ? Promise.reject(new TypeError()) : real(...a); window.restore = () => { window.fetch = real; }; })(), true")
	p.click("[data-ref=action]")
	p.waitForText("[data-ref=failure]", "does not answer")
	p.checkAccessibility("the error of an action")
	p.screenshot("action-error")
	eval[bool](p, "restore(), true")
	harness.Must(t, s.Kill())
	p.waitForText("#connection", "Offline")
	s.Start()
	p.waitForText("#connection", "Live")
	p.until("the error disappears", "!"+query("[data-ref=failure]")+".checkVisibility()")
	setPower(s, v.ID, "off")
	p.waitForText(".machine .badge", "powered-off")
	setPower(s, v.ID, "on")
	p.waitForText(".machine .badge", "ready")
}
