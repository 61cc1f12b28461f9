package volume

import (
	"torpor/block"
)

// realParts are those of this machine, with exports below a directory.
func realParts(exports string) parts {
	return parts{
		makeDisk:  makeDisk,
		openDisk:  openDisk,
		createLog: createLog,
		openLog:   openLog,
		attach: func(device block.Device, volume string) (attachment, error) {
			return attachHost(device, exports, volume)
		},
		resume:   resumeHost,
		listen:   listenNBD,
		relisten: resumeNBD,
		clean:    func() { cleanExports(exports) },
	}
}
