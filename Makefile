# One command each. What does the work: resources/setup.sh (Debian packages) and src/xtask (everything else).
.PHONY: demo test build check fuzz setup

# A container in a microVM: what it prints, the kernel it saw, its namespaces, and where the time went.
demo: build
	cargo xtask run -- run --timing demo sh -c 'echo "hello from a container in a VM of its own"; \
	  echo "kernel:     $$(uname -sr)"; echo "processes:  $$(ls -d /proc/[0-9]* | wc -l)"; \
	  echo "namespaces:"; ls -l /proc/self/ns | sed -n "s/.* -> /  /p"'

# Everything: format, lints, unit tests, tests with root and /dev/kvm, end-to-end tests in VMs.
test: setup
	cargo xtask test

build: setup
	cargo xtask build

check: setup
	cargo xtask check

# Half an hour for each target: see fuzz/README.md.
fuzz: setup
	cargo xtask fuzz --minutes 30

setup:
	@./resources/setup.sh
