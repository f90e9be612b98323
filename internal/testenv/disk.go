//go:build unix

package testenv

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// Disk is a file system of a test's own, small enough to be full: in memory,
// and gone with the test.
type Disk struct {
	Dir string // where it is, for PostgreSQL, which owns it

	tb    testing.TB
	seen  string   // where the test sees it: Dir, but for one in a namespace of its own
	enter []string // what a command that is to see it begins with; empty: nothing
	leave func() error
}

// diskPrefix begins the name of a disk's folder, before the number of the
// process that has made it.
const diskPrefix = "tallyhook-disk-"

// StartDisk mounts a disk of a size. What mounts a file system depends on who
// runs the tests; it fails the test when nothing may.
func StartDisk(tb testing.TB, bytes int64) *Disk {
	tb.Helper()
	sweepDisks(os.TempDir())
	cred, err := unprivileged()
	if err != nil {
		tb.Fatal(err)
	}
	dir, err := os.MkdirTemp("", fmt.Sprintf("%s%d-", diskPrefix, os.Getpid()))
	if err != nil {
		tb.Fatal(err)
	}
	d := &Disk{Dir: dir, tb: tb, seen: dir}
	tb.Cleanup(func() {
		if d.leave != nil {
			if err := d.leave(); err != nil {
				tb.Errorf("take a disk away: %v", err)
			}
		}
		if err := os.Remove(dir); err != nil { // never what may still be mounted there
			tb.Errorf("take a disk away: %v", err)
		}
	})
	if err := d.mount(bytes, cred); err != nil {
		tb.Fatalf("a disk that can be full needs the right to mount one: run the tests as root (in a container with CAP_SYS_ADMIN), "+
			"or allow sudo without a password, or user namespaces: %v", err)
	}
	return d
}

// Fill leaves no room on the disk. What is on it may still be written over.
func (d *Disk) Fill() {
	d.tb.Helper()
	f, err := os.OpenFile(d.ballast(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.tb.Fatal(err)
	}
	for _, size := range []int{1 << 20, 4 << 10, 1} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			d.tb.Fatalf("fill a disk: %v", err)
		}
	}
	if err := f.Close(); err != nil {
		d.tb.Fatal(err)
	}
}

// Free takes away again what Fill has written.
func (d *Disk) Free() {
	d.tb.Helper()
	if err := os.Remove(d.ballast()); err != nil {
		d.tb.Fatal(err)
	}
}

func (d *Disk) ballast() string { return filepath.Join(d.seen, "ballast") }

// sweepDisks unmounts the disks of test processes that were killed.
func sweepDisks(parent string) {
	dirs, err := filepath.Glob(filepath.Join(parent, diskPrefix+"*"))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		var pid int
		if _, err := fmt.Sscanf(filepath.Base(dir), diskPrefix+"%d-", &pid); err != nil || !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			continue
		}
		_ = unmount(dir)   // it may be mounted no more
		_ = os.Remove(dir) // another's that is not ours to remove stays
	}
}
