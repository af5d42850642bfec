// Command vcsim runs a simulated vCenter or ESXi until it is interrupted or its standard input ends. It prints the
// daemon's flags for it, one per line, and then an empty line.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"osx-builder/vm/vmtest/vcenter"
)

func main() {
	o := vcenter.Options{}
	flag.BoolVar(&o.ESX, "esx", false, "a stand-alone ESXi instead of a vCenter")
	flag.StringVar(&o.Address, "address", "127.0.0.1:0", "host and port to listen on")
	without := flag.String("without", "", "a privilege that the account lacks, such as Network.Assign")
	flag.Parse()
	if err := run(o, *without); err != nil {
		fmt.Fprintln(os.Stderr, "vcsim:", err)
		os.Exit(1)
	}
}

func run(o vcenter.Options, without string) error {
	s, err := vcenter.Start(o)
	if err != nil {
		return err
	}
	defer s.Close()
	s.Revoke(without)
	password := filepath.Join(filepath.Dir(s.CAFile), filepath.Base(s.CAFile)+".password")
	if err := os.WriteFile(password, []byte(vcenter.Password+"\n"), 0o600); err != nil {
		return err
	}
	defer os.Remove(password)
	for _, line := range s.Flags(password) {
		fmt.Println(line)
	}
	fmt.Println()
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, os.Interrupt, syscall.SIGTERM)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		ended <- os.Interrupt
	}()
	<-ended
	return nil
}
