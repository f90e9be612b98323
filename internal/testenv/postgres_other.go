//go:build unix && !linux

package testenv

import "syscall"

// dying gives a child process its credentials. Only Linux ends it together
// with a parent that is killed.
func dying(cred *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: cred, Setpgid: true}
}

func memory() string { return "" }
