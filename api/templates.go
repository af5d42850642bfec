package api

import (
	"net/http"

	"github.com/julienschmidt/httprouter"

	"osx-builder/vm"
)

// templates is GET /templates.
func (a *api) templates(w http.ResponseWriter, r *http.Request, _ httprouter.Params) error {
	list, err := a.vms.Templates(r.Context())
	if err != nil {
		return err
	}
	return encode(w, http.StatusOK, struct {
		Templates []vm.Template `json:"templates"`
	}{list})
}

// removeTemplate is DELETE /templates/:key.
func (a *api) removeTemplate(w http.ResponseWriter, r *http.Request, p httprouter.Params) error {
	if err := a.vms.RemoveTemplate(r.Context(), p.ByName("key")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
