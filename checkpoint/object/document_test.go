package object

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestDocument compares docs/objects.md with the code: kinds, refusals, tests.
func TestDocument(t *testing.T) {
	b, err := os.ReadFile("../../docs/objects.md")
	check(t, err)
	text := strings.Join(strings.Fields(string(b)), " ")
	var tests, refusals, kinds []string
	names, err := filepath.Glob("*.go")
	check(t, err)
	for _, name := range names {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		check(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			if strings.HasSuffix(name, "_test.go") {
				tests = append(tests, testName(n)...)
				return true
			}
			refusals = append(refusals, refusalTexts(n)...)
			kinds = append(kinds, kindValues(n)...)
			return true
		})
	}
	if len(kinds) < 11 || len(refusals) < 30 || len(tests) < 30 {
		t.Fatalf("found %d kinds, %d refusals, %d tests", len(kinds), len(refusals), len(tests))
	}
	for _, kind := range kinds {
		if !strings.Contains(text, "| `"+kind+"` |") {
			t.Errorf("kind %q has no row", kind)
		}
	}
	for _, refusal := range refusals {
		if words := longest(refusal); !strings.Contains(text, words) {
			t.Errorf("refusal %q is not mentioned by %q", refusal, words)
		}
	}
	for _, name := range regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9]+)`").FindAllStringSubmatch(text, -1) {
		if !strings.Contains(" "+strings.Join(tests, " ")+" ", " "+name[1]+" ") {
			t.Errorf("there is no test %s", name[1])
		}
	}
}

func testName(n ast.Node) []string {
	if f, ok := n.(*ast.FuncDecl); ok {
		return []string{f.Name.Name}
	}
	return nil
}

// kindValues returns the values of constants of type Kind.
func kindValues(n ast.Node) []string {
	spec, ok := n.(*ast.ValueSpec)
	if !ok {
		return nil
	}
	if kind, ok := spec.Type.(*ast.Ident); !ok || kind.Name != "Kind" {
		return nil
	}
	return texts(spec.Values)
}

// refusalTexts returns what is refused: by refuse, by the tables of anonymous
// objects and file systems, by refusedSocket, and as reasons of a host.Refusal.
func refusalTexts(n ast.Node) []string {
	switch n := n.(type) {
	case *ast.CallExpr:
		if f, ok := n.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "refuse" && len(n.Args) > 1 {
			return texts(n.Args[1:2])
		}
	case *ast.ValueSpec:
		if len(n.Names) == 1 && (n.Names[0].Name == "refusedAnonymous" || n.Names[0].Name == "refusedSystems") {
			var values []ast.Expr
			for _, e := range n.Values[0].(*ast.CompositeLit).Elts {
				values = append(values, e.(*ast.KeyValueExpr).Value)
			}
			return texts(values)
		}
	case *ast.FuncDecl:
		if n.Name.Name == "refusedSocket" || n.Name.Name == "refuseSegments" {
			var found []string
			ast.Inspect(n, func(n ast.Node) bool {
				if e, ok := n.(*ast.BasicLit); ok {
					found = append(found, texts([]ast.Expr{e})...)
				}
				return true
			})
			return found
		}
	}
	return nil
}

func texts(exprs []ast.Expr) []string {
	var found []string
	for _, e := range exprs {
		if literal, ok := e.(*ast.BasicLit); ok && literal.Kind == token.STRING {
			if text, err := strconv.Unquote(literal.Value); err == nil && text != "" {
				found = append(found, text)
			}
		}
	}
	return found
}

var verb = regexp.MustCompile(`%[a-z]|[();]`)

// longest is the longest part of a format between its verbs and brackets.
func longest(format string) string {
	var best string
	for _, part := range verb.Split(format, -1) {
		if part = strings.Trim(part, " ,"); len(part) > len(best) {
			best = part
		}
	}
	return best
}
