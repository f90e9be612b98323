package provider_test

import (
	"bytes"
	"flag"
	"fmt"
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

// runCorpus runs every payload and vector of a folder, writes each miss and at
// last how many of how many cases came out as expected.
func runCorpus(w *bytes.Buffer, dir string) (ok bool, err error) {
	files, err := expectedFiles(dir)
	if err != nil {
		return false, err
	}
	vectors, err := listJSON(filepath.Join(dir, "vectors"))
	if err != nil {
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
	expected := map[string]bool{}
	for _, f := range files {
		expected[f.File] = true
		report("payloads/"+f.File, payloadMisses(dir, f))
	}
	payloads, err := listJSON(filepath.Join(dir, "payloads"))
	if err != nil {
		return false, err
	}
	for _, path := range payloads { // a body that nothing is said of is no proof of anything
		name, err := filepath.Rel(filepath.Join(dir, "payloads"), path)
		if err != nil {
			return false, err
		}
		if name = filepath.ToSlash(name); !expected[name] {
			report("payloads/"+name, []string{"expected.jsonl has no line for it"})
		}
	}
	for _, path := range vectors {
		report("vectors/"+filepath.Base(filepath.Dir(path))+"/"+filepath.Base(path), vectorMisses(path))
	}
	fmt.Fprintf(w, "%d of %d\n", good, all)
	return good == all && all > 0, nil
}
