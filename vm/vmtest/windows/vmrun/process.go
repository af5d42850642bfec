package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// machineCommand makes this program run a machine.
const machineCommand = "run-machine"

// runMachine is a running machine: it locks the machine's .vmx until it is killed. It ends without its .vmx too, so that
// a test that fails leaves no process.
func runMachine(vmx string) {
	dir := vmx + ".lck"
	claim := fmt.Sprintf("uuid=double %d-0(vmware-vmx.exe) 1 X [ lc=1\n", os.Getpid())
	err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "M00001.lck"), []byte(claim), 0o644))
	for err == nil && exists(vmx) {
		time.Sleep(20 * time.Millisecond)
	}
}

// start starts the machine's process and waits for its lock.
func (m *machine) start() error {
	if err := os.RemoveAll(m.base() + ".vmss"); err != nil {
		return err
	}
	if err := m.addAddress(); err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(program, machineCommand, m.vmx)
	if err := cmd.Start(); err != nil {
		return err
	}
	for !exists(filepath.Join(m.vmx+".lck", "M00001.lck")) {
		time.Sleep(5 * time.Millisecond)
	}
	state := m.stateFile()
	text := fmt.Sprintf("%d %s", cmd.Process.Pid, m.vmx)
	return errors.Join(os.WriteFile(state+".new", []byte(text), 0o644), os.Rename(state+".new", state))
}

// addAddress generates the address of the first network card, as VMware does at power-on.
func (m *machine) addAddress() error {
	text, err := os.ReadFile(m.vmx)
	if err != nil || strings.Contains(string(text), "ethernet0.generatedAddress ") {
		return err
	}
	return os.WriteFile(m.vmx, append(text, "ethernet0.generatedAddress = \"00:0c:29:00:00:07\"\r\n"...), 0o644)
}

// stop kills the machine's process.
func (m *machine) stop() error {
	text, err := os.ReadFile(m.stateFile())
	if err != nil {
		return err
	}
	number, _, _ := strings.Cut(string(text), " ")
	pid, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	if p, err := os.FindProcess(pid); err == nil {
		_ = p.Kill() // it may have ended
		_, _ = p.Wait()
	}
	return errors.Join(os.Remove(m.stateFile()), os.RemoveAll(m.vmx+".lck"))
}
