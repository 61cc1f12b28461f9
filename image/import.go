package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"torpor/host"
)

// ImportOptions says how a file is imported. The zero value is usable.
type ImportOptions struct {
	Name     string         // for the image, instead of the names in the file; only if it holds one image
	Platform string         // as for pulls
	Progress func(Progress) // may be nil; must not call the store
}

// Import brings the images of a file into the store: an OCI image layout, as a
// directory or a tar archive, or the archive of docker save or podman save.
// Archives may be compressed with gzip or zstd. It returns the images in the
// order of the file. An image that is in the file for several platforms is
// taken for one.
//
// It is host.ErrInvalid, with the next step, if the path is something else or
// an image has no name, and host.ErrCorrupt if something has a wrong digest.
func (s *Store) Import(ctx context.Context, file string, o ImportOptions) ([]Image, error) {
	images, err := s.importFile(ctx, file, o)
	if err != nil {
		return nil, fmt.Errorf("import %s: %w", file, err)
	}
	return images, nil
}

func (s *Store) importFile(ctx context.Context, file string, o ImportOptions) ([]Image, error) {
	want, err := ParsePlatform(o.Platform)
	if err != nil {
		return nil, err
	}
	files, done, err := s.openFiles(ctx, file)
	if err != nil {
		return nil, err
	}
	defer done()
	candidates, err := findImages(ctx, files, want, baseName(file))
	if err != nil {
		return nil, err
	}
	if err := nameImages(candidates, o.Name); err != nil {
		return nil, err
	}
	var images []Image
	for _, c := range candidates {
		img, err := s.install(ctx, c, &reporter{ref: shortRef(c.refs[0]), call: o.Progress})
		if err != nil {
			return nil, err
		}
		images = append(images, img)
	}
	return images, nil
}

// imageFiles are the files of a directory or archive by slash-separated name.
// A missing one is fs.ErrNotExist.
type imageFiles interface {
	open(name string) (f io.ReadCloser, sizeBytes int64, err error)
}

// openFiles opens a path as a directory or an archive. Call done in the end.
func (s *Store) openFiles(ctx context.Context, file string) (files imageFiles, done func(), err error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, nil, err
	}
	if info.IsDir() {
		root, err := os.OpenRoot(file)
		if err != nil {
			return nil, nil, err
		}
		return dirFiles{root}, func() { root.Close() }, nil
	}
	archive, err := openArchive(ctx, file, s.tmpDir())
	if err != nil {
		return nil, nil, err
	}
	return archive, func() { archive.close() }, nil
}

// findImages lists the images. baseName stands in for a name where the file
// has but a tag.
func findImages(ctx context.Context, files imageFiles, want Platform, baseName string) ([]*candidate, error) {
	for _, format := range []struct {
		mark string
		find func(context.Context, imageFiles, Platform, string) ([]*candidate, error)
	}{
		{dockerManifest, findDockerImages},
		{layoutIndex, findLayoutImages},
	} {
		f, _, err := files.open(format.mark)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		f.Close()
		return format.find(ctx, files, want, baseName)
	}
	if _, ok := files.(dirFiles); ok {
		return nil, fmt.Errorf("directory is no OCI image layout; if it is a root file system, use it as x-torpor rootfs of a service: %w", host.ErrInvalid)
	}
	return nil, fmt.Errorf("archive is neither an OCI image layout nor from docker save; if it is a root file system, unpack it into a directory with tar and use that as x-torpor rootfs of a service: %w", host.ErrInvalid)
}

// nameImages gives the candidates their names.
func nameImages(candidates []*candidate, wanted string) error {
	if len(candidates) == 0 {
		return fmt.Errorf("it holds no image: %w", host.ErrInvalid)
	}
	if wanted != "" {
		ref, err := parseRef(wanted)
		if err != nil {
			return err
		}
		if len(candidates) > 1 {
			return fmt.Errorf("it holds %d images, which can not all be named %s: %w", len(candidates), wanted, host.ErrInvalid)
		}
		candidates[0].refs = []string{refKey(ref)}
	}
	for _, c := range candidates {
		if len(c.refs) == 0 {
			return fmt.Errorf("image %s in it has no name: give it one: %w", c.id, host.ErrInvalid)
		}
	}
	return nil
}

// baseName is the last part of a path without the endings of archives.
func baseName(file string) string {
	name := strings.ToLower(filepath.Base(filepath.Clean(file)))
	for _, ending := range []string{".gz", ".zst", ".tgz", ".tar", ".oci"} {
		name = strings.TrimSuffix(name, ending)
	}
	return name
}

// dirFiles are the files below a directory, which its links can not leave.
type dirFiles struct {
	root *os.Root
}

func (d dirFiles) open(name string) (io.ReadCloser, int64, error) {
	f, err := d.root.Open(filepath.FromSlash(path.Clean(name)))
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("open %s: no regular file: %w", name, host.ErrInvalid)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// readSmall reads a file of bounded size.
func readSmall(files imageFiles, name string) ([]byte, error) {
	f, size, err := files.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > maxConfigBytes {
		return nil, fmt.Errorf("read %s: %d bytes, at most %d are read: %w", name, size, maxConfigBytes, host.ErrInvalid)
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxConfigBytes))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return raw, nil
}
