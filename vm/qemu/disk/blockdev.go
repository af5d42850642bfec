package disk

import (
	"encoding/json"
	"fmt"
	"slices"
)

// Blockdev returns QEMU's -blockdev option for the disk as the node of this
// name. It describes every layer, so that QEMU uses no format or file name that
// it finds in a file.
func (d *Disk) Blockdev(node string) string {
	below := vmdkChain(d.Backing)
	if d.Base != "" {
		below = layer("qcow2", d.Base, nil)
	}
	return jsonText(map[string]any{
		"node-name": node, "driver": "qcow2", "discard": "unmap", "backing": below,
		"file": map[string]any{"driver": "file", "filename": d.Overlay, "discard": "unmap"},
	})
}

// RawBlockdev returns QEMU's -blockdev option for a raw file as the node of this
// name.
func RawBlockdev(node, path string, readOnly bool) string {
	return jsonText(map[string]any{
		"node-name": node, "driver": "raw", "read-only": readOnly,
		"file": map[string]any{"driver": "file", "filename": path},
	})
}

// vmdkChain describes VMDK files, the uppermost first.
func vmdkChain(files []string) (below map[string]any) {
	for _, path := range slices.Backward(files) {
		below = layer("vmdk", path, below)
	}
	return below
}

func layer(format, path string, below map[string]any) map[string]any {
	return map[string]any{
		"driver": format, "read-only": true, "backing": below,
		"file": map[string]any{"driver": "file", "filename": path},
	}
}

// jsonText writes an option as JSON, in which file names with commas need no
// escape.
func jsonText(value map[string]any) string {
	text, err := json.Marshal(value)
	if err != nil {
		panic(fmt.Sprintf("writing %v as JSON: %v", value, err)) // it has only strings, booleans and maps
	}
	return string(text)
}
