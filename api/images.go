package api

import (
	"net/http"

	"github.com/julienschmidt/httprouter"

	"osx-builder/api/token"
	"osx-builder/vm"
)

// images is GET /images.
func (a *api) images(w http.ResponseWriter, _ *http.Request, _ httprouter.Params) error {
	list, err := a.vms.Images().List()
	if err != nil {
		return err
	}
	return encode(w, http.StatusOK, struct {
		Images []vm.CachedImage `json:"images"`
	}{list})
}

// pullImage is POST /images.
func (a *api) pullImage(w http.ResponseWriter, r *http.Request, _ httprouter.Params) error {
	wait, err := waitTime(r)
	if err != nil {
		return err
	}
	var q vm.ImageRequest
	if q.Invalid, err = decode(w, r, &q); err != nil {
		return err
	}
	i, err := a.vms.Images().Pull(r.Context(), q)
	if err != nil {
		return err
	}
	name := i.ChecksumType + "-" + i.Checksum
	if wait > 0 {
		a.delay(w, wait)
		if i, err = a.vms.Images().Wait(r.Context(), name, wait); err != nil {
			return err
		}
	}
	w.Header().Set("Location", "/images/"+name)
	return encode(w, http.StatusAccepted, i)
}

// image is GET /images/:checksum.
func (a *api) image(w http.ResponseWriter, r *http.Request, p httprouter.Params) error {
	wait, err := waitTime(r)
	if err != nil {
		return err
	}
	ref := p.ByName("checksum")
	if t := tokenOf(r); !t.Has(token.Read) && !vm.ValidChecksum(ref) {
		return forbidden(t, "naming an image by the start of its checksum", readHost)
	}
	a.delay(w, wait)
	i, err := a.vms.Images().Wait(r.Context(), ref, wait)
	if err != nil {
		return err
	}
	return encode(w, http.StatusOK, i)
}

// changeImage is PATCH /images/:checksum.
func (a *api) changeImage(w http.ResponseWriter, r *http.Request, p httprouter.Params) error {
	var c struct {
		Pinned *bool `json:"pinned"`
	}
	invalid, err := decode(w, r, &c)
	if err != nil {
		return err
	}
	if c.Pinned == nil && len(invalid) == 0 {
		invalid = append(invalid, &vm.Error{Code: vm.CodeInvalidField, Field: "pinned", Message: "pinned is missing; it must be true or false"})
	}
	if err := vm.InvalidFields(invalid); err != nil {
		return err
	}
	i, err := a.vms.Images().Pin(p.ByName("checksum"), *c.Pinned)
	if err != nil {
		return err
	}
	return encode(w, http.StatusOK, i)
}

// removeImage is DELETE /images/:checksum.
func (a *api) removeImage(w http.ResponseWriter, r *http.Request, p httprouter.Params) error {
	if err := a.vms.Images().Remove(r.Context(), p.ByName("checksum")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
