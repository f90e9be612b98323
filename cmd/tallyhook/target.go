package main

import (
	"fmt"
	"net/url"
	"os"
	"strings"
)

// serverURL is where the verbs that speak to a running server find it, without
// a slash at its end.
func serverURL(environ []string) (string, error) {
	text := variable(environ, "TALLYHOOK_URL")
	if text == "" {
		text = "http://127.0.0.1:3000"
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", fmt.Errorf("%w: TALLYHOOK_URL is not an http or https URL", errUsage)
	}
	return strings.TrimRight(text, "/"), nil
}

// serverKey is the API key that those verbs show; empty when there is none.
func serverKey(environ []string) (string, error) {
	key, file := variable(environ, "TALLYHOOK_API_KEY"), variable(environ, "TALLYHOOK_API_KEY_FILE")
	if key != "" || file == "" {
		return key, nil
	}
	raw, err := os.ReadFile(file) //nolint:gosec // the operator names the file
	if err != nil {
		return "", fmt.Errorf("%w: TALLYHOOK_API_KEY_FILE names a file that cannot be read: %w", errUsage, err)
	}
	return strings.TrimSpace(string(raw)), nil
}

// variable reads the environment as it was handed in; empty is as good as unset.
func variable(environ []string, name string) string {
	for _, kv := range environ {
		if v, ok := strings.CutPrefix(kv, name+"="); ok && v != "" {
			return v
		}
	}
	return ""
}

// redacted is an URL without the password that it may carry.
func redacted(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "that URL"
	}
	return u.Redacted()
}
