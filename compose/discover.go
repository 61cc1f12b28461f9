package compose

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/consts"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"

	"torpor/host"
)

// discover finds and reads the compose files and the .env files, in docker
// compose's order: -f, then COMPOSE_FILE, then the default names from the
// working directory upwards.
func discover(ctx context.Context, opts LoadOptions) (types.ConfigDetails, error) {
	env := types.Mapping{}
	maps.Copy(env, opts.Environment)
	envFiles := opts.EnvFiles
	if names := env["COMPOSE_ENV_FILES"]; len(envFiles) == 0 && names != "" {
		envFiles = strings.Split(names, ",")
	}
	o, err := cli.NewProjectOptions(opts.Files,
		func(o *cli.ProjectOptions) error { o.Environment = env; return nil },
		cli.WithWorkingDirectory(opts.WorkingDir),
		cli.WithEnvFiles(envFiles...), cli.WithDotEnv, // may say COMPOSE_FILE
		cli.WithConfigFileEnv, cli.WithDefaultConfigPath,
		cli.WithEnvFiles(envFiles...), cli.WithDotEnv, // of the directory where the file was found
	)
	if err != nil {
		return types.ConfigDetails{}, fmt.Errorf("read environment: %w: %w", host.ErrInvalid, err)
	}
	dir, err := o.GetWorkingDir()
	if err != nil {
		return types.ConfigDetails{}, fmt.Errorf("find project directory: %w", err)
	}
	if len(o.ConfigPaths) == 0 {
		return types.ConfigDetails{}, fmt.Errorf("find %s in %s or above: %w (name a file with -f)",
			cli.DefaultFileNames[0], dir, host.ErrNotFound)
	}
	details, err := o.ReadConfigFiles(ctx, dir, o)
	if errors.Is(err, fs.ErrNotExist) {
		return types.ConfigDetails{}, fmt.Errorf("read compose file: %w: %w", host.ErrNotFound, err)
	}
	if err != nil {
		return types.ConfigDetails{}, fmt.Errorf("read compose file: %w", err)
	}
	details.Environment = env
	return *details, nil
}

// projectName is the name asked for, else COMPOSE_PROJECT_NAME, else the
// file's, else the directory's.
func projectName(opts LoadOptions, o *origin) (string, error) {
	for _, name := range []string{opts.ProjectName, o.env[consts.ComposeProjectName]} {
		if name == "" {
			continue
		}
		if loader.NormalizeProjectName(name) != name {
			return "", fmt.Errorf("name project %q: %w: lower-case letters, digits, - and _ are allowed, a letter or digit first",
				name, host.ErrInvalid)
		}
		return name, nil
	}
	name := filepath.Base(o.projectDir)
	for _, d := range o.main {
		for _, root := range d.roots {
			if e, ok := child(root, "name"); ok && resolveAlias(e.value).Value != "" {
				name = o.expand(resolveAlias(e.value).Value)
			}
		}
	}
	if name = loader.NormalizeProjectName(name); name == "" {
		return "", fmt.Errorf("name project in %s: %w: the directory gives no name; name it with -p or with name in the file",
			o.projectDir, host.ErrInvalid)
	}
	return name, nil
}

// profiles are those asked for, else COMPOSE_PROFILES.
func profiles(opts LoadOptions, env types.Mapping) []string {
	if len(opts.Profiles) > 0 {
		return opts.Profiles
	}
	var list []string
	for name := range strings.SplitSeq(env[consts.ComposeProfiles], ",") {
		if name = strings.TrimSpace(name); name != "" {
			list = append(list, name)
		}
	}
	return list
}
