package vm_test

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest"
)

// limited is the driver of a small host.
type limited struct{ *vmtest.Driver }

func (limited) Limits() vm.Limits { return vm.Limits{CPUs: 8, Memory: 4096, HostCPUs: 4} }

func (limited) Network(t vm.NetworkType) error {
	if t == vm.HostOnly {
		return &vm.Error{Code: vm.CodeNetworkUnavailable, Message: "no"}
	}
	return nil
}

// A request with an invalid field is refused with its name, and nothing is written.
func TestRequestIsRefused(t *testing.T) {
	h := newHarness(t)
	h.options = func(o *vm.Options) { o.Driver = limited{h.driver} }
	h.open()
	for name, c := range map[string]struct {
		change func(*vm.Request)
		field  string
	}{
		"negative cpus":          {func(q *vm.Request) { q.CPUs = -1 }, "cpus"},
		"too many cpus":          {func(q *vm.Request) { q.CPUs = 9 }, "cpus"},
		"SI memory":              {func(q *vm.Request) { q.Memory = "1gb" }, "memory"},
		"bare number":            {func(q *vm.Request) { q.Memory = "1024" }, "memory"},
		"word":                   {func(q *vm.Request) { q.Memory = "much" }, "memory"},
		"negative memory":        {func(q *vm.Request) { q.Memory = "-1gib" }, "memory"},
		"too little memory":      {func(q *vm.Request) { q.Memory = "31mib" }, "memory"},
		"more than the host has": {func(q *vm.Request) { q.Memory = "5gib" }, "memory"},
		"overflow":               {func(q *vm.Request) { q.Memory = strings.Repeat("9", 300) + "eib" }, "memory"},
		"unknown network":        {func(q *vm.Request) { q.NetworkType = "lan" }, "network_type"},
		"no image":               {func(q *vm.Request) { q.Image.URL = "" }, "image.url"},
		"relative image":         {func(q *vm.Request) { q.Image.URL = "/image" }, "image.url"},
		"file image":             {func(q *vm.Request) { q.Image.URL = "file:///etc/passwd" }, "image.url"},
		"image with password":    {func(q *vm.Request) { q.Image.URL = "http://a:b@c/d" }, "image.url"},
		"long image URL":         {func(q *vm.Request) { q.Image.URL += "?" + strings.Repeat("x", 9000) }, "image.url"},
		"no checksum":            {func(q *vm.Request) { q.Image.Checksum = "" }, "image.checksum"},
		"short checksum":         {func(q *vm.Request) { q.Image.Checksum = "abcd" }, "image.checksum"},
		"checksum of another type": {func(q *vm.Request) {
			q.Image.ChecksumType = "md5"
		}, "image.checksum"},
		"not hex":               {func(q *vm.Request) { q.Image.Checksum = strings.Repeat("g", 64) }, "image.checksum"},
		"blank checksum":        {func(q *vm.Request) { q.Image.Checksum = " " }, "image.checksum"},
		"checksum of two types": {func(q *vm.Request) { q.Image.Checksum = "md5:" + q.Image.Checksum[:32] }, "image.checksum"},
		"two lines of checksums": {func(q *vm.Request) {
			q.Image.Checksum = strings.Repeat(q.Image.Checksum+"  box.tar\n", 2)
		}, "image.checksum"},
		"unknown checksum type": {func(q *vm.Request) { q.Image.ChecksumType = "crc32" }, "image.checksum_type"},
		"relative callback":     {func(q *vm.Request) { q.CallbackURL = "foo" }, "callback_url"},
		"ftp callback":          {func(q *vm.Request) { q.CallbackURL = "ftp://foo/" }, "callback_url"},
		"negative timeout":      {func(q *vm.Request) { q.ToolsInitTimeout = -1 }, "tools_init_timeout"},
		"capital in the name":   {func(q *vm.Request) { q.Name = "Web" }, "name"},
		"dot in the name":       {func(q *vm.Request) { q.Name = "web.example" }, "name"},
		"name with hyphen":      {func(q *vm.Request) { q.Name = "web-" }, "name"},
		"long name":             {func(q *vm.Request) { q.Name = strings.Repeat("a", 64) }, "name"},
		"localhost":             {func(q *vm.Request) { q.Name = "localhost" }, "name"},
		"name like an id":       {func(q *vm.Request) { q.Name = "282ee68a-2e4d-4bd7-9c0e-7f37e12fc489" }, "name"},
		"long timeout":          {func(q *vm.Request) { q.ToolsInitTimeout = vm.Timeout(time.Hour + 1) }, "tools_init_timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			q := h.request()
			c.change(&q)
			_, err := h.vms.Create(t.Context(), q, "key")
			e := new(vm.Error)
			if e, _ = err.(*vm.Error); e == nil || e.Code != vm.CodeInvalidField || e.Field != c.field {
				t.Errorf("got %v, want %s for %s", err, vm.CodeInvalidField, c.field)
			}
		})
	}
	q := h.request()
	q.NetworkType = vm.HostOnly
	if _, err := h.vms.Create(t.Context(), q, ""); codeOf(err) != vm.CodeNetworkUnavailable {
		t.Errorf("hostonly: got %v, want %s", err, vm.CodeNetworkUnavailable)
	}
	if names := h.files(); len(names) != 0 {
		t.Errorf("refused requests left %v", names)
	}
}

func TestMemoryForms(t *testing.T) {
	h := newHarness(t).open()
	for text, want := range map[string][2]string{ // as in the request, then as read from the hypervisor
		"":           {"512mib", "512mib"},
		"1gib":       {"1gib", "1.0gib"},
		"1024MiB":    {"1024mib", "1.0gib"},
		"1048576kib": {"1048576kib", "1.0gib"},
		"1Gi":        {"1gib", "1.0gib"},
		"1.5 GiB":    {"1.5gib", "1.5gib"},
		"513mib":     {"513mib", "516mib"},
	} {
		q := h.request()
		q.Memory = text
		v := h.create(q)
		if later := h.wait(v.ID); v.Memory != want[0] || later.Memory != want[1] {
			t.Errorf("memory %q: got %q, then %q, want %q", text, v.Memory, later.Memory, want)
		}
	}
}

func TestTimeoutForms(t *testing.T) {
	for text, want := range map[string]time.Duration{
		`0`: 0, `null`: 0, `5`: 5 * time.Second, `5.0`: 5 * time.Second, `"30s"`: 30 * time.Second, `"1m30s"`: 90 * time.Second,
	} {
		var got vm.Timeout
		if err := json.Unmarshal([]byte(text), &got); err != nil || time.Duration(got) != want {
			t.Errorf("%s: got %v, %v, want %v", text, time.Duration(got), err, want)
		}
	}
	for _, text := range []string{`1.5`, `"5"`, `"soon"`, `true`, `[]`, `{}`, `1e300`} {
		var got vm.Timeout
		if err := json.Unmarshal([]byte(text), &got); codeOf(err) != vm.CodeInvalidField {
			t.Errorf("%s: got %v, %v, want %s", text, time.Duration(got), err, vm.CodeInvalidField)
		}
	}
}

// One key makes one machine, however many requests come at once, even after a
// restart, until that machine is destroyed.
func TestIdempotencyKey(t *testing.T) {
	h := newHarness(t).open()
	var mu sync.Mutex
	ids := make(map[string]int)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			v, err := h.vms.Create(t.Context(), h.request(), "build-7")
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			ids[v.ID]++
			mu.Unlock()
		})
	}
	wg.Wait()
	if len(ids) != 1 {
		t.Fatalf("one key made %d machines: %v", len(ids), ids)
	}
	h.close()
	h.open()
	again, err := h.vms.Create(t.Context(), h.request(), "build-7")
	if err != nil || ids[again.ID] == 0 {
		t.Errorf("after the restart: got %s, %v, want one of %v", again.ID, err, ids)
	}
	other := h.request()
	other.CPUs = 1
	if _, err := h.vms.Create(t.Context(), other, "build-7"); codeOf(err) != vm.CodeIdempotencyConflict {
		t.Errorf("another body: got %v, want %s", err, vm.CodeIdempotencyConflict)
	}
	h.wait(again.ID)
	h.callback()
	must(t, h.vms.Destroy(t.Context(), again.ID))
	v, err := h.vms.Create(t.Context(), other, "build-7")
	if err != nil || v.ID == again.ID {
		t.Errorf("after Destroy: got %s, %v, want a new machine", v.ID, err)
	}
}
