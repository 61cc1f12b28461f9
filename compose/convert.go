package compose

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"torpor/host"
)

// converter makes a spec of compose-go's project. It goes on after a problem,
// so that all of them are told at once.
type converter struct {
	project  *types.Project
	origin   *origin
	warn     func(string)
	problems Problems
}

func convert(project *types.Project, o *origin, warn func(string)) (*host.ProjectSpec, Problems) {
	c := &converter{project: project, origin: o, warn: warn}
	if warn == nil {
		c.warn = func(string) {}
	}
	c.readFiles()
	spec := &host.ProjectSpec{
		Name:       host.ProjectName(project.Name),
		WorkingDir: project.WorkingDir,
		Networks:   c.networks(),
		Volumes:    c.volumes(),
	}
	for _, name := range slices.Sorted(maps.Keys(c.project.Services)) {
		spec.Services = append(spec.Services, c.service(c.project.Services[name]))
	}
	c.link(spec)
	c.checkContainerNames(spec)
	return spec, c.problems
}

// place is a position and the path to show with it.
type place struct {
	position
	path string
}

// key is the place of a path.
func (c *converter) key(path ...string) place {
	return place{c.origin.at(path...), strings.Join(path, ".")}
}

// item is the place of the item of a service's list that mentions a text.
func (c *converter) item(service, key, mention string) place {
	return place{c.origin.item(service, key, mention), "services." + service + "." + key}
}

func (c *converter) unsupported(at place, format string, args ...any) {
	c.problem(at, host.ErrUnsupported, fmt.Sprintf(format, args...))
}

func (c *converter) invalid(at place, format string, args ...any) {
	c.problem(at, host.ErrInvalid, fmt.Sprintf(format, args...))
}

func (c *converter) problem(at place, kind error, reason string) {
	c.problems = append(c.problems, Problem{File: at.file, Line: at.line, Path: at.path, Reason: reason, Kind: kind})
}

// readFiles merges env_file and label_file into environment and labels.
func (c *converter) readFiles() {
	complete := true
	for name, s := range c.project.Services {
		for _, f := range s.EnvFiles {
			if info, err := os.Stat(f.Path); bool(f.Required) && (err != nil || info.IsDir()) {
				c.invalid(c.item(name, "env_file", baseName(f.Path)), "%s: no such file", f.Path)
				complete = false
			}
		}
		for _, f := range s.LabelFiles {
			if info, err := os.Stat(f); err != nil || info.IsDir() {
				c.invalid(c.item(name, "label_file", baseName(f)), "%s: no such file", f)
				complete = false
			}
		}
	}
	if !complete {
		return
	}
	project, err := resolveFiles(c.project)
	if err != nil {
		c.problems = append(c.problems, c.origin.explain(err))
		return
	}
	c.project = project
}

func resolveFiles(p *types.Project) (resolved *types.Project, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("read env_file: not understood by the parser (%v)", r)
		}
	}()
	if p, err = p.WithServicesEnvironmentResolved(true); err != nil {
		return nil, err
	}
	return p.WithServicesLabelsResolved(true)
}

func baseName(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// namePattern is what may become a directory or be resolved as a name.
var namePattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

func (c *converter) checkContainerNames(spec *host.ProjectSpec) {
	owner := map[string]host.ServiceName{}
	for _, s := range spec.Services {
		name := s.ContainerName
		if name == "" {
			continue
		}
		at := c.key("services", string(s.Name), "container_name")
		if other, taken := owner[name]; taken {
			c.invalid(at, "%s is the name of service %s already", name, other)
		}
		if !namePattern.MatchString(name) {
			c.invalid(at, "%q: letters, digits, _, . and - are allowed", name)
		}
		owner[name] = s.Name
	}
}

// nonEmpty is the map as a plain one, nil if it is empty.
func nonEmpty[M ~map[string]string](m M) map[string]string {
	if len(m) == 0 {
		return nil
	}
	return m
}

// list is the list as a plain one, nil if it is empty.
func list[S ~[]string](s S) []string {
	if len(s) == 0 {
		return nil
	}
	return s
}
