package access_test

import (
	"encoding/base64"
	"encoding/hex"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"tallyhook/internal/access"
)

func TestParseKey(t *testing.T) {
	t.Parallel()
	raw := []byte("\xff\xfe\xfb0123456789abcdef0123456789abc")
	std := base64.StdEncoding.EncodeToString(raw)
	for name, tt := range map[string]struct {
		in string
		ok bool
	}{
		"Base64":        {std, true},
		"Unpadded":      {strings.TrimRight(std, "="), true},
		"URL":           {base64.URLEncoding.EncodeToString(raw), true},
		"Hex":           {hex.EncodeToString(raw), true},
		"UpperHex":      {strings.ToUpper(hex.EncodeToString(raw)), true},
		"Newline":       {std + "\n", true},
		"Empty":         {"", false},
		"Short":         {base64.StdEncoding.EncodeToString(raw[1:]), false},
		"Long":          {base64.StdEncoding.EncodeToString(append(raw[:32:32], 1)), false},
		"Passphrase":    {"correct horse battery staple, 32!", false},
		"RawThirtyTwo":  {"abcdefghijklmnopqrstuvwxyzABCDEF", false},
		"HexOfSixtyOdd": {hex.EncodeToString(raw)[1:], false},
	} {
		got, err := access.ParseKey(tt.in)
		if (err == nil) != tt.ok || (tt.ok && got != [32]byte(raw)) {
			t.Errorf("%s: got %x, %v", name, got, err)
		}
		if err != nil && tt.in != "" && strings.Contains(err.Error(), tt.in) {
			t.Errorf("%s: the key is echoed: %v", name, err)
		}
	}
}

func TestKeyFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "secrets.key")
	var keys [8][32]byte // several at once: all get the same
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			var err error
			if keys[i], err = access.LoadOrCreateKeyFile(path); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, k := range keys {
		if k != keys[0] || k == [32]byte{} {
			t.Errorf("got %x and %x", k, keys[0])
		}
	}
	info, err := os.Stat(path)
	if err != nil || (runtime.GOOS != "windows" && info.Mode().Perm() != 0o600) {
		t.Errorf("got %v, %v", info, err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("got %v, %v", left, err)
	}
	if runtime.GOOS == "windows" {
		return
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := access.LoadOrCreateKeyFile(path); err == nil || !strings.Contains(err.Error(), "chmod 600 "+path) {
		t.Errorf("got %v", err)
	}
}

func TestKeyFileRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, content := range map[string]string{"Empty": "", "Garbage": "hello", "Huge": strings.Repeat("A", 5000)} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := access.LoadOrCreateKeyFile(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v", name, err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != content {
			t.Errorf("%s was overwritten: %v", name, err)
		}
	}
	if _, err := access.LoadOrCreateKeyFile(dir); err == nil {
		t.Error("a folder passes")
	}
	if _, err := access.LoadOrCreateKeyFile(filepath.Join(dir, "no", "key")); err == nil {
		t.Error("a missing folder passes")
	}
}
