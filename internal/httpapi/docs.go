package httpapi

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the reader is one file of the binary
	"encoding/base64"
	"fmt"
	"net/http"
)

// The reader of the description: one page that loads nothing but
// /openapi.json. Its style and script stand in the page, and the policy allows
// exactly these two by their hashes.
//
//go:embed reader/reader.html
var readerHTML []byte

type docsPage struct {
	html   []byte
	policy string
}

func newDocsPage() (docsPage, error) {
	style, err := inline("style")
	if err != nil {
		return docsPage{}, err
	}
	script, err := inline("script")
	if err != nil {
		return docsPage{}, err
	}
	return docsPage{html: readerHTML, policy: "default-src 'none'; style-src " + style + "; script-src " + script +
		"; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"}, nil
}

// inline is the policy's name for what stands between two tags.
func inline(tag string) (string, error) {
	_, rest, found := bytes.Cut(readerHTML, []byte("<"+tag+">"))
	content, _, closed := bytes.Cut(rest, []byte("</"+tag+">"))
	if !found || !closed {
		return "", fmt.Errorf("the reader has no <%s>", tag)
	}
	sum := sha256.Sum256(content)
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'", nil
}

func (s *server) docs(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", s.reader.policy)
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-cache")
	if _, err := w.Write(s.reader.html); err != nil {
		return // the reader went away
	}
}

func (s *server) openAPI(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-cache")
	if _, err := w.Write(s.spec); err != nil {
		return // the reader went away
	}
}
