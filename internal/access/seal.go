package access

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
)

// The envelope of a sealed value: one byte of version, four bytes that name
// the key, then what AES-256-GCM makes: a random nonce of 12 bytes, the
// ciphertext, a tag of 16 bytes. The version, the key's name and the owner's
// id are authenticated with it, so that a value neither opens under another
// source nor passes for another version.
const (
	sealVersion  = 1
	sealKeyID    = 4
	sealHeader   = 1 + sealKeyID
	sealOverhead = sealHeader + 12 + 16
)

var (
	errSealed   = errors.New("the sealed value is damaged or belongs to another row")
	errSealKey  = errors.New("the value was sealed with another SECRETS_KEY")
	errSealForm = errors.New("this is not a sealed value, or one of a later version")
)

// sealer encrypts secrets at rest. One key seals at most 2^32 values; random
// nonces are safe up to there.
type sealer struct {
	header [sealHeader]byte
	aead   cipher.AEAD
}

func newSealer(master [32]byte) (*sealer, error) {
	key, err := derive(master, "tallyhook seal v1", 32)
	if err != nil {
		return nil, err
	}
	id, err := derive(master, "tallyhook seal v1 key id", sealKeyID)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	s := &sealer{aead: aead}
	s.header[0] = sealVersion
	copy(s.header[1:], id)
	return s, nil
}

// seal encrypts a value for its owner.
func (s *sealer) seal(plain, owner []byte) []byte {
	out := make([]byte, sealHeader, sealOverhead+len(plain))
	copy(out, s.header[:])
	return s.aead.Seal(out, nil, plain, s.bind(owner)) //nolint:gosec // no nonce is passed: this AEAD makes a random one
}

// open decrypts a value of its owner.
func (s *sealer) open(sealed, owner []byte) ([]byte, error) {
	switch {
	case len(sealed) < sealOverhead || sealed[0] != sealVersion:
		return nil, errSealForm
	case !bytes.Equal(sealed[:sealHeader], s.header[:]):
		return nil, errSealKey
	}
	plain, err := s.aead.Open(nil, nil, sealed[sealHeader:], s.bind(owner))
	if err != nil {
		return nil, errSealed // the cause says less
	}
	return plain, nil
}

func (s *sealer) bind(owner []byte) []byte {
	return append(bytes.Clone(s.header[:]), owner...)
}

// derive makes a key of its own for each use out of SECRETS_KEY.
func derive(master [32]byte, use string, n int) ([]byte, error) {
	k, err := hkdf.Key(sha256.New, master[:], nil, use, n)
	if err != nil {
		return nil, fmt.Errorf("derive key: %w", err)
	}
	return k, nil
}
