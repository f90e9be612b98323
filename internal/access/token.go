package access

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"
)

// A source's token is 32 random bytes, the number of its provider, and 8 bytes
// of HMAC over both, in base64url: 55 characters. The number lets a refusal be
// in the vendor's dialect also when nothing can be looked up. Tokens of earlier
// versions have no number: 54 characters.
const (
	tokenRandom = 32
	tokenMAC    = 8
	tokenLen    = 55
	tokenOldLen = 54
)

// An API key is "thk_", 32 random bytes in base64url, and 6 characters that
// only tell a mistyped key: there is no secret in them.
const (
	keyPrefix = "thk_"
	keyRandom = 43
	keyCheck  = 6
	keyLen    = len(keyPrefix) + keyRandom + keyCheck
	minKey    = 16  // characters of a configured key
	maxKey    = 512 // characters of any key
)

// tokens makes and checks the tokens of sources.
type tokens struct{ key []byte }

func newTokens(master [32]byte) (tokens, error) {
	k, err := derive(master, "tallyhook token v1", 32)
	return tokens{k}, err
}

func (t tokens) mac(signed []byte) []byte {
	m := hmac.New(sha256.New, t.key)
	m.Write(signed)
	return m.Sum(nil)[:tokenMAC]
}

// make makes a token for a source of the provider with that number.
func (t tokens) make(number byte) (string, error) {
	b := make([]byte, tokenRandom, tokenRandom+1+tokenMAC)
	if _, err := rand.Read(b); err != nil {
		return "", fmt.Errorf("read random bytes: %w", err)
	}
	b = append(b, number)
	return base64.RawURLEncoding.EncodeToString(append(b, t.mac(b)...)), nil
}

// check tells whether the token is one that was made here, in constant time,
// and the number of its provider; 0: it does not say. Decoding is strict: a
// token has one spelling.
func (t tokens) check(token string) (number byte, ok bool) {
	if (len(token) != tokenLen && len(token) != tokenOldLen) || strings.ContainsAny(token, "\r\n") { // which the decoder passes over
		return 0, false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(b) < tokenRandom+tokenMAC {
		return 0, false
	}
	signed, mac := b[:len(b)-tokenMAC], b[len(b)-tokenMAC:]
	if !hmac.Equal(mac, t.mac(signed)) {
		return 0, false
	}
	if len(signed) > tokenRandom {
		number = signed[tokenRandom]
	}
	return number, true
}

func makeKey() (string, error) {
	b := make([]byte, 32)
	if _, err := rand.Read(b); err != nil {
		return "", fmt.Errorf("read random bytes: %w", err)
	}
	rest := keyPrefix + base64.RawURLEncoding.EncodeToString(b)
	return rest + keyCheckOf(rest), nil
}

// possibleKey tells without a lookup whether a key can exist at all. A key
// that does not look like ours may be one that was configured.
func possibleKey(key string) bool {
	if len(key) < minKey || len(key) > maxKey {
		return false
	}
	if !strings.HasPrefix(key, keyPrefix) {
		return true
	}
	if len(key) != keyLen {
		return false
	}
	rest, check := key[:keyLen-keyCheck], key[keyLen-keyCheck:]
	return subtle.ConstantTimeCompare([]byte(check), []byte(keyCheckOf(rest))) == 1
}

func keyCheckOf(rest string) string {
	sum := sha256.Sum256([]byte(rest))
	return base64.RawURLEncoding.EncodeToString(sum[:])[:keyCheck]
}
