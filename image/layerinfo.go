package image

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"torpor/host"
)

// layerInfo is what the file layer.json says of an unpacked layer.
type layerInfo struct {
	Bytes      int64 `json:"bytes"`       // of all regular files
	Entries    int64 `json:"entries"`     // of the archive
	RootEntry  bool  `json:"root_entry"`  // the archive says owner and mode of the root directory
	OpaqueRoot bool  `json:"opaque_root"` // nothing of the layers below is to be seen
}

const layerInfoName = "layer.json"

func readLayerInfo(dir string) (layerInfo, error) {
	raw, err := os.ReadFile(filepath.Join(dir, layerInfoName))
	if err != nil {
		return layerInfo{}, fmt.Errorf("%w: %w", host.ErrCorrupt, err)
	}
	return parseLayerInfo(raw)
}

func parseLayerInfo(raw []byte) (layerInfo, error) {
	var info layerInfo
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&info); err != nil {
		return layerInfo{}, fmt.Errorf("decode %s: %w: %w", layerInfoName, host.ErrCorrupt, err)
	}
	if info.Bytes < 0 || info.Entries < 0 {
		return layerInfo{}, fmt.Errorf("decode %s: negative count: %w", layerInfoName, host.ErrCorrupt)
	}
	return info, nil
}
