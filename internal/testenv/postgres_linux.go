package testenv

import "syscall"

// dying lets a child process end with this one, also when this one is killed:
// SIGQUIT makes a PostgreSQL server end all of its processes at once.
func dying(cred *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: cred, Setpgid: true, Pdeathsig: syscall.SIGQUIT}
}

// memory is a folder in memory that has room for some hundred databases in
// turn; empty where there is none. A database is copied there in a tenth of the time.
func memory() string {
	const name, room = "/dev/shm", 2 << 30
	var st syscall.Statfs_t
	if err := syscall.Statfs(name, &st); err != nil || st.Bsize <= 0 || st.Bavail < room/uint64(st.Bsize) {
		return ""
	}
	return name
}
