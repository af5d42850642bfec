package api

import (
	"net/http"

	"github.com/julienschmidt/httprouter"

	"osx-builder/vm"
)

// images is GET /images.
func (a *api) images(w http.ResponseWriter, _ *http.Request, _ httprouter.Params) error {
	list, err := a.vms.CachedImages()
	if err != nil {
		return err
	}
	return encode(w, http.StatusOK, struct {
		Images []vm.CachedImage `json:"images"`
	}{list})
}

// removeImage is DELETE /images/:checksum.
func (a *api) removeImage(w http.ResponseWriter, _ *http.Request, p httprouter.Params) error {
	if err := a.vms.RemoveImage(p.ByName("checksum")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
