package backing

// LimitOpen sets how many files may be open.
func (d *Directory) LimitOpen(n int) { d.maxOpen = n }

// Opened is how many files are open.
func (d *Directory) Opened() int { return len(d.opened) }

// Abandon gives the descriptors back without flushing.
func (d *Directory) Abandon() {
	for _, c := range d.opened {
		c.file.Close()
	}
	d.dir.Close()
}
