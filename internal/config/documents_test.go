package config_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"tallyhook/internal/config"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestDocuments keeps .env.example and docs/configuration.md exactly what the
// table of settings says.
func TestDocuments(t *testing.T) {
	t.Parallel()
	for path, want := range map[string][]byte{
		"../../.env.example":          envExample(),
		"../../docs/configuration.md": configurationPage(),
	} {
		if *update {
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what the table of settings gives; run make golden and read the difference", path)
		}
	}
}

// section is what both documents say about one audience.
type section struct{ audience, title, note string }

func sections() []section {
	return []section{
		{"production", "Production", "What an installation may want to choose."},
		{"development", "Development", "Leave these alone in production."},
		{"test", "Tests", "Read by the tests of Tallyhook, never by the server."},
	}
}

func ofAudience(audience string) []config.Setting {
	var out []config.Setting
	for _, s := range config.Settings() {
		if s.Audience == audience {
			out = append(out, s)
		}
	}
	return out
}

func envExample() []byte {
	var b bytes.Buffer
	b.WriteString(`# Settings of Tallyhook, for the environment of "tallyhook serve". Every line is
# optional: what stands here commented out is the default, or an example where
# there is none. Each name also works with the prefix TALLYHOOK_, and as a flag.
# This file is made from the table in internal/config (make golden).
`)
	for _, sec := range sections() {
		fmt.Fprintf(&b, "\n# ==== %s ====\n# %s\n", sec.title, sec.note)
		for _, s := range ofAudience(sec.audience) {
			b.WriteString("\n")
			wrapped(&b, s.Help)
			wrapped(&b, "Allowed: "+s.Allowed+".")
			name, value := s.Name, s.Default
			switch {
			case sec.audience == "test":
				name = config.Prefix + name
			case s.Secret:
				fmt.Fprintf(&b, "#%s_FILE=/run/secrets/%s\n", name, strings.ToLower(name))
			case value == "":
				b.WriteString("# Example:\n")
				value = s.Example
			}
			fmt.Fprintf(&b, "#%s=%s\n", name, value)
		}
	}
	return b.Bytes()
}

func wrapped(b *bytes.Buffer, text string) {
	line := "#"
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > 79 {
			b.WriteString(line + "\n")
			line = "#"
		}
		line += " " + word
	}
	b.WriteString(line + "\n")
}

func configurationPage() []byte {
	var b bytes.Buffer
	b.WriteString(`<!-- Made from the table in internal/config by "make golden"; do not edit. -->
# Configuration

Every setting is a flag of ` + "`tallyhook serve`" + `, and a variable of the environment under the same name, with or
without the prefix ` + "`TALLYHOOK_`" + `. Every one has a default, or does without.

- A flag wins over the environment, which wins over the default. An empty variable is as good as none.
- A name set with and without the prefix, to different values, stops the start.
- A secret can be kept in a file: ` + "`API_KEY_FILE=/run/secrets/api_key`" + `. White space around it is cut off.
- A bad value stops the start with one line that names the setting, where the value came from, and what is allowed.
- So does an unknown name that starts with ` + "`TALLYHOOK_`" + `. Exempt are ` + "`TALLYHOOK_URL`" + ` (the client verbs speak to that
  server) and what Kubernetes injects for a service called tallyhook.
- At its start the server logs every setting with its value and origin, secrets masked.
- Durations are written like ` + "`500ms`, `5s`, `1m30s`, `1h`" + `.
`)
	for _, sec := range sections() {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| setting | flag | default | what it does | allowed |\n|---|---|---|---|---|\n", sec.title, sec.note)
		for _, s := range ofAudience(sec.audience) {
			name, flagName, value := "`"+s.Name+"`", "none", "none"
			if sec.audience == "test" {
				name = "`" + config.Prefix + s.Name + "`"
			}
			if s.Secret {
				name += "<br>`" + s.Name + "_FILE`"
			}
			if s.Flag != "" {
				flagName = "`--" + s.Flag + "`"
			}
			if s.Default != "" {
				value = "`" + s.Default + "`"
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", name, flagName, value, cell(s.Help), cell(s.Allowed))
		}
	}
	return b.Bytes()
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
