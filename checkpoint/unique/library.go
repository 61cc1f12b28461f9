package unique

import "strings"

// unrenewed are libraries, by how their name starts, that keep random state
// which nothing here renews.
var unrenewed = []struct{ prefix, words string }{
	{"libgnutls.so", "random generators of GnuTLS"},
	{"libgcrypt.so", "random generators of libgcrypt"},
	{"libfreebl", "random generators of NSS"},
	{"libmbedcrypto.so", "random generators of Mbed TLS"},
	{"libwolfssl.so", "random generators of wolfSSL"},
	{"libbotan", "random generators of Botan"},
	{"libruby", "ruby's Random and seed of hashes"},
	{"libperl", "perl's rand and seed of hashes"},
	{"libphp", "php's mt_rand and lcg_value"},
	{"libcoreclr.so", ".NET's Random and seed of hashes"},
	{"libmonosgen", ".NET's Random and seed of hashes"},
	{"ruby", "ruby's Random and seed of hashes"},
	{"perl", "perl's rand and seed of hashes"},
	{"php", "php's mt_rand and lcg_value"},
	{"beam.smp", "erlang's rand"},
	{"redis-server", "redis's generator of random ids and seed of hashes"},
	{"postgres", "postgres's random()"},
}

// libraries names what is mapped and not renewed.
func (f *finder) libraries() {
	for _, o := range f.objects {
		for _, u := range unrenewed {
			if strings.HasPrefix(o.name, u.prefix) {
				f.share(u.words)
			}
		}
	}
}
