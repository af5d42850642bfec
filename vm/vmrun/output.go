package vmrun

import (
	"strings"

	"osx-builder/vm/vmware"
)

// texts are the texts of vmrun's errors, in lower case and without what may follow, with the codes that VIX has for
// them.
var texts = []struct {
	text string
	code int
}{
	{"one of the parameters was invalid", vmware.CodeInvalidArgument},
	{"a file was not found", vmware.CodeFileNotFound},
	{"the object is busy", vmware.CodeBusy},
	{"the operation is not supported", vmware.CodeUnsupported},
	{"there is not enough disk space", vmware.CodeDiskFull},
	{"insufficient disk space", vmware.CodeDiskFull},
	{"the operation was canceled", vmware.CodeCancelled},
	{"the file is write-protected", vmware.CodeFileReadOnly},
	{"the file is read-only", vmware.CodeFileReadOnly},
	{"you do not have access rights to this file", vmware.CodeFileAccess},
	{"the file is already in use", vmware.CodeLocked},
	{"the host is not connected", vmware.CodeHostNotConnected},
	{"unable to connect to host", vmware.CodeHostNotConnected},
	{"this operation is not supported with the current license", vmware.CodeLicence},
	{"the virtual machine is not powered on", vmware.CodeNotRunning},
	{"the virtual machine needs to be powered on", vmware.CodeNotRunning},
	{"the virtual machine should not be powered on", vmware.CodeRunning},
	{"insufficient permissions in the host operating system", vmware.CodeHostPermission},
	{"the vmware tools are not running", vmware.CodeToolsNotRunning},
	{"the virtual machine is blocked waiting for a user operation", vmware.CodeDialog},
	{"cannot launch the ui because no display server is present", vmware.CodeNoDisplay},
	{"the virtual machine cannot be found", vmware.CodeVMNotFound},
	{"cannot open vm", vmware.CodeVMNotFound},
	{"cannot read the virtual machine configuration file", vmware.CodeUnreadable},
	{"the specified version was not found", vmware.CodeNoVersion},
	{"an encrypted virtual machine", vmware.CodeNeedPassword},
}

// failure returns the error in vmrun's output: the last line that begins with "Error:", or all of it.
func failure(out string) error {
	text := strings.TrimSpace(out)
	if i := strings.LastIndex(out, "Error:"); i >= 0 {
		text = strings.TrimSpace(out[i+len("Error:"):])
	}
	text, _, _ = strings.Cut(text, "\n")
	text = strings.TrimSpace(text)
	if text == "" {
		text = "vmrun failed without a message"
	}
	for _, t := range texts {
		if strings.HasPrefix(strings.ToLower(text), t.text) {
			return &vmware.Failure{Code: t.code, Text: text}
		}
	}
	return &vmware.Failure{Text: text}
}

// lines returns the lines of a list that vmrun prints after a line with its length, such as "Total running VMs: 2".
// Other lines before it are noise.
func lines(out, title string) []string {
	_, list, found := strings.Cut(out, title)
	if !found {
		return nil
	}
	_, list, _ = strings.Cut(list, "\n")
	var all []string
	for line := range strings.Lines(list) {
		if line = strings.TrimRight(line, "\r\n"); line != "" {
			all = append(all, line)
		}
	}
	return all
}
