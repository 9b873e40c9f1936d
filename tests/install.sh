# shellcheck shell=bash
# For scripts that install what a machine lacks: sourced, not run. The caller sets `set -euo pipefail`.
#
# Everything that is not a Debian package goes below target/tools, which a clone may lose at any time.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
readonly ROOT
readonly TOOLS="$ROOT/target/tools"

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif [ -t 0 ]; then
        sudo "$@"
    else
        sudo --non-interactive "$@"
    fi
}

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends "$@" >&2
}

# Installs packages, one script at a time.
install_packages() {
    mkdir -p "$TOOLS"
    (
        flock 8
        install_packages_alone "$@"
    ) 8>"$TOOLS/.installing"
}

# Without starting the services in them: the answer 101 of policy-rc.d means "not allowed".
install_packages_alone() {
    if ! command -v apt-get >/dev/null; then
        say "missing here: $*"
        say "this script can install packages on Debian and Ubuntu alone. On another system install"
        say "a C compiler and RabbitMQ 3.10 or newer by hand, the broker's script at $SERVER"
        exit 1
    fi
    if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
        say "missing here: $*"
        say "as root: apt-get install $*"
        exit 1
    fi
    say "installing $*"
    local policy=/usr/sbin/policy-rc.d placed=no status=0
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
        placed=yes
    fi
    apt_install "$@" || { as_root apt-get update --quiet >&2 && apt_install "$@"; } || status=$?
    if [ "$placed" = yes ]; then
        as_root rm -f "$policy"
    elif [[ " $* " == *" rabbitmq-server "* ]] && as_root service rabbitmq-server status >/dev/null 2>&1; then
        # A policy of the machine's own let it start.
        as_root service rabbitmq-server stop >&2 || true
    fi
    if [ "$status" -ne 0 ]; then
        say "apt-get could not install: $*"
        exit 1
    fi
}

# need COMMAND=PACKAGE...: installs the Debian packages whose command is not there.
need() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    if [ "${#missing[@]}" -gt 0 ]; then
        install_packages "${missing[@]}"
    fi
}

# program: prints the path of the program as the tests build it, or of the copy of it that the caller was given.
program() {
    if [ -z "${CHECKED_PROGRAM:-}" ]; then
        cargo build --locked --quiet
        CHECKED_PROGRAM=$ROOT/target/debug/nbi-upgrade
    fi
    printf '%s\n' "$CHECKED_PROGRAM"
}

# npm_tool NAME@VERSION MORE@VERSION...: installs the packages together below target/tools and prints the folder of their commands.
npm_tool() {
    local folder="$TOOLS/npm/${1//[^a-zA-Z0-9.@-]/_}"
    need npm=npm
    if [ "$(cat "$folder/.done" 2>/dev/null)" != "$*" ]; then
        say "installing $*"
        rm -rf "$folder" && mkdir -p "$folder"
        npm install --silent --no-save --no-fund --no-audit --prefix "$folder" "$@" >&2
        printf '%s\n' "$*" >"$folder/.done"
    fi
    printf '%s\n' "$folder/node_modules/.bin"
}

# npm_files NAME@VERSION: unpacks the package alone, without what it depends on, below target/tools and prints its folder.
npm_files() {
    local folder="$TOOLS/npm/files_${1//[^a-zA-Z0-9.@-]/_}"
    need npm=npm
    if [ ! -e "$folder/.done" ]; then
        say "unpacking $1"
        rm -rf "$folder" && mkdir -p "$folder"
        (cd "$folder" && tar -xzf "$(npm pack --silent "$1")" && rm -f ./*.tgz) >&2
        touch "$folder/.done"
    fi
    printf '%s\n' "$folder/package"
}

# python_tools NAME REQUIREMENT...: a virtual environment below target/tools with these packages; prints the folder of its commands.
python_tools() {
    local folder="$TOOLS/python/$1" wanted="${*:2}"
    if [ "$(cat "$folder/.done" 2>/dev/null)" != "$wanted" ]; then
        python3 -c 'import venv, ensurepip' 2>/dev/null || install_packages python3 python3-venv
        say "installing ${*:2}"
        rm -rf "$folder"
        python3 -m venv "$folder" >&2
        "$folder/bin/pip" install --quiet "${@:2}" >&2
        printf '%s\n' "$wanted" >"$folder/.done"
    fi
    printf '%s\n' "$folder/bin"
}

# cargo_tool NAME VERSION: builds a program of crates.io below target/tools and prints the folder of its commands.
# Without optimisation: such a program runs for a second and would build for minutes.
cargo_tool() {
    if ! grep -qs "^\"$1 $2 " "$TOOLS/.crates.toml"; then
        say "building $1 $2"
        CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_DEBUG=0 \
            CARGO_PROFILE_RELEASE_CODEGEN_UNITS=256 CARGO_TARGET_DIR="$TOOLS/build" \
            nice cargo install "$1" --version "$2" --locked --quiet --force --root "$TOOLS" >&2
        rm -rf "$TOOLS/build"
    fi
    printf '%s\n' "$TOOLS/bin"
}
