#!/bin/sh
# The same containers after their host was started again: second of two parts of `cargo xtask reboot`.
set -eu
unset HULL_ROOT HULL_LIBEXEC
expect() { # WHAT EXPECTED FOUND
	[ "$2" = "$3" ] || {
		printf '%s\n--- expected\n%s\n--- found\n%s\n' "$1" "$2" "$3" >&2
		exit 1
	}
}
[ "$(cat /proc/sys/kernel/random/boot_id)" != "$(cat /var/lib/hull/boot-before)" ]
states() { hull ps -a --format '{{.Names}} {{.State}} {{.Status}}' | sed 's/ \([0-9]\|Less\|About\).* ago$//' | sort; }
expect 'after the boot, nothing runs and ps says so' 'always exited Exited (0)
failing exited Exited (255)
none exited Exited (0)
stopped-always exited Exited (0)
stopped-unless exited Exited (0)
unless exited Exited (0)' "$(states)"
# As systemd runs it: nothing of a session's environment.
unit=/etc/systemd/system/hull.service
command=$(sed -n 's/^ExecStart=-//p' "$unit")
started=$(env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin sh -c "$command")
expect 'what was started' 'always
stopped-always
unless
failing' "$started"
hull ps -a --format 'table {{.Names}}\t{{.Status}}'
expect 'after the unit has run' 'always running
failing running
none exited
stopped-always running
stopped-unless exited
unless running' "$(hull ps -a --format '{{.Names}} {{.State}}' | sort)"
expect 'what was written stays' 'committed
run
run' "$(hull exec always cat /row /runs)"
expect 'a second run finds nothing to do' '' "$(hull system start)"
hull system uninstall
[ ! -e "$unit" ]
hull rm -f always failing none stopped-always stopped-unless unless >/dev/null
