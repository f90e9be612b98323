package app_test

import (
	"flag"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"tallyhook/internal/testenv"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the crash test; 0 takes a new one, which is printed")

// The short form, which every run of the tests does; make chaos does more.
const shortRounds = 4

// TestCrash floods the real program over real sockets, kills it at random
// points, starts it again on the same data and goes on. In the end what it has
// is held against what was sent and answered.
func TestCrash(t *testing.T) {
	t.Parallel()
	rounds := shortRounds
	if v := os.Getenv("TALLYHOOK_CHAOS_ROUNDS"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			t.Fatalf("TALLYHOOK_CHAOS_ROUNDS is %q, want a whole number from 1", v)
		}
		rounds = n
	}
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("%d rounds, seed %d; the same load again: go test ./internal/app -run Crash -seed %d", rounds, seed, seed)
	random := rand.New(rand.NewPCG(seed, 0))

	o := testenv.Options{Dir: t.TempDir(), Env: []string{
		// Some orphans are buried while the storm is on, and adopted from there.
		"RETRY_SCHEDULE=150ms,300ms,600ms", "LOG_LEVEL=warn", "ORPHANED_QUEUE_BATCH_SIZE=20",
	}}
	server := testenv.Start(t, o)
	st := newStorm(t, seed, server.Client(""))

	var workers sync.WaitGroup
	for n := range 6 {
		workers.Go(func() { st.work(n) })
	}
	for round := range rounds {
		st.grow()
		before := st.acknowledged()
		after := time.Duration(100+random.IntN(900)) * time.Millisecond
		if !st.rest(after) {
			break
		}
		// On a machine that stands still for a while: not before there was something to lose.
		testenv.Poll(10*time.Second, func() bool { return st.acknowledged() >= before+20 || t.Failed() })
		server.Kill()
		t.Logf("round %d: killed %v after it was ready; %s", round, after, st.progress())
		st.at() // nobody is there
		if random.IntN(3) == 0 {
			early := time.Duration(random.IntN(60)) * time.Millisecond
			server = testenv.Launch(t, o)
			st.rest(early)
			server.Kill()
			t.Logf("round %d: killed again %v after its start", round, early)
		}
		server = testenv.Start(t, o)
		st.visible(server.Client(""))
		st.at(server.URL)
	}
	st.rest(300 * time.Millisecond)
	st.end()
	workers.Wait()
	if t.Failed() {
		return
	}
	c := server.Client("")
	st.enrollRest(c)
	st.settle(c)
	t.Log(st.progress())
	st.verify(c)

	if code := server.Stop(2 * time.Minute); code != 0 {
		t.Errorf("exit code %d after SIGTERM, want 0", code)
	}
	doctor := testenv.Run(t, o.Dir, []string{"DATABASE_URL=sqlite:" + o.Dir + "/tallyhook.db"}, "doctor")
	if doctor.Code != 0 {
		t.Errorf("tallyhook doctor: exit code %d, want 0\n%s%s", doctor.Code, doctor.Stdout, doctor.Stderr)
	}
}
