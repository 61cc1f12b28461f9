# Two commands do everything on a fresh Debian or Ubuntu machine:
#   sudo make demo    sudo make test
# No target needs anything that packaging/deps does not install.

SHELL   := /bin/bash
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
PREFIX  ?= /usr/local
DESTDIR ?=

export CGO_ENABLED := 0
# A test that is skipped fails `make test`; set it empty to see what runs on a lesser kernel.
export TORPOR_REQUIRE_KERNEL ?= 1

PACKAGES ?= ./...
# packaging/deps says which Go to use: the one in PATH, or the one it installed.
GO = $(shell packaging/deps --which-go)

.PHONY: build deps test check vet lint fmt demo install clean

build: bin/torpor

# The go command knows best what changed.
.PHONY: bin/torpor
bin/torpor:
	@packaging/deps build
	$(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o $@ ./cmd/torpor

# Everything that tests and the demo use.
deps:
	packaging/deps test

test: deps fmt vet lint
	$(GO) run ./internal/testreport -p 1 -count 1 -timeout 15m $(PACKAGES)

check: fmt vet lint

fmt:
	@packaging/deps build
	@out=$$($$($(GO) env GOROOT)/bin/gofmt -l .); \
	if [ -n "$$out" ]; then printf 'gofmt: not formatted:\n%s\n' "$$out" >&2; exit 1; fi

vet: fmt
	$(GO) vet ./...

lint: vet
	$(GO) tool staticcheck ./...

demo:
	packaging/deps demo
	$(MAKE) build
	demo/run

install: build
	install -D -m 0755 bin/torpor $(DESTDIR)$(PREFIX)/bin/torpor
	install -D -m 0644 packaging/torpor.service $(DESTDIR)/etc/systemd/system/torpor.service
	sed -i 's|/usr/local/bin/torpor|$(PREFIX)/bin/torpor|' $(DESTDIR)/etc/systemd/system/torpor.service

clean:
	rm -rf bin
