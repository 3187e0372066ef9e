#!/bin/sh
# Makes .venv and installs what is pinned (and hashed) in requirements.txt, or with `dev` what tests and checks need as well.
# Does nothing when that was done already: then it needs no network. Needs python3 >= 3.11; uses uv if it is there, and does
# without the venv, ensurepip or pip that a bare Debian lacks.
set -eu
cd "$(dirname "$0")"

case ${1:-runtime} in
    runtime) files="requirements.txt" ;;
    dev) files="requirements-dev.txt requirements.txt" ;;
    *) echo "usage: bootstrap.sh [runtime|dev]" >&2; exit 2 ;;
esac
venv_python=.venv/bin/python

# A stamp holds the checksum of the file that was installed. A .venv whose Python has gone is made anew.
is_installed() {
    for file in $files; do
        [ "$(cat ".venv/.installed-$file" 2>/dev/null)" = "$(cksum <"$file")" ] || return 1
    done
    "$venv_python" -c '' 2>/dev/null
}

has_uv() { command -v uv >/dev/null 2>&1; }

say() { echo "bootstrap: $*" >&2; }

make_venv() {
    if "$venv_python" -c '' 2>/dev/null; then return; fi
    rm -rf .venv
    python=${PYTHON:-python3}
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        if ! has_uv; then say "expected python3 >= 3.11, got $("$python" --version 2>/dev/null || echo none)"; exit 1; fi
        python=3.11
    fi
    if has_uv; then
        uv venv --quiet --python "$python" .venv
    elif "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        "$python" -m venv .venv
    else
        "$python" -m venv --without-pip .venv
    fi
}

install() {
    if has_uv; then
        uv pip install --quiet --compile-bytecode --python "$venv_python" --require-hashes -r "$1"
    elif "$venv_python" -m pip --version >/dev/null 2>&1; then
        "$venv_python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$1"
    elif "${PYTHON:-python3}" -m pip --version >/dev/null 2>&1; then
        "${PYTHON:-python3}" -m pip --python "$venv_python" install --quiet --disable-pip-version-check --require-hashes -r "$1"
    else
        say "expected uv, python3-venv or python3-pip, found none (Debian: apt install python3-pip)"
        exit 1
    fi
}

if is_installed; then exit 0; fi
say "installing ${files%% *} into .venv"
make_venv
install "${files%% *}"
for file in $files; do cksum <"$file" >".venv/.installed-$file"; done
