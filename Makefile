# `make help` lists the targets.

SHELL    := /bin/bash
BUILD    := build
BINARY   := $(BUILD)/osx-builder
IMAGE    := $(BUILD)/tinyvm.tar.gz
TINYVM   := vm/vmtest/tinyvm/build.sh
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
SUDO     := $(if $(filter 0,$(shell id -u)),,sudo)
SOURCES   = $(shell find . \( -name '*.go' -o -name '*.[ch]' \) -not -path './$(BUILD)/*') go.mod go.sum

# VMware is driven where cgo works: for Linux or macOS, with a C compiler. Its
# header is ours, and its library is opened at run time. The flags are the same
# with and without the tag, so that what the tag does not change is built once.
VIX_INCLUDE := $(CURDIR)/vm/vix/include
export CGO_CFLAGS := $(or $(CGO_CFLAGS),-g -O2) "-I$(VIX_INCLUDE)"
PROBE     = [ "$$(go env CGO_ENABLED)" = 1 ] && case "$$(go env GOOS)" in linux|darwin) ;; *) false ;; esac && \
            echo | $$(go env CC) -include dlfcn.h -fsyntax-only -x c - 2>/dev/null
TAGS      = $(shell if $(PROBE); then echo vix; fi)

# What a Debian machine needs to run machines, and to test.
PACKAGES := qemu-system-x86 qemu-utils ovmf dnsmasq-base iproute2 curl
TEST_PACKAGES = gcc libc6-dev git ca-certificates busybox-static procps nftables iputils-ping jq openssl chromium \
  $(shell command -v npm >/dev/null || echo npm) $(shell $(TINYVM) --packages)

# The page is held against the rules of axe-core, which comes from npm and is
# the same each time: its version and its sum are here.
AXE_VERSION := 4.14.1
AXE_SHA256  := 29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c
AXE         := $(BUILD)/axe-$(AXE_VERSION)/node_modules/axe-core/axe.min.js

.DEFAULT_GOAL := build
.PHONY: build run demo install install-files uninstall dist dist-check test test-vix check lint-api check-c shots bench crash soak fuzz image deps test-deps clean help always

build: $(BINARY) ## build build/osx-builder (the default)

$(BINARY): $(SOURCES) $(BUILD)/tags
	go build -trimpath -tags "$$(cat $(BUILD)/tags)" -ldflags '-X main.version=$(VERSION)' -o $@ .

# The build tags, written when they change: with the first C compiler, the
# binary is built anew.
$(BUILD)/tags: always
	@mkdir -p $(BUILD)
	@tags='$(TAGS)'; [ -n "$$tags" ] || echo 'building without VMware support: it needs cgo, and a C compiler such as gcc'; \
	[ -e $@ ] && [ "$$tags" = "$$(cat $@)" ] || echo "$$tags" >$@

run: deps build ## install what is missing and run the daemon
	$(BINARY)

demo: test-deps build image ## tell the whole story once: image, machine, address, callback, gone
	@go build -o $(BUILD)/demo ./vm/vmtest/demo
	@$(BUILD)/demo -binary $(BINARY) -image $(IMAGE)

# What is installed below PREFIX. TELLER is the program as this host runs it,
# which tells the unit and the completions; DESTDIR is for packagers.
PREFIX  := /usr/local
DESTDIR :=
TELLER   = $(BINARY)
OS      := $(shell uname -s | tr A-Z a-z)
UNIT     = $(if $(filter darwin,$(OS)),share/osx-builder/osx-builder.plist,lib/systemd/system/osx-builder.service)
BASH    := share/bash-completion/completions
ZSH     := share/zsh/site-functions
FISH    := share/fish/vendor_completions.d
DOC     := share/doc/osx-builder
INSTALLED = bin/osx-builder $(UNIT) $(BASH)/osx-builder $(ZSH)/_osx-builder $(FISH)/osx-builder.fish \
            $(addprefix $(DOC)/,README.md CHANGELOG.md LICENSE)
to        = "$(DESTDIR)$(PREFIX)/$(1)"

install: build ## install program, unit, completions and documents below PREFIX (/usr/local)
	@$(MAKE) -s install-files

install-files:
	@for f in $(INSTALLED); do install -d -m 755 "$$(dirname "$(DESTDIR)$(PREFIX)/$$f")"; done
	@install -m 755 "$(BINARY)" $(call to,bin/osx-builder)
	@install -m 644 README.md CHANGELOG.md LICENSE $(call to,$(DOC))
	@set -eo pipefail; "$(TELLER)" -print-unit $(if $(filter darwin,$(OS)),launchd,systemd) | \
	  sed -e 's|^ExecStart=.*|ExecStart="$(PREFIX)/bin/osx-builder"|' \
	      -e 's|<string>/.*/osx-builder</string>|<string>$(PREFIX)/bin/osx-builder</string>|' >$(call to,$(UNIT))
	@"$(TELLER)" completion bash >$(call to,$(BASH)/osx-builder)
	@"$(TELLER)" completion zsh >$(call to,$(ZSH)/_osx-builder)
	@"$(TELLER)" completion fish >$(call to,$(FISH)/osx-builder.fish)
	@cd "$(DESTDIR)$(PREFIX)" && chmod 644 $(filter-out bin/osx-builder,$(INSTALLED))

uninstall: ## remove what install installed; machines and images stay
	cd "$(DESTDIR)$(PREFIX)" && rm -f $(INSTALLED) && rmdir $(DOC) $(filter share/osx-builder/,$(dir $(UNIT)))

# nfpm 2.45 and later depend on modules that Go's proxy does not hand out. It is
# no tool of go.mod, where it would bring a hundred modules.
NFPM := $(BUILD)/nfpm
$(NFPM):
	GOBIN=$(abspath $(BUILD)) CGO_ENABLED=0 go install github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.44.2

DIST := $(BUILD)/dist
dist: $(NFPM) ## archives, Debian packages, SBOMs and checksums for Linux and macOS, in build/dist
	rm -rf $(DIST)
	NFPM=$(abspath $(NFPM)) .ci/dist $(DIST) $(VERSION)

dist-check: image $(NFPM) ## build all of dist twice, compare, and try it on a throw-away system
	NFPM=$(abspath $(NFPM)) .ci/dist-check $(BUILD)/dist-check $(VERSION)

test: test-deps build test-vix $(AXE) $(NFPM) ## install what is missing and run every test, on real QEMU too
	$(TINYVM) $(BUILD) all
	go vet ./... && go test -race -timeout 40m ./...

test-vix: ## vet and test what drives VMware, over a double of VMware's library
	@[ -n "$(TAGS)" ] || { echo 'VMware support is not tested: it needs cgo, and a C compiler such as gcc'; [ -z "$$CI" ]; }
	go vet -tags '$(TAGS)' ./... && go test -race -timeout 10m -tags '$(TAGS)' ./vm/vix

check: test-deps check-c ## gofumpt, vet and staticcheck, with VMware support and without
	@unformatted=$$(go tool gofumpt -l .); if [ -n "$$unformatted" ]; then echo "run 'go tool gofumpt -w .' for:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	go vet -tags vix ./...
	GOOS=darwin go vet ./...
	go tool staticcheck ./...
	go tool staticcheck -tags vix ./...

# clang is what macOS has. Its Debian package is too large to be asked for here.
check-c: ## compile the C of vm/vix with gcc and clang, warnings being errors
	@set -e; for cc in gcc clang; do \
	  command -v $$cc >/dev/null || { echo "the C of vm/vix is not compiled with $$cc, which is not installed"; continue; }; \
	  echo "compiling the C of vm/vix with $$cc"; \
	  flags='-Wall -Wextra -Werror -fsyntax-only -Ivm/vix/include'; \
	  for std in c99 gnu17; do echo '#include "vix.h"' | $$cc -std=$$std -Wpedantic $$flags -x c -; done; \
	  for file in vm/vix/*.c vm/vix/testdata/libvix/*.c; do $$cc -std=gnu17 -O2 $$flags $$file; done; \
	done

shots: test-deps build image ## take build/shots/*.png of the page, to look at
	@mkdir -p $(BUILD)/shots
	PAGE_SHOTS=$(abspath $(BUILD))/shots go test -count=1 -run '^TestPage$$' .

lint-api: ## lint the API's description; needs npx
	npx -y @redocly/cli@2.77.0 lint api/openapi.json

bench: test-deps build image ## measure against named baselines, as ratios in one run
	go test -run '^$$' -bench . -benchtime 1x -timeout 60m . ./image ./vm/qemu

crash: test-deps build image ## kill the daemon 200 times, fail each change of a file, and look for what is lost or left
	CRASH_ROUNDS=180 CRASH_QEMU_ROUNDS=20 FAULTS_EACH=1 go test -race -count=1 -timeout 60m -run '^Test(Crash|FailingDisk)$$' -v .

soak: test-deps build image ## make and destroy real machines for 10 minutes and look for what grows
	SOAK_SECONDS=600 go test -race -count=1 -timeout 30m -run '^TestSoak$$' -v .

# Left to itself, Go spends most of the time on making its first findings smaller.
FUZZTIME := 60s
fuzz: ## run each fuzz target for FUZZTIME
	@set -e; for pkg in $$(go list ./...); do \
	  for f in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "$$pkg $$f"; go test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$pkg; \
	  done; \
	done

image: test-deps $(IMAGE) ## build build/tinyvm.tar.gz, the small guest image

$(IMAGE): $(wildcard vm/vmtest/tinyvm/*)
	$(TINYVM) $(BUILD)

$(AXE): | test-deps
	npm install --prefix $(BUILD)/axe-$(AXE_VERSION) --no-save --no-audit --no-fund --ignore-scripts axe-core@$(AXE_VERSION)
	@echo "$(AXE_SHA256)  $@" | sha256sum -c --quiet || { rm -rf $(BUILD)/axe-$(AXE_VERSION); exit 1; }

# A package is installed only where it is missing, so that a prepared machine
# needs neither network nor root.
define install
	@if command -v dpkg-query >/dev/null; then \
	  missing=; for p in $(1); do \
	    [ "$$(dpkg-query -W -f '$${db:Status-Status}' $$p 2>/dev/null)" = installed ] || missing="$$missing $$p"; \
	  done; \
	  if [ -n "$$missing" ]; then \
	    echo "installing$$missing"; \
	    $(SUDO) apt-get update -q && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $$missing; \
	  fi; \
	elif command -v brew >/dev/null; then \
	  command -v qemu-system-x86_64 >/dev/null || brew install qemu; \
	else \
	  command -v qemu-system-x86_64 >/dev/null && command -v qemu-img >/dev/null || \
	    { echo "install QEMU (qemu-system-x86_64, qemu-img) and dnsmasq with this system's package manager; their Debian packages are: $(1)"; exit 1; }; \
	fi
endef

deps:
	$(call install,$(PACKAGES))

test-deps:
	$(call install,$(PACKAGES) $(TEST_PACKAGES))

clean: ## remove build/
	rm -rf $(BUILD)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
