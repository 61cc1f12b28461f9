package main

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"torpor/daemon"
	"torpor/host"
	"torpor/keeper"
)

func TestPrintsSockets(t *testing.T) {
	local, remote := netip.MustParseAddrPort("172.30.0.2:80"), netip.MustParseAddrPort("[2001:db8::7]:40312")
	var text strings.Builder
	err := printSockets(&text, []serviceSocket{
		{"shop-web-1", keeper.Connection{Local: local, Remote: remote, State: keeper.ConnectionParked, Idle: 12 * time.Minute, Why: "idle for 12 m, usual gap 3 s"}},
		{"shop-web-1", keeper.Connection{Local: local, Remote: local, State: keeper.ConnectionSuspended, Idle: 90 * time.Second, Why: "512 connections held"}},
	})
	want := `SERVICE     LOCAL          REMOTE                 STATE      IDLE          WHY
shop-web-1  172.30.0.2:80  [2001:db8::7]:40312  parked     12 minutes    idle for 12 m, usual gap 3 s
`
	if err != nil || !strings.Contains(strings.Join(strings.Fields(text.String()), " "), strings.Join(strings.Fields(want), " ")) || !strings.Contains(text.String(), "About a minute") {
		t.Errorf("printed, %v:\n%s", err, text.String())
	}
}

// What is known of connections stands below the service, and does not change the
// columns.
func TestPrintsReasonsBelowServices(t *testing.T) {
	services := []daemon.ServiceStatus{
		{ID: "shop-web-1", Image: "nginx", State: host.Asleep, ConnectionsHeld: 2,
			Connections: []string{"park 2 connections: idle for 12 s, 2 connections held", "usual sleep 2 m"}},
		{ID: "shop-db-1", Image: "postgres", State: host.Awake},
	}
	var text, plain strings.Builder
	if err := printServices(&text, services); err != nil {
		t.Fatal(err)
	}
	services[0].Connections = nil
	if err := printServices(&plain, services); err != nil {
		t.Fatal(err)
	}
	rows := strings.SplitAfter(plain.String(), "\n")
	want := rows[0] + rows[1] + "  park 2 connections: idle for 12 s, 2 connections held\n  usual sleep 2 m\n" + rows[2]
	if text.String() != want {
		t.Errorf("printed:\n%s\nwant:\n%s", text.String(), want)
	}
}
