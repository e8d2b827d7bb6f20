"""`edgefer export c`: the same answers on every target, a flipped bit seen by each, and nothing of a stranger's in the code."""

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgefer.bundle import FACE_NETWORKS, Bundle, shipped_bundles, shipped_networks, write_bundle
from edgefer.c import host, prove
from edgefer.c.host import HostNetwork
from edgefer.c.pixels import HostPixels
from edgefer.c.program import make_program
from edgefer.c.subject import read_subject
from edgefer.card import CropSpec, InputSpec
from edgefer.checks import Status
from edgefer.convert.c import tflm
from edgefer.convert.c.project import export_c, make_project
from edgefer.convert.c.targets import prove_page, prove_targets
from edgefer.convert.c.text import comment, string
from edgefer.convert.c.tflm_trial import run_in_arena
from edgefer.devices.faces.canvas import Layout, MapNetwork, shrunk, thinned
from edgefer.devices.faces.own import cut, square_around
from edgefer.preprocess import face_pixels, prepare, to_int8
from edgefer.tflite import arithmetic
from edgefer.tflite.arena import plan
from edgefer.tflite.arithmetic import run
from edgefer.tflite.int8_network import UnsupportedNetwork
from edgefer.tflite.layers import read_layers
from tests.conftest import ROOT
from tests.tflite.networks import Maker
from tests.tflite.test_arithmetic import ONE, Chance, everything

HARSH = (
    ("-std=c99", "-O0"),
    ("-std=c99", "-O1", "-fsanitize=undefined", "-fno-sanitize-recover=all"),
    ("-std=c99", "-O3", "-march=native", "-ffast-math", "-ffp-contract=fast"),
)


# ---- the kernels ----


@pytest.mark.gcc
@pytest.mark.parametrize("name", shipped_bundles())
def test_every_stored_answer_and_pixel_is_met_exactly_on_this_host(name):
    checks = prove.prove_on_host(read_subject(Bundle.open(shipped_bundles()[name])))
    assert [check.status for check in checks] == [Status.PASS, Status.PASS]
    assert all(check.detail.startswith("0 of ") for check in checks)


@pytest.mark.gcc
@pytest.mark.parametrize("kind", [*ONE, "everything"])
def test_every_inner_tensor_of_random_networks_is_numpys(kind):
    for seed in range(6):
        chance = Chance(seed)
        if kind == "everything":
            content = everything(chance)
        else:
            x = chance.input()
            content = chance.make.finish(ONE[kind](chance, chance.make.conv(x, 7) if seed % 2 else x))
        network = read_layers(content, "made")
        compiled = HostNetwork(make_program(network), HARSH[seed % len(HARSH)] if seed < 3 else host.FLAGS)
        image = chance.rng.integers(0, 256, network.input.shape, np.uint8)
        tensors = run(network, (image ^ 0x80).view(np.int8))
        for number, layer in enumerate(network.layers, start=1):
            expected = tensors[layer.output.index].ravel()
            assert (compiled.inner(image, number) != expected).sum() == 0, (seed, layer.kind)


@pytest.mark.gcc
@pytest.mark.parametrize("name", FACE_NETWORKS)
def test_networks_that_find_faces_give_all_their_outputs_exactly(name):
    subject = read_subject(Bundle.open(shipped_networks()[name]))
    answers = HostNetwork(subject.program).answers(subject.vectors.pixels)
    assert answers.shape[1] == subject.bundle.card.answers and (answers != subject.vectors.answers).sum() == 0
    few = subject.vectors.pixels[:1]
    assert (arithmetic.answers(subject.network, few) != subject.vectors.answers[:1]).sum() == 0


@pytest.mark.gcc
def test_a_finder_takes_canvases_of_every_shape_as_its_runtime_does():
    content = Bundle.open(shipped_networks()["face-finder"]).read("int8")
    whole, runtime = HostNetwork(make_program(read_layers(content, "finder"))), MapNetwork(content)
    rng = np.random.default_rng(4)
    for height, width in ((32, 192), (160, 192), (192, 96), (64, 64), (192, 192)):
        image = cv2.resize(rng.integers(0, 256, (height // 8, width // 8), np.uint8), (width, height))[..., None]
        expected = np.concatenate([one.ravel() for one in runtime.sized(height, width).run(to_int8(image))])
        sized = whole.sized(height, width)
        assert np.array_equal(sized.answers(image[None])[0], expected)
        assert np.array_equal(sized.sized(192, 192).words, whole.words)


@pytest.mark.gcc
def test_a_finder_s_project_proves_itself(tmp_path):
    subject = read_subject(Bundle.open(shipped_networks()["face-finder"]))
    export_c(subject, tmp_path / "finder")
    done = subprocess.run(["make", "-s", "test"], cwd=tmp_path / "finder", capture_output=True, text=True)
    count = len(subject.vectors.small().pixels) * 3780
    assert done.returncode == 0 and f"answers: 0 of {count} differ" in done.stdout and "image" not in done.stdout


@pytest.mark.gcc
@pytest.mark.parametrize("flags", HARSH, ids=" ".join)
def test_no_compiler_flag_changes_an_answer(nano, flags):
    compiled = HostNetwork(nano.program, flags)
    assert (compiled.answers(nano.vectors.pixels) != nano.vectors.answers).sum() == 0


@pytest.mark.gcc
def test_a_single_flipped_bit_of_the_network_is_seen(nano):
    compiled = HostNetwork(nano.program)
    assert compiled.check() == 0
    rng = np.random.default_rng(0)
    for place in rng.integers(0, 32 * len(compiled.words), 40):
        compiled.words = nano.program.words.copy()
        compiled.words[place // 32] ^= np.uint32(1 << (place % 32))
        assert compiled.check() != 0, place


@pytest.mark.gcc
def test_a_card_that_states_its_own_scale_gets_a_table(nano):
    rng = np.random.default_rng(1)
    table = rng.integers(-128, 128, (256, 1)).astype(np.int8)
    image = rng.integers(0, 256, nano.network.input.shape, np.uint8)
    compiled = HostNetwork(make_program(nano.network, table))
    expected = run(nano.network, table[image, 0])[nano.network.output.index]
    assert np.array_equal(compiled.answers(image[None])[0], expected.ravel())


def test_nothing_in_the_arena_overlaps_while_it_is_in_use():
    for seed in range(20):
        network = read_layers(everything(Chance(seed)), "made")
        arena = plan(network)
        last = {network.output.index: len(network.layers)}
        for number, layer in enumerate(network.layers):
            for value in layer.inputs:
                last[value.index] = max(number, last.get(value.index, 0))
        alive = {network.input.index: network.input}
        for number, layer in enumerate(network.layers):
            alive = {index: value for index, value in alive.items() if last.get(index, -1) >= number}
            output = layer.output
            places = [(arena.places[i], arena.places[i] + v.size, i) for i, v in alive.items()]
            begin, end = arena.places[output.index], arena.places[output.index] + output.size
            assert end <= arena.size
            for low, high, index in places:
                shared = index in {v.index for v in layer.inputs} and last[index] == number and low == begin
                assert high <= begin or end <= low or shared, (seed, number)
                if layer.kind == "CONV_2D":
                    assert high <= arena.scratch[number] or low >= arena.scratch[number] + 1
            alive[output.index] = output


def test_a_network_that_no_memory_holds_is_refused():
    """130 activations of 16 MB that are all in use at once, in a file of a few kilobytes."""
    make = Maker(np.random.default_rng(0))
    x = make.input((1, 64, 64, 1))
    large = [make.pad(x, ((0, 0), (2016, 2016), (2016, 2016), (0, 0))) for _ in range(130)]
    sums = [make.add(large[0], other) for other in large[1:]]
    network = read_layers(make.finish(make.pool("MAX", sums[-1], (2, 2), (2, 2), "VALID")), "made")
    with pytest.raises(UnsupportedNetwork, match="bytes of RAM"):
        make_program(network)


def test_the_arena_of_the_shipped_networks_is_no_larger_than_measured():
    sizes = {}
    for name in ("fer-nano", "fer-small"):
        bundle = Bundle.open(shipped_bundles()[name])
        sizes[name] = plan(read_layers(bundle.read("int8"), name)).size
    assert sizes == {"fer-nano": 19_584, "fer-small": 57_600}


# ---- the pixels ----


def scene(rng) -> np.ndarray:
    """uint8 BGR of any size, noise or smooth."""
    height, width = (int(side) for side in rng.integers(20, 200, 2))
    if rng.random() < 0.5:
        return rng.integers(0, 256, (height, width, 3), np.uint8)
    coarse = rng.integers(0, 256, (max(2, height // 7), max(2, width // 7), 3), np.uint8)
    return cv2.resize(coarse, (width, height))


@pytest.mark.gcc
def test_what_the_face_networks_see_is_what_devices_make_of_a_frame():
    rng, pixels, count = np.random.default_rng(9), HostPixels(), 0
    while count < 200_000:
        frame = cv2.resize(scene(rng), tuple(int(side) for side in rng.integers(20, 900, 2)))
        width, height = Layout.of(frame.shape, 192).size
        gray = cv2.cvtColor(thinned(frame, (width, height)), cv2.COLOR_BGR2GRAY)
        assert np.array_equal(pixels.shrunk(frame, height, width), shrunk(gray, (width, height)))
        x, y = rng.uniform(-0.2, 1.2, 2) * frame.shape[1::-1]
        square = square_around(np.array([x, y, x, y]) + rng.uniform(0, 400, 4))
        assert np.array_equal(pixels.close_up(frame, square.edges, square.step, 48), cut(frame, square))
        count += height * width + 48 * 48


@pytest.mark.gcc
@pytest.mark.parametrize("color", ["gray", "rgb", "bgr"])
@pytest.mark.parametrize("turned", [False, True], ids=["level", "turned"])
def test_200_000_random_pixels_of_crops_are_preprocess_own(color, turned):
    rng = np.random.default_rng(5)
    wrong = count = 0
    pixels = HostPixels()
    while count < 200_000:
        frame = scene(rng)
        height, width = (int(side) for side in rng.integers(16, 70, 2))
        spec = InputSpec(height=height, width=width, color=color)
        left, top = int(rng.integers(-20, frame.shape[1] - 10)), int(rng.integers(-20, frame.shape[0] - 10))
        box = left, top, left + int(rng.integers(2, 130)), top + int(rng.integers(2, 130))
        dx, dy = rng.uniform(-0.2, 0.2, 2)
        crop = CropSpec(scale=float(rng.uniform(0.5, 1.8)), dx=float(dx), dy=float(dy), faces=3)
        roll = float(rng.uniform(-60, 60)) if turned else None
        expected = face_pixels(frame, box, crop, spec, roll)
        wrong += int((pixels.face(frame, box, crop, spec, roll) != expected).sum())
        if not turned:
            rgba = np.dstack([frame[..., ::-1], np.full(frame.shape[:2], 255, np.uint8)])
            wrong += int((pixels.face(rgba, box, crop, spec) != expected).sum())
        count += expected.size
    assert wrong == 0


@pytest.mark.gcc
def test_200_000_random_pixels_of_resizing_are_opencvs_exact_ones():
    rng = np.random.default_rng(6)
    wrong = count = 0
    pixels = HostPixels()
    while count < 200_000:
        gray = np.ascontiguousarray(scene(rng)[..., 0])
        height, width = (int(side) for side in rng.integers(1, 300, 2))
        expected = cv2.resize(gray, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)
        wrong += int((pixels.resize(gray, height, width) != expected).sum())
        spec = InputSpec(height=max(16, height), width=max(16, width))
        wrong += int((pixels.prepare(gray, spec) != prepare(gray, spec)).sum())
        count += expected.size
    assert wrong == 0


# ---- the project ----


@pytest.mark.gcc
def test_the_project_proves_itself_on_this_host_without_a_warning(project, tmp_path):
    done = make(project, tmp_path, "test", "CFLAGS=-std=c99 -O2 -Wall -Wextra -Wpedantic -Werror -ffp-contract=off")
    assert done.returncode == 0 and done.stderr == ""
    assert says(done.stdout) == ["network: whole, as exported", "pixels: 0 of 9216 differ", "answers: 0 of 336 differ"]
    assert done.stdout.count("image ") == 48 and done.stdout.endswith("PASS\n")


def make(project, folder, target, *options) -> subprocess.CompletedProcess:
    """`make target` in a copy of the project."""
    if not (folder / "Makefile").exists():
        shutil.copytree(project, folder, dirs_exist_ok=True)
    return subprocess.run(["make", "-s", target, *options], cwd=folder, capture_output=True, text=True, timeout=200)


def says(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith(("network:", "pixels:", "answers:"))]


TARGETS = [
    pytest.param("test", marks=pytest.mark.gcc),
    pytest.param("arm", marks=pytest.mark.arm),
    pytest.param("riscv", marks=pytest.mark.riscv),
]


@pytest.mark.parametrize("target", TARGETS)
def test_a_flipped_weight_fails_the_self_test_of_every_target(project, tmp_path, target):
    shutil.copytree(project, tmp_path, dirs_exist_ok=True)
    source = (tmp_path / "network.c").read_text()
    weights = [place.start() for place in re.finditer("0x[0-9a-f]{8}u", source)]
    place = weights[len(weights) // 2] + 9
    flipped = f"{int(source[place], 16) ^ 1:x}"
    (tmp_path / "network.c").write_text(source[:place] + flipped + source[place + 1 :])
    done = make(project, tmp_path, target)
    assert done.returncode != 0
    assert "network: it is not the one that was exported" in done.stdout
    assert "FAIL" in done.stdout and "PASS" not in done.stdout


@pytest.mark.arm
@pytest.mark.parametrize("name", ["fer-nano", "ferplus-small"])
def test_an_stm32f405_gives_every_stored_answer_in_its_flash_and_ram(name, tmp_path):
    export_c(read_subject(Bundle.open(shipped_bundles()[name])), tmp_path)
    done = make(tmp_path, tmp_path, "arm")  # the linker script has 1 MB of flash, 128 KB of RAM
    assert done.returncode == 0, done.stderr
    assert [line.split(" of ")[0] for line in says(done.stdout)[1:]] == ["pixels: 0", "answers: 0"]
    instructions = int(re.search(r"per image: (\d+)", done.stdout)[1]) / 0.168
    assert instructions < {"fer-nano": 21e6, "ferplus-small": 86e6}[name]


CORES = {
    "cortex-m3, no SMLAD, no FPU": ("-mcpu=cortex-m3 -mthumb", "mps2-an385"),
    "cortex-m4, no FPU": ("-mcpu=cortex-m4 -mthumb", "mps2-an386"),
    "cortex-m7": ("-mcpu=cortex-m7 -mthumb -mfloat-abi=hard -mfpu=fpv5-d16", "mps2-an500"),
}


@pytest.mark.gcc
@pytest.mark.arm
def test_the_readme_s_six_commands_end_in_labels(tmp_path):
    """Word for word, but for the first, which installs."""
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
        assert "answers: 0 of 336 differ" in shown and "PASS" in shown


@pytest.mark.arm
@pytest.mark.parametrize("core", CORES)
def test_other_cores_give_every_stored_answer(project, tmp_path, core):
    shutil.copytree(project, tmp_path, dirs_exist_ok=True)
    script = (tmp_path / "stm32f405.ld").read_text().replace("0x08000000, LENGTH = 1024K", "0, LENGTH = 4096K")
    (tmp_path / "stm32f405.ld").write_text(script)
    flags, machine = CORES[core]
    done = make(project, tmp_path, "arm", f"ARM_CPU={flags}", f"ARM_MACHINE={machine}")
    assert done.returncode == 0, done.stderr
    assert says(done.stdout)[1:] == ["pixels: 0 of 9216 differ", "answers: 0 of 336 differ"]


@pytest.mark.riscv
def test_an_rv32imc_core_gives_every_stored_answer(project, tmp_path):
    done = make(project, tmp_path, "riscv")
    assert done.returncode == 0, done.stderr
    assert says(done.stdout)[1:] == ["pixels: 0 of 9216 differ", "answers: 0 of 336 differ"]


@pytest.mark.arm
def test_the_kernels_ask_for_nothing_of_a_c_library(project, tmp_path):
    """No heap, no libc, no division of floats: of the outside only what the compiler itself brings for whole numbers."""
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


# ---- what the files say ----


def test_without_a_compiler_the_rows_say_so_and_numpy_answers(nano, monkeypatch):
    monkeypatch.setattr(prove, "compiler", lambda: None)
    checks = prove.prove_on_host(nano)
    assert [check.status for check in checks] == [Status.NOT_CHECKED, Status.NOT_CHECKED, Status.PASS]


SETTINGS = {
    "a label": ("network.c", '"happy"', '"hapqy"'),
    "two labels": ("network.c", '"angry",\n    "disgust"', '"disgust",\n    "angry"'),
    "the temperature": ("network.h", "TEMPERATURE 0x1.", "TEMPERATURE 0x3."),
    "the zero point": ("network.h", "OUTPUT_ZERO ", "OUTPUT_ZERO 1+"),
    "a crop": ("network.h", "CROP_YUNET {0x1.", "CROP_YUNET {0x2."),
}


@pytest.mark.gcc
@pytest.mark.parametrize("changed", SETTINGS)
def test_changed_labels_and_settings_fail_the_self_test(project, tmp_path, changed):
    """They decide what is said of a face as much as the weights do."""
    name, old, new = SETTINGS[changed]
    shutil.copytree(project, tmp_path, dirs_exist_ok=True)
    source = (tmp_path / name).read_text()
    assert source.count(old) == 1
    (tmp_path / name).write_text(source.replace(old, new))
    done = make(project, tmp_path, "test")
    assert done.returncode != 0 and done.stdout.endswith("FAIL\n")
    wrong = 2 if changed == "two labels" else 1
    assert f"settings: {wrong} of 8 differ" in done.stdout and "answers: 0 of" in done.stdout


@pytest.mark.gcc
def test_a_stranger_s_labels_and_name_do_not_become_code(nano, tmp_path):
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


def test_the_readme_s_operators_for_tensorflow_lite_micro_are_those_of_the_network(project):
    text = (project / "model.h").read_text()
    methods = re.findall(r"resolver\.(Add\w+)\(\)", text)
    assert methods == ["AddAdd", "AddConv2D", "AddFullyConnected", "AddMean"]
    assert "MicroMutableOpResolver<4>" in text


@pytest.mark.tflm
def test_the_arena_of_tensorflow_lite_micro_is_the_smallest_and_its_tolerance_is_measured(nano):
    measured = tflm.measure(nano)
    assert measured.worst <= 3 and 0 < measured.mean < 0.75
    images = to_int8(nano.vectors.pixels[:1])
    assert run_in_arena(nano.content, images, measured.arena) is not None
    assert run_in_arena(nano.content, images, measured.arena - 1024) is None
    assert run_in_arena(nano.content, images, 1024) is None  # tflite-micro crashes in it
    assert f"an arena of {measured.arena:,} bytes" in tflm.readme(nano)


def test_without_tflite_micro_the_readme_says_that_its_arena_was_not_measured(nano, monkeypatch):
    monkeypatch.setattr(tflm, "find_spec", lambda name: None)
    assert "was not measured: the Python package tflite-micro is not installed" in tflm.readme(nano)
    assert tflm.TOLERANCE in tflm.readme(nano)


@pytest.mark.arm
def test_the_linker_of_the_cortex_m_has_nothing_to_say(project, tmp_path):
    shutil.copytree(project, tmp_path, dirs_exist_ok=True)
    done = subprocess.run(["make", "-s", "selftest_arm.elf"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_command_refuses_by_name_in_one_sentence(edgefer, tmp_path):
    done = edgefer("export", "c", "fer-nano", tmp_path / "out")
    assert "pass: 2 of 2" in done.stdout or "not checked" in done.stdout
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    done = edgefer("export", "c", "fer-nano", tmp_path / "full", expect=2)
    assert done.stderr.count("\n") == 1 and "holds other files" in done.stderr


@pytest.mark.arm
@pytest.mark.riscv
def test_every_target_gives_a_row_with_its_compiler_and_emulator(project, tmp_path):
    shutil.copytree(project, tmp_path, dirs_exist_ok=True)
    arm, riscv = prove_targets(tmp_path)
    assert arm.status is riscv.status is Status.PASS
    assert "0 of 336 answers differ, 0 of 9,216 pixels differ" in arm.detail
    assert "arm-none-eabi-gcc" in arm.detail and "QEMU" in arm.detail and "rv32imc" in riscv.detail
    assert {file.name for file in tmp_path.iterdir()} == {file.name for file in project.iterdir()}


def test_a_target_whose_tools_are_missing_is_a_row_that_says_so(project, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    rows = [*prove_targets(project), prove_page(project)]
    assert {row.status for row in rows} == {Status.NOT_CHECKED}
    assert all(row.fix.startswith("sudo apt install") for row in rows)
