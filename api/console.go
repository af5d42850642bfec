package api

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/julienschmidt/httprouter"

	"osx-builder/vm"
)

// console is GET /vms/:id/console.
func (a *api) console(w http.ResponseWriter, r *http.Request, p httprouter.Params) error {
	tail, err := tailBytes(r)
	if err != nil {
		return err
	}
	follow, err := flag(r, "follow")
	if err != nil {
		return err
	}
	log, err := a.vms.Console(r.Context(), p.ByName("id"), tail, follow)
	if err != nil {
		return err
	}
	defer log.Close()
	var text io.Reader = log
	if !follow {
		text = io.LimitReader(log, tail) // otherwise a guest that writes faster than the client reads would never end the answer
	}
	s := newStream(w, "text/plain; charset=utf-8")
	if follow {
		markWaiting(w)
		err = s.start()
	}
	if err == nil {
		err = s.copy(text)
	}
	if errors.Is(err, vm.ErrSlow) {
		a.Log.Warn("slow console reader disconnected", "request_id", requestID(r), "err", err)
		panic(http.ErrAbortHandler) // a normal end would look like the end of the console
	}
	return nil
}

// tailBytes returns the value of ?tail=.
func tailBytes(r *http.Request) (int64, error) {
	text := r.URL.Query().Get("tail")
	if text == "" {
		return vm.ConsoleTail, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 || n > vm.ConsoleTail {
		return 0, &vm.Error{Code: vm.CodeInvalidField, Field: "tail", Message: fmt.Sprintf("tail is %s; it must be a number of bytes from 1 to %d", quote(text), vm.ConsoleTail)}
	}
	return n, nil
}
