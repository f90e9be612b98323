package archtest_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "tallyhook"

// Libraries by what they are for.
const (
	uuid       = "github.com/google/uuid"
	json       = "github.com/go-json-experiment/json"
	jsontext   = "github.com/go-json-experiment/json/jsontext"
	promclient = "github.com/prometheus/client_golang/..."
	huma       = "github.com/danielgtaylor/huma/v2/..."
	sqlite     = "github.com/ncruces/go-sqlite3/..."
	pgx        = "github.com/jackc/pgx/v5/..."
	goose      = "github.com/pressly/goose/v3/..."
	cobra      = "github.com/spf13/cobra"
	pflag      = "github.com/spf13/pflag"
	vegeta     = "github.com/tsenart/vegeta/v12/..."
	cmp        = "github.com/google/go-cmp/..."
	rueidis    = "github.com/redis/rueidis"
	rapid      = "pgregory.net/rapid"
	cors       = "github.com/rs/cors"
)

// mayImport lists, for each package, what it may import beside the standard
// library: of this module, and of others. A package that is not here fails the
// test: its place in the tree is to be decided, not to happen.
//
// Read it from the core outwards: no line names what stands below it.
func mayImport() []rule {
	const (
		fault, guard, event, campaign = "internal/fault", "internal/guard", "internal/event", "internal/campaign"
		config, telemetry, provider   = "internal/config", "internal/telemetry", "internal/provider"
		store, limit                  = "internal/store", "internal/limit"
		row                           = "internal/store/row"
		access, ingest, orphan        = "internal/access", "internal/ingest", "internal/orphan"
		deadletter, report            = "internal/deadletter", "internal/report"
		yardstick                     = "internal/store/yardstick"
	)
	return []rule{
		// The core is pure: no store, no network, no clock.
		{fault, kindCore, nil},
		{guard, kindCore, []string{jsontext}},
		{event, kindCore, []string{fault, uuid, jsontext}},
		{campaign, kindCore, []string{fault, event, uuid, jsontext}},

		// Leaves: pure or technical, and nobody's use-case.
		{provider, kindCore, []string{fault, event, uuid, json, jsontext}},
		{config, kindLeaf, []string{fault, pflag}},
		{limit, kindLeaf, []string{fault}},
		{telemetry, kindLeaf, []string{event, promclient}},

		// What every store speaks, and the stores.
		{store, kindCore, []string{fault, event, campaign, uuid}},
		{row, kindAdapter, []string{fault, event, campaign, store, uuid, json}},
		{"internal/store/sqlite", kindAdapter, []string{fault, event, campaign, store, row, uuid, json, jsontext, sqlite, goose}},
		{"internal/store/spool", kindAdapter, []string{fault, event, store, row, uuid, sqlite}},
		{"internal/store/postgres", kindAdapter, []string{fault, event, campaign, store, row, uuid, json, pgx, goose}},
		{"internal/store/storetest", kindTest, []string{fault, event, campaign, store, uuid, cmp, rapid}},
		{yardstick, kindAdapter, []string{event, uuid, sqlite}},
		{"internal/redisq", kindAdapter, []string{fault, event, store, limit, rueidis}},

		// Use-cases.
		{access, kindUseCase, []string{fault, event, provider, store, uuid, json, jsontext}},
		{report, kindUseCase, []string{fault, event, campaign, store, uuid}},
		{ingest, kindUseCase, []string{fault, guard, event, provider, telemetry, store, access, uuid}},
		{orphan, kindUseCase, []string{fault, event, telemetry, store, uuid}},
		{"internal/orphan/queuetest", kindTest, []string{event, store, cmp}},
		{deadletter, kindUseCase, []string{fault, event, telemetry, store, uuid}},

		// The edge, which knows no adapter.
		{"internal/httpapi", kindEdge, []string{
			fault, guard, event, campaign, provider, limit, store, access, report, ingest, uuid, json, jsontext, huma, cors,
		}},

		// Tools: clients over HTTP that know nothing of the inside.
		{"internal/demo", kindTool, []string{uuid, json, jsontext}},
		{"internal/bench", kindTool, []string{event, yardstick, uuid, json, vegeta}},
		{"internal/attack", kindTool, nil},
		{"internal/testenv", kindTest, []string{sqlite, pgx}},
		{"internal/smoke", kindTool, []string{json}},
		{"internal/archtest", kindTest, nil},
		{"internal/deploytest", kindTest, nil},

		// The only ones that see everything.
		{"internal/app", kindWiring, []string{"..."}},
		{"cmd/tallyhook", kindWiring, []string{
			fault, config, telemetry, "internal/app", "internal/demo", "internal/bench", "internal/smoke", json, cobra,
		}},
	}
}

type kind string

const (
	kindCore    kind = "core"
	kindLeaf    kind = "leaf"
	kindAdapter kind = "adapter"
	kindUseCase kind = "use-case"
	kindEdge    kind = "edge"
	kindTool    kind = "tool"
	kindTest    kind = "tests only"
	kindWiring  kind = "wiring"
)

type rule struct {
	pkg     string
	kind    kind
	imports []string
}

func (r rule) allows(imported string) bool {
	return slices.ContainsFunc(r.imports, func(pattern string) bool {
		if tree, ok := strings.CutSuffix(pattern, "..."); ok {
			tree = strings.TrimSuffix(tree, "/")
			return tree == "" || imported == tree || strings.HasPrefix(imported, tree+"/")
		}
		return imported == pattern
	})
}

// pkg is one folder with Go files.
type pkg struct {
	files    []*ast.File       // that are not tests
	imports  map[string]string // of files that are not tests, to a file that has it
	testOnly map[string]string // of tests
}

// packages parses the module.
func packages(t *testing.T) map[string]*pkg {
	t.Helper()
	all := map[string]*pkg{}
	fset := token.NewFileSet()
	err := filepath.WalkDir(root, func(at string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); at != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin" || name == "data") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(at, ".go") {
			return nil
		}
		f, err := parser.ParseFile(fset, at, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, at)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		p := all[path.Dir(rel)]
		if p == nil {
			p = &pkg{imports: map[string]string{}, testOnly: map[string]string{}}
			all[path.Dir(rel)] = p
		}
		into := p.testOnly
		if !strings.HasSuffix(rel, "_test.go") {
			p.files = append(p.files, f)
			into = p.imports
		}
		for _, spec := range f.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			into[strings.TrimPrefix(name, module+"/")] = rel
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 15 {
		t.Fatalf("only %d packages were found under %s", len(all), root)
	}
	return all
}

// ours tells packages of this module, whose names were cut.
func ours(name string) bool {
	return strings.HasPrefix(name, "internal/") || strings.HasPrefix(name, "cmd/")
}

// standard tells packages of the standard library: ours are cut, and all
// others have a domain.
func standard(name string) bool {
	first, _, _ := strings.Cut(name, "/")
	return !ours(name) && !strings.Contains(first, ".")
}

func TestImports(t *testing.T) {
	t.Parallel()
	all := packages(t)
	rules := map[string]rule{}
	for i, r := range mayImport() {
		rules[r.pkg] = r
		for _, other := range mayImport()[i:] {
			if r.kind != kindWiring && slices.Contains(r.imports, other.pkg) {
				t.Errorf("the table is not in the order of the tree: %s may import %s, which stands below it", r.pkg, other.pkg)
			}
		}
		if all[r.pkg] == nil && r.pkg != "internal/archtest" {
			t.Errorf("the table has %s, which is not there", r.pkg)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		r, known := rules[name]
		if !known {
			t.Errorf("%s is not in the table of this test: say what it may import", name)
			continue
		}
		for imported, file := range all[name].imports {
			if !standard(imported) && !r.allows(imported) {
				t.Errorf("%s imports %s, which %s (%s) may not", file, imported, name, r.kind)
			}
		}
	}
}

// TestBorders says in words what the table must never be changed to allow.
func TestBorders(t *testing.T) {
	t.Parallel()
	kinds := map[string]kind{}
	for _, r := range mayImport() {
		kinds[r.pkg] = r.kind
	}
	inStore := func(name string) bool { return name == "internal/store" || strings.HasPrefix(name, "internal/store/") }
	for name, p := range packages(t) {
		for imported, file := range p.imports {
			refuse := func(bad bool, why string) {
				t.Helper()
				if bad {
					t.Errorf("%s imports %s: %s", file, imported, why)
				}
			}
			from, to := kinds[name], kinds[imported]
			database := imported == "database/sql" || strings.HasPrefix(imported, "github.com/ncruces/") || strings.HasPrefix(imported, "github.com/jackc/") || strings.HasPrefix(imported, "github.com/pressly/goose")
			network := imported == "net/http" || imported == "database/sql" || imported == "os" || imported == "log/slog"
			refuse(database && !inStore(name) && name != "internal/testenv", "SQL lives in internal/store")
			refuse(from == kindCore && network, "the core is pure")
			refuse(from == kindCore && ours(imported) && to != kindCore, "the core imports the core alone")
			refuse(from == kindEdge && to == kindAdapter, "edges never import adapters")
			refuse(from == kindUseCase && (to == kindEdge || to == kindAdapter || to == kindWiring), "use-cases are called, they do not call back up")
			refuse(from == kindAdapter && (to == kindUseCase || to == kindEdge || to == kindWiring), "adapters import the core")
			refuse(to == kindWiring && from != kindWiring, "only internal/app and the commands see everything")
			refuse(to == kindTest && from != kindTest, "it is for tests only")
			refuse(imported == "testing" && from != kindTest, "tests stay out of the product")
			refuse(imported == "net/http" && (from == kindUseCase || from == kindAdapter), "the inside speaks fault.Kind; status codes live in internal/httpapi")
		}
		for imported, file := range p.testOnly {
			if strings.HasPrefix(imported, "database/") && !inStore(name) {
				t.Errorf("%s imports %s: SQL lives in internal/store, and for tests in internal/testenv", file, imported)
			}
		}
	}
}

// TestPackageComments: each package says once what it is and guarantees.
func TestPackageComments(t *testing.T) {
	t.Parallel()
	for name, p := range packages(t) {
		if len(p.files) == 0 {
			continue
		}
		var comments []string
		for _, f := range p.files {
			if f.Doc != nil {
				comments = append(comments, f.Doc.Text())
			}
		}
		if len(comments) != 1 {
			t.Errorf("%s has %d package comments, want exactly 1", name, len(comments))
			continue
		}
		start := "Package " + p.files[0].Name.Name + " "
		if p.files[0].Name.Name == "main" {
			start = "Command " + path.Base(name) + " "
		}
		if !strings.HasPrefix(comments[0], start) {
			t.Errorf("the package comment of %s begins with %.40q, want %q", name, comments[0], start)
		}
	}
}
