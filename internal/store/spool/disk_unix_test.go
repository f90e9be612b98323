//go:build unix

package spool_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"tallyhook/internal/fault"
	"tallyhook/internal/store/spool"
)

// childDir makes this test binary a process whose files may not grow for long.
const childDir = "TALLYHOOK_TEST_FULL_DISK"

const diskLimit = 1 << 20 // bytes of a file

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := fillDisk(dir); err != nil {
			panic(err)
		}
		return
	}
	m.Run()
}

// fillDisk puts events in until the disk takes no more, then makes room, and
// says what was kept before and after.
func fillDisk(dir string) error {
	signal.Ignore(syscall.SIGXFSZ) // writes fail with EFBIG, and nobody is killed
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	room := limit
	limit.Cur = diskLimit
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	ctx := context.Background()
	s, err := spool.Open(ctx, spool.Options{Dir: dir})
	if err != nil {
		return err
	}
	events := some(10)
	for i := range events {
		events[i].Payload = make([]byte, 2000)
	}
	kept, failed := 0, 0
	for failed < 3 {
		switch err := s.Append(ctx, events); {
		case err == nil:
			kept += len(events)
		case fault.Is(err, fault.Unavailable):
			failed++
		default:
			return fmt.Errorf("a full disk is: %w", err)
		}
	}
	if n := s.Stats().Events; n != int64(kept) {
		return fmt.Errorf("%d were kept, it says %d", kept, n)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &room); err != nil {
		return err
	}
	if err := s.Append(ctx, events); err != nil {
		return fmt.Errorf("there is room again: %w", err)
	}
	_, err = fmt.Fprintf(os.Stdout, "kept %d %d\n", kept, kept+len(events))
	return err // without Close: as if it were killed
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var before, after int
	if _, err := fmt.Sscanf(strings.TrimSpace(string(out)), "kept %d %d", &before, &after); err != nil || before == 0 {
		t.Fatalf("the child says %q: %v", out, err)
	}
	if n := len(all(t, open(t, dir))); n != after {
		t.Errorf("%d were answered, %d are there", after, n)
	}
}
