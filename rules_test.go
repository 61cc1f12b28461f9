package torpor_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

// levels order the first elements of package paths: imports point down. Parts
// are on one level and do not import each other; internal is test support that
// benchmarks use too.
var levels = map[string]int{
	"cmd": 7, "demo": 7,
	"daemon": 6, "bench": 6,
	"keeper": 5, "volume": 5,
	"internal": 4, "wire": 4,
	"compose": 3, "container": 3, "image": 3, "checkpoint": 3, "socket": 3,
	"block": 3, "vm": 3, "patch": 3, "guard": 3, "attest": 3,
	"kernel": 2,
	"host":   1,
}

const partLevel = 3

// source is one parsed Go file.
type source struct {
	path string // slash-separated, from the root of the tree
	file *ast.File
	set  *token.FileSet
}

func (s *source) test() bool   { return strings.HasSuffix(s.path, "_test.go") }
func (s *source) dir() string  { return path.Dir(s.path) }
func (s *source) part() string { return first(s.dir()) }
func (s *source) lines() int   { return s.set.Position(s.file.FileEnd).Line }

func (s *source) at(p token.Pos) string {
	return fmt.Sprintf("%s:%d", s.path, s.set.Position(p).Line)
}

func first(dir string) string {
	name, _, _ := strings.Cut(dir, "/")
	return name
}

// sources parses the tree.
func sources(t *testing.T) []*source {
	t.Helper()
	var all []*source
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		hidden := len(name) > 1 && strings.HasPrefix(d.Name(), ".")
		if d.IsDir() && (hidden || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") || hidden {
			return nil
		}
		s := &source{path: filepath.ToSlash(name), set: token.NewFileSet()}
		s.file, err = parser.ParseFile(s.set, name, nil, parser.ParseComments|parser.SkipObjectResolution)
		all = append(all, s)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// imports calls f with each import path.
func (s *source) imports(f func(at, importPath string)) {
	for _, spec := range s.file.Imports {
		if importPath, err := strconv.Unquote(spec.Path.Value); err == nil {
			f(s.at(spec.Pos()), importPath)
		}
	}
}

func TestPackagesAreDocumented(t *testing.T) {
	documented := map[string]bool{}
	for _, s := range sources(t) {
		if s.test() {
			continue
		}
		want := "Package " + s.file.Name.Name + " "
		if s.file.Name.Name == "main" {
			want = "Command " + path.Base(s.dir()) + " "
		}
		documented[s.dir()] = documented[s.dir()] || strings.HasPrefix(s.file.Doc.Text(), want)
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s: no package comment that starts with its name", dir)
		}
	}
}

func TestImportsPointDown(t *testing.T) {
	for _, s := range sources(t) {
		if s.test() || s.dir() == "." {
			continue
		}
		from, known := levels[s.part()]
		if !known {
			t.Errorf("%s: %s has no level in rules_test.go", s.path, s.part())
			continue
		}
		s.imports(func(at, importPath string) {
			inner, ours := strings.CutPrefix(importPath, "torpor/")
			if !ours {
				if s.part() == "host" && strings.Contains(importPath, ".") {
					t.Errorf("%s: host imports %s; it has the standard library only", at, importPath)
				}
				return
			}
			to := levels[first(inner)]
			switch {
			case first(inner) == s.part():
			case to == partLevel && from == partLevel:
				t.Errorf("%s: part %s imports part %s; the daemon hands it what it needs", at, s.part(), inner)
			case to >= from:
				t.Errorf("%s: %s imports %s, which is not below it", at, s.part(), inner)
			}
		})
	}
}

func TestSystemCallsHaveOneDoor(t *testing.T) {
	for _, s := range sources(t) {
		s.imports(func(at, importPath string) {
			if importPath == "golang.org/x/sys/unix" && s.part() != "kernel" && !s.test() {
				t.Errorf("%s: %s is imported below kernel only", at, importPath)
			}
			if importPath == "unsafe" && !strings.HasSuffix(s.path, "_unsafe.go") && !strings.HasSuffix(s.path, "_unsafe_test.go") {
				t.Errorf("%s: unsafe is imported in files named *_unsafe.go and *_unsafe_test.go only", at)
			}
		})
	}
}

func TestPartsDoNotLog(t *testing.T) {
	for _, s := range sources(t) {
		if s.test() || levels[s.part()] > partLevel {
			continue
		}
		s.imports(func(at, importPath string) {
			if importPath == "log" || importPath == "log/slog" {
				t.Errorf("%s: parts return errors and events; the daemon logs", at)
			}
		})
	}
}

// vague words say that something went wrong, which an error says anyway.
var vague = []string{"failed to", "unable to", "could not", "couldn't", "cannot", "error while", "error occurred", "something went wrong", "unexpected error"}

func TestErrorsNameWhatWasDone(t *testing.T) {
	for _, s := range sources(t) {
		ast.Inspect(s.file, func(n ast.Node) bool {
			text, at, ok := errorText(n)
			if !ok || s.test() {
				return true
			}
			for _, words := range vague {
				if strings.Contains(strings.ToLower(text), words) {
					t.Errorf("%s: error text %q: say `verb object: cause`", s.at(at), text)
				}
			}
			runes := []rune(text)
			if len(runes) > 1 && unicode.IsUpper(runes[0]) && unicode.IsLower(runes[1]) {
				t.Errorf("%s: error text %q starts with a capital", s.at(at), text)
			}
			if strings.HasSuffix(text, ".") || strings.HasSuffix(text, "\n") {
				t.Errorf("%s: error text %q ends like a sentence", s.at(at), text)
			}
			return true
		})
	}
}

// errorText returns the literal given to errors.New or fmt.Errorf.
func errorText(n ast.Node) (string, token.Pos, bool) {
	call, ok := n.(*ast.CallExpr)
	if !ok || len(call.Args) == 0 {
		return "", 0, false
	}
	selector, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return "", 0, false
	}
	pkg, ok := selector.X.(*ast.Ident)
	if !ok || !slices.Contains([]string{"errors.New", "fmt.Errorf"}, pkg.Name+"."+selector.Sel.Name) {
		return "", 0, false
	}
	literal, ok := call.Args[0].(*ast.BasicLit)
	if !ok || literal.Kind != token.STRING {
		return "", 0, false
	}
	text, err := strconv.Unquote(literal.Value)
	return text, literal.Pos(), err == nil
}

// TestTermsListEventsAndLogKeys keeps TERMS.md true where it can be looked up.
func TestTermsListEventsAndLogKeys(t *testing.T) {
	terms, err := os.ReadFile("TERMS.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sources(t) {
		if s.test() {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			for _, word := range slices.Concat(eventTypes(n), logKeys(n)) {
				if !strings.Contains(string(terms), "| `"+word+"` |") {
					t.Errorf("%s: %q is not in a table of TERMS.md", s.at(n.Pos()), word)
				}
			}
			return true
		})
	}
}

// eventTypes returns the values of constants of type EventType.
func eventTypes(n ast.Node) []string {
	spec, ok := n.(*ast.ValueSpec)
	if !ok {
		return nil
	}
	if kind, ok := spec.Type.(*ast.Ident); !ok || kind.Name != "EventType" {
		return nil
	}
	return literals(spec.Values)
}

// logKeys returns the keys of a call such as log.Warn("stop", "error", err).
func logKeys(n ast.Node) []string {
	call, ok := n.(*ast.CallExpr)
	if !ok || len(call.Args) < 3 {
		return nil
	}
	selector, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !slices.Contains([]string{"Debug", "Info", "Warn", "Error"}, selector.Sel.Name) {
		return nil
	}
	var keys []ast.Expr
	for i := 1; i < len(call.Args); i += 2 {
		keys = append(keys, call.Args[i])
	}
	return literals(keys)
}

func literals(exprs []ast.Expr) []string {
	var texts []string
	for _, e := range exprs {
		if literal, ok := e.(*ast.BasicLit); ok && literal.Kind == token.STRING {
			if text, err := strconv.Unquote(literal.Value); err == nil {
				texts = append(texts, text)
			}
		}
	}
	return texts
}

func TestPackageNamesSayWhatIsInside(t *testing.T) {
	vague := []string{"util", "utils", "common", "helper", "helpers", "misc", "shared", "base", "types", "lib", "core"}
	for _, s := range sources(t) {
		for _, name := range []string{s.file.Name.Name, path.Base(s.dir())} {
			if slices.Contains(vague, name) {
				t.Errorf("%s: package %s: put it with its noun", s.path, name)
			}
		}
	}
}

func TestExportedNamesAreDocumented(t *testing.T) {
	for _, s := range sources(t) {
		if s.test() || s.file.Name.Name == "main" {
			continue
		}
		for _, d := range s.file.Decls {
			for _, name := range undocumented(d) {
				t.Errorf("%s: exported %s has no comment", s.at(d.Pos()), name)
			}
		}
	}
}

// undocumented lists the exported names of a declaration that have no comment:
// their own, one behind them, or that of their group.
func undocumented(d ast.Decl) []string {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && (d.Recv == nil || exportedReceiver(d) && !wellKnown[d.Name.Name]) {
			return []string{d.Name.Name}
		}
	case *ast.GenDecl:
		var names []string
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				if spec.Name.IsExported() && d.Doc == nil && spec.Doc == nil && spec.Comment == nil {
					names = append(names, spec.Name.Name)
				}
			case *ast.ValueSpec:
				if i := slices.IndexFunc(spec.Names, (*ast.Ident).IsExported); i >= 0 && d.Doc == nil && spec.Doc == nil && spec.Comment == nil {
					names = append(names, spec.Names[i].Name)
				}
			}
		}
		return names
	}
	return nil
}

// wellKnown methods say nothing more than the interface they are for.
var wellKnown = map[string]bool{"Error": true, "String": true, "Unwrap": true, "MarshalJSON": true, "UnmarshalJSON": true}

func exportedReceiver(d *ast.FuncDecl) bool {
	x := d.Recv.List[0].Type
	for {
		switch typed := x.(type) {
		case *ast.StarExpr:
			x = typed.X
		case *ast.IndexExpr:
			x = typed.X
		case *ast.IndexListExpr:
			x = typed.X
		case *ast.Ident:
			return typed.IsExported()
		default:
			return false
		}
	}
}

func TestNothingIsLeftToDo(t *testing.T) {
	for _, s := range sources(t) {
		for _, group := range s.file.Comments {
			for _, c := range group.List {
				if strings.Contains(c.Text, "TO"+"DO") || strings.Contains(c.Text, "FIX"+"ME") {
					t.Errorf("%s: what is missing belongs in an issue, not in a comment", s.at(c.Pos()))
				}
			}
		}
	}
}

// TestFilesAreShort hints at files that may hold two nouns, and refuses those
// that surely do.
func TestFilesAreShort(t *testing.T) {
	const hint, limit = 500, 1000
	for _, s := range sources(t) {
		switch n := s.lines(); {
		case n > limit:
			t.Errorf("%s has %d lines: split it by noun", s.path, n)
		case n > hint:
			t.Logf("%s has %d lines: does it hold two nouns?", s.path, n)
		}
	}
}
