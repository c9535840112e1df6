# `make demo` and `make test` need a Debian machine with Rust and install the rest themselves.

CARGO ?= cargo
IMAGE := target/image/busybox.tar
SECONDS ?= 60
PARKED ?= 1,100,500,900
PORTS ?= 1,10,100,1000,5000
PUBLISHED ?= 0,5000,50000
ROUNDS ?= 31
MANY ?= 100,1000
MAPPED ?= 1,1000,10000
TURNS ?= 201
# Asked for when it is used: what needs no Rust, or says that there is none, works without.
HOST = $(shell rustc -vV | sed -n 's/host: //p')
# Names that say in full what a function is of, for the linker to know it by.
STATIC = CARGO_TARGET_$(shell echo $(HOST) | tr a-z- A-Z_)_LINKER="$(CURDIR)/cli/release/cc.sh" \
  RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static -C symbol-mangling-version=v0"

PREFIX ?= /usr/local
INTO = $(DESTDIR)$(PREFIX)
BUILT = $(or $(BIN),target/$(HOST)/release/mydocker)
STAGE ?= target/install
# Where shells and man look for what is installed, below PREFIX.
BASH_COMPLETION := share/bash-completion/completions/mydocker
ZSH_COMPLETION := share/zsh/site-functions/_mydocker
FISH_COMPLETION := share/fish/vendor_completions.d/mydocker.fish
MAN := share/man/man1

.PHONY: help demo test check unit docs deps build image fuzz fuzzed fuzzer sim release install uninstall hot bench bench-peers benches clean

help: ## Show this
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 13

demo: deps build image ## Two real containers and a published port, end to end, in a namespace of their own
	tests/demo.sh

test: deps image check docs unit fuzzed ## Everything: formatting, lints, docs, all tests on a real kernel, some fuzzing

check: deps ## Formatting and lints
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	tests/core_is_no_std.sh
	@if $(CARGO) deny --version >/dev/null 2>&1; then \
	  $(CARGO) deny --offline check licenses bans sources; \
	else echo "cargo-deny is not installed: licences and sources not checked"; fi

docs: ## API documentation, and the examples in it
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked
	$(CARGO) test --workspace --doc --locked

unit: deps build image ## Unit, property, golden and namespace tests
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
	  $(CARGO) nextest run --workspace --locked; \
	else $(CARGO) test --workspace --lib --bins --tests --locked; fi

fuzz: fuzzer ## Fuzz every target for SECONDS each
	fuzz/run.sh $(SECONDS)

fuzzed: fuzzer ## Fuzz every target for 10 s each, with the same seed every time
	SEED=1 fuzz/run.sh 10

fuzzer: deps
	@$(CARGO) fuzz --version >/dev/null 2>&1 || $(CARGO) install cargo-fuzz --version '^0.13' --locked

sim: ## Simulate failing processes on the model kernel for SECONDS
	MYDOCKER_SIM_SECONDS=$(SECONDS) $(CARGO) test --locked -p mydocker-tests --test sim

build:
	$(CARGO) build --locked -p mydocker

image: deps $(IMAGE)

$(IMAGE): tests/image.sh
	tests/image.sh $@

deps: ## Install the Debian packages that demo and tests need
	@tests/deps.sh

release: ## The binary as it is installed: linked statically, which saves a third of its start
	@tests/deps.sh build
	$(STATIC) $(CARGO) build --release --locked --target $(HOST) -p mydocker

# A binary that is there already is installed by `make install BIN=target/debug/mydocker`, without a build.
install: $(if $(BIN),,release) ## Install it, completions and manual pages to DESTDIR/PREFIX (/usr/local)
	@# All is made before the first file is put anywhere.
	rm -rf $(STAGE)/man1
	mkdir -p $(STAGE)
	$(BUILT) completion bash >$(STAGE)/mydocker.bash
	$(BUILT) completion zsh >$(STAGE)/mydocker.zsh
	$(BUILT) completion fish >$(STAGE)/mydocker.fish
	$(BUILT) __man $(STAGE)/man1
	install -D -m 0755 $(BUILT) $(INTO)/bin/mydocker
	install -D -m 0644 $(STAGE)/mydocker.bash $(INTO)/$(BASH_COMPLETION)
	install -D -m 0644 $(STAGE)/mydocker.zsh $(INTO)/$(ZSH_COMPLETION)
	install -D -m 0644 $(STAGE)/mydocker.fish $(INTO)/$(FISH_COMPLETION)
	install -D -m 0644 -t $(INTO)/$(MAN) $(STAGE)/man1/*

uninstall: ## Remove what install put there
	rm -f $(INTO)/bin/mydocker $(INTO)/$(MAN)/mydocker.1 $(INTO)/$(MAN)/mydocker-*.1
	rm -f $(INTO)/$(BASH_COMPLETION) $(INTO)/$(ZSH_COMPLETION) $(INTO)/$(FISH_COMPLETION)

hot: deps ## Find out anew which functions the linker should lay side by side: cli/release/hot.txt
	CARGO_PROFILE_RELEASE_STRIP=none $(STATIC) $(CARGO) build --release --locked --target $(HOST) -p mydocker
	CARGO_PROFILE_RELEASE_STRIP=none $(STATIC) $(CARGO) build --release --locked --target $(HOST) -p mydocker-tests --example hot
	target/$(HOST)/release/examples/hot >target/hot.txt
	cli/release/names.sh <target/hot.txt >target/hot.names
	@# What the C library has for other processors stays on the list.
	grep -v :: cli/release/hot.txt | awk '!seen[$$0]++' target/hot.names - >target/hot.list
	mv target/hot.list cli/release/hot.txt

bench: deps benches ## Attach, detach and new connections, beside what the kernel alone takes
	$(STATIC) $(CARGO) bench --locked --target $(HOST) -p mydocker-tests --bench core
	target/$(HOST)/release/examples/state
	target/$(HOST)/release/examples/attach $(PARKED) $(ROUNDS) target/bench
	target/$(HOST)/release/examples/ports $(PORTS) $(PUBLISHED) $(ROUNDS) target/bench
	target/$(HOST)/release/examples/cold $(ROUNDS) target/bench
	target/$(HOST)/release/examples/start 401 target/bench
	target/$(HOST)/release/examples/first 100 target/bench
	target/$(HOST)/release/examples/run $(ROUNDS) target/bench
	target/$(HOST)/release/examples/bulk $(MANY) 5 target/bench
	target/$(HOST)/release/examples/datapath $(MAPPED) $(TURNS) target/bench

bench-peers: deps benches ## The same beside a script, netavark (NETAVARK=FILE) and CNI plugins (CNI_PLUGINS=DIR)
	@# Who can't be installed is left out, and named.
	-@tests/deps.sh netavark
	-@tests/deps.sh cni
	target/$(HOST)/release/examples/peers $(PARKED) $(ROUNDS) target/bench
	target/$(HOST)/release/examples/datapath --peers $(MAPPED) $(TURNS) target/bench

# Linked as they are installed.
benches: release
	$(STATIC) $(CARGO) build --release --locked --target $(HOST) -p mydocker-tests --examples

clean:
	$(CARGO) clean
