package image

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzParseIndex: what is accepted is written and read again as the same.
func FuzzParseIndex(f *testing.F) {
	id := digestPrefix + strings.Repeat("a", 64)
	f.Add([]byte(`{"version":1,"refs":{},"holders":{}}`))
	f.Add([]byte(`{"version":1,"refs":{"index.docker.io/library/redis:latest":{"image":"` + id + `","time":"2026-01-02T03:04:05Z"}},"holders":{"web-redis-1":["` + id + `"]}}`))
	f.Add([]byte(`{"version":2,"refs":{},"holders":{}}`))
	f.Add([]byte(`{"version":1,"refs":null,"holders":{}} x`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		x, err := parseIndex(raw)
		if err != nil {
			return
		}
		again, err := x.encode()
		if err != nil {
			t.Fatal(err)
		}
		y, err := parseIndex(again)
		if err != nil {
			t.Fatalf("what was written is not read: %v\n%s", err, again)
		}
		if diff := cmp.Diff(x, y); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(x, x.clone()); diff != "" && len(x.Holders) > 0 {
			// An empty list of a holder is cloned as none.
			for _, ids := range x.Holders {
				if len(ids) == 0 {
					return
				}
			}
			t.Error(diff)
		}
	})
}

// FuzzParseConfig: what is accepted can be described without a panic.
func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(`{"architecture":"amd64","os":"linux","config":{"ExposedPorts":{"80/tcp":{},"8000-8010/udp":{}},"Env":["A=b"],"Volumes":{"/data":{}}},"rootfs":{"type":"layers","diff_ids":["sha256:` + strings.Repeat("0", 64) + `"]}}`))
	f.Add([]byte(`{"config":{"Healthcheck":{"Test":["NONE"],"Interval":-1}},"created":"2026-01-02T03:04:05Z"}`))
	f.Add([]byte(`{"config":{"ExposedPorts":{"1-65535":{},"0-65535/udp":{}}}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := parseConfig(raw)
		if err != nil {
			return
		}
		run, err := c.run()
		if err != nil {
			t.Fatalf("accepted, but: %v", err)
		}
		if len(run.ExposedPorts) > maxExposedPorts {
			t.Errorf("%d exposed ports", len(run.ExposedPorts))
		}
		_ = c.platform().String()
	})
}

// FuzzParseManifest: a manifest is an image or an index, never neither.
func FuzzParseManifest(f *testing.F) {
	digest := digestPrefix + strings.Repeat("b", 64)
	f.Add([]byte(`{"schemaVersion":2,"config":{"digest":"` + digest + `","size":2},"layers":[]}`))
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"digest":"` + digest + `","size":7,"platform":{"os":"linux","architecture":"amd64"}}]}`))
	f.Add([]byte(`{"schemaVersion":1}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := parseManifest(raw, "")
		if err != nil {
			return
		}
		if (m.image == nil) == (m.index == nil) {
			t.Fatalf("image %v, index %v", m.image, m.index)
		}
		if m.index != nil {
			_, _ = Platform{OS: "linux", Architecture: "arm", Variant: "v7"}.choose(m.index)
		}
	})
}

// FuzzDecompress: no stream makes the decompressors panic or wait.
func FuzzDecompress(f *testing.F) {
	f.Add([]byte("plain"))
	f.Add([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff, 0x4b, 4, 0, 0x43, 0xbe, 0xb7, 0xe8, 1, 0, 0, 0})
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd, 4, 0, 9, 0, 0, 'a'})
	f.Add([]byte{0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := decompress(bytes.NewReader(raw))
		if err != nil {
			return
		}
		defer r.Close()
		_, _ = io.Copy(io.Discard, io.LimitReader(r, 64<<20))
	})
}
