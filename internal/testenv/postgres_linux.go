package testenv

import "syscall"

// dying lets a child process end with this one, also when this one is killed:
// SIGQUIT makes a PostgreSQL server end all of its processes at once.
func dying(cred *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: cred, Setpgid: true, Pdeathsig: syscall.SIGQUIT}
}
