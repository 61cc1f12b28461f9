package image

import (
	"archive/tar"
	"bytes"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// unpackBeside unpacks into a directory beside a canary and fails the test if
// anything but that directory changed.
func unpackBeside(t testing.TB, layer []byte) (dir string, err error) {
	t.Helper()
	requireRoot(t)
	base := t.TempDir()
	dir, outside := filepath.Join(base, "in"), filepath.Join(base, "out")
	for _, d := range []string{dir, outside} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(outside+"/canary", []byte("alive"), 0o640); err != nil {
		t.Fatal(err)
	}
	before := describe(t, outside)
	_, err = unpackLayer(t.Context(), dir, bytes.NewReader(layer))
	if diff := cmp.Diff(before, describe(t, outside)); diff != "" {
		t.Errorf("outside changed:\n%s", diff)
	}
	entries, readErr := os.ReadDir(base)
	if readErr != nil || len(entries) != 2 {
		t.Errorf("beside the layer lie %v (%v)", entries, readErr)
	}
	return dir, err
}

// Whatever an archive says, nothing outside of its directory changes. Whether
// such an entry is refused or ends inside is told by wantErr.
func TestHostileArchivesStayInside(t *testing.T) {
	link := func(name, target string) item { return itemLink(tar.TypeSymlink, name, target) }
	hard := func(name, target string) item { return itemLink(tar.TypeLink, name, target) }
	evil := func(name string) item { return itemFile(name, 0o4777, "evil") }
	for name, tc := range map[string]struct {
		items   []item
		wantErr bool
	}{
		"dots":                     {[]item{evil("../out/canary")}, true},
		"dots inside":              {[]item{evil("a/../../out/canary")}, true},
		"absolute":                 {[]item{evil("/out/canary")}, false},
		"link up":                  {[]item{link("l", ".."), evil("l/out/canary")}, false},
		"link up, relative":        {[]item{link("l", "../out"), evil("l/canary")}, false},
		"link, absolute":           {[]item{link("l", "/../../out"), evil("l/canary")}, false},
		"link of links":            {[]item{link("a", ".."), link("a/b", ".."), link("a/b/c", "../../out"), evil("c/canary")}, false},
		"link as last part":        {[]item{link("l", "../out/canary"), evil("l")}, false},
		"link through proc":        {[]item{link("l", "/proc/self/root"), evil("l/out/canary")}, false},
		"directory over link":      {[]item{link("l", "../out"), itemDir("l", 0o777), evil("l/canary")}, false},
		"directory through link":   {[]item{link("l", ".."), itemDir("l/out", 0o777)}, false},
		"loop":                     {[]item{link("a", "b"), link("b", "a"), evil("a/x")}, true},
		"loop to itself":           {[]item{link("a", "a/a"), evil("a/x")}, true},
		"hard link, dots":          {[]item{hard("h", "../out/canary"), evil("h")}, true},
		"hard link, absolute":      {[]item{hard("h", "/../out/canary")}, true},
		"hard link through link":   {[]item{link("l", "../out"), hard("h", "l/canary")}, true},
		"hard link to link":        {[]item{link("l", "../out/canary"), hard("h", "l"), evil("h")}, false},
		"hard link to directory":   {[]item{itemDir("d", 0o755), hard("h", "d")}, true},
		"whiteout of dots":         {[]item{evil(".wh...")}, true},
		"whiteout of dot":          {[]item{evil(".wh..")}, true},
		"whiteout of nothing":      {[]item{evil(".wh.")}, true},
		"whiteout through link":    {[]item{link("l", "../out"), evil("l/.wh.canary")}, false},
		"opaque through link":      {[]item{link("l", "../out"), evil("l/.wh..wh..opq")}, false},
		"file as parent":           {[]item{evil("f"), evil("f/x")}, true},
		"device 0:0":               {[]item{{Header: tar.Header{Typeflag: tar.TypeChar, Name: "d"}}}, true},
		"root is a link":           {[]item{link(".", "../out"), evil("canary")}, true},
		"root is a file":           {[]item{evil(".")}, true},
		"replaced under its child": {[]item{evil("d/x"), link("d", "../out"), evil("d/canary")}, false},
		"device through link": {[]item{link("l", "../out"), {Header: tar.Header{
			Typeflag: tar.TypeBlock, Name: "l/sda", Devmajor: 8, Mode: 0o666}}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := unpackBeside(t, pack(t, tc.items...))
			if (err != nil) != tc.wantErr {
				t.Errorf("unpack: %v, want error: %v", err, tc.wantErr)
			}
		})
	}
}

// Numbers no file can have, and attributes that would speak to overlayfs.
func TestHostileMetadata(t *testing.T) {
	big := itemFile("f", 0o644, "x")
	big.Uid = math.MaxUint32
	if _, err := unpackBeside(t, pack(t, big)); err == nil {
		t.Error("owner -1 was unpacked")
	}
	marked := itemDir("d", 0o755)
	marked.PAXRecords = map[string]string{
		"SCHILY.xattr.trusted.overlay.opaque":   "y",
		"SCHILY.xattr.trusted.overlay.redirect": "/etc",
		"SCHILY.xattr.user.overlay.opaque":      "y",
		"SCHILY.xattr.security.selinux":         "label",
	}
	dir, err := unpackBeside(t, pack(t, marked))
	if err != nil {
		t.Fatal(err)
	}
	if got := xattrsOf(t, dir+"/d"); got != "" {
		t.Errorf("attributes taken over:%s", got)
	}
}

// An archive that ends within a header or a content is an error. One that ends
// in the padding behind a content has lost nothing; archive/tar takes it, and
// the digests of a layer find it.
func TestCutArchives(t *testing.T) {
	layer := pack(t, itemDir("d", 0o755), itemFile("d/f", 0o644, strings.Repeat("x", 3000)), itemFile("g", 0o644, "y"))
	for _, n := range []int{1, 511, 513, 1023, 1025, 2000, 4023, 4097, 4607, 5121, 5631} {
		if _, err := unpackBeside(t, layer[:n]); err == nil {
			t.Errorf("archive cut after %d of %d bytes was unpacked", n, len(layer))
		}
	}
}

// Names are bytes: whatever the file system takes is unpacked as it is.
func TestNamesOfAnyBytes(t *testing.T) {
	names := []string{"new\nline", "tab\t", "\xff\xfe", "back\\slash", "colon:comma,", strings.Repeat("n", 255), "sp ace", "-rf", "*"}
	var items []item
	for _, n := range names {
		items = append(items, itemFile("d/"+n, 0o644, n))
	}
	dir, err := unpackBeside(t, pack(t, items...))
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir + "/d")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	slices.Sort(names)
	if diff := cmp.Diff(names, got); diff != "" {
		t.Error(diff)
	}
}

// FuzzUnpackEntries makes archives of entries that the fuzzer writes as lines
// "type name target", for random bytes seldom are an archive.
func FuzzUnpackEntries(f *testing.F) {
	f.Add("2 l ../out\n0 l/canary\n1 h l/canary\n5 l\n0 l/canary")
	f.Add("2 a ..\n2 a/b ..\n0 a/b/out/canary\n0 a/.wh.out\n0 .wh..wh..opq")
	f.Add("5 d\n2 d/e /d\n1 d/e/f d\n6 d/e/e/fifo\n3 d/e/null\n0 d/.wh.e")
	f.Fuzz(func(t *testing.T, script string) {
		var items []item
		for line := range strings.Lines(script) {
			fields := strings.Fields(line)
			if len(fields) < 2 || len(fields[0]) != 1 || len(items) > 30 || len(line) > 300 {
				continue
			}
			it := item{Header: tar.Header{Typeflag: fields[0][0], Name: fields[1], Mode: 0o4777, Devmajor: 1, Devminor: 3}}
			if len(fields) > 2 {
				it.Linkname = fields[2]
			}
			if it.Typeflag == tar.TypeReg {
				it.content = "evil"
			}
			items = append(items, it)
		}
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		for _, it := range items {
			it.Header.Size = int64(len(it.content))
			if w.WriteHeader(&it.Header) != nil {
				return // not to be written as an archive
			}
			if _, err := w.Write([]byte(it.content)); err != nil {
				return
			}
		}
		if err := w.Close(); err != nil {
			return
		}
		_, _ = unpackBeside(t, buf.Bytes()) // an error is an answer, too
	})
}
