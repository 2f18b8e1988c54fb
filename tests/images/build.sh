#!/bin/bash
# Makes the images with real software that the tests run: OCI layouts in OUT (default: the cache), from Debian's packages.
#
#   build.sh [OUT]      debian.tar    a Debian root file system, as mmdebstrap makes it
#                       layout/       an OCI layout with the tags debian, redis, nginx and postgres; the last three are
#                                     the Debian layer and one more each: what apt-get install changed in it
#
# Needs root, mmdebstrap and jq. A finished OUT of this version is left as it is; another is replaced when the new one is
# whole.
set -euo pipefail

version=2
final=${1:-${HULL_CACHE:-$HOME/.cache/hull}/images}
[ "$(cat "$final/done" 2>/dev/null)" = "$version" ] && exit 0
out=$final.new
rm -rf "$out"
mkdir -p "$out/layout/blobs/sha256" "$out/layers"

# Installs the packages $2... in root $1 and prints the files that this changed: by ctime, as dpkg sets mtimes back.
changed_by_installing() {
	local root=$1 stamp
	shift
	stamp=$(mktemp)
	sleep 1.1 # ctimes have the kernel's tick as their grain: what follows must differ
	touch "$stamp"
	sleep 1.1
	chroot "$root" env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" >/dev/null
	chroot "$root" apt-get clean
	(cd "$root" && find . -xdev -cnewer "$stamp" ! -path './var/lib/apt/*' ! -path './proc/*' ! -path './sys/*' ! -path './dev/*')
	rm -f "$stamp"
}

# Adds a file to the layout's blobs and prints its descriptor's digest and size.
blob() {
	local digest
	digest=$(sha256sum <"$1" | cut -d' ' -f1)
	cp "$1" "$out/layout/blobs/sha256/$digest"
	printf '{"digest":"sha256:%s","size":%d}' "$digest" "$(stat -c %s "$1")"
}

# image TAG CMD-JSON LAYER-TAR...: gzips the layers and adds an image to the layout's index.
image() {
	local tag=$1 cmd=$2 diff_ids='[]' layers='[]' config manifest tar
	shift 2
	for tar; do
		[ -e "$tar.gz" ] || gzip -n -6 -k "$tar"
		diff_ids=$(jq -c --arg d "sha256:$(sha256sum <"$tar" | cut -d' ' -f1)" '. + [$d]' <<<"$diff_ids")
		layers=$(jq -c --argjson b "$(blob "$tar.gz")" '. + [$b + {mediaType: "application/vnd.oci.image.layer.v1.tar+gzip"}]' <<<"$layers")
	done
	jq -nc --argjson cmd "$cmd" --argjson ids "$diff_ids" '{architecture: "amd64", os: "linux",
		config: {Env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], Cmd: $cmd},
		rootfs: {type: "layers", diff_ids: $ids}}' >"$out/config.json"
	config=$(blob "$out/config.json")
	jq -nc --argjson config "$config" --argjson layers "$layers" '{schemaVersion: 2,
		mediaType: "application/vnd.oci.image.manifest.v1+json",
		config: ($config + {mediaType: "application/vnd.oci.image.config.v1+json"}), layers: $layers}' >"$out/manifest.json"
	manifest=$(blob "$out/manifest.json")
	jq -c --argjson m "$manifest" --arg tag "$tag" '.manifests += [$m + {mediaType: "application/vnd.oci.image.manifest.v1+json",
		annotations: {"org.opencontainers.image.ref.name": $tag}}]' "$out/layout/index.json" >"$out/index.json"
	mv "$out/index.json" "$out/layout/index.json"
}

echo '{"imageLayoutVersion":"1.0.0"}' >"$out/layout/oci-layout"
echo '{"schemaVersion":2,"manifests":[]}' >"$out/layout/index.json"

work=$(mktemp -d)
trap 'umount -q "$work"/*/merged 2>/dev/null || true; rm -rf "$work"' EXIT
mmdebstrap --quiet --variant=apt --include=ca-certificates bookworm "$out/debian.tar"
mkdir "$work/base"
tar -xf "$out/debian.tar" -C "$work/base"
cp /etc/resolv.conf "$work/base/etc/resolv.conf"
chroot "$work/base" apt-get -qq update >&2

image debian '["bash"]' "$out/debian.tar"
for package in redis nginx postgres; do
	cp -a "$work/base" "$work/$package"
	case $package in
	redis) packages=redis-server cmd='["redis-server","--bind","0.0.0.0","--protected-mode","no","--save",""]' ;;
	nginx) packages=nginx-light cmd='["nginx","-g","daemon off;"]' ;;
	# With the cluster that the package makes; everything in it is durable before a transaction is acknowledged.
	postgres) packages=postgresql cmd='["/usr/lib/postgresql/15/bin/postgres","-D","/var/lib/postgresql/15/main","-c","config_file=/etc/postgresql/15/main/postgresql.conf","-c","unix_socket_directories=/tmp","-c","external_pid_file="]' ;;
	esac
	changed_by_installing "$work/$package" $packages >"$out/$package.list"
	tar --no-recursion --numeric-owner --xattrs -C "$work/$package" -T "$out/$package.list" -cf "$out/layers/$package.tar"
	image "$package" "$cmd" "$out/debian.tar" "$out/layers/$package.tar"
done
rm -rf "$out/layers" "$out"/*.list "$out"/config.json "$out"/manifest.json "$out/debian.tar.gz"
echo "$version" >"$out/done"
rm -rf "$final.old"
[ ! -e "$final" ] || mv "$final" "$final.old"
mv "$out" "$final"
rm -rf "$final.old"
