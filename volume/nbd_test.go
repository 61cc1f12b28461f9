package volume

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"torpor/host"
	"torpor/internal/kerneltest"
)

func TestExportAddresses(t *testing.T) {
	for _, test := range []struct {
		spec ExportSpec
		want string
	}{
		{ExportSpec{Listen: "unix:/run/x.nbd"}, "nbd+unix:///data?socket=/run/x.nbd"},
		{ExportSpec{Listen: "unix:/run/x.nbd", CertFile: "c"}, "nbds+unix:///data?socket=/run/x.nbd"},
		{ExportSpec{Listen: "tcp:10.0.0.1:10809"}, "nbd://10.0.0.1:10809/data"},
		{ExportSpec{Listen: "tcp:[::1]:10809", CertFile: "c"}, "nbds://[::1]:10809/data"},
		{ExportSpec{Listen: "10.0.0.1:10809"}, ""},
		{ExportSpec{Listen: "tcp:"}, ""},
		{ExportSpec{}, ""},
	} {
		if got := test.spec.uri("data"); got != test.want {
			t.Errorf("%+v is %q, want %q", test.spec, got, test.want)
		}
	}
}

// TestExportErrors asks for exports that can not be; none of them is noted.
func TestExportErrors(t *testing.T) {
	l := newLab(t, host.DefaultLayout, "")
	l.create()
	ctx, dir := context.Background(), t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("unix", filepath.Join(l.config.RunDir, "taken"))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, spec := range map[string]ExportSpec{
		"odd address":  {Listen: "udp:1.2.3.4:5"},
		"a file":       {Listen: "unix:" + file},
		"in use":       {Listen: "unix:" + taken.Addr().String()},
		"no directory": {Listen: "unix:/does/not/exist/x"},
		"certificate":  {CertFile: file, KeyFile: file},
	} {
		if _, err := l.client.Export(ctx, "data", spec); err == nil {
			t.Errorf("%s: exported", name)
		}
	}
	if _, err := l.client.Export(ctx, "data", ExportSpec{}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.client.Snapshot(ctx, "data", "one"), l.client.Clone(ctx, "data", "one", "copy")); err != nil {
		t.Fatal(err)
	}
	at := l.status().Volumes[1].Exports[0].Listen
	if _, err := l.client.Export(ctx, "copy", ExportSpec{Listen: at}); !errors.Is(err, host.ErrExists) {
		t.Errorf("two volumes at one address: %v", err)
	}
	state, err := LoadState(l.config.StateDir, l.config.Log)
	if err != nil || len(state.Volumes["data"].Exports) != 1 || len(state.Volumes["copy"].Exports) != 0 {
		t.Errorf("state is %+v, %v", state, err)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "no certificate" {
		t.Errorf("a file was touched: %q, %v", b, err)
	}
}

// TestExportByTLS lets in who has a certificate of the authority, and nobody else.
func TestExportByTLS(t *testing.T) {
	kerneltest.Require(t, kerneltest.Program("nbdinfo"), kerneltest.Program("openssl"))
	l := newLab(t, host.DefaultLayout, "")
	l.create()
	dir := t.TempDir()
	run(t, "sh", "-ec", `cd `+dir+`
		openssl req -x509 -newkey ed25519 -nodes -keyout ca.key -out ca-cert.pem -subj /CN=ca -days 2
		for name in server client; do
			openssl req -newkey ed25519 -nodes -keyout $name-key.pem -out $name.csr -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1
			openssl x509 -req -in $name.csr -CA ca-cert.pem -CAkey ca.key -CAcreateserial -out $name-cert.pem -days 2 -copy_extensions copy
		done`)
	listener, err := net.Listen("tcp", "127.0.0.1:0") // a port that is free
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	e, err := l.client.Export(context.Background(), "data", ExportSpec{Listen: "tcp:" + address,
		CertFile: dir + "/server-cert.pem", KeyFile: dir + "/server-key.pem", CAFile: dir + "/ca-cert.pem"})
	if err != nil {
		t.Fatal(err)
	}
	if out := run(t, "nbdinfo", "--size", e.URI+"?tls-certificates="+dir); strings.TrimSpace(out) != "67108864" {
		t.Errorf("size is %q", out)
	}
	for _, uri := range []string{"nbd://" + address + "/data", "nbds://" + address + "/data?tls-certificates=" + t.TempDir()} {
		if out, err := exec.Command("nbdinfo", "--size", uri).CombinedOutput(); err == nil {
			t.Errorf("%s is let in: %s", uri, out)
		}
	}
}
