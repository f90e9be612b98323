package access

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// ParseKey reads a SECRETS_KEY: 32 bytes in base64 (standard or URL alphabet,
// padded or not) or in hex. Nothing of it is in the error.
func ParseKey(s string) ([32]byte, error) {
	var key [32]byte
	s = strings.TrimSpace(s)
	if b, err := hex.DecodeString(s); err == nil && len(b) == len(key) {
		return [32]byte(b), nil
	}
	coded := strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(s, "="))
	if b, err := base64.RawStdEncoding.DecodeString(coded); err == nil && len(b) == len(key) {
		return [32]byte(b), nil
	}
	return key, errors.New("a SECRETS_KEY is 32 bytes in base64 or hex; openssl rand -base64 32 makes one")
}

// LoadOrCreateKeyFile reads the key file, or makes it with mode 0600 when
// there is none. A file that others may read is refused: its key is no secret
// any more.
func LoadOrCreateKeyFile(path string) ([32]byte, error) {
	key, err := loadKeyFile(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := createKeyFile(path); err != nil && !errors.Is(err, fs.ErrExist) {
		return [32]byte{}, fmt.Errorf("make key file: %w", err)
	}
	return loadKeyFile(path) // ours, or that of whoever was faster
}

func loadKeyFile(path string) (key [32]byte, err error) {
	f, err := os.Open(path) //nolint:gosec // the operator names the file
	if err != nil {
		return key, fmt.Errorf("open key file: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return key, fmt.Errorf("read key file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return key, fmt.Errorf("the key file %s is not a regular file", path)
	}
	if open := info.Mode().Perm() & 0o077; open != 0 && runtime.GOOS != "windows" {
		return key, fmt.Errorf("the key file %s has mode %04o, so others may read it; close it with: chmod 600 %s",
			path, info.Mode().Perm(), path)
	}
	text, err := io.ReadAll(io.LimitReader(f, 1024))
	if err != nil {
		return key, fmt.Errorf("read key file: %w", err)
	}
	if key, err = ParseKey(string(text)); err != nil {
		return key, fmt.Errorf("the key file %s holds no key: %w", path, err)
	}
	return key, nil
}

// createKeyFile writes the whole file under another name first, so that a
// crash leaves no half of a key, and never replaces a file that is there.
func createKeyFile(path string) (err error) {
	var key [32]byte
	if _, err := rand.Read(key[:]); err != nil {
		return fmt.Errorf("read random bytes: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	defer func() {
		if rerr := os.Remove(f.Name()); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}()
	_, werr := f.WriteString(base64.StdEncoding.EncodeToString(key[:]) + "\n")
	if err := errors.Join(werr, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if err := os.Link(f.Name(), path); errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("link: %w", err)
	} else if err != nil { // a file system without hard links
		if err := os.Rename(f.Name(), path); err != nil {
			return fmt.Errorf("rename: %w", err)
		}
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes the file's name as durable as its bytes: a key lost to a power
// cut is every secret lost.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" { // cannot sync a folder
		return nil
	}
	d, err := os.Open(dir) //nolint:gosec // the operator names the file
	if err != nil {
		return fmt.Errorf("open folder: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	return nil
}
