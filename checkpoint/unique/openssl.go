package unique

import "torpor/kernel/proc"

// openssl finds RAND_poll of each OpenSSL, in a library or linked into the
// executable. It seeds the primary generator anew; those of the threads notice
// at their next use that they are older than it, and reseed.
//
// LibreSSL's RAND_poll does nothing, so a function is asked for that only
// OpenSSL has: of 3.0 or later, or of 1.1.1.
func (f *finder) openssl() {
	for _, o := range f.objects {
		poll := o.symbol("RAND_poll")
		if poll == 0 {
			continue
		}
		if o.symbol("RAND_get0_primary") == 0 && o.symbol("RAND_DRBG_get0_master") == 0 {
			f.share("random generators of " + o.name + ", an unknown kind of OpenSSL")
			continue
		}
		f.spec.Calls = append(f.spec.Calls, Call{Steps: []Step{{Name: "RAND_poll", Func: proc.Addr(poll), Must: true}}})
	}
}
