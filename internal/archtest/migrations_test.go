package archtest_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The release before runs on the schema of this one (docs/operations.md,
// Upgrade): what is held to that is each step after the first, here, and every
// statement, in TestStatementsNameTheirColumns. TestServesALaterSchema of each
// store then runs on such a schema.

// additive are the statements that the release before does not notice. Anything
// else is refused, also what would do no harm.
var (
	createTable = regexp.MustCompile(`^CREATE TABLE (\w+) \(`)
	createIndex = regexp.MustCompile(`^CREATE (UNIQUE )?INDEX \w+ ON (\w+) \(`)
	addColumn   = regexp.MustCompile(`^ALTER TABLE (\w+) ADD COLUMN (\w+ .*)$`)
	// A constraint binds rows that the release before writes; a foreign key
	// those that it deletes.
	constraint = regexp.MustCompile(`\b(CHECK|UNIQUE|REFERENCES|PRIMARY KEY|EXCLUDE|GENERATED|CONSTRAINT)\b`)
	foreignKey = regexp.MustCompile(`\b(REFERENCES|FOREIGN KEY)\b`)
	comment    = regexp.MustCompile(`--[^\n]*`)
	blank      = regexp.MustCompile(`\s+`)
)

// subtracts tells what in a step of the schema the release before would notice.
func subtracts(step string) []string {
	var wrong []string
	if strings.Contains(step, "+goose Down") {
		wrong = append(wrong, "a step goes forward only")
	}
	added := map[string]bool{} // tables of this very step, which the release before does not write to
	for statement := range strings.SplitSeq(comment.ReplaceAllString(step, ""), ";") {
		statement = strings.TrimSpace(blank.ReplaceAllString(statement, " "))
		if statement == "" {
			continue
		}
		why := ""
		if m := createTable.FindStringSubmatch(statement); m != nil {
			added[m[1]] = true
			if foreignKey.MatchString(statement) {
				why = "refers to rows that the release before may delete"
			}
		} else if m := createIndex.FindStringSubmatch(statement); m != nil {
			if m[1] != "" && !added[m[2]] {
				why = "refuses rows that the release before may write"
			}
		} else if m := addColumn.FindStringSubmatch(statement); m != nil {
			switch {
			case constraint.MatchString(m[2]):
				why = "binds rows that the release before writes"
			case strings.Contains(m[2], "NOT NULL") && !strings.Contains(m[2], "DEFAULT"):
				why = "needs a value that the release before does not give"
			}
		} else {
			why = "is none of CREATE TABLE, CREATE INDEX, ALTER TABLE ... ADD COLUMN"
		}
		if why != "" {
			wrong = append(wrong, fmt.Sprintf("%s: %s", why, statement))
		}
	}
	return wrong
}

func TestMigrationsOnlyAdd(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{"sqlite", "postgres"} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			steps, err := filepath.Glob(filepath.Join(root, "internal", "store", engine, "migrations", "*.sql"))
			if err != nil || len(steps) == 0 {
				t.Fatalf("no migrations: %v", err)
			}
			slices.Sort(steps)
			for _, name := range steps[1:] { // nothing ran before the first
				for _, wrong := range subtracts(read(t, strings.TrimPrefix(name, root+"/"))) {
					t.Errorf("%s: the release before could not run on it: it %s", filepath.Base(name), wrong)
				}
			}
		})
	}
}

func TestWhatDoesNotOnlyAddIsSeen(t *testing.T) {
	t.Parallel()
	for name, step := range map[string]string{
		"DropTable":      `DROP TABLE event`,
		"DropColumn":     `ALTER TABLE event DROP COLUMN url`,
		"Rename":         `ALTER TABLE event RENAME COLUMN url TO link`,
		"RenameTable":    `ALTER TABLE event RENAME TO occurrence`,
		"Type":           `ALTER TABLE event ALTER COLUMN step TYPE TEXT`,
		"NotNull":        `ALTER TABLE event ADD COLUMN later TEXT NOT NULL`,
		"NotNullLater":   `ALTER TABLE event ALTER COLUMN metadata SET NOT NULL`,
		"Check":          `ALTER TABLE event ADD COLUMN later BIGINT DEFAULT 0 CHECK (later > 0)`,
		"Constraint":     `ALTER TABLE event ADD CONSTRAINT later CHECK (step > 0)`,
		"Unique":         `CREATE UNIQUE INDEX event_url ON event (url)`,
		"UniqueColumn":   `ALTER TABLE event ADD COLUMN later TEXT UNIQUE`,
		"ForeignKey":     `CREATE TABLE later (id BYTEA REFERENCES event (id))`,
		"Trigger":        `CREATE TRIGGER later BEFORE INSERT ON event EXECUTE FUNCTION later()`,
		"Update":         `UPDATE event SET state = 'later'`,
		"Delete":         `DELETE FROM event`,
		"SecondOfTwo":    `CREATE TABLE later (id BIGINT PRIMARY KEY); DROP TABLE event`,
		"HiddenByReturn": "-- it adds\nDROP\nTABLE event",
		"Down":           "CREATE TABLE later (id BIGINT PRIMARY KEY);\n-- +goose Down\n",
	} {
		if wrong := subtracts(step); len(wrong) != 1 {
			t.Errorf("%s: %q, want one complaint about %s", name, wrong, step)
		}
	}
	for name, step := range map[string]string{
		"Table":       "-- +goose Up\nCREATE TABLE later (id BIGINT PRIMARY KEY, at BIGINT NOT NULL);\nCREATE UNIQUE INDEX later_at ON later (at);",
		"Index":       `CREATE INDEX event_url ON event (tenant_id, url) WHERE url <> ''`,
		"Nullable":    `ALTER TABLE event ADD COLUMN later TEXT`,
		"WithDefault": `ALTER TABLE event ADD COLUMN later TEXT NOT NULL DEFAULT ''`,
	} {
		if wrong := subtracts(step); len(wrong) != 0 {
			t.Errorf("%s: %q, want no complaint about %s", name, wrong, step)
		}
	}
}

// TestStatementsNameTheirColumns: a column that the next release adds is in
// nobody's way only if no statement means "all columns, in their order".
func TestStatementsNameTheirColumns(t *testing.T) {
	t.Parallel()
	nameless := regexp.MustCompile(`INSERT (OR \w+ )?INTO \w+( AS \w+)?\s+(VALUES|SELECT|DEFAULT)\b`)
	all := regexp.MustCompile(`(SELECT|RETURNING|DISTINCT|,|\w\.)\s*\*`)
	inserts := 0
	for _, engine := range []string{"sqlite", "postgres", "row"} {
		files, err := filepath.Glob(filepath.Join(root, "internal", "store", engine, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: no source: %v", engine, err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				text, ok := n.(*ast.BasicLit)
				if !ok || text.Kind != token.STRING {
					return true
				}
				inserts += strings.Count(text.Value, "INSERT ")
				// A batch's own columns, read as a table, are all meant.
				statement := strings.ReplaceAll(text.Value, "* FROM unnest(", "FROM unnest(")
				if nameless.MatchString(statement) || all.MatchString(statement) {
					t.Errorf("%s: a statement that does not name its columns: %s", name, text.Value)
				}
				return true
			})
		}
	}
	if inserts < 20 {
		t.Errorf("found %d inserts, which cannot be all", inserts)
	}
}
