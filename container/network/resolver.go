package network

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// resolverPort is where a Resolver listens on each gateway's address; rules
// send it what is asked at port 53, so that a container may publish that one.
const resolverPort = 10053

// Limits of a Resolver.
const (
	answerTTL      = 5               // seconds that an answer about a container may be remembered
	upstreamWait   = 2 * time.Second // for each server
	forwardingMost = 256             // questions under way to other servers
)

// Resolver answers the questions of containers for names by DNS: those of their
// networks itself, others by asking the host's servers, unless all networks of
// the container are internal. It answers nobody but containers and the host.
//
// It follows the Host's networks by Sync. Its methods may be called concurrently.
type Resolver struct {
	host     *Host
	upstream []string // address:port; nil: those of the host, read for each question
	slots    chan struct{}

	mu      sync.Mutex
	servers map[netip.Addr][]*dns.Server // by gateway: UDP and TCP
	serving sync.WaitGroup
}

// NewResolver makes a resolver that does not listen yet. Upstream servers have
// the form address:port; none are those of the host's resolv.conf.
func NewResolver(h *Host, upstream ...string) *Resolver {
	return &Resolver{host: h, upstream: upstream, slots: make(chan struct{}, forwardingMost), servers: map[netip.Addr][]*dns.Server{}}
}

// Sync listens on the gateways of all networks that exist, and on no others.
// Call it after networks were made or removed.
func (r *Resolver) Sync() error {
	r.host.mu.Lock()
	want := map[netip.Addr]bool{}
	for _, n := range r.host.state.Networks {
		want[n.gateway()] = true
	}
	r.host.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	for gateway := range r.servers {
		if !want[gateway] {
			r.stopLocked(gateway)
		}
	}
	var errs []error
	for _, gateway := range slices.SortedFunc(maps.Keys(want), netip.Addr.Compare) {
		if r.servers[gateway] == nil {
			errs = append(errs, r.listenLocked(gateway))
		}
	}
	return errors.Join(errs...)
}

func (r *Resolver) listenLocked(gateway netip.Addr) error {
	address := netip.AddrPortFrom(gateway, resolverPort)
	packets, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(address))
	if err != nil {
		return fmt.Errorf("answer names: %w", err)
	}
	connections, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(address))
	if err != nil {
		packets.Close()
		return fmt.Errorf("answer names: %w", err)
	}
	for _, server := range []*dns.Server{{PacketConn: packets}, {Listener: connections}} {
		server.Handler = dns.HandlerFunc(r.answer)
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		r.servers[gateway] = append(r.servers[gateway], server)
		ended := make(chan struct{})
		r.serving.Go(func() {
			defer close(ended)
			_ = server.ActivateAndServe() // ends when it is shut down
		})
		select {
		case <-started:
		case <-ended:
		}
	}
	return nil
}

func (r *Resolver) stopLocked(gateway netip.Addr) {
	for _, server := range r.servers[gateway] {
		_ = server.Shutdown() // waits for answers under way
	}
	delete(r.servers, gateway)
}

// Close stops listening and waits for answers under way.
func (r *Resolver) Close() error {
	r.mu.Lock()
	for gateway := range r.servers {
		r.stopLocked(gateway)
	}
	r.mu.Unlock()
	r.serving.Wait()
	return nil
}

// answer handles one message; it is called concurrently.
func (r *Resolver) answer(w dns.ResponseWriter, question *dns.Msg) {
	reply := new(dns.Msg)
	from, ok := sender(w.RemoteAddr())
	switch {
	case !ok || len(question.Question) != 1 || question.Opcode != dns.OpcodeQuery || question.Response:
		reply.SetRcode(question, dns.RcodeFormatError)
	default:
		reply = r.reply(from, question, w.LocalAddr().Network())
	}
	_ = w.WriteMsg(reply) // the asker asks again
}

func sender(a net.Addr) (netip.Addr, bool) {
	p, err := netip.ParseAddrPort(a.String())
	return p.Addr().Unmap(), err == nil
}

// reply answers what is known here and asks others for the rest.
func (r *Resolver) reply(from netip.Addr, question *dns.Msg, protocol string) *dns.Msg {
	q := question.Question[0]
	name := strings.TrimSuffix(q.Name, ".")
	var answers []dns.RR
	var who asker
	known := false
	if address, ok := addressOf(name); ok && q.Qtype == dns.TypePTR {
		var target string
		if target, who = r.host.reverse(from, address); target != "" {
			known = true
			answers = append(answers, &dns.PTR{Hdr: header(q), Ptr: dns.Fqdn(target)})
		}
	} else {
		var addresses []netip.Addr
		addresses, who = r.host.lookup(from, name)
		known = len(addresses) > 0
		for _, a := range addresses {
			if q.Qtype == dns.TypeA || q.Qtype == dns.TypeANY {
				answers = append(answers, &dns.A{Hdr: header(q), A: a.AsSlice()})
			}
		}
	}
	reply := new(dns.Msg).SetReply(question)
	switch {
	case known:
		reply.Authoritative, reply.RecursionAvailable, reply.Answer = true, who.outside, answers
	case len(who.networks) == 0:
		reply.Rcode = dns.RcodeRefused
	case !who.outside:
		reply.Rcode = dns.RcodeNameError
	default:
		return r.forward(question, protocol)
	}
	return reply
}

func header(q dns.Question) dns.RR_Header {
	return dns.RR_Header{Name: q.Name, Rrtype: rrtype(q.Qtype), Class: dns.ClassINET, Ttl: answerTTL}
}

func rrtype(asked uint16) uint16 {
	if asked == dns.TypeANY {
		return dns.TypeA
	}
	return asked
}

// addressOf reads a name below in-addr.arpa.
func addressOf(name string) (netip.Addr, bool) {
	labels, ok := strings.CutSuffix(strings.ToLower(name), ".in-addr.arpa")
	if !ok {
		return netip.Addr{}, false
	}
	parts := strings.Split(labels, ".")
	slices.Reverse(parts)
	a, err := netip.ParseAddr(strings.Join(parts, "."))
	return a, err == nil && a.Is4()
}

// forward asks other servers, one after the other, by the protocol the question
// came by: what is too long for a datagram is the asker's to ask again.
func (r *Resolver) forward(question *dns.Msg, protocol string) *dns.Msg {
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	default:
		return new(dns.Msg).SetRcode(question, dns.RcodeServerFailure)
	}
	client := &dns.Client{Net: protocol, Timeout: upstreamWait}
	for _, server := range r.upstreams() {
		reply, _, err := client.Exchange(question.Copy(), server)
		if err == nil && reply != nil {
			reply.Id = question.Id
			return reply
		}
	}
	return new(dns.Msg).SetRcode(question, dns.RcodeServerFailure)
}

// upstreams are the servers to ask; the host's may change at any time.
func (r *Resolver) upstreams() []string {
	if len(r.upstream) > 0 {
		return r.upstream
	}
	b, err := os.ReadFile(resolvConf)
	if err != nil {
		return nil
	}
	var servers []string
	for _, s := range parseServers(string(b)) {
		servers = append(servers, net.JoinHostPort(s, "53"))
	}
	return servers
}
