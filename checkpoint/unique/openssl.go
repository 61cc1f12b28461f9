package unique

import (
	"bytes"
	"path"

	"torpor/kernel/proc"
)

// opensslSearch finds RAND_poll of each OpenSSL, in a library or linked into
// the executable. It seeds the primary generator anew; those of the threads
// notice at their next use that they are older than it, and reseed.
//
// It is called only where a generator exists: it would make one, which took
// 11 ms of 13 that a python service with 200 MB needs to come back, and dirtied
// 600 KB. OpenSSL 3 makes a generator of a method that it has looked up by
// name, and keeps the names of all methods of a provider in memory that it
// allocates. Where none of these names is, there is no generator yet.
type opensslSearch struct {
	*finder
	polls []proc.Addr // not called unless a generator exists
	used  bool
}

// opensslMethods are the end of the names of the generators of OpenSSL's own
// providers: CTR-DRBG, HASH-DRBG and HMAC-DRBG.
var opensslMethods = []byte("-DRBG\x00")

// openssl returns nil if the process has no OpenSSL 3.
//
// LibreSSL's RAND_poll does nothing, so a function is asked for that only
// OpenSSL has: of 3.0 or later, or of 1.1.1, whose generators are in its data.
func (f *finder) openssl() search {
	s := &opensslSearch{finder: f}
	for _, o := range f.objects {
		poll := proc.Addr(o.symbol("RAND_poll"))
		switch {
		case poll == 0:
		case o.symbol("RAND_get0_primary") != 0:
			s.polls = append(s.polls, poll)
		case o.symbol("RAND_DRBG_get0_master") != 0:
			f.poll(poll)
		default:
			f.share("random generators of " + o.name + ", an unknown kind of OpenSSL")
		}
	}
	for i := range f.vmas { // what has not changed since is not searched
		s.used = s.used || path.Base(f.vmas[i].Name) == restoredName
	}
	if s.polls == nil {
		return nil
	}
	return s
}

func (f *finder) poll(addr proc.Addr) {
	f.spec.Calls = append(f.spec.Calls, Call{Steps: []Step{{Name: "RAND_poll", Func: addr, Must: true}}})
}

func (s *opensslSearch) look(p piece) {
	s.used = s.used || bytes.Contains(p.b, opensslMethods)
}

func (s *opensslSearch) next() search {
	if s.used {
		for _, poll := range s.polls {
			s.poll(poll)
		}
	}
	return nil
}
