package daemon

import (
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"testing"

	"torpor/host"
)

// TestSockets asks over the wire what the keeper knows of connections.
func TestSockets(t *testing.T) {
	w := newWorld()
	d := testDaemon(t, w, t.TempDir())
	t.Cleanup(d.end)
	mustUp(t, d, testProject(host.ServiceSpec{Name: "web"}))
	socket := filepath.Join(t.TempDir(), "torpor.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: d.routes()}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Close()
		<-served
	})
	client := NewClient(socket)
	report, err := client.Sockets(t.Context(), "p-web-1")
	if err != nil || len(report.Connections) != 1 || report.Connections[0].Remote.String() != "10.0.0.2:80" || report.Connections[0].Why != "idle for 60 s" {
		t.Errorf("sockets are %+v, %v", report, err)
	}
	if _, err := client.Sockets(t.Context(), "p-nothing-1"); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("sockets of nothing: %v", err)
	}
	services, err := client.ServicesWithConnections(t.Context(), "p")
	if err != nil || len(services) != 1 || !slices.Equal(services[0].Connections, []string{"known of p-web-1"}) {
		t.Errorf("services are %+v, %v", services, err)
	}
	services, err = client.Services(t.Context(), "p")
	if err != nil || len(services) != 1 || services[0].Connections != nil {
		t.Errorf("services are %+v, %v", services, err)
	}
}
