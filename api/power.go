package api

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/julienschmidt/httprouter"

	"osx-builder/vm"
)

// screenshot is GET /vms/:id/screenshot.
func (a *api) screenshot(w http.ResponseWriter, r *http.Request, p httprouter.Params) error {
	png, err := a.vms.Screenshot(r.Context(), p.ByName("id"))
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "image/png")
	h.Set("Content-Length", strconv.Itoa(len(png)))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(png) // a client that has disconnected is not an error
	return nil
}

// power is POST /vms/:id/power.
func (a *api) power(w http.ResponseWriter, r *http.Request, p httprouter.Params) error {
	var q struct {
		Action vm.Action `json:"action"`
	}
	invalid, err := decode(w, r, &q)
	if err == nil {
		err = vm.InvalidFields(invalid)
	}
	if err != nil {
		return err
	}
	if q.Action == "" {
		return &vm.Error{Code: vm.CodeInvalidField, Field: "action", Message: "action is missing; it must be " + oneOf(vm.Actions())}
	}
	if !slices.Contains(vm.Actions(), q.Action) {
		return &vm.Error{Code: vm.CodeInvalidField, Field: "action", Message: fmt.Sprintf("action is %s; it must be %s", quote(string(q.Action)), oneOf(vm.Actions()))}
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(maxWait)) // the hypervisor may be slow
	v, err := a.vms.Power(r.Context(), p.ByName("id"), q.Action)
	if err != nil {
		return err
	}
	return encode(w, http.StatusOK, v)
}
