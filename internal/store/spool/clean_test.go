package spool_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestNothingStaysOfWhatIsDone reads the bytes of the files: an entry that is
// done with must leave nothing behind that an erasure would have to find.
func TestNothingStaysOfWhatIsDone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	trace := []byte("ada.lovelace@example.com")
	found := func() (n int) {
		files, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no files of the spool: %v", err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			n += bytes.Count(b, trace)
		}
		return n
	}
	events := some(40)
	for n := range events {
		events[n].Email, events[n].Payload = string(trace), bytes.Repeat(trace, 1+n*20)
	}
	put(t, s, events)
	if found() == 0 {
		t.Fatal("the address is not in the files while it is spooled: this test proves nothing")
	}
	done(t, s, seqs(all(t, s))...)
	if n := found(); n != 0 {
		t.Errorf("the address is in the files %d times after its entries were done with", n)
	}
}
