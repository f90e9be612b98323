//go:build unix

package testenv

import "syscall"

// Pause stops the server as a host that hangs would (SIGSTOP): connections
// stay, and nothing is answered.
func (r *Redis) Pause() { r.tb.Helper(); r.signal(syscall.SIGSTOP) }

// Continue lets a paused server go on.
func (r *Redis) Continue() { r.tb.Helper(); r.signal(syscall.SIGCONT) }
