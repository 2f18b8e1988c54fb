#!/bin/sh
# Installs the package $1 in a test host and runs a container, out of sight of everything below the folders $2...
set -eu
package=$1
shift
cp "$package" /tmp/hull.deb
for folder; do
	# One that lies below another is hidden already.
	[ ! -d "$folder" ] || mount -t tmpfs -o mode=755 hidden "$folder"
done
cd /
dpkg --install --force-depends /tmp/hull.deb
command -v hull
hull version
hull run --network none demo sh -c 'echo "a container runs in $(uname -sr)"'
hull run --network none demo true
dpkg --remove hull
[ ! -e /usr/bin/hull ]
[ ! -e /usr/libexec/hull ]
echo "the package installs, runs a container and goes without a trace"
