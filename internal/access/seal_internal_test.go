package access

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
	"time"
)

func testSealer(t testing.TB, key byte) *sealer {
	t.Helper()
	s, err := newSealer([32]byte{key})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSeal(t *testing.T) {
	t.Parallel()
	s, owner := testSealer(t, 1), []byte("source 1")
	sealed := s.seal([]byte("secret"), owner)
	if got, err := s.open(sealed, owner); err != nil || string(got) != "secret" {
		t.Fatalf("got %q, %v", got, err)
	}
	if bytes.Equal(sealed, s.seal([]byte("secret"), owner)) {
		t.Error("the nonce is not random")
	}
	if len(sealed) != sealOverhead+len("secret") {
		t.Errorf("got %d bytes", len(sealed))
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 0x10
		if _, err := s.open(bad, owner); err == nil {
			t.Errorf("byte %d changed and opened", i)
		}
	}
	for n := range sealed {
		if _, err := s.open(sealed[:n], owner); err == nil {
			t.Errorf("%d bytes opened", n)
		}
	}
	for name, tt := range map[string]struct {
		s      *sealer
		sealed []byte
		owner  string
		want   error
	}{
		"OtherOwner":   {s, sealed, "source 2", errSealed},
		"NoOwner":      {s, sealed, "", errSealed},
		"OtherKey":     {testSealer(t, 2), sealed, "source 1", errSealKey},
		"LaterVersion": {s, append([]byte{2}, sealed[1:]...), "source 1", errSealForm},
		"Nothing":      {s, nil, "source 1", errSealForm},
	} {
		if _, err := tt.s.open(tt.sealed, []byte(tt.owner)); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
	}
}

// What was sealed once must open with every later version.
func TestGoldenSeal(t *testing.T) {
	t.Parallel()
	sealed, err := hex.DecodeString("01cbef911b3def7ef09231d2a9dde5f58e2aadcb45cc7b1af697fab27d0f59b375aa07cc515c00")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := testSealer(t, 1).open(sealed, []byte("source 1")); err != nil || string(got) != "secret" {
		t.Errorf("got %q, %v", got, err)
	}
}

func FuzzSeal(f *testing.F) {
	s := testSealer(f, 1)
	f.Add([]byte{}, []byte{}, []byte("plain"))
	f.Add(s.seal([]byte("x"), []byte("other")), []byte("owner"), []byte{})
	f.Add(s.header[:], []byte("owner"), []byte{0})
	f.Fuzz(func(t *testing.T, garbage, owner, plain []byte) {
		if _, err := s.open(garbage, append([]byte("fuzz"), owner...)); err == nil {
			t.Error("garbage opened")
		}
		if got, err := s.open(s.seal(plain, owner), owner); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("got %q, %v, want %q", got, err, plain)
		}
	})
}

func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	now := time.Unix(1, 0)
	c := newCache[int, int](time.Minute, 100)
	for i := range 10_000 {
		_, stamp, _ := c.get(i, now)
		c.put(i, i, stamp, now)
		if got, _, ok := c.get(i, now); !ok || got != i {
			t.Fatalf("got %d, %v", got, ok)
		}
	}
	if n := len(c.young) + len(c.old); n > 200 {
		t.Errorf("got %d entries", n)
	}
	c.drop(func(k, _ int) bool { return k >= 9_950 })
	if _, _, ok := c.get(9_999, now); ok {
		t.Error("dropped and still there")
	}
	if _, _, ok := c.get(9_949, now); !ok {
		t.Error("not dropped and gone")
	}
}
