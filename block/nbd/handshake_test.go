package nbd

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
)

func TestOptions(t *testing.T) {
	_, socket := serve(t, ServerSpec{}, Export{Name: "a", Description: "first", Device: newRAM(mib, 512)},
		Export{Name: "b", Device: newRAM(mib, 4096), ReadOnly: true})
	name := []byte("x")
	for _, c := range []struct {
		what string
		code uint32
		data []byte
		want uint32
	}{
		{"list", optionList, nil, replyAck},
		{"list with data", optionList, name, replyErrorInvalid},
		{"unknown option", 77, name, replyErrorUnsupported},
		{"peek, withdrawn", 4, name, replyErrorUnsupported},
		{"extended headers", 11, nil, replyErrorUnsupported},
		{"TLS, which is off", optionStartTLS, nil, replyErrorPolicy},
		{"long data", 77, make([]byte, maxOptionBytes+1), replyErrorTooBig},
		{"structured replies with data", optionStructuredReply, name, replyErrorInvalid},
		{"contexts before structured replies", optionSetMetaContexts, metaData("a", metaAllocation), replyErrorInvalid},
		{"structured replies", optionStructuredReply, nil, replyAck},
		{"contexts", optionSetMetaContexts, metaData("a", "qemu:x", metaAllocation), replyAck},
		{"contexts of an unknown export", optionSetMetaContexts, metaData("x", metaAllocation), replyErrorUnknown},
		{"too many contexts", optionSetMetaContexts, metaData("a", make([]string, maxQueries+1)...), replyErrorTooBig},
		{"contexts, short", optionSetMetaContexts, metaData("a", metaAllocation)[:12], replyErrorInvalid},
		{"contexts, long", optionListMetaContexts, append(metaData("a"), 0), replyErrorInvalid},
		{"information", optionInfo, infoData("a", infoBlockSize, 99), replyAck},
		{"information of an unknown export", optionInfo, infoData("x"), replyErrorUnknown},
		{"information of no export, with two there", optionInfo, infoData(""), replyErrorUnknown},
		{"information, empty", optionInfo, nil, replyErrorInvalid},
		{"information, short", optionInfo, infoData("a", 1, 2)[:8], replyErrorInvalid},
		{"information, name too long for the data", optionInfo, []byte{0xff, 0xff, 0xff, 0xff, 0, 0}, replyErrorInvalid},
		{"information, long name", optionInfo, infoData(strings.Repeat("n", maxNameBytes+1)), replyErrorInvalid},
		{"information, name with NUL", optionInfo, infoData("a\x00"), replyErrorInvalid},
		{"go to an unknown export", optionGo, infoData("x"), replyErrorUnknown},
		{"abort", optionAbort, name, replyAck},
	} {
		t.Run(c.what, func(t *testing.T) {
			client := greeted(t, socket, 3)
			if strings.HasPrefix(c.what, "contexts") && !strings.Contains(c.what, "before") || strings.HasPrefix(c.what, "too many") {
				client.option(optionStructuredReply, nil)
			}
			if got := client.final(c.code, c.data); got != c.want {
				t.Errorf("reply %#x, want %#x", got, c.want)
			}
			if c.code == optionAbort {
				client.hungUp()
			} else if got := client.final(optionList, nil); got != replyAck {
				t.Errorf("option after it: %#x", got)
			}
		})
	}
}

func TestListAndInformation(t *testing.T) {
	s, socket := serve(t, ServerSpec{}, Export{Name: "b", Device: newRAM(mib, 4096), ReadOnly: true},
		Export{Name: "a", Description: "first", Device: newRAM(mib, 512)})
	c := greeted(t, socket, 3)
	var names []string
	for _, r := range c.option(optionList, nil) {
		names = append(names, string(r.data))
	}
	if got, want := strings.Join(names, ","), "\x00\x00\x00\x01afirst,\x00\x00\x00\x01b,"; got != want {
		t.Errorf("list %q, want %q", got, want)
	}
	if err := s.Remove("a"); err != nil {
		t.Fatal(err)
	}
	got := map[uint16][]byte{}
	for _, r := range c.option(optionInfo, infoData("", infoName, infoDescription, infoBlockSize)) {
		if r.kind == replyInfo {
			got[binary.BigEndian.Uint16(r.data)] = r.data[2:]
		}
	}
	flags := flagsFor(true, false)
	want := map[uint16][]byte{
		infoExport:    {0, 0, 0, 0, 0, 0x10, 0, 0, byte(flags >> 8), byte(flags)},
		infoName:      []byte("b"),
		infoBlockSize: {0, 0, 0x10, 0, 0, 0, 0x10, 0, 2, 0, 0, 0},
	}
	if len(got) != len(want) {
		t.Errorf("kinds of information: %x", got)
	}
	for kind, data := range want {
		if !bytes.Equal(got[kind], data) {
			t.Errorf("information %d: %x, want %x", kind, got[kind], data)
		}
	}
}

func TestMetaContexts(t *testing.T) {
	_, socket := serve(t, ServerSpec{}, Export{Name: "a", Device: newRAM(mib, 4096)}, Export{Name: "b", Device: newRAM(mib, 4096)})
	for _, c := range []struct {
		what string
		code uint32
		data []byte
		want int
	}{
		{"list all", optionListMetaContexts, metaData("a"), 1},
		{"list name space", optionListMetaContexts, metaData("a", "base:"), 1},
		{"list others", optionListMetaContexts, metaData("a", "base:other", "qemu:"), 0},
		{"set none", optionSetMetaContexts, metaData("a"), 0},
		{"set name space", optionSetMetaContexts, metaData("a", "base:"), 0},
		{"set twice", optionSetMetaContexts, metaData("a", metaAllocation, metaAllocation), 1},
	} {
		client := greeted(t, socket, 3)
		client.option(optionStructuredReply, nil)
		if got := len(client.option(c.code, c.data)) - 1; got != c.want {
			t.Errorf("%s: %d contexts, want %d", c.what, got, c.want)
		}
	}

	other := greeted(t, socket, 3)
	other.option(optionStructuredReply, nil)
	other.option(optionSetMetaContexts, metaData("a", metaAllocation))
	other.option(optionGo, infoData("b"))
	if r := other.do(commandBlockStatus, 0, 0, 4096, nil); r.err != errnoInvalid {
		t.Errorf("block status with the context of another export: %+v", r)
	}
}

func TestExportName(t *testing.T) {
	_, socket := serve(t, ServerSpec{}, Export{Name: "a", Device: newRAM(mib, 512)})
	for flags, padding := range map[uint32]int{0: 124, 1: 124, 3: 0} {
		c := greeted(t, socket, flags)
		c.write(optionBytes(optionExportName, []byte("a")))
		b := c.read(10 + padding)
		if size := binary.BigEndian.Uint64(b); size != mib {
			t.Errorf("flags %d: size %d", flags, size)
		}
		if got := c.readAt(512, 1024); len(got) != 1024 {
			t.Errorf("flags %d: read", flags)
		}
	}
	c := greeted(t, socket, 3)
	c.write(optionBytes(optionExportName, []byte("x")))
	c.hungUp()
}

// TestHostileHandshakes wants the server to hang up, and to go on with others.
func TestHostileHandshakes(t *testing.T) {
	_, socket := serve(t, ServerSpec{}, Export{Name: "a", Device: newRAM(mib, 512)})
	head := func(magic uint64, code, lenBytes uint32) []byte {
		b := binary.BigEndian.AppendUint64(nil, magic)
		b = binary.BigEndian.AppendUint32(b, code)
		return binary.BigEndian.AppendUint32(b, lenBytes)
	}
	for what, bytes := range map[string][]byte{
		"wrong magic":      head(magicServer, optionList, 0),
		"endless option":   head(magicOption, 77, 1<<32-1),
		"long export name": head(magicOption, optionExportName, maxOptionBytes+1),
	} {
		t.Run(what, func(t *testing.T) {
			c := greeted(t, socket, 3)
			c.write(bytes)
			c.hungUp()
		})
	}
	greeted(t, socket, 4).hungUp() // unknown client flag
	many := greeted(t, socket, 3)
	for range maxOptions {
		many.option(77, nil)
	}
	many.hungUp()
	transmits(t, socket, "a", false)
}

func TestHandshakeTimeout(t *testing.T) {
	_, socket := serve(t, ServerSpec{HandshakeTimeout: 1}, Export{Name: "a", Device: newRAM(mib, 512)})
	c := dial(t, socket)
	c.hungUp()
}
