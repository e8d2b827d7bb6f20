"""`edgefer export c`: the same outputs on every target, detection of flipped bits, and no code injection by names."""

import io
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from edgefer.bundle import Bundle, shipped_networks, write_bundle
from edgefer.c.subject import read_subject
from edgefer.checks import Status
from edgefer.convert.c.project import export_c, make_project
from edgefer.convert.c.targets import prove_page, prove_targets
from edgefer.convert.c.text import comment, string

SOURCE = ROOT / "edgefer" / "c" / "source"


@pytest.mark.gcc
def test_project_passes_its_self_test_on_this_host_without_warnings(project, tmp_path):
    done = make(project, tmp_path, "test", "CFLAGS=-std=c99 -O2 -Wall -Wextra -Wpedantic -Werror -ffp-contract=off")
    assert done.returncode == 0 and done.stderr == ""
    assert results(done.stdout) == [
        "network: whole, as exported",
        "pixels: 0 of 9216 differ",
        "answers: 0 of 336 differ",
    ]
    assert done.stdout.count("image ") == 48 and done.stdout.endswith("PASS\n")


@pytest.mark.gcc
def test_project_of_a_finder_passes_its_self_test(tmp_path):
    subject = read_subject(Bundle.open(shipped_networks()["face-finder"]))
    export_c(subject, tmp_path / "finder")
    done = subprocess.run(["make", "-s", "test"], cwd=tmp_path / "finder", capture_output=True, text=True)
    count = len(subject.vectors.small().pixels) * 3780
    assert done.returncode == 0 and f"answers: 0 of {count} differ" in done.stdout and "image" not in done.stdout
    readme = (tmp_path / "finder" / "README.md").read_text()
    assert "EdgeferCrop" not in (tmp_path / "finder" / "network.h").read_text()
    assert "read_face" not in readme and "| answers | int8; `network.h` has the scale" in readme


def make(project, folder, target, *options) -> subprocess.CompletedProcess:
    """`make target` in a copy of the project."""
    if not (folder / "Makefile").exists():
        shutil.copytree(project, folder, dirs_exist_ok=True)
    return subprocess.run(["make", "-s", target, *options], cwd=folder, capture_output=True, text=True, timeout=200)


@pytest.fixture(scope="module")
def short(nano, tmp_path_factory):
    """The exported project of fer-nano with every fourth stored image."""
    out = tmp_path_factory.mktemp("export") / "short"
    vectors = nano.vectors
    few = replace(vectors, pixels=vectors.pixels[::4], answers=vectors.answers[::4])
    export_c(replace(nano, vectors=few), out)
    return out


@pytest.fixture(scope="module")
def compiled(short, tmp_path_factory):
    """The same, with its kernels compiled for this host."""
    out = tmp_path_factory.mktemp("export") / "compiled"
    shutil.copytree(short, out)
    kernels = ["edgefer_net.c", "edgefer_pixels.c"]
    subprocess.run(["cc", "-std=c99", "-O2", "-ffp-contract=off", "-c", *kernels], cwd=out, check=True)
    return out


def results(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith(("network:", "pixels:", "answers:"))]


TARGETS = [
    pytest.param("test", marks=pytest.mark.gcc),
    pytest.param("arm", marks=pytest.mark.arm),
    pytest.param("riscv", marks=pytest.mark.riscv),
]


@pytest.mark.parametrize("target", TARGETS)
def test_flipped_weight_fails_the_self_test_on_every_target(short, tmp_path, target):
    shutil.copytree(short, tmp_path, dirs_exist_ok=True)
    source = (tmp_path / "network.c").read_text()
    weights = [place.start() for place in re.finditer("0x[0-9a-f]{8}u", source)]
    place = weights[len(weights) // 2] + 9
    flipped = f"{int(source[place], 16) ^ 1:x}"
    (tmp_path / "network.c").write_text(source[:place] + flipped + source[place + 1 :])
    done = make(short, tmp_path, target)
    assert done.returncode != 0
    assert "network: it is not the one that was exported" in done.stdout
    assert "FAIL" in done.stdout and "PASS" not in done.stdout


def instructions(output: str) -> float:
    """Per image."""
    return int(re.search(r"per image: (\d+)", output)[1]) / 0.168


@pytest.mark.arm
def test_stm32f405_reproduces_every_stored_answer_in_its_flash_and_ram(subject, tmp_path):
    """The largest shipped network; the README's six commands prove fer-nano."""
    export_c(subject, tmp_path)
    done = make(tmp_path, tmp_path, "arm")  # the linker script has 1 MB of flash, 128 KB of RAM
    assert done.returncode == 0, done.stderr
    assert [line.split(" of ")[0] for line in results(done.stdout)[1:]] == ["pixels: 0", "answers: 0"]
    assert instructions(done.stdout) < 86e6


CORES = {
    "cortex-m3, no SMLAD, no FPU": ("-mcpu=cortex-m3 -mthumb", "mps2-an385"),
    "cortex-m4, no FPU": ("-mcpu=cortex-m4 -mthumb", "mps2-an386"),
    "cortex-m7": ("-mcpu=cortex-m7 -mthumb -mfloat-abi=hard -mfpu=fpv5-d16", "mps2-an500"),
}


@pytest.mark.gcc
@pytest.mark.arm
def test_six_commands_of_the_readme_print_labels(tmp_path):
    """Exactly as they are there, except the first, which installs packages."""
    readme = (ROOT / "convert" / "README.md").read_text()
    block = re.search(r"in six commands\n.*?```bash\n(.*?)```", readme, re.DOTALL)[1]
    install, *commands = block.splitlines()
    assert install.startswith("sudo apt install ") and len(commands) == 5
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", "\n".join(commands)],
        cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    host, arm = done.stdout.split("arm-none-eabi-size")
    for shown in (host, arm):
        assert len(re.findall(r"^image \d+: (?:angry|disgust|fear|happy|sad|surprise|neutral)$", shown, re.M)) == 48
        assert "pixels: 0 of 9216 differ" in shown and "answers: 0 of 336 differ" in shown and "PASS" in shown
    assert instructions(arm) < 21e6


@pytest.mark.arm
@pytest.mark.parametrize("core", CORES)
def test_other_cores_reproduce_stored_answers(short, tmp_path, core):
    shutil.copytree(short, tmp_path, dirs_exist_ok=True)
    script = (tmp_path / "stm32f405.ld").read_text().replace("0x08000000, LENGTH = 1024K", "0, LENGTH = 4096K")
    (tmp_path / "stm32f405.ld").write_text(script)
    flags, machine = CORES[core]
    done = make(short, tmp_path, "arm", f"ARM_CPU={flags}", f"ARM_MACHINE={machine}")
    assert done.returncode == 0, done.stderr
    assert results(done.stdout)[1:] == ["pixels: 0 of 9216 differ", "answers: 0 of 84 differ"]


@pytest.mark.arm
@pytest.mark.parametrize("core", ["arm926ej-s", "arm1176jzf-s", "cortex-m0plus", "cortex-m33", "cortex-r5"])
def test_kernels_compile_for_cores_with_and_without_smlad(core, tmp_path):
    command = ["arm-none-eabi-gcc", f"-mcpu={core}", "-std=c99", "-O1", "-ffreestanding", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([*command, "-c", SOURCE / "edgefer_net.c", "-o", tmp_path / "net.o"], check=True)


@pytest.mark.wasm
def test_kernels_do_not_assume_that_an_int_has_32_bits():
    command = ["clang", "--target=msp430", "-std=c99", "-ffreestanding", "-fsyntax-only", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([*command, SOURCE / "edgefer_net.c", SOURCE / "edgefer_pixels.c"], check=True)


@pytest.mark.arm
def test_kernels_need_no_c_library(project, tmp_path):
    """No heap, no libc, no division of floats: the only external symbols are the compiler's own integer functions."""
    flags = ["-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16", "-std=c99", "-O2", "-ffreestanding"]
    for name, allowed in {"edgefer_net": {"__aeabi_ldivmod"}, "edgefer_pixels": None}.items():
        subprocess.run(
            ["arm-none-eabi-gcc", *flags, "-c", project / f"{name}.c", "-o", tmp_path / f"{name}.o"], check=True
        )
        symbols = subprocess.run(["arm-none-eabi-nm", "-u", tmp_path / f"{name}.o"], capture_output=True, text=True)
        needed = set(re.findall(r"U (\w+)", symbols.stdout))
        assert all(symbol.startswith("__aeabi_") for symbol in needed)
        if allowed is not None:
            assert needed <= allowed
            code = subprocess.run(
                ["arm-none-eabi-objdump", "-d", tmp_path / f"{name}.o"], capture_output=True, text=True
            )
            assert "vdiv" not in code.stdout and "smlad" in code.stdout


SETTINGS = {
    "a label": ("network.c", '"happy"', '"hapqy"'),
    "two labels": ("network.c", '"angry",\n    "disgust"', '"disgust",\n    "angry"'),
    "the temperature": ("network.h", "TEMPERATURE 1.", "TEMPERATURE 3."),
    "the zero point": ("network.h", "OUTPUT_ZERO ", "OUTPUT_ZERO 1+"),
    "a crop": ("network.h", "CROP_YUNET {1.", "CROP_YUNET {2."),
}


@pytest.mark.gcc
@pytest.mark.parametrize("changed", SETTINGS)
def test_changed_labels_and_settings_fail_the_self_test(compiled, tmp_path, changed):
    """They determine the label of a face as much as the weights do."""
    name, old, new = SETTINGS[changed]
    shutil.copytree(compiled, tmp_path, dirs_exist_ok=True)
    source = (tmp_path / name).read_text()
    assert source.count(old) == 1
    (tmp_path / name).write_text(source.replace(old, new))
    done = make(compiled, tmp_path, "test", "SOURCES=edgefer_net.o edgefer_pixels.o network.c selftest.c")
    assert done.returncode != 0 and done.stdout.endswith("FAIL\n")
    wrong = 2 if changed == "two labels" else 1
    assert f"settings: {wrong} of 8 differ" in done.stdout and "answers: 0 of" in done.stdout


@pytest.mark.gcc
def test_untrusted_labels_and_names_do_not_become_code(nano, tmp_path):
    labels = ('a"; int x = 1; "', "*/ int y; /*", "??/", "\\", "Glück", "日", "#define z")
    files = {name: nano.bundle.read(name) for name in nano.bundle.card.variants}
    with np.load(io.BytesIO(files["parity"])) as stored:
        parity = dict(stored) | {"labels": np.array(labels)}
    np.savez_compressed(out := io.BytesIO(), **parity)
    files["parity"] = out.getvalue()
    card = nano.bundle.card.model_copy(update={"labels": labels, "name": "*/ #error"})
    subject = read_subject(write_bundle(tmp_path / "odd", card, files))
    project = make_project(subject, [])
    out = tmp_path / "c"
    out.mkdir()
    for name, content in project.items():
        (out / name).write_bytes(content)
    done = subprocess.run(["make", "-s", "test"], cwd=out, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shown = {line.split(": ", 1)[1] for line in done.stdout.splitlines() if line.startswith("image ")}
    assert shown <= set(labels)


def test_text_for_c_is_harmless():
    assert string('a"b\\?') == '"a\\042b\\134\\077"'
    assert comment("x */ y\n") == "x ?? y?"


@pytest.mark.arm
def test_cortex_m_compiler_and_linker_give_no_warnings(project, tmp_path):
    flags = "CFLAGS=-std=c99 -O2 -Wall -Wextra -Wpedantic -ffp-contract=off"
    done = make(project, tmp_path, "selftest_arm.elf", flags)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.arm
@pytest.mark.parametrize("arena", [126_000, 146_000], ids=["leaves no stack", "larger than the RAM"])
def test_network_too_large_for_the_microcontroller_is_not_checked(project, tmp_path, arena):
    shutil.copytree(project, tmp_path, dirs_exist_ok=True)
    header = (tmp_path / "network.h").read_text()
    (tmp_path / "network.h").write_text(re.sub("ARENA_BYTES .*", f"ARENA_BYTES {arena}", header))
    row = prove_targets(tmp_path)[0]
    assert row.status is Status.NOT_CHECKED and "does not fit" in row.detail


def test_export_c_reports_its_proof_and_refuses_a_folder_with_other_files(edgefer, tmp_path):
    done = edgefer("export", "c", "fer-nano", tmp_path / "out")
    assert "pass: 2 of 2" in done.stdout or "not checked" in done.stdout
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    done = edgefer("export", "c", "fer-nano", tmp_path / "full", expect=2)
    assert done.stderr.count("\n") == 1 and "holds other files" in done.stderr


@pytest.mark.arm
@pytest.mark.riscv
def test_every_target_has_a_row_with_its_compiler_and_emulator(project, tmp_path):
    shutil.copytree(project, tmp_path, dirs_exist_ok=True)
    arm, riscv = prove_targets(tmp_path)
    assert arm.status is riscv.status is Status.PASS
    for row in (arm, riscv):
        assert "0 of 336 answers differ, 0 of 9,216 pixels differ" in row.detail
    assert "arm-none-eabi-gcc" in arm.detail and "QEMU" in arm.detail and "rv32imc" in riscv.detail
    assert {file.name for file in tmp_path.iterdir()} == {file.name for file in project.iterdir()}


def test_missing_tools_of_a_target_are_reported_in_its_row(project, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    rows = [*prove_targets(project), prove_page(project)]
    assert {row.status for row in rows} == {Status.NOT_CHECKED}
    assert all(row.fix.startswith("sudo apt install") for row in rows)
