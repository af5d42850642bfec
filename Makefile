# `make help` lists the targets.

SHELL    := /bin/bash
BUILD    := build
BINARY   := $(BUILD)/osx-builder
IMAGE    := $(BUILD)/tinyvm.tar.gz
TINYVM   := vm/vmtest/tinyvm/build.sh
DEBIAN   := vm/vmtest/debian/build.sh
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
SUDO     := $(if $(filter 0,$(shell id -u)),,sudo)
SOURCES   = $(shell find . \( -name '*.go' -o -name '*.[ch]' \) -not -path './$(BUILD)/*') go.mod go.sum

# The VMware driver needs cgo: a C compiler, on Linux or macOS. The header of
# VMware's library is our own, and the library is opened at run time. The flags
# are the same with and without the tag, so that Go's build cache serves both.
VIX_INCLUDE := $(CURDIR)/vm/vix/include
export CGO_CFLAGS := $(or $(CGO_CFLAGS),-g -O2) "-I$(VIX_INCLUDE)"
PROBE     = [ "$$(go env CGO_ENABLED)" = 1 ] && case "$$(go env GOOS)" in linux|darwin) ;; *) false ;; esac && \
            echo | $$(go env CC) -include dlfcn.h -fsyntax-only -x c - 2>/dev/null
TAGS      = $(shell if $(PROBE); then echo vix; fi)

# The Debian packages that running machines and testing need.
PACKAGES := qemu-system-x86 qemu-utils ovmf dnsmasq-base iproute2 curl
TEST_PACKAGES = gcc libc6-dev git ca-certificates busybox-static procps nftables iputils-ping jq openssl systemd chromium \
  libarchive-tools p7zip-full swtpm zip xz-utils zstd \
  $(shell command -v npm >/dev/null || echo npm) $(shell $(TINYVM) --packages) \
  $(shell $(DEBIAN) --packages) qemu-system-arm qemu-efi-aarch64

# axe-core checks the page for accessibility. It comes from npm; its version and
# its checksum are pinned here.
AXE_VERSION := 4.14.1
AXE_SHA256  := 29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c
AXE         := $(BUILD)/axe-$(AXE_VERSION)/node_modules/axe-core/axe.min.js

# The packages of the TypeScript client in the tests. Their versions and checksums are in its lock file.
TYPESCRIPT        := $(BUILD)/typescript/node_modules
TYPESCRIPT_SOURCE := vm/vmtest/e2e/testdata/typescript

.DEFAULT_GOAL := build
.PHONY: build programs image-deps run-deps has-root run demo install install-files uninstall dist dist-check test test-vix test-vsphere test-windows demo-vsphere has-vix check lint-api check-c shots bench crash soak fuzz image deps test-deps clean help always

build: $(BINARY) ## build build/osx-builder (the default target)

$(BINARY): $(SOURCES) $(BUILD)/tags
	go build -trimpath -tags "$$(cat $(BUILD)/tags)" -ldflags '-X main.version=$(VERSION)' -o $@ .

# This file holds the build tags and is written only if they change, so that the
# binary is built again once a C compiler is installed.
$(BUILD)/tags: always
	@mkdir -p $(BUILD)
	@tags='$(TAGS)'; [ -n "$$tags" ] || echo 'building without VMware support: it needs cgo, and a C compiler such as gcc'; \
	[ -e $@ ] && [ "$$tags" = "$$(cat $@)" ] || echo "$$tags" >$@

run: run-deps build ## install what is missing and run the daemon
	$(BINARY)

demo: deps build image ## run one machine from image to deletion and explain each step
	@go build -o $(BUILD)/demo ./vm/vmtest/demo
	@$(BUILD)/demo -binary $(BINARY) -image $(IMAGE)

demo-vsphere: test-deps build image ## the same on a simulated vCenter
	@go build -o $(BUILD)/demo ./vm/vmtest/demo
	@go build -o $(BUILD)/vcsim ./vm/vmtest/vcenter/vcsim
	@$(BUILD)/demo -binary $(BINARY) -image $(IMAGE) -vcsim $(BUILD)/vcsim

# What is installed below PREFIX. DESTDIR is for packagers. HOST_BINARY is a
# build of the program for this host: it prints the unit and the completions.
PREFIX  := /usr/local
DESTDIR :=
$(foreach name,PREFIX DESTDIR,$(if $(filter ~%,$(firstword $($(name)))),$(error \
  $(name)=$($(name)) would make a folder named ~, since this shell does not replace the ~; write the path in full, \
  as in $(name)="$$HOME/.local")))
HOST_BINARY = $(BINARY)
OS      := $(shell uname -s | tr A-Z a-z)
UNIT     = $(if $(filter darwin,$(OS)),share/osx-builder/osx-builder.plist,lib/systemd/system/osx-builder.service)
BASH    := share/bash-completion/completions
ZSH     := share/zsh/site-functions
FISH    := share/fish/vendor_completions.d
DOC     := share/doc/osx-builder
DOCS    := CHANGELOG.md CONTRIBUTING.md LICENSE OPERATIONS.md README.md SECURITY.md \
           $(sort $(shell find api callback config image vm -name README.md -not -path '*/testdata/*'))
INSTALLED = bin/osx-builder $(UNIT) $(BASH)/osx-builder $(ZSH)/_osx-builder $(FISH)/osx-builder.fish \
            $(addprefix $(DOC)/,$(DOCS))
to        = "$(DESTDIR)$(PREFIX)/$(1)"

install: build ## install the program, its unit, completions and documents below PREFIX (/usr/local)
	@$(MAKE) -s install-files

install-files:
	@for f in $(INSTALLED); do install -d -m 755 "$$(dirname "$(DESTDIR)$(PREFIX)/$$f")"; done
	@install -m 755 "$(BINARY)" $(call to,bin/osx-builder)
	@$(MAKE) -s install-docs
	@set -eo pipefail; "$(HOST_BINARY)" -print-unit $(if $(filter darwin,$(OS)),launchd,systemd) | \
	  sed -e 's|^ExecStart=.*|ExecStart="$(PREFIX)/bin/osx-builder"|' \
	      -e 's|<string>/.*/osx-builder</string>|<string>$(PREFIX)/bin/osx-builder</string>|' >$(call to,$(UNIT))
	@"$(HOST_BINARY)" completion bash >$(call to,$(BASH)/osx-builder)
	@"$(HOST_BINARY)" completion zsh >$(call to,$(ZSH)/_osx-builder)
	@"$(HOST_BINARY)" completion fish >$(call to,$(FISH)/osx-builder.fish)
	@cd "$(DESTDIR)$(PREFIX)" && chmod 644 $(filter-out bin/osx-builder,$(INSTALLED))

install-docs:
	@for f in $(DOCS); do \
	  install -d -m 755 "$$(dirname "$(DESTDIR)$(PREFIX)/$(DOC)/$$f")" && \
	  install -m 644 $$f "$(DESTDIR)$(PREFIX)/$(DOC)/$$f" || exit 1; \
	done

uninstall: ## remove what install installed; machines and images are kept
	cd "$(DESTDIR)$(PREFIX)" && rm -f $(INSTALLED) && \
	  find $(DOC) $(filter share/osx-builder/,$(dir $(UNIT))) -type d -empty -delete

# nfpm 2.45 and later depend on modules that Go's proxy does not serve. It is not
# a tool in go.mod, because it would add a hundred modules there.
NFPM := $(BUILD)/nfpm
$(NFPM):
	GOBIN=$(abspath $(BUILD)) CGO_ENABLED=0 go install github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.44.2

# TARGETS, such as linux/amd64, are all by default. LINUX_CC, DARWIN_CC and WINDOWS_CC
# are C compilers, in which {arch} stands for x86_64 or aarch64: with one, an archive with
# the suffix -vix is added, whose program drives VMware through its library too.
DIST := $(BUILD)/dist
TARGETS :=
export LINUX_CC DARWIN_CC WINDOWS_CC
dist: $(NFPM) ## archives, Debian packages, SBOMs and checksums for Linux, macOS and Windows, in build/dist
	rm -rf $(DIST)
	NFPM=$(abspath $(NFPM)) .ci/dist $(DIST) $(VERSION) $(TARGETS)

dist-check: image $(NFPM) ## build everything in dist twice, compare, and try it on a copy of this system
	NFPM=$(abspath $(NFPM)) .ci/dist-check $(BUILD)/dist-check $(VERSION)

# The runs of go test that make up the suite. testreport runs them at once, and lists
# the packages and the slowest tests of all at the end. Tests wait for guests most of
# the time, so each run tests three packages side by side, on two cores too. Vetting is
# left to make check.
GO_TEST     = go test -json -p 3 -timeout 30m -vet=off -tags '$(TAGS)'
RACE_TEST   = $(GO_TEST) $(DETECTOR)
TEST_REPORT = OSX_BUILDER_TEST_PROGRAMS=$(abspath $(PROGRAMS)) go run ./vm/vmtest/testreport

# The race detector, but not in libraries that share nothing between goroutines: with it
# they took two thirds of the processor time of image's tests.
DECODERS := compress/... hash/... github.com/cosnicolaou/pbzip2/internal/... github.com/dsnet/compress/... \
            github.com/klauspost/compress/flate github.com/ulikunitz/xz/... github.com/xi2/xz
DETECTOR := -race $(DECODERS:%=-gcflags=%=-race=false)

# These packages are tested without the race detector: vm/vsphere uses a simulator of
# vCenter that has data races of its own, vm/vmx starts no goroutines, and the others
# talk only to programs, which have it themselves. Of each list the packages that take
# longest come first, so that none runs alone at the end. ZIP64 unpacks 4 GiB, which
# would take minutes with it.
NO_RACE     = vm/vmtest/e2e . api/client api/page vm/vmtest/crash vm/vsphere vm/vmx vm/vmx/ovf
RACE        = vm/qemu image $(filter-out $(NO_RACE),$(patsubst osx-builder/%,%,$(filter-out osx-builder,$(shell go list ./...))))
ZIP64       = $(GO_TEST) -run '^TestZipWithoutZip64$$' ./image

# The programs that tests start, each built once for all packages.
PROGRAMS := $(BUILD)/test
programs:
	go build $(DETECTOR) -tags '$(TAGS)' -o $(PROGRAMS)/osx-builder .
	go build -o $(PROGRAMS)/osx-builder-plain .
	go build $(DETECTOR) -o $(PROGRAMS)/memory-daemon ./vm/vmtest/daemon
	go build -o $(PROGRAMS)/vcsim ./vm/vmtest/vcenter/vcsim

# Tests that need root run themselves again by sudo, which asks for the password
# here, once, if it needs one.
has-root:
ifeq ($(OS) $(SUDO),linux sudo)
	@sudo -nHE true 2>/dev/null || sudo -v || { echo 'the tests need root, or sudo to become root'; exit 1; }
endif

test: has-root test-deps build has-vix $(AXE) $(TYPESCRIPT) $(NFPM) programs ## install what is missing and run every test, including those on real QEMU
	$(TINYVM) $(BUILD) all
	$(SUDO) $(DEBIAN) $(BUILD) debian-pvscsi
	$(TEST_REPORT) $(GO_TEST) $(NO_RACE:%=./%) -- $(RACE_TEST) $(RACE:%=./%) -- $(ZIP64)

test-real: has-root test-deps programs ## build a real Debian in five forms, and boot each until its SSH server answers
	$(TINYVM) $(BUILD) tinyvm-arm64
	$(SUDO) $(DEBIAN) $(BUILD)
	REAL=all $(TEST_REPORT) $(GO_TEST) -timeout 90m -run '^Test(RealDebian|RealDebianFromMemory|ARMGuest)$$' ./vm/vmtest/e2e

test-vix: has-vix programs ## test the VMware driver against a double of VMware's library
	$(TEST_REPORT) $(RACE_TEST) ./vm/vix

test-vsphere: has-root programs ## test the vSphere driver against a simulated vCenter and ESXi
	$(TEST_REPORT) $(GO_TEST) ./vm/vsphere -- $(GO_TEST) -run '^TestVSphere(Privilege|Killed)?$$' ./vm/vmtest/e2e

# The program for Windows under wine, with doubles of VMware's command and library.
# bcryptprimitives.dll is a library that Go needs and that wine 8 lacks.
WINDOWS          := $(BUILD)/windows
WINDOWS_TOOLS    := wine64 gcc-mingw-w64-x86-64
MINGW            := x86_64-w64-mingw32-gcc
GO_WINDOWS       := GOOS=windows GOARCH=amd64 CGO_ENABLED=0 go
test-windows: image ## test the program for Windows under wine, with a double of VMware
	$(call install,$(WINDOWS_TOOLS))
	@mkdir -p $(WINDOWS)
	$(GO_WINDOWS) build -trimpath -ldflags '-X main.version=$(VERSION)' -o $(WINDOWS)/osx-builder.exe .
	$(GO_WINDOWS) build -o $(WINDOWS)/vmrun.exe ./vm/vmtest/windows/vmrun
	$(GO_WINDOWS) test -c -o $(WINDOWS)/host.test.exe ./vm/vmtest/windows
	GOOS=windows GOARCH=amd64 CGO_ENABLED=1 CC=$(MINGW) go build -trimpath -tags vix -o $(WINDOWS)/osx-builder-vix.exe .
	CC=$(MINGW) vm/vix/testdata/libvix/build.sh $(WINDOWS)/vix.dll
	$(MINGW) -O2 -s -shared -o $(WINDOWS)/bcryptprimitives.dll vm/vmtest/windows/testdata/bcryptprimitives.c
	go test -count=1 -v -tags wine -timeout 20m ./vm/vmtest/windows

has-vix:
	@[ -n "$(TAGS)" ] || { echo 'VMware support is not tested: it needs cgo, and a C compiler such as gcc'; [ -z "$$CI" ]; }

check: test-deps check-c ## gofumpt, vet and staticcheck, with VMware support and without
	@unformatted=$$(go tool gofumpt -l .); if [ -n "$$unformatted" ]; then echo "run 'go tool gofumpt -w .' for:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	go vet -tags vix ./...
	GOOS=darwin go vet ./...
	$(GO_WINDOWS) build -o /dev/null .
	$(GO_WINDOWS) vet ./vm/vmtest/windows/...
	go tool staticcheck ./...
	go tool staticcheck -tags vix ./...

# macOS has clang. Its Debian package is too large to require it here.
check-c: ## compile the C code of vm/vix with gcc and clang; warnings are errors
	@set -e; for cc in gcc clang; do \
	  command -v $$cc >/dev/null || { echo "$$cc is not installed: the C code of vm/vix is not compiled with it"; continue; }; \
	  echo "compiling the C code of vm/vix with $$cc"; \
	  flags='-Wall -Wextra -Werror -fsyntax-only -Ivm/vix/include'; \
	  for std in c99 gnu17; do echo '#include "vix.h"' | $$cc -std=$$std -Wpedantic $$flags -x c -; done; \
	  for file in $(filter-out %_windows.c,$(wildcard vm/vix/*.c)) vm/vix/testdata/libvix/*.c; do $$cc -std=gnu17 -O2 $$flags $$file; done; \
	done; \
	! command -v $(MINGW) >/dev/null || for file in vm/vix/loader.c vm/vix/library_windows.c; do \
	  echo "compiling $$file with $(MINGW)"; \
	  $(MINGW) -std=gnu17 -O2 -Wall -Wextra -Werror -fsyntax-only -Ivm/vix/include $$file; \
	done

shots: test-deps build image ## take screenshots of the page: build/shots/*.png
	@mkdir -p $(BUILD)/shots
	PAGE_SHOTS=$(abspath $(BUILD))/shots go test -count=1 -run '^TestPage$$' ./api/page

lint-api: ## lint the OpenAPI description; needs npx
	npx -y @redocly/cli@2.77.0 lint api/openapi.json

bench: has-root test-deps build image ## run the benchmarks, which compare with named baselines in one run; with REAL=all also those of a real Debian
	go test -run '^$$' -bench . -benchtime 1x -timeout 60m ./image ./vm/qemu ./vm/vmtest/e2e

crash: test-deps build image ## kill the daemon 200 times and at each step of a pull and of starting from memory, let each file operation fail, and check that nothing is lost or left behind
	CRASH_ROUNDS=180 CRASH_QEMU_ROUNDS=20 CRASH_MEMORY=100 FAULTS_EACH=1 go test -race -count=1 -timeout 60m -run '^Test(Crash|CrashFromMemory|PullCrash|FailingDisk)$$' -v ./vm/vmtest/crash

# BOOTS, as in make soak BOOTS=600, is how many guests boot instead, however long that takes.
soak: test-deps build image ## create and destroy machines for 10 minutes, and 600 from memory, check that nothing grows, and wait for 100 late services; or boot BOOTS guests
	SOAK_SECONDS=$(if $(BOOTS),0,600) SOAK_BOOTS=$(or $(BOOTS),0) go test -race -count=1 -timeout 12h -run '^TestSoak$$' -v ./vm/vmtest/e2e
	$(if $(BOOTS),,LATE_ROUNDS=25 LATE_MACHINES=4 LATE_SECONDS=10 go test -race -count=1 -timeout 60m -run '^TestLateService$$' -v ./vm/vmtest/e2e)
	$(if $(BOOTS),,$(TINYVM) $(BUILD) tinyvm-lsisas)
	$(if $(BOOTS),,CLONES=100 CREATES=500 go test -count=1 -timeout 60m -run '^TestStartFromMemory$$' -v ./vm/qemu)

# Without -fuzzminimizetime Go spends most of the time on minimizing its first findings.
FUZZTIME := 60s
fuzz: ## run each fuzz target for FUZZTIME
	@set -e; for pkg in $$(go list ./...); do \
	  for f in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "$$pkg $$f"; go test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$pkg; \
	  done; \
	done

image: image-deps $(IMAGE) ## build build/tinyvm.tar.gz, the small guest image

$(IMAGE): $(wildcard vm/vmtest/tinyvm/*)
	$(TINYVM) $(BUILD)

$(AXE): | test-deps
	npm install --prefix $(BUILD)/axe-$(AXE_VERSION) --no-save --no-audit --no-fund --ignore-scripts axe-core@$(AXE_VERSION)
	@echo "$(AXE_SHA256)  $@" | sha256sum -c --quiet || { rm -rf $(BUILD)/axe-$(AXE_VERSION); exit 1; }

$(TYPESCRIPT): $(TYPESCRIPT_SOURCE)/package-lock.json | test-deps
	@mkdir -p $(@D)
	cp $(TYPESCRIPT_SOURCE)/package.json $(TYPESCRIPT_SOURCE)/package-lock.json $(@D)
	npm ci --prefix $(@D) --no-audit --no-fund --ignore-scripts
	@touch $@

# Only missing packages are installed, so that a prepared machine needs neither
# network nor root.
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

deps: ## install QEMU and what else machines need
	$(call install,$(PACKAGES))

test-deps:
	$(call install,$(PACKAGES) $(TEST_PACKAGES))

# What builds the guest image is less than what the tests need: no browser and no npm.
image-deps:
	$(call install,$(shell $(TINYVM) --packages))

# The daemon takes VMware if it is there, and then needs no QEMU.
HAS_VMWARE = command -v vmrun >/dev/null || for f in /usr/lib/vmware-vix /usr/lib /usr/local/lib/vmware-vix /usr/local/lib; do \
               [ -e $$f/libvixAllProducts.so ] && break; false; done || [ -e '/Applications/VMware Fusion.app' ]
run-deps:
	@if $(HAS_VMWARE); then echo 'VMware is installed, so QEMU is not needed'; else $(MAKE) -s deps; fi

clean: ## remove build/
	rm -rf $(BUILD)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
