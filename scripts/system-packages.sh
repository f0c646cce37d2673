#!/usr/bin/env bash
# Install the system packages that a task needs. If a package cannot be installed, print its name and fail.
#     scripts/system-packages.sh venv|train|services|test|bench|drill
set -euo pipefail

# Each line lists the Debian package, the Homebrew formula and a command that succeeds if the package is present. The
# command comes last, because it can contain the separator.
needs() {
    case $1 in
        venv) echo "python3-venv|python|python3 -c 'import ensurepip'" ;;
        train) echo "libgomp1|libomp|false" ;;
        services)
            echo "redis-server|redis|command -v redis-server"
            # Debian installs the server programs outside of PATH.
            echo "postgresql|postgresql|command -v initdb || ls /usr/lib/postgresql/*/bin/initdb"
            ;;
        test)
            needs services
            echo "git|git|command -v git"
            echo "curl|curl|command -v curl"
            echo "prometheus|prometheus|command -v promtool"
            echo "prometheus-pushgateway|pushgateway|command -v prometheus-pushgateway || command -v pushgateway"
            echo "strace|strace|command -v strace"
            ;;
        bench)
            echo "wrk|wrk|command -v wrk"
            echo "strace|strace|command -v strace"
            ;;
        drill)
            needs services
            # Debian installs the program in a folder that only root has in PATH.
            echo "nginx-light|nginx|command -v nginx || ls /usr/sbin/nginx"
            ;;
        *) echo "unknown task: $1" >&2 && return 2 ;;
    esac
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

install() {
    if command -v apt-get >/dev/null; then
        as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1"
    elif command -v brew >/dev/null; then
        brew install --quiet "$2"
    else
        return 1
    fi
}

packages=$(needs "${1:?usage: $0 venv|train|services|test|bench|drill}")
missing=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
while IFS='|' read -r debian brew probe; do
    if eval "$probe" >/dev/null 2>&1; then continue; fi
    echo "Installing $debian ..." >&2
    if ! install "$debian" "$brew" </dev/null >"$log" 2>&1; then
        tail -n 5 "$log" >&2
        echo "Cannot install $debian (Homebrew: $brew), which the '$1' task requires. Install it and try again." >&2
        missing=1
    fi
done <<<"$packages"
exit $missing
