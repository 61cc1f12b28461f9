package compose

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/sirupsen/logrus"

	"torpor/host"
)

// LoadOptions say what to load. The zero value loads what docker compose
// would from the process's directory, with an empty environment.
type LoadOptions struct {
	Files       []string          // in order of precedence, weakest first; "-" is standard input; empty: discovered
	ProjectName string            // "": COMPOSE_PROJECT_NAME, the file's name, the directory's
	WorkingDir  string            // project directory that relative paths start from; "": the first file's
	Profiles    []string          // empty: COMPOSE_PROFILES
	EnvFiles    []string          // instead of .env in the project directory
	Environment map[string]string // for interpolation; stronger than .env; not changed
	Services    []string          // only these and what they depend on; empty: all of the active profiles
	Warn        func(string)      // told of what is accepted but likely not meant; may be nil
}

// Load reads compose files into a spec with absolute paths. The error is
// Problems when files are wrong (matching host.ErrInvalid) or ask for what
// Torpor does not do (matching host.ErrUnsupported); it matches
// host.ErrNotFound when there is no compose file.
func Load(ctx context.Context, opts LoadOptions) (*host.ProjectSpec, error) {
	silenceLogrus()
	details, err := discover(ctx, opts)
	if err != nil {
		return nil, err
	}
	o, err := readOrigin(details)
	if err != nil {
		return nil, err
	}
	findings, err := o.check()
	if err != nil {
		return nil, err
	}
	name, err := projectName(opts, o)
	if err != nil {
		return nil, err
	}
	m, err := readModel(ctx, details, modelOptions(opts, o, name))
	if err != nil {
		return nil, withFindings(findings, o, err).err()
	}
	problems := m.problems(findings, o)
	spec, more := convert(m.project, o, opts.Warn)
	if err := append(problems, more...).err(); err != nil {
		return nil, err
	}
	for _, f := range details.ConfigFiles {
		spec.Files = append(spec.Files, f.Filename)
	}
	return spec, nil
}

// silenceLogrus stops compose-go from writing warnings to standard error.
var silenceLogrus = sync.OnceFunc(func() { logrus.SetOutput(io.Discard) })

// model is what compose-go made of the files.
type model struct {
	project     *types.Project
	unsupported [][]string // paths, list items as "*"
}

// noImage stands in for the image of a service that has none, so that
// compose-go lets x-torpor.rootfs do.
const noImage = "x-torpor-no-image"

func modelOptions(opts LoadOptions, o *origin, name string) []func(*loader.Options) {
	return []func(*loader.Options){
		func(l *loader.Options) {
			l.SetProjectName(name, true)
			l.SkipResolveEnvironment = true // env_file is read once its problems have lines
			l.SkipResolveLabels = true
			l.Interpolate.Substitute = substitute(opts.Warn)
		},
		loader.WithProfiles(profiles(opts, o.env)),
		loader.WithSelectedServices(opts.Services),
		loader.WithoutUnnecessaryResources,
	}
}

// substitute expands variables and warns once of each that is not set and has
// no default.
func substitute(warn func(string)) func(string, template.Mapping) (string, error) {
	warned := map[string]bool{}
	replace := func(text string, mapping template.Mapping, cfg *template.Config) (string, error) {
		value, applied, err := template.DefaultReplacementAppliedFunc(text, mapping, cfg)
		name := strings.Trim(text, "${}")
		if !applied && err == nil && warn != nil && !warned[name] {
			warned[name] = true
			warn(fmt.Sprintf("variable %s is not set: an empty string is used", name))
		}
		return value, err
	}
	return func(text string, mapping template.Mapping) (string, error) {
		return template.SubstituteWithOptions(text, mapping, template.WithoutLogging, template.WithReplacementFunction(replace))
	}
}

// readModel runs compose-go. It panics on some inputs that are odd enough;
// those are errors like any other.
func readModel(ctx context.Context, details types.ConfigDetails, options []func(*loader.Options)) (m *model, err error) {
	defer func() {
		if r := recover(); r != nil {
			m, err = nil, fmt.Errorf("not understood by the compose parser (%v)", r)
		}
	}()
	dict, err := loader.LoadModelWithContext(ctx, details, options...)
	if err != nil {
		return nil, err
	}
	m = &model{unsupported: unsupported(dict, rules(), nil)}
	prepare(dict)
	m.project, err = loader.ModelToProject(dict, loader.ToOptions(&details, options), details)
	return m, err
}

// prepare changes what compose-go would not let pass but Torpor does: a service
// without an image, and network_mode bridge, which is the default network here.
func prepare(dict map[string]any) {
	services, _ := dict["services"].(map[string]any)
	for _, s := range services {
		service, ok := s.(map[string]any)
		if !ok {
			continue
		}
		if service["build"] == nil && asksNothing(service["image"]) {
			service["image"] = noImage
		}
		mode := service["network_mode"]
		if (mode == "bridge" || mode == "default") && asksNothing(service["networks"]) {
			delete(service, "network_mode")
			service["networks"] = map[string]any{"default": nil}
			addDefaultNetwork(dict)
		}
	}
}

func addDefaultNetwork(dict map[string]any) {
	networks, ok := dict["networks"].(map[string]any)
	if !ok {
		networks = map[string]any{}
		dict["networks"] = networks
	}
	if networks["default"] == nil {
		networks["default"] = map[string]any{"name": fmt.Sprintf("%v_default", dict["name"])}
	}
}

// problems are the findings that matter for what will be started: all typos,
// and unsupported keys of services, networks and so on that are in use.
func (m *model) problems(findings []finding, o *origin) Problems {
	var problems Problems
	byKey := map[string][]Problem{}
	for _, f := range findings {
		if f.Kind == host.ErrInvalid {
			problems = append(problems, f.Problem)
		} else {
			byKey[f.key] = append(byKey[f.key], f.Problem)
		}
	}
	for _, path := range m.unsupported {
		if !m.inUse(path) {
			continue
		}
		written := byKey[strings.Join(path, "\x00")]
		if len(written) == 0 { // moved by merging: the nearest place that is known
			at := o.at(path...)
			written = []Problem{{File: at.file, Line: at.line, Path: strings.Join(path, "."), Kind: host.ErrUnsupported}}
		}
		problems = append(problems, written...)
	}
	return problems
}

func (m *model) inUse(path []string) bool {
	if len(path) < 2 {
		return true
	}
	used := true
	switch path[0] {
	case "services":
		_, used = m.project.Services[path[1]]
	case "networks":
		_, used = m.project.Networks[path[1]]
	case "volumes":
		_, used = m.project.Volumes[path[1]]
	case "secrets":
		_, used = m.project.Secrets[path[1]]
	case "configs":
		_, used = m.project.Configs[path[1]]
	}
	return used
}

// withFindings joins what compose-go refused with what was found before. A
// typo among them explains the refusal better than compose-go does.
func withFindings(findings []finding, o *origin, refusal error) Problems {
	var problems Problems
	for _, f := range findings {
		problems = append(problems, f.Problem)
	}
	if slices.ContainsFunc(findings, func(f finding) bool { return f.Kind == host.ErrInvalid }) {
		return problems
	}
	return append(problems, o.explain(refusal))
}
