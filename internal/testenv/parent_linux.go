package testenv

import (
	"os/exec"
	"syscall"
)

// dieWithParent has the kernel end a child when this process ends, however it
// does.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
