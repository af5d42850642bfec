package api

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/julienschmidt/httprouter"

	"osx-builder/vm"
)

// checkQuery refuses a request with query parameters that its route does not take, or without a value.
func (a *api) checkQuery(o route) httprouter.Handle {
	return func(w http.ResponseWriter, r *http.Request, p httprouter.Params) {
		if err := o.checkQuery(r.URL.RawQuery); err != nil {
			a.fail(w, r, err)
			return
		}
		o.handle(w, r, p)
	}
}

// checkQuery returns an error for the first parameter, in alphabetical order, that is not valid.
func (o route) checkQuery(raw string) error {
	query, err := url.ParseQuery(raw)
	if err != nil {
		return &vm.Error{Code: vm.CodeInvalidField, Message: "the query of the URL is invalid: " + truncate(err.Error())}
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		values := query[name]
		switch {
		case !slices.Contains(o.query, name):
			known := "takes no query parameters"
			if len(o.query) > 0 {
				known = "takes " + list(o.query)
			}
			return &vm.Error{
				Code: vm.CodeUnknownField, Field: truncate(name),
				Message: fmt.Sprintf("there is no query parameter %s; %s %s %s", quote(name), o.Method, o.Path, known),
			}
		case len(values) > 1 && !strings.HasSuffix(name, "[]") && name != "label":
			return &vm.Error{Code: vm.CodeInvalidField, Field: name, Message: fmt.Sprintf("the query parameter %s is given %d times; it must be given once", name, len(values))}
		case values[0] == "":
			return &vm.Error{Code: vm.CodeInvalidField, Field: name, Message: fmt.Sprintf("the query parameter %s is empty; leave it out or give it a value", name)}
		}
	}
	return nil
}

// list joins words as in a sentence: "a, b and c".
func list(words []string) string {
	last := len(words) - 1
	if last == 0 {
		return words[0]
	}
	return strings.Join(words[:last], ", ") + " and " + words[last]
}

// waitTime returns the value of ?wait=, a duration such as 30s or a number of seconds.
func waitTime(r *http.Request) (time.Duration, error) {
	text := r.URL.Query().Get("wait")
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		d, err = time.ParseDuration(text + "s")
	}
	if err != nil || d < 0 || d > maxWait {
		return 0, &vm.Error{
			Code: vm.CodeInvalidField, Field: "wait",
			Message: fmt.Sprintf("wait is %s; it must be a duration such as 30s, at most 10m", quote(text)),
		}
	}
	return d, nil
}

// flag returns the value of a parameter that is 0 or 1. If it is absent, flag returns false.
func flag(r *http.Request, name string) (bool, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return false, nil
	}
	on, err := strconv.ParseBool(text)
	if err != nil {
		return false, &vm.Error{Code: vm.CodeInvalidField, Field: name, Message: fmt.Sprintf("%s is %s; it must be 0 or 1", name, quote(text))}
	}
	return on, nil
}

// filter returns the values of ?phase=, ?status=, ?owner= and ?label=.
func filter(r *http.Request) (f vm.Filter, err error) {
	q := r.URL.Query()
	f = vm.Filter{Phase: vm.Phase(q.Get("phase")), Status: vm.Power(q.Get("status")), Owner: q.Get("owner")}
	if f.Phase != "" && !slices.Contains(vm.Phases(), f.Phase) {
		return f, filterError("phase", f.Phase, vm.Phases())
	}
	if f.Status != "" && !slices.Contains(vm.Powers(), f.Status) {
		return f, filterError("status", f.Status, vm.Powers())
	}
	f.Labels, err = labels(r)
	return f, err
}

// labels returns the values of ?label=, which can be repeated.
func labels(r *http.Request) (all []vm.Label, err error) {
	for _, text := range r.URL.Query()["label"] {
		l, err := vm.ParseLabel(text)
		if err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

func filterError[T ~string](name string, got T, want []T) error {
	return &vm.Error{Code: vm.CodeInvalidField, Field: name, Message: fmt.Sprintf("%s is %s; it must be %s", name, quote(string(got)), oneOf(want))}
}

// oneOf lists the allowed values for a message.
func oneOf[T ~string](values []T) string {
	text := make([]string, len(values))
	for i, v := range values {
		text[i] = string(v)
	}
	return "one of " + strings.Join(text, ", ")
}
