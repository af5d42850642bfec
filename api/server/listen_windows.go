package server

import "net"

// listen opens a TCP port. Package config accepts no Unix sockets on Windows.
func listen(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }
