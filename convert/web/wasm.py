"""The page's WebAssembly: committed beside its C, and rebuilt here if clang and wasm-ld are installed.

`python -m edgefer.convert.web.wasm` builds it into the package; run it after every change of the C.
"""

import hashlib
import json
import shutil
import subprocess
import tempfile
from importlib import resources
from pathlib import Path

from edgefer.c.host import source
from edgefer.errors import MissingDependency, RuntimeFault

SOURCES = ("edgefer_net.c", "edgefer_pixels.c", "web.c", "memory.c")
HEADERS = ("edgefer_net.h", "edgefer_pixels.h")
EXPORTS = (
    "edgefer_check", "edgefer_crc32", "edgefer_run", "edgefer_resize_network", "edgefer_arena_bytes",
    "edgefer_output_bytes", "web_allocate", "web_face", "web_shrunk", "web_close_up",
)  # fmt: skip
FILES = {"engine.wasm": (), "engine_simd.wasm": ("-msimd128",)}
FACTS = "engine.json"  # their compiler, and the hash of their sources
FLAGS = (
    "--target=wasm32", "-std=c99", "-O3", "-ffreestanding", "-fno-builtin-memcpy", "-fno-builtin-memset",
    "-ffp-contract=off", "-Wall", "-Wextra",
)  # fmt: skip
TIMEOUT_S = 120


def sources_sha256() -> str:
    """A hash of the WebAssembly's C sources and flags."""
    digest = hashlib.sha256(" ".join((*FLAGS, *EXPORTS)).encode())
    for name in (*SOURCES, *HEADERS):
        digest.update(source(name).encode())
    return digest.hexdigest()


def clang_version() -> str | None:
    """The first line of `clang --version`; None unless clang and wasm-ld are installed."""
    if not (shutil.which("clang") and shutil.which("wasm-ld")):
        return None
    done = subprocess.run(["clang", "--version"], capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    return done.stdout.splitlines()[0]


def build(flags: tuple[str, ...]) -> bytes:
    """One .wasm. It is linked with wasm-ld directly: clang would require a C library."""
    if clang_version() is None:
        raise MissingDependency("clang and wasm-ld are needed: sudo apt install clang lld.")
    with tempfile.TemporaryDirectory(prefix="edgefer-wasm-") as folder:
        for name in (*SOURCES, *HEADERS):
            (Path(folder) / name).write_text(source(name))
        objects = [name.replace(".c", ".o") for name in SOURCES]
        commands = [
            ["clang", *FLAGS, *flags, "-c", name, "-o", made] for name, made in zip(SOURCES, objects, strict=True)
        ]
        exports = [f"--export={name}" for name in EXPORTS]
        commands.append(["wasm-ld", "--no-entry", "--strip-all", "--gc-sections", *exports, *objects, "-o", "out.wasm"])
        for command in commands:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
            if done.returncode:
                raise RuntimeFault(f"{command[0]} failed: {(done.stderr.strip() or 'no reason given').splitlines()[0]}")
        return (Path(folder) / "out.wasm").read_bytes()


def committed(name: str) -> bytes:
    """A file of the page as shipped with edgefer."""
    return resources.files("edgefer.convert.web").joinpath("page", name).read_bytes()


def rebuild(folder: Path) -> None:
    """Build everything into `folder`."""
    for name, flags in FILES.items():
        (folder / name).write_bytes(build(flags))
    facts = {"compiler": clang_version(), "sources_sha256": sources_sha256()}
    (folder / FACTS).write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    rebuild(Path(__file__).parent / "page")
