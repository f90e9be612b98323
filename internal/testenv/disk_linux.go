package testenv

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// mount tries what may mount a file system, in order: this process, sudo, a
// namespace of one's own, which only the processes in it see.
func (d *Disk) mount(bytes int64, cred *syscall.Credential) error {
	uid, gid := os.Getuid(), os.Getgid()
	if cred != nil {
		uid, gid = int(cred.Uid), int(cred.Gid)
	}
	options := fmt.Sprintf("size=%d,mode=0700,uid=%d,gid=%d", bytes, uid, gid)
	var tried []error
	for _, way := range []struct {
		name string
		try  func(options string) error
	}{
		{"mount", d.mountHere},
		{"sudo -n mount", d.mountBySudo},
		{"unshare --user --mount", d.mountInNamespace},
	} {
		err := way.try(options)
		if err == nil {
			return nil
		}
		tried = append(tried, fmt.Errorf("%s: %w", way.name, err))
	}
	return errors.Join(tried...)
}

func (d *Disk) mountHere(options string) error {
	if err := syscall.Mount("tallyhook", d.Dir, "tmpfs", 0, options); err != nil {
		return err
	}
	d.leave = func() error { return unmount(d.Dir) }
	return nil
}

// unmount takes a file system away at once for everybody who looks for it, and
// altogether when its last file is closed.
func unmount(dir string) error { return syscall.Unmount(dir, syscall.MNT_DETACH) }

func (d *Disk) mountBySudo(options string) error {
	if err := sudo("mount", "-t", "tmpfs", "-o", options, "tallyhook", d.Dir); err != nil {
		return err
	}
	d.leave = func() error { return sudo("umount", "--lazy", d.Dir) }
	return nil
}

//nolint:noctx // ends at once: it may not ask for a password
func sudo(args ...string) error {
	out, err := exec.Command("sudo", append([]string{"-n"}, args...)...).CombinedOutput() //nolint:gosec // mount and umount of a folder of ours
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// mountInNamespace has a process hold a namespace in which it may mount. It
// ends when its input does, so also when this process is killed, and the disk
// with it.
//
//nolint:noctx // ended by leave
func (d *Disk) mountInNamespace(options string) error {
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 {
		return errors.New("root that may not mount may not do so in a namespace either")
	}
	// In there everybody is root, until the commands that enter are themselves again.
	options, _, _ = strings.Cut(options, ",uid=")
	holder := exec.Command("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", //nolint:gosec // a folder of ours
		`mount -t tmpfs -o "$1" tallyhook "$2" && echo mounted && exec cat`, "sh", options, d.Dir)
	var told strings.Builder
	holder.Stderr = &told
	in, err := holder.StdinPipe()
	if err != nil {
		return err
	}
	out, err := holder.StdoutPipe()
	if err != nil {
		return err
	}
	if err := holder.Start(); err != nil {
		return err
	}
	leave := func() error { return errors.Join(in.Close(), holder.Wait()) }
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "mounted\n" {
		if errors.Is(err, io.EOF) {
			err = nil // why is how it ended
		}
		return errors.Join(err, leave(), errors.New(told.String()))
	}
	pid := strconv.Itoa(holder.Process.Pid)
	d.leave, d.seen = leave, "/proc/"+pid+"/root"+d.Dir
	// To enter takes the promise away that the kernel ends a child together
	// with its parent (dying); setpriv makes it anew.
	d.enter = []string{
		"nsenter", "--target", pid, "--user", "--mount", "--preserve-credentials", "--",
		"unshare", "--user", "--map-user=" + strconv.Itoa(uid), "--map-group=" + strconv.Itoa(gid), "--",
		"setpriv", "--pdeathsig", "QUIT", "--",
	}
	return nil
}
