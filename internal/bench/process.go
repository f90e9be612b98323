package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

// stopTimeout is more than the server's own bound of its shutdown.
const stopTimeout = 45 * time.Second

// process is a child of this one. It ends when its context does.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended
	err  error         // how it ended, once done
	url  string        // where it listens
}

// startProcess starts this program again, in dir and with nothing but env in
// its environment, and waits until it says where it listens.
func startProcess(ctx context.Context, executable, dir, name string, env, args []string) (*process, error) {
	p := &process{log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make the log of %s: %w", name, err)
	}
	defer func() { _ = out.Close() }()                    // the child has its own
	p.cmd = exec.CommandContext(ctx, executable, args...) //nolint:gosec // this very program
	p.cmd.Dir, p.cmd.Env, p.cmd.Stderr = dir, env, out
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(syscall.SIGTERM) }
	p.cmd.WaitDelay = stopTimeout
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	if err := p.listening(ctx); err != nil {
		_ = p.cmd.Process.Kill() // it may have ended already
		<-p.done
		return nil, fmt.Errorf("start %s: %w: %s", name, err, p.tail())
	}
	return p, nil
}

func (p *process) listening(ctx context.Context) error {
	says := regexp.MustCompile(`listening on\s+(http://\S+)\s`)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.done:
			return errors.Join(errors.New("it ended at once"), p.err)
		case <-tick.C:
		}
		b, err := os.ReadFile(p.log)
		if err != nil {
			return fmt.Errorf("read its log: %w", err)
		}
		if m := says.FindSubmatch(b); m != nil {
			p.url = string(m[1])
			return nil
		}
	}
	return errors.New("it did not listen within 30 s")
}

// tail is the end of what the child wrote.
func (p *process) tail() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return ""
	}
	return string(b[max(0, len(b)-2000):])
}

// pid is the child's process id.
func (p *process) pid() int { return p.cmd.Process.Pid }

// stop ends the child as a service manager would, and wants it to exit with 0.
func (p *process) stop(ctx context.Context) error {
	if ctx.Err() == nil { // else it has its signal already, and a second one would cut it short
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("end child: %w", err)
		}
	}
	select {
	case <-p.done:
	case <-time.After(stopTimeout):
		_ = p.cmd.Process.Kill() // it may have ended meanwhile
		<-p.done
		return fmt.Errorf("the child had to be killed after %s", stopTimeout)
	}
	if p.err != nil && ctx.Err() == nil {
		return fmt.Errorf("the child did not end well: %w: %s", p.err, p.tail())
	}
	return nil
}
