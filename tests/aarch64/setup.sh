#!/bin/sh
# Makes what `pytest -m aarch64` needs: an arm64 Debian Python and the aarch64 wheels of edgefer's base install. About
# two minutes and 1 GB; nothing of it is ever run but by qemu-user, so no chroot and no binfmt.
#
#   apt-get install qemu-user-static debootstrap
#   sudo tests/aarch64/setup.sh [DIR]        default: .venv-aarch64, or $EDGEFER_AARCH64; the tests look there too
set -eu
repo=$(cd "$(dirname "$0")/../.." && pwd)
dir=${1:-${EDGEFER_AARCH64:-$repo/.venv-aarch64}}
root=$dir/root
[ ! -e "$dir/ready" ] || exit 0
mkdir -p "$dir"

# The first stage unpacks Debian's required packages and only downloads the others. OpenCV's wheel wants libGL and glib.
[ -e "$root/usr/lib" ] || debootstrap --arch=arm64 --foreign --variant=minbase \
    --include=python3.11,libgl1,libglib2.0-0 bookworm "$root"
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

wheels() {
    target=$1
    shift
    "${PYTHON:-python3}" -m pip install --quiet --target "$target" --only-binary=:all: --python-version 3.11 \
        --platform manylinux_2_27_aarch64 --platform manylinux_2_28_aarch64 --platform manylinux2014_aarch64 "$@"
}
"${PYTHON:-python3}" -c '
import sys, tomllib
print(*tomllib.load(open(sys.argv[1], "rb"))["project"]["dependencies"], sep="\n")
' "$repo/pyproject.toml" > "$dir/requirements.txt"
wheels "$dir/wheels" -r "$dir/requirements.txt"
for version in 2.2.0 2.3.0; do
    wheels "$dir/litert-$version" --no-deps "ai-edge-litert==$version"
done
touch "$dir/ready"
