// Package logvolume keeps volumes in an erasure-coded log over several disks.
package logvolume
