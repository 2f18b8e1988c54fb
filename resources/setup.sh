#!/bin/sh
# Installs the Debian packages that hull is built and tested with: as root, or with sudo, or it says what to type.
set -eu

packages="
build-essential       # compiler and make: the guest kernel, SQLite and zstd in Rust crates
flex bison bc         # the kernel's build
libelf-dev libssl-dev # the kernel's build
cpio xz-utils kmod    # kernel modules of the test host; its modprobe
curl ca-certificates  # rustup's target, sources that apt no longer has
libseccomp-dev        # seccomp profiles of containers are compiled with it
pkg-config            # finds it
musl-tools            # the compiler of static C code, should a crate bring some
erofs-utils           # fsck.erofs checks our EROFS writer
e2fsprogs             # mkfs.ext4 makes the template of writable layers
qemu-system-x86       # the test host
qemu-system-common    # virtiofsd for the test host
dpkg-dev              # dpkg-shlibdeps: what a package of hull depends on
procps                # kill, for tests
util-linux            # setpriv, setsid, unshare for the test host
nftables iproute2     # hull run --network bridge, and its tests
iptables              # iptables-nft inside a guest is compared with it
crun runc             # natives to compare with
busybox-static        # the demo image's content, when apt-get download cannot reach an archive
skopeo docker-registry # a registry on loopback, and images for it
mmdebstrap            # a Debian root file system to import
redis-server redis-tools nginx # real software for images, and its clients
fio jq strace         # load, JSON and system calls, for tests
linux-source-6.12     # the guest kernel's source
"

# Docker's command line, a client of `hull serve` in its tests: any version does.
command -v docker >/dev/null || packages="$packages
docker.io"

# shellcheck disable=SC2086
wanted=$(printf '%s\n' "$packages" | sed 's/#.*//')
missing=
for package in $wanted; do
	dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done
if [ -z "$missing" ]; then
	exit 0
fi

run() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	else
		sudo -n "$@"
	fi
}
if [ "$(id -u)" != 0 ] && ! sudo -n true 2>/dev/null; then
	echo "hull needs these Debian packages. As root, type:" >&2
	echo "    apt-get update && apt-get install --no-install-recommends -y$missing" >&2
	exit 1
fi
# Services that a package brings are not started: tests start what they need.
policy=/usr/sbin/policy-rc.d
made=
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' | run tee "$policy" >/dev/null
	run chmod +x "$policy"
	made=1
fi
log=$(mktemp)
trap 'rm -f "$log"; [ -z "$made" ] || run rm -f "$policy"' EXIT

# What apt and debconf print is kept for a failure. sudo does not pass our environment on.
quietly() {
	run env DEBIAN_FRONTEND=noninteractive apt-get -qq "$@" >>"$log" 2>&1
}
echo "==> installing$missing"
# On a fresh machine the first attempt fails, since no package lists have been fetched: that is no error yet.
# shellcheck disable=SC2086
if ! quietly install --no-install-recommends -y $missing; then
	: >"$log"
	quietly update || true
	quietly install --no-install-recommends -y $missing || {
		cat "$log" >&2
		echo "hull needs these Debian packages, and apt-get could not install them:$missing" >&2
		exit 1
	}
fi
