#!/bin/sh
# Sets up a virtual environment with this package (editable) and one of its extras,
# with uv where there is one, otherwise with venv and pip.
#
#     sh tools/venv.sh DIR PYTHON EXTRA [oldest|newest|any]
#
# oldest: runtime dependencies at exactly their lower bounds
# newest: everything at its newest release, looked up again once a day
# any:    whatever fits (the default)
#
# EXTRA may be followed by further requirements: "test jax[cuda12]".
# A second run finds everything in place and does nothing; a run that was interrupted
# is noticed by the next, which starts over.
set -eu

dir=$1
python=$2
wanted=$3
release=${4:-any}
extra=${wanted%% *}
more=${wanted#"$extra"}

say() { echo "swd_jax: $*" >&2; }
fail() {
    say "$@"
    exit 1
}

cd "$(dirname "$0")/.."

# The interpreter: 3.11 or newer, and the real one where PYTHON is itself in a venv.
command -v "$python" >/dev/null 2>&1 ||
    fail "no '$python' here. Install Python 3.11 or newer, or name one: make ... PYTHON=/path/to/python3.12"
version=$("$python" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])') ||
    fail "'$python' does not run. Name another one: make ... PYTHON=/path/to/python3.12"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "Python 3.11 or newer is needed, '$python' is $version. Name another one: make ... PYTHON=/path/to/python3.12"
python=$("$python" -c 'import sys; print(getattr(sys, "_base_executable", "") or sys.executable)')

made="Python $version for $(pwd)"
stamp="$dir/.installed-$(echo "$wanted" | tr -c 'A-Za-z0-9.\n' '-')"
state="$release $(cksum <pyproject.toml)"
if [ "$release" = newest ]; then
    state="$state $(date +%Y-%m-%d)"
fi

# 1. Is what lies in DIR whole, and made for this Python and this place?
if [ -e "$dir" ]; then
    if [ -f "$dir/.busy" ]; then
        say "an earlier setup of $dir was interrupted; starting over"
    elif [ "$(cat "$dir/.made" 2>/dev/null)" = "$made" ] && "$dir/bin/python" -c '' 2>/dev/null; then
        if [ "$(cat "$stamp" 2>/dev/null)" = "$state" ]; then
            exit 0
        fi
        keep=yes
    elif [ -f "$dir/.made" ]; then
        say "$dir was made by another Python or elsewhere; making it anew with Python $version"
    elif [ -n "$(ls -A "$dir")" ]; then
        fail "$dir is there but was not made by this script. Remove it, or use another: make ... VENV=.venv-swd"
    fi
    [ "${keep:-no}" = yes ] || rm -rf "$dir"
fi

# 2. Make it and install. The mark '.busy' stays behind if anything stops this.
mkdir -p "$dir"
: >"$dir/.busy"
say "setting up $dir (Python $version, $wanted); the first time takes a minute or two"

if command -v uv >/dev/null 2>&1; then
    [ -f "$dir/.made" ] || uv venv -q --allow-existing --python "$python" "$dir"
    install() { uv pip install -q --python "$dir/bin/python" "$@"; }
    newest="--upgrade"
else
    if [ ! -f "$dir/.made" ] && ! "$python" -m venv "$dir" >/dev/null 2>&1; then
        # Some systems ship venv without the part that brings pip along.
        "$python" -m venv --without-pip "$dir" ||
            fail "'$python -m venv' fails. On Debian and Ubuntu: apt install python3-venv"
    fi
    if "$dir/bin/python" -m pip --version >/dev/null 2>&1; then
        pip() { "$dir/bin/python" -m pip "$@"; }
    else
        pip() { "$python" -m pip --python "$dir/bin/python" "$@"; }
    fi
    install() { pip --disable-pip-version-check install -q "$@"; }
    newest="--upgrade --upgrade-strategy eager"
fi
echo "$made" >"$dir/.made"

# shellcheck disable=SC2086 # $more and $newest are lists of words
case $release in
oldest)
    "$dir/bin/python" tools/lowest.py >"$dir/oldest.txt"
    install -c "$dir/oldest.txt" -e ".[$extra]" $more
    ;;
newest) install $newest -e ".[$extra]" $more ;;
*) install -e ".[$extra]" $more ;;
esac

echo "$state" >"$stamp"
rm -f "$dir/.busy"
