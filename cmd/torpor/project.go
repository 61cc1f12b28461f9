package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"torpor/compose"
	"torpor/daemon"
	"torpor/host"
)

// place says where the daemon is.
type place struct{ socket string }

// register adds the flags that every command that talks to the daemon has.
func (p *place) register(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVar(&p.socket, "socket", defaultSocket(), "the daemon's socket (TORPOR_SOCKET)")
}

func defaultSocket() string {
	if s := os.Getenv("TORPOR_SOCKET"); s != "" {
		return s
	}
	return filepath.Join(orDefault(os.Getenv("TORPOR_RUN_DIR"), daemon.DefaultRunDir), "torpor.sock")
}

func orDefault(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// projectFlags name a compose file and what of it is meant.
type projectFlags struct {
	files, profiles, envFiles []string
	name, dir                 string
}

// registerLong leaves the short form of --file to another flag.
func (f *projectFlags) registerLong(cmd *cobra.Command) { f.registerAs(cmd, "") }

func (f *projectFlags) register(cmd *cobra.Command) { f.registerAs(cmd, "f") }

func (f *projectFlags) registerAs(cmd *cobra.Command, short string) {
	flags := cmd.Flags()
	flags.StringArrayVarP(&f.files, "file", short, nil, "compose file (default: compose.yaml here or above)")
	flags.StringArrayVar(&f.profiles, "profile", nil, "profile to enable")
	flags.StringArrayVar(&f.envFiles, "env-file", nil, "environment file instead of .env")
	flags.StringVarP(&f.name, "project-name", "p", "", "project name (COMPOSE_PROJECT_NAME)")
	flags.StringVar(&f.dir, "project-directory", "", "directory that relative paths start from")
}

// load reads the compose file; services limits it to some of them.
func (f *projectFlags) load(ctx context.Context, env *environment, services []string) (*host.ProjectSpec, error) {
	environ := map[string]string{}
	for _, pair := range os.Environ() {
		name, value, _ := strings.Cut(pair, "=")
		environ[name] = value
	}
	return compose.Load(ctx, compose.LoadOptions{
		Files: f.files, ProjectName: f.name, WorkingDir: f.dir, Profiles: f.profiles, EnvFiles: f.envFiles, Environment: environ,
		Services: services, Warn: func(line string) { fmt.Fprintln(env.stderr, "torpor: warning: "+line) },
	})
}

// everyService lists all services of the file, whatever their profiles. None
// if that can not be told: a file from standard input is read once, and what
// is wrong with a service that was not asked for does not matter.
func (f *projectFlags) everyService(ctx context.Context) []host.ServiceName {
	if slices.Contains(f.files, "-") {
		return nil
	}
	all := *f
	all.profiles = []string{"*"}
	p, err := all.load(ctx, &environment{stderr: io.Discard}, nil)
	if err != nil {
		return nil
	}
	var names []host.ServiceName
	for _, s := range p.Services {
		names = append(names, s.Name)
	}
	return names
}

// project is the name meant: the flag's, or the compose file's. "" when there
// is no file.
func (f *projectFlags) project(ctx context.Context, env *environment) (host.ProjectName, error) {
	if f.name != "" {
		return host.ProjectName(f.name), nil
	}
	p, err := f.load(ctx, env, nil)
	if err != nil {
		if errors.Is(err, host.ErrNotFound) && len(f.files) == 0 {
			return "", nil
		}
		return "", err
	}
	return p.Name, nil
}

// find returns the containers that names mean: a service of the project here,
// project/service, a container's name or id. No names: all of the project; all
// that there are when there is no project here.
func (f *projectFlags) find(ctx context.Context, env *environment, client *daemon.Client, names []string) ([]daemon.ServiceStatus, error) {
	return f.findBy(ctx, env, client.Services, names)
}

// findBy is find with another list of all services.
func (f *projectFlags) findBy(ctx context.Context, env *environment, list func(context.Context, host.ProjectName) ([]daemon.ServiceStatus, error), names []string) ([]daemon.ServiceStatus, error) {
	project, err := f.project(ctx, env)
	if err != nil {
		return nil, err
	}
	all, err := list(ctx, "")
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(s daemon.ServiceStatus) bool { return s.Spare })
	var found []daemon.ServiceStatus
	if len(names) == 0 {
		for _, s := range all {
			if project == "" || s.Project == project {
				found = append(found, s)
			}
		}
		return found, nil
	}
	for _, name := range names {
		some, err := pick(all, project, name)
		if err != nil {
			return nil, err
		}
		found = append(found, some...)
	}
	return found, nil
}

// pick returns the instances that a name means: of a service all, of a
// container that one.
func pick(all []daemon.ServiceStatus, project host.ProjectName, name string) ([]daemon.ServiceStatus, error) {
	var here, elsewhere []daemon.ServiceStatus
	projects := map[host.ProjectName]bool{}
	for _, s := range all {
		switch {
		case string(s.ID) == name, s.Name == name:
			return []daemon.ServiceStatus{s}, nil
		case s.Project == project && string(s.Service) == name, string(s.Project)+"/"+string(s.Service) == name:
			here = append(here, s)
		case project == "" && string(s.Service) == name:
			elsewhere, projects[s.Project] = append(elsewhere, s), true
		}
	}
	switch {
	case len(here) > 0:
		return here, nil
	case len(projects) == 1:
		return elsewhere, nil
	case len(projects) == 0:
		return nil, fmt.Errorf("find service %s: %w; torpor ps -a lists what there is", name, host.ErrNotFound)
	}
	return nil, fmt.Errorf("find service %s: several projects have it; say PROJECT/%s: %w", name, name, host.ErrInvalid)
}
