package config

import "strings"

// CheckOwn as [Config.CheckVMware] stands for a machine that the check makes.
const CheckOwn = "own"

const checkVerb = "check-vmware"

// Args returns a program's arguments with the verb check-vmware, and the file that may follow it, as a flag of the
// daemon, whose other flags it shares.
func Args(args []string) []string {
	if len(args) == 0 || args[0] != checkVerb {
		return args
	}
	file, rest := CheckOwn, args[1:]
	if len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
		file, rest = rest[0], rest[1:]
	}
	return append([]string{"-" + checkVerb + "=" + file}, rest...)
}

// checkValue is the absolute path of a .vmx file, CheckOwn or "".
type checkValue struct {
	target *string
	home   string
}

func (v checkValue) String() string { return *v.target }

func (v checkValue) Set(s string) error {
	if s == "" || s == CheckOwn {
		*v.target = s
		return nil
	}
	return pathValue{target: v.target, home: v.home}.Set(s)
}
