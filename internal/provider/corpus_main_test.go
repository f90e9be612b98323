package provider_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// TestMain makes the test binary the command behind "make corpus" when it is
// given a folder; else it runs the tests.
func TestMain(m *testing.M) {
	folder := flag.String("corpus", "", "run the corpus in this folder, and no tests")
	flag.Parse()
	if *folder == "" {
		m.Run() // whose code the process ends with
		return
	}
	var out bytes.Buffer
	ok, err := runCorpus(&out, *folder)
	if err != nil {
		out.WriteString(err.Error() + "\n")
	}
	if _, err := out.WriteTo(os.Stdout); err != nil || !ok {
		os.Exit(1) //nolint:forbidigo // the binary is a command here
	}
}

// runCorpus runs every payload and vector of a folder of the form of
// testdata, writes each miss, and at last how many of how many cases came out as
// expected. A case that cannot be read is a miss like any other and ends
// nothing; a body that expected.jsonl does not name is told and not counted.
func runCorpus(w *bytes.Buffer, dir string) (ok bool, err error) {
	if _, err := os.Stat(dir); err != nil {
		return false, err
	}
	good, all := 0, 0
	report := func(name string, misses []string) {
		if all++; len(misses) == 0 {
			good++
		}
		for _, miss := range misses {
			fmt.Fprintf(w, "%s: %s\n", name, miss)
		}
	}
	files, bad, err := expectedFiles(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	for _, line := range bad {
		report(line, []string{"got nothing to hold against"})
	}
	expected := map[string]bool{}
	for _, f := range files {
		expected[f.File] = true
		report("payloads/"+f.File, payloadMisses(dir, f))
	}
	payloads, err := listJSON(filepath.Join(dir, "payloads"))
	if err != nil {
		return false, err
	}
	for _, path := range payloads {
		if name := corpusName(filepath.Join(dir, "payloads"), path); !expected[name] {
			fmt.Fprintf(w, "payloads/%s: not counted, expected.jsonl has no line for it\n", name)
		}
	}
	vectors, err := listJSON(filepath.Join(dir, "vectors"))
	if err != nil {
		return false, err
	}
	for _, path := range vectors {
		report("vectors/"+corpusName(filepath.Join(dir, "vectors"), path), vectorMisses(path))
	}
	fmt.Fprintf(w, "%d of %d\n", good, all)
	return good == all && all > 0, nil
}
