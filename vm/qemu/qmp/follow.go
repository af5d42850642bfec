package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
)

// maxEvent bounds the bytes of one event, in case a guest took over its QEMU.
const maxEvent = 64 << 10

// Follow calls f with each event of the QEMU whose monitor listens at socket, until
// QEMU ends, which is no error, or until ctx ends. The monitor serves nobody else
// meanwhile, so it must be one for events alone.
func Follow(ctx context.Context, socket string, f func(event string, data json.RawMessage)) error {
	conn, err := connect(ctx, socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := io.WriteString(conn, `{"execute":"qmp_capabilities"}`+"\n"); err != nil {
		return err
	}
	lines := bufio.NewScanner(conn)
	lines.Buffer(make([]byte, 0, 4<<10), maxEvent)
	for lines.Scan() {
		var e struct {
			Event string
			Data  json.RawMessage
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("reading an event of QEMU: %w", err)
		}
		if e.Event != "" {
			f(e.Event, e.Data)
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return lines.Err()
}
