package imagefile

// index finds entries by hashes of keys. It has no keys: the file does, so a
// hash that is found is compared there. There are no pointers in its tables,
// which grow one by one and by a quarter, so that its peak is little above what
// it needs: 10 to 12.5 bytes a connection.
//
// A hash's upper 8 bits choose the table, its lower 32 are the tag.
type index struct {
	tables [256]table
	count  int
}

// slot is a tag and, in the lower half, the unit where the entry begins. Zero
// is empty: entries begin behind the header.
type slot uint64

func newSlot(hash uint64, unit uint32) slot { return slot(hash<<32 | uint64(unit)) }

func (s slot) tag() uint32  { return uint32(s >> 32) }
func (s slot) unit() uint32 { return uint32(s) }

// table is an open addressed hash table, probed linearly.
type table struct {
	slots []slot
	used  int
}

// Tables are filled up to 4/5.
const (
	tableLeast      = 8
	fullNum, fullOf = 4, 5
)

func (x *index) table(hash uint64) *table { return &x.tables[hash>>56] }

// home is where a tag is looked for first. It is monotone, so tables of any
// size do.
func (t *table) home(tag uint32) int { return int(uint64(tag) * uint64(len(t.slots)) >> 32) }

func (t *table) after(i int) int {
	if i++; i < len(t.slots) {
		return i
	}
	return 0
}

// first returns the place of the first slot with the hash's tag, or -1; next
// the one behind.
func (t *table) first(hash uint64) int {
	if t.used == 0 {
		return -1
	}
	return t.search(t.home(uint32(hash)), uint32(hash))
}

func (t *table) next(i int) int { return t.search(t.after(i), t.slots[i].tag()) }

func (t *table) search(i int, tag uint32) int {
	for ; t.slots[i] != 0; i = t.after(i) {
		if t.slots[i].tag() == tag {
			return i
		}
	}
	return -1
}

// insert adds an entry, whatever is there.
func (x *index) insert(hash uint64, unit uint32) {
	t := x.table(hash)
	if (t.used+1)*fullOf > len(t.slots)*fullNum {
		t.resize(max(tableLeast, len(t.slots)+len(t.slots)/4))
	}
	t.put(newSlot(hash, unit))
	x.count++
}

func (t *table) put(s slot) {
	i := t.home(s.tag())
	for t.slots[i] != 0 {
		i = t.after(i)
	}
	t.slots[i] = s
	t.used++
}

func (t *table) resize(n int) {
	old := t.slots
	t.slots, t.used = make([]slot, n), 0
	for _, s := range old {
		if s != 0 {
			t.put(s)
		}
	}
}

// remove empties a place of the hash's table and moves up what had to give way
// to it, so there are no graves.
func (x *index) remove(hash uint64, i int) {
	t := x.table(hash)
	n := len(t.slots)
	for j := t.after(i); t.slots[j] != 0; j = t.after(j) {
		// What is at j may move to i unless its home is between the two.
		home := t.home(t.slots[j].tag())
		if (j-home+n)%n >= (j-i+n)%n {
			t.slots[i] = t.slots[j]
			i = j
		}
	}
	t.slots[i] = 0
	t.used--
	x.count--
	if n > tableLeast && t.used < n/4 {
		t.resize(max(tableLeast, t.used*2))
	}
}

// bytes is what the index takes in memory.
func (x *index) bytes() int64 {
	var n int64
	for i := range x.tables {
		n += int64(cap(x.tables[i].slots)) * 8
	}
	return n
}
