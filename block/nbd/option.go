package nbd

import (
	"encoding/binary"
	"errors"
	"strings"
	"unicode/utf8"
)

var (
	errOptionData = errors.New("option data does not fit its lengths")
	errName       = errors.New("name is longer than 4096 bytes, has a NUL, or is no UTF-8")
	errQueries    = errors.New("too many queries")
)

// fields takes option data apart. After an error it stays failed.
type fields struct {
	rest []byte
	err  error
}

func (f *fields) next(lenBytes int) []byte {
	if f.err == nil && lenBytes > len(f.rest) {
		f.err = errOptionData
	}
	if f.err != nil {
		return nil
	}
	b := f.rest[:lenBytes]
	f.rest = f.rest[lenBytes:]
	return b
}

func (f *fields) uint16() int {
	if b := f.next(2); b != nil {
		return int(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (f *fields) uint32() int {
	if b := f.next(4); b != nil {
		return int(binary.BigEndian.Uint32(b))
	}
	return 0
}

// text is a string behind its length.
func (f *fields) text() string {
	text := string(f.next(f.uint32()))
	if f.err == nil && !validText(text) {
		f.err = errName
	}
	return text
}

func (f *fields) end() error {
	if f.err == nil && len(f.rest) > 0 {
		f.err = errOptionData
	}
	return f.err
}

func validText(text string) bool {
	return len(text) <= maxNameBytes && utf8.ValidString(text) && !strings.Contains(text, "\x00")
}

// infoQuery is the data of the options INFO and GO:
//
//	length of name 4, name, number n of kinds 2, n kinds of 2
type infoQuery struct {
	name  string
	kinds map[uint16]bool
}

func decodeInfoQuery(data []byte) (infoQuery, error) {
	f := fields{rest: data}
	q := infoQuery{name: f.text(), kinds: map[uint16]bool{}}
	for n := f.uint16(); n > 0 && f.err == nil; n-- {
		q.kinds[uint16(f.uint16())] = true
	}
	return q, f.end()
}

// metaQuery is the data of the options LIST_META_CONTEXT and SET_META_CONTEXT:
//
//	length of name 4, name, number n of queries 4, n times: length 4, query
type metaQuery struct {
	name    string
	queries []string
}

func decodeMetaQuery(data []byte) (metaQuery, error) {
	f := fields{rest: data}
	q := metaQuery{name: f.text()}
	n := f.uint32()
	if n > maxQueries {
		return q, errQueries
	}
	for ; n > 0 && f.err == nil; n-- {
		q.queries = append(q.queries, f.text())
	}
	return q, f.end()
}

// wantsAllocation says whether a query is about base:allocation. Other contexts
// and name spaces are to be ignored.
func (q metaQuery) wantsAllocation(list bool) bool {
	if list && len(q.queries) == 0 {
		return true
	}
	for _, query := range q.queries {
		if query == metaAllocation || list && query == "base:" {
			return true
		}
	}
	return false
}
