package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"torpor/host"
	"torpor/image"
)

// Image implements supplies. None is needed with a root directory of the host.
func (b *builder) Image(ctx context.Context, p *host.ProjectSpec, spec *host.ServiceSpec, tell func(Progress)) (imageDefaults, error) {
	if spec.Torpor.RootFS != "" {
		if info, err := os.Stat(spec.Torpor.RootFS); err != nil || !info.IsDir() {
			return imageDefaults{}, fmt.Errorf("use rootfs %s: not a directory: %w", spec.Torpor.RootFS, host.ErrInvalid)
		}
		return imageDefaults{}, nil
	}
	name := spec.Image
	if name == "" {
		name = string(p.Name) + "-" + string(spec.Name)
	}
	img, err := b.findImage(ctx, name, spec, tell)
	if err != nil {
		return imageDefaults{}, err
	}
	c := img.Config
	return imageDefaults{ID: img.ID, Name: name, Layers: img.Layers, Entrypoint: c.Entrypoint, Command: c.Command, Env: c.Env, WorkingDir: c.WorkingDir,
		User: c.User, Volumes: c.Volumes, StopSignal: c.StopSignal, Healthcheck: c.Healthcheck}, nil
}

func (b *builder) findImage(ctx context.Context, name string, spec *host.ServiceSpec, tell func(Progress)) (image.Image, error) {
	img, err := b.images.Resolve(name)
	if err == nil && spec.PullPolicy != host.PullAlways && spec.PullPolicy != host.PullBuild {
		return img, nil
	}
	if err != nil && !errors.Is(err, host.ErrNotFound) {
		return img, err
	}
	if spec.Build != nil && spec.PullPolicy != host.PullAlways {
		return b.build(ctx, name, spec.Build, tell)
	}
	if spec.PullPolicy == host.PullNever {
		return img, fmt.Errorf("use image %s: it is not here and pull_policy is never (torpor image pull %s): %w", name, name, host.ErrNotFound)
	}
	return b.pull(ctx, name, spec.Platform, tell)
}

func (b *builder) pull(ctx context.Context, name, platform string, tell func(Progress)) (image.Image, error) {
	img, err := b.images.Pull(ctx, name, image.PullOptions{Platform: platform, Policy: host.PullAlways, Progress: tellOf(name, tell)})
	if err != nil {
		return img, err
	}
	tell(Progress{Subject: name, What: "pulled"})
	return img, nil
}

// tellOf passes an image's progress on.
func tellOf(name string, tell func(Progress)) func(image.Progress) {
	return func(p image.Progress) {
		tell(Progress{Subject: name, What: string(p.Phase), Detail: progressDetail(p)})
	}
}

func progressDetail(p image.Progress) string {
	if p.TotalBytes > 0 {
		return fmt.Sprintf("layer %d of %d: %d of %d KB", p.Layers+1, p.TotalLayers, p.Bytes>>10, p.TotalBytes>>10)
	}
	return fmt.Sprintf("%d of %d layers", p.Layers, p.TotalLayers)
}

// build hands a build to an installed tool and imports its result.
func (b *builder) build(ctx context.Context, name string, spec *host.BuildSpec, tell func(Progress)) (image.Image, error) {
	dir, err := os.MkdirTemp(b.config.StateDir, "build-")
	if err != nil {
		return image.Image{}, err
	}
	defer os.RemoveAll(dir)
	archive := filepath.Join(dir, "image.tar")
	commands, err := buildCommands(name, archive, dir, spec)
	if err != nil {
		return image.Image{}, err
	}
	for _, command := range commands {
		tell(Progress{Subject: name, What: "building", Detail: strings.Join(command[:2], " ")})
		out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput()
		if err != nil {
			return image.Image{}, fmt.Errorf("build %s with %s: %w\n%s", name, command[0], err, out)
		}
	}
	images, err := b.images.Import(ctx, archive, image.ImportOptions{Name: name})
	if err != nil {
		return image.Image{}, err
	}
	return images[0], nil
}

// buildCommands are the commands that build an image into an archive.
func buildCommands(name, archive, dir string, b *host.BuildSpec) ([][]string, error) {
	dockerfile := b.Dockerfile
	if b.DockerfileInline != "" {
		dockerfile = filepath.Join(dir, "Dockerfile")
		if err := os.WriteFile(dockerfile, []byte(b.DockerfileInline), 0o600); err != nil {
			return nil, err
		}
	} else if dockerfile != "" && !filepath.IsAbs(dockerfile) {
		dockerfile = filepath.Join(b.Context, dockerfile)
	}
	args := []string{"--tag", name}
	if dockerfile != "" {
		args = append(args, "--file", dockerfile)
	}
	for key, value := range b.Args {
		args = append(args, "--build-arg", key+"="+value)
	}
	for key, value := range b.Labels {
		args = append(args, "--label", key+"="+value)
	}
	if b.Target != "" {
		args = append(args, "--target", b.Target)
	}
	if b.NoCache {
		args = append(args, "--no-cache")
	}
	args = append(args, b.Context)
	if path, err := exec.LookPath("buildah"); err == nil {
		return [][]string{append([]string{path, "build"}, args...), {path, "push", name, "docker-archive:" + archive + ":" + name}}, nil
	}
	path, err := exec.LookPath("docker")
	if err != nil {
		return nil, fmt.Errorf("build %s: neither buildah nor docker is installed (apt install buildah), or name a ready image instead: %w", name, host.ErrNotFound)
	}
	return [][]string{append([]string{path, "build"}, args...), {path, "save", "--output", archive, name}}, nil
}
