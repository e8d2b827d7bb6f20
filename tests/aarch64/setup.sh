#!/bin/sh
# Makes what `pytest -m aarch64` needs: the arm64 Pythons of Debian 12 and 13 (as on Raspberry Pi OS) and the aarch64 wheels
# of edgefer's base install. About four minutes and 2 GB; nothing of it is ever run but by qemu-user, so no chroot and no
# binfmt.
#
#   apt-get install qemu-user-static debootstrap
#   sudo tests/aarch64/setup.sh [DIR]        default: .venv-aarch64, or $EDGEFER_AARCH64; the tests look there too
set -eu
repo=$(cd "$(dirname "$0")/../.." && pwd)
dir=${1:-${EDGEFER_AARCH64:-$repo/.venv-aarch64}}
[ ! -e "$dir/ready" ] || exit 0
mkdir -p "$dir"
"${PYTHON:-python3}" -c '
import sys, tomllib
print(*tomllib.load(open(sys.argv[1], "rb"))["project"]["dependencies"], sep="\n")
' "$repo/pyproject.toml" > "$dir/requirements.txt"

wheels() { # PYTHON TARGET REQUIREMENT...
    python=$1 target=$2
    shift 2
    "${PYTHON:-python3}" -m pip install --quiet --target "$target" --only-binary=:all: --python-version "$python" \
        --platform manylinux_2_27_aarch64 --platform manylinux_2_28_aarch64 --platform manylinux2014_aarch64 "$@"
}

system() { # SUITE PYTHON GLIB
    suite=$1 python=$2 root=$dir/$1/root
    mkdir -p "$dir/$suite"
    # The first stage unpacks Debian's required packages and only downloads the others. OpenCV's wheel wants libGL and glib.
    [ -e "$root/usr/lib" ] || debootstrap --arch=arm64 --foreign --variant=minbase \
        --include="python$python,libgl1,$3" "$suite" "$root"
    for package in "$root"/var/cache/apt/archives/*.deb; do
        dpkg-deb -x "$package" "$root"
    done

    # qemu-user shows the host's /proc/cpuinfo unless its root has one. With an x86-64 host's, ai-edge-litert 2.2 and 2.3
    # die in Interpreter() (SIGSEGV just after they read the processor's topology); with an ARM one they pass.
    mkdir -p "$root/proc"
    cat > "$root/proc/cpuinfo" <<'CPU'
processor	: 0
BogoMIPS	: 108.00
Features	: fp asimd evtstrm crc32 cpuid
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x0
CPU part	: 0xd08
CPU revision	: 3

CPU
    wheels "$python" "$dir/$suite/wheels" -r "$dir/requirements.txt"
}

system bookworm 3.11 libglib2.0-0
system trixie 3.13 libglib2.0-0t64
for version in 2.2.0 2.3.0; do
    wheels 3.11 "$dir/bookworm/litert-$version" --no-deps "ai-edge-litert==$version"
done
touch "$dir/ready"
