package torpor

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// source is one Go file of the tree.
type source struct {
	name string // relative to the root
	dir  string // "." for the root
	test bool
	tree *ast.File
	set  *token.FileSet
}

func (s *source) at(n ast.Node) string {
	return fmt.Sprintf("%s:%d", s.name, s.set.Position(n.Pos()).Line)
}

// sources parses every Go file that the go command would build somewhere.
func sources(t *testing.T) []*source {
	t.Helper()
	var all []*source
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := d.Name()
		if d.IsDir() {
			if name != "." && (base == "testdata" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_")) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(base, ".go") || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") {
			return nil
		}
		set := token.NewFileSet()
		tree, err := parser.ParseFile(set, name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if os.IsNotExist(err) {
			return nil // an editor's file
		}
		if err != nil {
			return err
		}
		all = append(all, &source{name: name, dir: path.Dir(name), test: strings.HasSuffix(base, "_test.go"), tree: tree, set: set})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// shout reports every breach of a rule in one list.
func shout(t *testing.T, rule string, breaches []string) {
	t.Helper()
	if len(breaches) > 0 {
		slices.Sort(breaches)
		t.Errorf("%s:\n\t%s", rule, strings.Join(breaches, "\n\t"))
	}
}

func imports(s *source) []string {
	var names []string
	for _, spec := range s.tree.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err == nil {
			names = append(names, name)
		}
	}
	return names
}

func TestPackagesAreDocumented(t *testing.T) {
	documented := map[string]bool{}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		want := "Package " + s.tree.Name.Name + " "
		if s.tree.Name.Name == "main" {
			want = "Command " + path.Base(s.dir) + " "
		}
		documented[s.dir] = documented[s.dir] || strings.HasPrefix(s.tree.Doc.Text(), want)
	}
	var breaches []string
	for dir, ok := range documented {
		if !ok {
			breaches = append(breaches, dir)
		}
	}
	shout(t, "packages without a comment that starts with their name", breaches)
}

func TestPackageNames(t *testing.T) {
	vague := []string{"util", "utils", "common", "helper", "helpers", "misc", "shared", "base", "types"}
	var breaches []string
	for _, s := range sources(t) {
		if slices.Contains(vague, s.tree.Name.Name) || slices.Contains(vague, path.Base(s.dir)) {
			breaches = append(breaches, s.name)
		}
	}
	shout(t, "packages named after nothing; put the code with its noun", breaches)
}

// layer is the height of a package: imports go down. Packages of one layer do
// not import each other unless one is inside the other, as checkpoint/blob is
// in checkpoint; keeper may be used by daemon, which runs it.
func layer(dir string) int {
	first, _, _ := strings.Cut(dir, "/")
	switch first {
	case "host":
		return 0
	case "kernel":
		return 1
	case "daemon", "bench":
		return 4
	case "keeper":
		return 3
	case "cmd":
		return 5
	case "internal", "demo", "examples", "docs", "packaging", ".":
		return -1 // of tests: may import all, and only tests import it
	}
	return 2 // the parts
}

func TestImportsPointDown(t *testing.T) {
	var breaches []string
	for _, s := range sources(t) {
		from := layer(s.dir)
		if from < 0 || s.test {
			continue // tests put parts together
		}
		for _, name := range imports(s) {
			to, ours := strings.CutPrefix(name, "torpor/")
			if !ours {
				continue
			}
			sameTop := topOf(s.dir) == topOf(to)
			switch down := layer(to); {
			case strings.HasPrefix(to, "internal/") && s.dir == "bench":
				// measures what tests start
			case down < 0, down > from, down == from && !sameTop:
				breaches = append(breaches, s.name+" imports "+name)
			}
		}
	}
	shout(t, "imports against cmd -> daemon, bench -> keeper -> parts -> kernel -> host", breaches)
}

func topOf(dir string) string {
	first, _, _ := strings.Cut(dir, "/")
	return first
}

func TestSystemCallsHaveOneDoor(t *testing.T) {
	var breaches []string
	for _, s := range sources(t) {
		if s.test || topOf(s.dir) == "kernel" {
			continue
		}
		if slices.Contains(imports(s), "golang.org/x/sys/unix") {
			breaches = append(breaches, s.name)
		}
	}
	shout(t, "golang.org/x/sys/unix imported outside kernel", breaches)
}

func TestUnsafeIsNamed(t *testing.T) {
	var breaches []string
	for _, s := range sources(t) {
		named := strings.HasSuffix(s.name, "_unsafe.go") || strings.HasSuffix(s.name, "_unsafe_test.go")
		if slices.Contains(imports(s), "unsafe") && !named {
			breaches = append(breaches, s.name)
		}
	}
	shout(t, "unsafe imported by files that are not named *_unsafe.go", breaches)
}

func TestHostIsPlain(t *testing.T) {
	var breaches []string
	for _, s := range sources(t) {
		if s.dir != "host" || s.test {
			continue
		}
		for _, name := range imports(s) {
			if strings.Contains(name, ".") || strings.HasPrefix(name, "torpor/") {
				breaches = append(breaches, s.name+" imports "+name)
			}
		}
	}
	shout(t, "host imports more than the standard library", breaches)
}

// vagueError finds what adds no news to an error; "verb object: cause" does.
var vagueError = regexp.MustCompile(`(?i)\b(failed to|unable to|could not|couldn't|cannot)\b|^error |^failed\b`)

func TestErrorsAreSpecific(t *testing.T) {
	var breaches []string
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		ast.Inspect(s.tree, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || !makesError(call) || len(call.Args) == 0 {
				return true
			}
			literal, ok := call.Args[0].(*ast.BasicLit)
			if !ok || literal.Kind != token.STRING {
				return true
			}
			text, err := strconv.Unquote(literal.Value)
			if err == nil && (vagueError.MatchString(text) || startsUpper(text)) {
				breaches = append(breaches, s.at(call)+": "+text)
			}
			return true
		})
	}
	shout(t, `error texts that are not lower-case "verb object: cause"`, breaches)
}

func makesError(call *ast.CallExpr) bool {
	fun, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	from, ok := fun.X.(*ast.Ident)
	return ok && (from.Name == "errors" && fun.Sel.Name == "New" || from.Name == "fmt" && fun.Sel.Name == "Errorf")
}

// startsUpper spares names such as EOF and HTTP.
func startsUpper(text string) bool {
	return len(text) > 1 && text[0] >= 'A' && text[0] <= 'Z' && text[1] >= 'a' && text[1] <= 'z' &&
		!strings.HasPrefix(text, "Torpor")
}

func TestExportedNamesAreDocumented(t *testing.T) {
	var breaches []string
	for _, s := range sources(t) {
		if s.test || s.tree.Name.Name == "main" {
			continue
		}
		for _, decl := range s.tree.Decls {
			for _, name := range undocumented(decl) {
				breaches = append(breaches, s.at(decl)+": "+name)
			}
		}
	}
	shout(t, "exported names without a comment", breaches)
}

func undocumented(decl ast.Decl) []string {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) && !wellKnown(d) {
			return []string{d.Name.Name}
		}
	case *ast.GenDecl:
		var names []string
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				if spec.Name.IsExported() && d.Doc == nil && spec.Doc == nil {
					names = append(names, spec.Name.Name)
				}
			case *ast.ValueSpec:
				if d.Doc != nil || spec.Doc != nil || spec.Comment != nil {
					continue
				}
				for _, name := range spec.Names {
					if name.IsExported() {
						names = append(names, name.Name)
					}
				}
			}
		}
		return names
	}
	return nil
}

func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return true
	}
	kind := d.Recv.List[0].Type
	for {
		switch k := kind.(type) {
		case *ast.StarExpr:
			kind = k.X
			continue
		case *ast.IndexExpr:
			kind = k.X
			continue
		case *ast.Ident:
			return k.IsExported()
		}
		return true
	}
}

// wellKnown are methods whose interface says what they do.
func wellKnown(d *ast.FuncDecl) bool {
	return d.Recv != nil && slices.Contains([]string{
		"Error", "Unwrap", "Is", "As", "String", "Len", "Less", "Swap", "Read", "Write", "Close",
		"MarshalJSON", "UnmarshalJSON", "MarshalText", "UnmarshalText", "ServeHTTP",
	}, d.Name.Name)
}
