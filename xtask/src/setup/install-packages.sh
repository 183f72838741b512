# Installs the Debian packages named as arguments, as root, and leaves no service started or enabled.
set -eu
export DEBIAN_FRONTEND=noninteractive

# Debian's own switch for "install, but start nothing"; somebody else's policy is left alone.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM HUP
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
fi

units() { ls /lib/systemd/system 2>/dev/null | grep '\.\(service\|timer\|socket\)$' | sort || true; }
install() { apt-get -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends "$@"; }

before=$(units)
systemctl=$(command -v systemctl || true)
# Lists that are fresh enough cost nothing; stale or missing ones fail here.
install "$@" || { apt-get -o DPkg::Lock::Timeout=300 update && install "$@"; }

# Nor at the next boot (of a system that runs systemd already).
if [ -n "$systemctl" ]; then
    for unit in $(units); do
        case "
$before
" in
            *"
$unit
"*) ;;
            *@*) ;;
            *) SYSTEMD_OFFLINE=1 systemctl disable "$unit" ;;
        esac
    done
fi
