package nbd

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

var (
	errAborted     = errors.New("client aborted the handshake")
	errClientFlags = errors.New("unknown client flags")
	errTooLong     = errors.New("option is too long")
	errTooMany     = errors.New("too many options")
	errUnknown     = errors.New("no such export")
	errNeedsTLS    = errors.New("client did not start TLS")
	errSimple      = errors.New("structured replies were not agreed on")
	errEarlyData   = errors.New("data before TLS was started")
)

// handshake agrees with a client on terms. It is used once, by one goroutine,
// and bounded by the deadline of the connection.
type handshake struct {
	catalog  catalog
	tls      *tls.Config // nil: none
	needsTLS bool

	conn      net.Conn // replaced when TLS starts
	in        *intake
	out       bytes.Buffer // replies to be sent
	secure    bool
	noZeroes  bool
	terms     terms
	metaFor   *export // for which the client chose base:allocation
	remaining int     // options
}

// catalog finds exports for a handshake.
type catalog interface {
	find(name string) *export // nil: none
	list() []*export
}

// run returns with the terms of the transmission phase. In which order it
// happens: greeting, client flags, options until one that ends it. The reply to
// that one is left in out, to be sent when the connection is in the transmission
// phase: the client is as soon as it has that reply, and may send requests.
func (h *handshake) run() error {
	h.remaining = maxOptions
	if err := h.greet(); err != nil {
		return fmt.Errorf("greet client: %w", err)
	}
	for ; h.remaining > 0; h.remaining-- {
		code, data, err := h.next()
		if err != nil {
			return fmt.Errorf("read option: %w", err)
		}
		if code == 0 {
			continue // dropped and answered
		}
		if done, err := h.handle(code, data); done || err != nil {
			return err
		}
		if err := h.flush(); err != nil {
			return err
		}
	}
	return errTooMany
}

func (h *handshake) greet() error {
	b := binary.BigEndian.AppendUint64(nil, magicServer)
	b = binary.BigEndian.AppendUint64(b, magicOption)
	b = binary.BigEndian.AppendUint16(b, handshakeFlags)
	if _, err := h.conn.Write(b); err != nil {
		return err
	}
	var answer [4]byte
	if _, err := io.ReadFull(h.in, answer[:]); err != nil {
		return err
	}
	flags := binary.BigEndian.Uint32(answer[:])
	h.noZeroes = flags&handshakeNoZeroes != 0
	if flags&^handshakeFlags != 0 {
		return fmt.Errorf("%w %#x", errClientFlags, flags)
	}
	return nil
}

// next reads an option; its code is 0 if its data was dropped:
//
//	magic 8 | code 4 | length 4 | data
func (h *handshake) next() (code uint32, data []byte, err error) {
	var head [16]byte
	if _, err := io.ReadFull(h.in, head[:]); err != nil {
		return 0, nil, err
	}
	if magic := binary.BigEndian.Uint64(head[:]); magic != magicOption {
		return 0, nil, fmt.Errorf("%w %#x", errMagic, magic)
	}
	code = binary.BigEndian.Uint32(head[8:])
	lenBytes := binary.BigEndian.Uint32(head[12:])
	switch {
	case lenBytes > maxDroppedOptionBytes || lenBytes > maxOptionBytes && code == optionExportName:
		return 0, nil, fmt.Errorf("%w: %d bytes", errTooLong, lenBytes)
	case lenBytes > maxOptionBytes:
		if _, err := h.in.Discard(int(lenBytes)); err != nil {
			return 0, nil, err
		}
		h.reply(code, replyErrorTooBig, []byte(errTooLong.Error()))
		return 0, nil, h.flush()
	}
	data = make([]byte, lenBytes)
	_, err = io.ReadFull(h.in, data)
	return code, data, err
}

// handle answers an option; done means that the transmission phase begins.
func (h *handshake) handle(code uint32, data []byte) (done bool, err error) {
	if h.needsTLS && !h.secure && code != optionStartTLS && code != optionAbort {
		if code == optionExportName {
			return false, errNeedsTLS
		}
		h.reply(code, replyErrorTLSRequired, nil)
		return false, nil
	}
	switch code {
	case optionExportName:
		return true, h.exportName(data)
	case optionAbort:
		h.reply(code, replyAck, nil)
		h.flush() // the client may be gone, which is what it wants
		return false, errAborted
	case optionList:
		h.list(data)
	case optionStartTLS:
		return false, h.startTLS(data)
	case optionInfo, optionGo:
		return h.info(code, data), nil
	case optionStructuredReply:
		h.structuredReply(data)
	case optionListMetaContexts, optionSetMetaContexts:
		h.metaContexts(code, data)
	default:
		h.reply(code, replyErrorUnsupported, nil)
	}
	return false, nil
}

func (h *handshake) flush() error {
	_, err := h.out.WriteTo(h.conn)
	return err
}

// reply adds to what flush sends.
func (h *handshake) reply(code, kind uint32, parts ...[]byte) {
	lenBytes := 0
	for _, p := range parts {
		lenBytes += len(p)
	}
	b := binary.BigEndian.AppendUint64(nil, magicOptionReply)
	b = binary.BigEndian.AppendUint32(b, code)
	b = binary.BigEndian.AppendUint32(b, kind)
	b = binary.BigEndian.AppendUint32(b, uint32(lenBytes))
	h.out.Write(b)
	for _, p := range parts {
		h.out.Write(p)
	}
}

func (h *handshake) refuse(code, kind uint32, err error) {
	h.reply(code, kind, []byte(err.Error()))
}

// exportName has no way to report an error but to hang up.
func (h *handshake) exportName(data []byte) error {
	e := h.catalog.find(string(data))
	if e == nil {
		return fmt.Errorf("%w: %q", errUnknown, data)
	}
	h.settle(e, false)
	b := binary.BigEndian.AppendUint64(nil, uint64(h.terms.sizeBytes))
	b = binary.BigEndian.AppendUint16(b, h.terms.flags)
	if !h.noZeroes {
		b = append(b, make([]byte, 124)...)
	}
	h.out.Write(b)
	return nil
}

// settle completes the terms for an export. Clients that have not asked for
// block sizes may use any.
func (h *handshake) settle(e *export, sized bool) {
	info := e.Device.Info()
	h.terms.export = e
	h.terms.sizeBytes = info.SizeBytes
	h.terms.blockBytes, h.terms.sized = 1, sized
	if sized {
		h.terms.blockBytes = info.BlockBytes
	}
	h.terms.flags = flagsFor(e.ReadOnly || info.ReadOnly, h.terms.structured)
	h.terms.meta = h.metaFor == e
}

func (h *handshake) list(data []byte) {
	if len(data) > 0 {
		h.refuse(optionList, replyErrorInvalid, errOptionData)
		return
	}
	for _, e := range h.catalog.list() {
		lenBytes := binary.BigEndian.AppendUint32(nil, uint32(len(e.Name)))
		h.reply(optionList, replyServer, lenBytes, []byte(e.Name), []byte(e.Description))
	}
	h.reply(optionList, replyAck)
}

// startTLS forgets all that was agreed on before. Bytes that are here already
// can not be the client's, who waits for the answer.
func (h *handshake) startTLS(data []byte) error {
	switch {
	case h.tls == nil:
		h.reply(optionStartTLS, replyErrorPolicy)
		return nil
	case len(data) > 0 || h.secure:
		h.refuse(optionStartTLS, replyErrorInvalid, errOptionData)
		return nil
	case h.in.Buffered() > 0:
		return errEarlyData
	}
	h.reply(optionStartTLS, replyAck)
	if err := h.flush(); err != nil {
		return err
	}
	secured := tls.Server(h.conn, h.tls)
	if err := secured.Handshake(); err != nil {
		return fmt.Errorf("start TLS: %w", err)
	}
	h.conn, h.secure = secured, true
	h.in = newIntake(secured, nil)
	h.terms, h.metaFor = terms{}, nil
	return nil
}

// info answers INFO and GO; it returns whether the transmission begins.
func (h *handshake) info(code uint32, data []byte) bool {
	q, err := decodeInfoQuery(data)
	if err != nil {
		h.refuse(code, replyErrorInvalid, err)
		return false
	}
	e := h.catalog.find(q.name)
	if e == nil {
		h.refuse(code, replyErrorUnknown, errUnknown)
		return false
	}
	h.settle(e, q.kinds[infoBlockSize])
	h.describe(code, e, q)
	h.reply(code, replyAck)
	return code == optionGo
}

func (h *handshake) describe(code uint32, e *export, q infoQuery) {
	send := func(kind uint16, payload []byte) {
		h.reply(code, replyInfo, binary.BigEndian.AppendUint16(nil, kind), payload)
	}
	size := binary.BigEndian.AppendUint64(nil, uint64(h.terms.sizeBytes))
	send(infoExport, binary.BigEndian.AppendUint16(size, h.terms.flags))
	if q.kinds[infoName] || q.name != e.Name {
		send(infoName, []byte(e.Name))
	}
	if q.kinds[infoDescription] && e.Description != "" {
		send(infoDescription, []byte(e.Description))
	}
	sizes := blockSizesOf(e.Device.Info())
	b := binary.BigEndian.AppendUint32(nil, sizes.minBytes)
	b = binary.BigEndian.AppendUint32(b, sizes.preferredBytes)
	send(infoBlockSize, binary.BigEndian.AppendUint32(b, sizes.maxBytes))
}

func (h *handshake) structuredReply(data []byte) {
	if len(data) > 0 {
		h.refuse(optionStructuredReply, replyErrorInvalid, errOptionData)
		return
	}
	h.terms.structured = true
	h.reply(optionStructuredReply, replyAck)
}

// metaContexts answers LIST_META_CONTEXT and SET_META_CONTEXT. A choice
// replaces the one before, even if it fails.
func (h *handshake) metaContexts(code uint32, data []byte) {
	set := code == optionSetMetaContexts
	if set {
		h.metaFor = nil
	}
	q, err := decodeMetaQuery(data)
	if errors.Is(err, errQueries) {
		h.refuse(code, replyErrorTooBig, err)
		return
	}
	if err == nil && set && !h.terms.structured {
		err = errSimple
	}
	if err != nil {
		h.refuse(code, replyErrorInvalid, err)
		return
	}
	e := h.catalog.find(q.name)
	if e == nil {
		h.refuse(code, replyErrorUnknown, errUnknown)
		return
	}
	if q.wantsAllocation(!set) {
		id := uint32(0)
		if set {
			h.metaFor, id = e, metaAllocationID
		}
		h.reply(code, replyMetaContext, binary.BigEndian.AppendUint32(nil, id), []byte(metaAllocation))
	}
	h.reply(code, replyAck)
}
