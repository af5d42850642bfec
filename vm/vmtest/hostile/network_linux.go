package main

import (
	"net"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// network are attempts to reach sockets.
func network() []attempt {
	return []attempt{
		{"reach another machine's monitor", func(t targets) error { return dial("unix", filepath.Join(t.Victim, "qmp")) }},
		{"reach another guest's agent", func(t targets) error { return dial("unix", filepath.Join(t.Victim, "qga")) }},
		{"reach the API's socket", func(t targets) error { return dial("unix", t.APISocket) }},
		{"reach an abstract socket", func(t targets) error { return dial("unix", "@"+t.Abstract) }},
		{"reach the API on loopback", func(t targets) error { return dial("tcp", t.API) }},
		{"reach the LAN", func(t targets) error { return ask(t.LAN) }},
		{"open a raw socket", func(targets) error {
			return first(socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP), socket(unix.AF_PACKET, unix.SOCK_RAW, 0x300))
		}},
		{"change the host's network", func(targets) error { return socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE) }},
		{"listen on a port of its own choice", func(targets) error {
			l, err := net.Listen("tcp4", "127.0.0.1:0")
			if err == nil {
				l.Close()
			}
			return err
		}},
	}
}

func dial(network, address string) error {
	c, err := net.DialTimeout(network, address, time.Second)
	if err == nil {
		c.Close()
	}
	return err
}

// ask sends a datagram and waits for the answer.
func ask(address string) error {
	c, err := net.Dial("udp4", address)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte("?")); err != nil {
		return err
	}
	if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 1))
	return err
}

func socket(family, kind, protocol int) error {
	fd, err := unix.Socket(family, kind, protocol)
	if err == nil {
		unix.Close(fd)
	}
	return err
}
