package keeper

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"torpor/checkpoint"
	"torpor/host"
	"torpor/kernel/netns"
	kernelsocket "torpor/kernel/socket"
	"torpor/socket"
	"torpor/socket/filter"
	"torpor/socket/imagefile"
	"torpor/socket/segment"
)

// suspension is how the connections of a sleeping service are kept without
// sockets: records in a file, and a filter that keeps their packets from the
// kernel.
//
//	parked --suspend--> suspended --restore--> parked --wake--> awake
//
// The checkpoint's meta says which; what it does not say yet, or not any more,
// is in sockets in repair mode, of which peers notice nothing.
type suspension struct {
	service *service
	image   *imagefile.File
	filter  *filter.Filter
	over    chan struct{} // closed when this keeper answers no more
	ended   atomic.Bool   // the kernel has the connections, or nobody
	removed chan struct{} // closed when there is no filter any more
}

const (
	socketImageName = "sockets.img"
	filterTable     = "torpor_sleep"
	filterQueue     = 0xfff0 // in the container's namespace; few choose such a number
)

func (s *service) netnsPath() string { return fmt.Sprintf("/proc/%d/ns/net", s.target.InitPID) }

func (s *service) socketImagePath() string {
	return filepath.Join(s.target.CheckpointDir, socketImageName)
}

// startSuspension begins to answer for the connections in the image.
func (s *service) startSuspension(image *imagefile.File) error {
	if s.lastSuspension != nil {
		<-s.lastSuspension.removed // it has the queue
	}
	p := &suspension{service: s, image: image, over: make(chan struct{}), removed: make(chan struct{})}
	var err error
	p.filter, err = filter.Open(filter.Config{Namespace: s.netnsPath(), Table: filterTable, QueueBase: filterQueue,
		Guard: []netip.AddrPort{{}}, Handler: p})
	if err != nil {
		return err
	}
	s.helpers.Go(func() {
		if err := p.filter.Run(context.Background()); err != nil {
			s.event(host.EventError, err.Error(), nil)
		}
	})
	s.suspension = p
	return nil
}

// Find implements filter.Handler.
func (p *suspension) Find(k socket.Key) (*socket.Spec, bool) {
	if p.ended.Load() {
		return nil, false
	}
	spec, err := p.image.Get(k)
	return &spec, err == nil
}

// Update implements filter.Handler.
func (p *suspension) Update(k socket.Key, w socket.Window) {
	if err := p.image.SetWindow(k, w); err != nil {
		p.service.event(host.EventError, err.Error(), nil)
	}
}

// Wake implements filter.Handler: it wakes the service, whichever of its
// connections is needed.
func (p *suspension) Wake(k socket.Key, reason segment.Reason) error {
	woken := make(chan error, 1)
	wake := func() {
		_, err := p.service.wake(fmt.Sprintf("%s on the connection with %s", reason, k.Remote))
		if err != nil {
			p.service.event(host.EventError, "wake: "+err.Error(), nil)
		}
		woken <- err
	}
	err := errOver
	select {
	case p.service.work <- wake:
		err = <-woken
	case <-p.over:
	}
	if p.ended.Load() {
		return nil // who else has sent something: its connection has a socket again
	}
	return err
}

// errOver drops a packet, which its peer repeats: another keeper will answer.
var errOver = errors.New("wake service: this keeper has ended")

// endSuspension lets the kernel have all packets again. The reader of the
// filter may be waiting for what runs now, so nobody waits for it here.
func (s *service) endSuspension() {
	p := s.suspension
	if p == nil {
		return
	}
	s.suspension, s.lastSuspension = nil, p
	p.ended.Store(true)
	close(p.over)
	s.helpers.Go(func() {
		defer close(p.removed)
		if err := errors.Join(p.filter.Remove(), p.image.Close()); err != nil {
			s.event(host.EventError, err.Error(), nil)
		}
	})
}

// leaveSuspension stops answering, for the next keeper to go on. Peers repeat
// what they send meanwhile.
func (s *service) leaveSuspension() {
	p := s.suspension
	if p == nil {
		return
	}
	s.suspension = nil
	close(p.over)
	s.helpers.Go(func() {
		if err := errors.Join(p.filter.Close(), p.image.Close()); err != nil {
			s.event(host.EventError, err.Error(), nil)
		}
	})
}

// suspend takes the sockets of the sleeping service's connections away, as many
// of the last ones as can be. It says why others stay, if any do.
func (s *service) suspend(now time.Time) (why string, err error) {
	spec, err := checkpoint.ReadSpec(s.target.CheckpointDir)
	if err != nil {
		return "", err
	}
	if spec.Suspended > 0 || spec.Connections == 0 {
		return "", nil
	}
	fds, why, err := s.chosen(spec, now)
	if err != nil || len(fds) == 0 {
		closeAll(fds)
		return why, err
	}
	s.closeWatch()
	if s.stub != nil { // it knows nothing of what has to be watched again
		if err := s.stub.Kill(); err != nil {
			closeAll(fds)
			return "", err
		}
		s.stub = nil
	}
	err = s.suspendLast(spec, fds)
	closeAll(fds)
	if spec.Suspended > 0 {
		s.set(func(st *Status) { st.ConnectionsSuspended = spec.Suspended })
		s.event(host.EventSuspend, "", map[string]string{"connections": fmt.Sprint(spec.Suspended)})
	}
	s.rearm(spec)
	return why, err
}

func closeAll(fds []int) {
	for _, fd := range fds {
		syscall.Close(fd)
	}
}

// chosen takes the last connections that the analyzer would suspend, and says
// why not the one before them.
func (s *service) chosen(spec *checkpoint.Spec, now time.Time) (fds []int, why string, err error) {
	defer func() { slices.Reverse(fds) }()
	for slot := spec.Parked - 1; slot >= spec.Parked-spec.Connections; slot-- {
		fd, err := s.holder.Take(checkpoint.Slot(slot))
		if err != nil {
			return fds, "", err
		}
		fds = append(fds, fd)
		k, err := socket.KeyOf(fd)
		if err != nil {
			return fds, "", err
		}
		if c := s.analyzer.Choose(k, now); !c.Suspend {
			syscall.Close(fd)
			return fds[:len(fds)-1], c.Why, nil
		}
	}
	return fds, "", nil
}

// suspendLast suspends the last connections, whose descriptors are given.
func (s *service) suspendLast(spec *checkpoint.Spec, fds []int) (err error) {
	if err := removeFile(s.socketImagePath()); err != nil {
		return err
	}
	image, err := imagefile.Create(s.socketImagePath())
	if err != nil {
		return err
	}
	if err := s.startSuspension(image); err != nil {
		return errors.Join(err, image.Close())
	}
	err = s.suspension.filter.Still(func() error { return s.suspendRead(spec, image, fds) })
	if spec.Suspended == 0 {
		s.endSuspension()
	}
	return err
}

// suspendRead is suspendLast while no packet is under way.
func (s *service) suspendRead(spec *checkpoint.Spec, image *imagefile.File, fds []int) error {
	all, err := s.readConnections(fds)
	if err != nil {
		return errors.Join(err, takeBack(fds[:len(all)], all))
	}
	if slices.ContainsFunc(all, func(one socket.Suspended) bool { return one.Err == nil && len(one.Spec.Unread) > 0 }) {
		// It arrived since the service was watched, and shall wake it: the next
		// watch sees it on a socket, and nobody would see it in a record.
		return takeBack(fds, all)
	}
	kept := len(all) // from here on all can be suspended
	for kept > 0 && all[kept-1].Err == nil {
		kept--
	}
	if err := takeBack(fds[:kept], all[:kept]); err != nil {
		return errors.Join(err, takeBack(fds[kept:], all[kept:]))
	}
	if kept == len(all) {
		return all[kept-1].Err
	}
	err = s.keepRecords(spec, image, all[kept:], spec.Parked-len(all)+kept)
	if err != nil && spec.Suspended == 0 {
		return errors.Join(err, takeBack(fds[kept:], all[kept:]))
	}
	return err
}

func (s *service) readConnections(fds []int) (all []socket.Suspended, err error) {
	err = netns.Do(s.netnsPath(), func() error {
		suspender, err := socket.NewSuspender()
		if err != nil {
			return err
		}
		all = suspender.Suspend(fds...)
		return suspender.Close()
	})
	return all, err
}

// takeBack lets connections go on that were read and are not suspended.
func takeBack(fds []int, all []socket.Suspended) error {
	var errs []error
	for i := range all {
		if all[i].Err == nil {
			errs = append(errs, socket.Resume(fds[i], all[i].Spec))
		}
	}
	return errors.Join(errs...)
}

// keepRecords writes the records and lets the holder go of the sockets.
func (s *service) keepRecords(spec *checkpoint.Spec, image *imagefile.File, all []socket.Suspended, first int) error {
	records, keys := make([]*socket.Spec, len(all)), make([]socket.Key, len(all))
	for i := range all {
		records[i], keys[i] = all[i].Spec, all[i].Spec.Key
		records[i].Tag = uint64(first + i)
	}
	if err := s.suspension.filter.Shield(keys); err != nil {
		return err
	}
	if err := image.AddAll(records); err != nil {
		return err
	}
	return spec.Suspend(s.target.CheckpointDir, s.holder, len(all))
}

// parkAgain makes the sockets of the suspended connections again and parks
// them. One that can not be made comes back reset by its peer.
func (s *service) parkAgain(spec *checkpoint.Spec) error {
	if spec.Suspended == 0 {
		return nil
	}
	m := &maker{first: spec.Parked - spec.Suspended, fds: make([]int, spec.Suspended), records: make([]*socket.Spec, spec.Suspended)}
	for i := range m.fds {
		m.fds[i] = -1
	}
	defer m.close()
	if s.suspension != nil {
		m.read(s.suspension.image)
	}
	if err := netns.Do(s.netnsPath(), m.make); err != nil {
		return err
	}
	if err := s.holder.Truncate(m.first); err != nil { // of an earlier try
		return err
	}
	if err := s.holder.Park(m.fds); err != nil {
		return err
	}
	if err := spec.Resume(s.target.CheckpointDir); err != nil {
		return err
	}
	if m.lost > 0 {
		s.event(host.EventError, fmt.Sprintf("%d suspended connections are reset: %v", m.lost, m.why), nil)
	}
	err := m.goOn()
	s.endSuspension()
	return errors.Join(err, removeFile(s.socketImagePath()))
}

// maker makes the sockets of suspended connections, in the order of their slots.
type maker struct {
	first   int // slot
	fds     []int
	records []*socket.Spec // nil: reset
	lost    int
	why     error
}

func (m *maker) read(image *imagefile.File) {
	for k := range image.All() {
		record, err := image.Get(k)
		if err != nil {
			m.why = err
			continue
		}
		if i := int(record.Tag) - m.first; i >= 0 && i < len(m.records) {
			m.records[i] = &record
		}
	}
}

func (m *maker) make() error {
	for i, record := range m.records {
		if record == nil {
			continue
		}
		fd, err := socket.Restore(record)
		if err != nil {
			m.why, m.records[i] = err, nil
			continue
		}
		m.fds[i] = fd
	}
	return m.makeReset()
}

// makeReset makes those that can not be restored.
func (m *maker) makeReset() (err error) {
	for i, record := range m.records {
		if record != nil {
			continue
		}
		if m.fds[i], err = kernelsocket.NewReset(); err != nil {
			return err
		}
		m.lost++
	}
	return nil
}

// goOn lets the connections send and receive.
func (m *maker) goOn() error {
	var errs []error
	for i, record := range m.records {
		if record != nil {
			errs = append(errs, socket.Resume(m.fds[i], record))
		}
	}
	return errors.Join(errs...)
}

func (m *maker) close() {
	for _, fd := range m.fds {
		if fd >= 0 {
			syscall.Close(fd)
		}
	}
}

// findSuspended goes on with what an earlier keeper has begun.
func (s *service) findSuspended(spec *checkpoint.Spec) error {
	if err := spec.Settle(s.holder); err != nil {
		return err
	}
	image, recovery, err := imagefile.Open(s.socketImagePath())
	if spec.Suspended == 0 {
		if err == nil {
			defer image.Close()
		}
		return errors.Join(filter.Remove(s.netnsPath(), filterTable), s.goOnParked(spec, image))
	}
	if err != nil {
		s.event(host.EventError, "suspended connections are lost: "+err.Error(), nil)
		return filter.Remove(s.netnsPath(), filterTable)
	}
	if len(recovery.Lost) > 0 {
		s.event(host.EventError, fmt.Sprintf("records of suspended connections are damaged at %d places", len(recovery.Lost)), nil)
	}
	if err := s.startSuspension(image); err != nil {
		return errors.Join(err, image.Close())
	}
	if err := s.suspension.filter.Shield(slices.Collect(image.All())); err != nil {
		s.event(host.EventError, err.Error(), nil) // it answers for them all the same
	}
	return nil
}

// findUnfiltered removes the filter that a keeper left which was killed in the
// middle of a wake.
func (s *service) findUnfiltered() error {
	if s.target.NoSleepReason != "" {
		return nil
	}
	return filter.Remove(s.netnsPath(), filterTable)
}

// goOnParked takes connections out of repair mode, and lets those hear, that were
// being suspended or restored when a keeper was killed. image may be nil.
func (s *service) goOnParked(spec *checkpoint.Spec, image *imagefile.File) error {
	var errs []error
	for i := spec.Parked - spec.Connections; i < spec.Parked; i++ {
		errs = append(errs, s.goOn(checkpoint.Slot(i), image))
	}
	return errors.Join(errs...)
}

func (s *service) goOn(slot checkpoint.Slot, image *imagefile.File) error {
	fd, err := s.holder.Take(slot)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	on, err := kernelsocket.Repairing(fd)
	if err != nil {
		return err
	}
	if !on { // it may be deaf already; a filter of its own it has not, or it would not be among these
		return kernelsocket.Hear(fd)
	}
	record := socket.Spec{}
	if image != nil {
		if k, err := socket.KeyOf(fd); err == nil {
			record, _ = image.Get(k)
		}
	}
	return socket.Resume(fd, &record)
}

// suspendLate suspends connections when it is time.
func (s *service) suspendLate(now time.Time) {
	st := s.snapshot()
	if s.suspension != nil || st.ConnectionsHeld == 0 || now.Before(s.suspendAt) {
		return
	}
	if s.analyzer.Waits() {
		if _, err := s.look(now); err != nil {
			s.event(host.EventError, err.Error(), nil)
		}
	}
	if !s.analyzer.AnySuspended(now) {
		return
	}
	s.suspendAt = now.Add(suspendAgain)
	why, err := s.suspend(now)
	if err != nil {
		why = err.Error()
	}
	s.set(func(st *Status) { st.ConnectionsParkedWhy = why })
}

// suspendAgain is the pause after a try.
const suspendAgain = 30 * time.Second
