#!/bin/sh
# Installs the package $1 in a test host and runs containers, also across an upgrade, out of sight of everything below the
# folders $2...
set -eu
package=$1
shift
cp "$package" /tmp/hull.deb
for folder; do
	# One that lies below another is hidden already.
	[ ! -d "$folder" ] || mount -t tmpfs -o mode=755 hidden "$folder"
done
cd /
# Without other packages' triggers: man-db's takes minutes in an emulated machine.
install_it() { dpkg --install --no-triggers --force-depends /tmp/hull.deb; }
install_it
command -v hull
hull version
hull run --network none demo sh -c 'echo "a container runs in $(uname -sr)"'
hull run --network none demo true
[ -s /usr/share/man/man1/hull-run.1.gz ]
[ -s /usr/share/bash-completion/completions/hull ]
[ -s /usr/share/zsh/vendor-completions/_hull ]
[ -s /usr/share/fish/vendor_completions.d/hull.fish ]
[ -L /etc/systemd/system/multi-user.target.wants/hull.service ]

# The same package again: every file of it is replaced under a running container.
hull run -d --network none --restart always --name web demo sh -c 'echo up; while :; do sleep 1; done' >/dev/null
install_it
[ "$(hull ps --format '{{.Names}} {{.State}}')" = 'web running' ]
[ "$(hull logs web)" = up ]
[ "$(hull exec web echo alive)" = alive ]
pkill -KILL hull-vmm
restarts() { hull inspect --format '{{.State.Status}} {{.RestartCount}}' web; }
for _ in $(seq 100); do
	[ "$(restarts)" != 'running 1' ] || break
	sleep 0.3
done
[ "$(restarts)" = 'running 1' ]
[ "$(hull exec web echo alive)" = alive ]
hull rm -f web
echo "a container runs on across an upgrade, and its policy brings it back"

dpkg --purge --no-triggers hull
[ ! -e /usr/bin/hull ]
[ ! -e /usr/libexec/hull ]
[ ! -e /etc/systemd/system/multi-user.target.wants/hull.service ]
echo "the package installs, runs a container and goes without a trace"
