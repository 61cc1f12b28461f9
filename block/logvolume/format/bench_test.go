package format

import "testing"

func BenchmarkRowEncode(b *testing.B) {
	r := newExamples(1).random255()
	to := make([]byte, r.HeaderBlocks()*BlockBytes)
	b.SetBytes(int64(len(to)))
	b.ReportAllocs()
	for b.Loop() {
		r.EncodeTo(to)
	}
}

func BenchmarkRowDecode(b *testing.B) {
	from := encoded(newExamples(1).random255())
	b.SetBytes(int64(len(from)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeRow(from); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRowPrefix(b *testing.B) {
	from := encoded(newExamples(1).random255())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeRowPrefix(from); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLeaf(b *testing.B) {
	leaf := newExamples(1).leaf()
	block := make([]byte, BlockBytes)
	b.Run("encode", func(b *testing.B) {
		for b.Loop() {
			EncodeLeaf(block, leaf)
		}
	})
	b.Run("decode", func(b *testing.B) {
		for b.Loop() {
			if err := DecodeLeaf(block, leaf); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkManifest is for 16,000 segments and 524,288 leaves.
func BenchmarkManifest(b *testing.B) {
	m := newExamples(1).terabyte()
	content := m.Encode()
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(content)))
		for b.Loop() {
			m.Encode()
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(content)))
		for b.Loop() {
			if _, err := DecodeManifest(content); err != nil {
				b.Fatal(err)
			}
		}
	})
}
