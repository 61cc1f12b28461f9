package container_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"torpor/checkpoint/blob"
	"torpor/container"
	"torpor/container/network"
	"torpor/host"
	"torpor/internal/kerneltest"
	"torpor/kernel/netns"
)

// TestNetwork runs a real web server in a real container, as a user without
// rights, on port 80, and asks for a page from another machine; a second
// container finds it by its name.
func TestNetwork(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.NetNS, kerneltest.Runc, kerneltest.Nft, kerneltest.File("/usr/bin/python3"))
	dir := t.TempDir()
	here, remote := filepath.Join(dir, "here"), filepath.Join(dir, "remote")
	must(t, connectMachines(t, here, remote))
	h, err := network.Open(network.Config{StateFile: filepath.Join(dir, "network.json"), Table: "torpor_run", NamespaceDir: filepath.Join(dir, "ns")})
	must(t, err)
	defer h.Close()
	web := host.ContainerID(fmt.Sprintf("tn%d-web-1", os.Getpid()))
	ask := host.ContainerID(fmt.Sprintf("tn%d-ask-1", os.Getpid()))
	var webNS, askNS string
	var hosts string
	t.Cleanup(func() {
		must(t, netns.Do(here, func() error { return errors.Join(h.Detach(web), h.Detach(ask), h.RemoveNetwork("run")) }))
	})
	must(t, netns.Do(here, func() error {
		must(t, h.EnsureNetwork(host.NetworkSpec{Name: "run"}))
		webAt, err := h.Reserve(web, []host.NetworkAttachment{{Network: "run", Aliases: []string{"www"}}})
		must(t, err)
		askAt, err := h.Reserve(ask, []host.NetworkAttachment{{Network: "run"}})
		must(t, err)
		must(t, h.SetNames(web, "web"))
		webNS, err = h.Attach(web, webAt)
		must(t, err)
		askNS, err = h.Attach(ask, askAt)
		must(t, err)
		_, err = h.Publish(web, "", webAt[0].Address, []host.PortSpec{{Target: 80, Published: 8080}})
		must(t, err)
		hosts = filepath.Join(dir, "hosts")
		return network.WriteHosts(hosts, h.Peers(ask))
	}))
	server := start(t, dir, web, webNS, nil, "python3", "-c", `
import http.server
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(("hello " + self.client_address[0]).encode())
    def log_message(self, *a): pass
s = http.server.ThreadingHTTPServer(("", 80), H)
print("ready", flush=True)
s.serve_forever()`)
	server.line("ready")
	must(t, netns.Do(remote, func() error {
		conn, err := net.Dial("tcp4", "192.0.2.1:8080")
		if err != nil {
			return err
		}
		defer conn.Close()
		fmt.Fprint(conn, "GET / HTTP/1.0\r\n\r\n")
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if string(body) != "hello 192.0.2.2" {
			t.Errorf("answer %q", body)
		}
		return err
	}))
	client := start(t, dir, ask, askNS, []container.BindMount{{Source: hosts, Target: "/etc/hosts", ReadOnly: true}},
		"python3", "-c", `import urllib.request; print(urllib.request.urlopen("http://www/").read().decode())`)
	client.line("hello 10.")
	if code := client.exit(); code != 0 {
		t.Errorf("the asker ended with %d", code)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// connectMachines makes two namespaces with a wire between them.
func connectMachines(t *testing.T, here, remote string) error {
	for _, path := range []string{here, remote} {
		if err := netns.Ensure(path); err != nil {
			return err
		}
		t.Cleanup(func() { must(t, netns.Remove(path)) })
	}
	other, err := os.Open(remote)
	if err != nil {
		return err
	}
	defer other.Close()
	up := func(address string) error {
		for _, device := range []string{"lo", "wire0"} {
			link, err := netlink.LinkByName(device)
			if err != nil {
				return err
			}
			if device == "wire0" {
				p := netip.MustParsePrefix(address)
				err = netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}})
			}
			if err := errors.Join(err, netlink.LinkSetUp(link)); err != nil {
				return err
			}
		}
		return nil
	}
	err = netns.Do(here, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "wire0"
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "wire0", PeerNamespace: netlink.NsFd(other.Fd())}); err != nil {
			return err
		}
		return up("192.0.2.1/24")
	})
	return errors.Join(err, netns.Do(remote, func() error { return up("192.0.2.2/24") }))
}

// running is a container whose output is read.
type running struct {
	t           *testing.T
	stdout, end *os.File
	lines       *bufio.Reader
}

// start makes and starts a container of the host's /usr, as user 1000.
func start(t *testing.T, dir string, id host.ContainerID, ns string, mounts []container.BindMount, args ...string) *running {
	t.Helper()
	bundle := filepath.Join(dir, string(id))
	rootfs := filepath.Join(bundle, "rootfs")
	for _, name := range []string{"etc", "usr", "tmp"} {
		must(t, os.MkdirAll(filepath.Join(rootfs, name), 0o755))
	}
	for _, name := range []string{"bin", "lib", "lib64"} {
		must(t, os.Symlink("usr/"+name, filepath.Join(rootfs, name)))
	}
	initHost := filepath.Join(bundle, "init")
	must(t, os.WriteFile(initHost, blob.InitELF(), 0o755))
	b := container.Bundle{ID: id, RootFS: rootfs, InitHost: initHost, Args: args, NetNS: ns, User: "1000", CgroupPath: "/" + string(id),
		Env: []string{"PATH=/usr/bin"}, Mounts: append(mounts, container.BindMount{Source: "/usr", Target: "/usr", ReadOnly: true})}
	must(t, b.Write(bundle))
	run := filepath.Join(bundle, "run")
	stdio, err := container.NewStdio(container.StdioSpec{Dir: run, UID: 1000})
	must(t, err)
	defer stdio.Close()
	r := &running{t: t}
	for name, file := range map[string]**os.File{"stdout": &r.stdout, "exit": &r.end} {
		*file, err = os.OpenFile(filepath.Join(run, name), os.O_RDWR|syscall.O_NONBLOCK, 0)
		must(t, err)
		t.Cleanup(func() { (*file).Close() })
		must(t, (*file).SetDeadline(time.Now().Add(30*time.Second)))
	}
	r.lines = bufio.NewReader(r.stdout)
	runtime, err := container.OpenRuntime("", filepath.Join(dir, "runtime"))
	must(t, err)
	t.Cleanup(func() { must(t, runtime.Delete(context.Background(), id)) })
	_, err = runtime.Create(context.Background(), id, bundle, stdio)
	must(t, err)
	must(t, runtime.Start(context.Background(), id))
	return r
}

// line waits for a line that begins so.
func (r *running) line(want string) {
	r.t.Helper()
	line, err := r.lines.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, want) {
		r.t.Fatalf("read %q, %v; want %q", line, err, want)
	}
}

// exit waits for the init's report.
func (r *running) exit() int {
	r.t.Helper()
	var record [8]byte
	_, err := io.ReadFull(r.end, record[:])
	must(r.t, err)
	return syscall.WaitStatus(binary.LittleEndian.Uint32(record[4:])).ExitStatus()
}
