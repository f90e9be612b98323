package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Machine says what the figures were measured on.
type Machine struct {
	CPUs       int    `json:"cpus"`
	Model      string `json:"model"`
	MemoryMiB  int    `json:"memory_mib,omitempty"`
	System     string `json:"system"`
	Go         string `json:"go"`
	FileSystem string `json:"file_system"`
}

// thisMachine reads what Linux tells; elsewhere some of it stays unknown.
func thisMachine(dir string) Machine {
	m := Machine{
		CPUs: runtime.NumCPU(), Model: "unknown", System: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version(),
		FileSystem: fileSystem(dir),
	}
	for _, f := range fields("/proc/cpuinfo") {
		if f[0] == "model name" {
			m.Model = f[1]
			break
		}
	}
	for _, f := range fields("/proc/meminfo") {
		if f[0] == "MemTotal" {
			m.MemoryMiB = kib(f[1]) >> 10
		}
	}
	return m
}

// fields reads a file of "name: value" lines.
func fields(path string) [][2]string {
	b, err := os.ReadFile(path) //nolint:gosec // a file of /proc
	if err != nil {
		return nil
	}
	var all [][2]string
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok {
			all = append(all, [2]string{strings.TrimSpace(name), strings.TrimSpace(value)})
		}
	}
	return all
}

// kib reads "123 kB"; what it cannot read is 0.
func kib(s string) int {
	n, err := strconv.Atoi(strings.TrimSuffix(s, " kB"))
	if err != nil {
		return 0
	}
	return n
}

// fileSystem names the kind of file system that a folder is on: on tmpfs an
// fsync costs nothing, and figures say little.
func fileSystem(dir string) string {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "unknown"
	}
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "unknown"
	}
	kind, longest := "unknown", -1
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 3 || len(f[1]) < longest {
			continue
		}
		if at := strings.TrimSuffix(f[1], "/"); dir == at || strings.HasPrefix(dir, at+"/") {
			kind, longest = f[2], len(f[1])
		}
	}
	return kind
}

// ticks of a second in /proc/PID/stat: the kernel's USER_HZ, 100 on every
// architecture that Go runs on.
const ticks = 100

// cpuTime is the processor time that a process has used.
func cpuTime(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	// The name, in parentheses, may hold anything; behind it come the fields
	// from the third on. utime and stime are the 14th and 15th.
	text := string(b)
	f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(f) < 13 {
		return 0, errors.New("read processor time: too few fields")
	}
	var sum int64
	for _, v := range f[11:13] {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read processor time: %w", err)
		}
		sum += n
	}
	return time.Duration(sum) * time.Second / ticks, nil
}

// peakMemory is the most memory a process has had resident, in MiB, since the
// last forgetPeak; 0 when it is not known.
func peakMemory(pid int) float64 {
	for _, f := range fields(fmt.Sprintf("/proc/%d/status", pid)) {
		if f[0] == "VmHWM" {
			return float64(kib(f[1])) / 1024
		}
	}
	return 0
}

// forgetPeak begins a new measurement of peakMemory, where the system can.
func forgetPeak(pid int) {
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0) // the peak is then since the start
}
