"""Exports of an unusual network: neither square nor gray, with per-channel scales and labels of special characters."""

import io
import re
import subprocess

import numpy as np
import pytest

from edgefer.bundle import write_bundle
from edgefer.c.subject import read_subject
from edgefer.card import CropSpec, InputSpec
from edgefer.checks import Status
from edgefer.commands.page_rules import device_of
from edgefer.convert.c import tflm
from edgefer.convert.c.project import export_c, make_project
from edgefer.convert.c.targets import prove_page
from edgefer.convert.c.text import macros
from edgefer.convert.web.site import export_web
from edgefer.preprocess import look_up, quantized_table
from edgefer.tflite.arithmetic import run
from edgefer.tflite.layers import read_layers
from edgefer.vectors import ROLLS_DEG, cut_crops, stored_crops
from tests.tflite.networks import Maker

CROPS = ("yunet 2", "yunet-2", "yunet", "顔", "脸", "_2", "*/ x")
LABELS = ("a,b", "=1+1", '"q"', "<b>x</b>", "\\", "??/", "\U0001f600", "שמח", "日本", "x" * 64, "*/", "%s")
SPECS = {
    "rgb": InputSpec(height=20, width=35, color="rgb", scale=(1 / 127.5,) * 3, offset=(-1.0, -0.9, -1.1)),
    "bgr": InputSpec(height=64, width=16, color="bgr", scale=1 / 127.5, offset=-1.0),
}


@pytest.fixture(params=SPECS)
def odd(request, nano, tmp_path):
    spec, rng = SPECS[request.param], np.random.default_rng(1)
    make = Maker(rng)
    x = make.conv(make.input((1, *spec.shape), 0.0157, 3), 8, (3, 3), (2, 2), act="RELU6")
    x = make.pool("AVERAGE", make.depthwise(x, 2, act="RELU"), (3, 2), (2, 1), "SAME")
    content = make.finish(make.dense(make.mean(make.conv(x, 6, (3, 1), (1, 2), "VALID", "RELU"), keep=False), 12))
    network = read_layers(content, "odd")
    table = quantized_table(spec, np.int8, float(network.input.scale), network.input.zero).astype(np.int8)
    pixels = rng.integers(0, 256, (9, *spec.shape), np.uint8)
    answers = [run(network, look_up(one, table))[network.output.index].ravel() for one in pixels]
    card = nano.bundle.card.model_copy(update={"labels": LABELS, "name": '</script> "\\', "input": spec})
    crops = {name: CropSpec(scale=1 + number / 8, faces=number) for number, name in enumerate(CROPS)}
    card = card.model_copy(update={"crops": card.crops | crops})
    with np.load(io.BytesIO(nano.bundle.read("parity"))) as stored:
        parity = {name: values for name, values in stored.items() if not name.startswith("answers_")}
    first = next(iter(stored_crops(card)))
    for name in [name for name in parity if name.startswith("crops")]:
        crop = card.crop_for(name.partition("_")[2] or first)
        parity[name] = cut_crops(parity["frames"], parity["boxes"], crop, card)
    parity["levelled"] = cut_crops(parity["frames"], parity["boxes"], card.crop_for(first), card, ROLLS_DEG)
    parity |= {"labels": np.array(LABELS), "pixels": pixels, "answers_int8": np.stack(answers)}
    np.savez_compressed(out := io.BytesIO(), **parity)
    files = {"int8": content, "parity": out.getvalue()}
    return read_subject(write_bundle(tmp_path / "odd", card.model_copy(update={"variants": {}, "metrics": {}}), files))


@pytest.mark.gcc
def test_exported_c_passes_its_self_test_with_sanitizers_and_without_warnings(odd, tmp_path):
    assert {check.status for check in export_c(odd, tmp_path / "with a space")} == {Status.PASS}
    flags = "-std=c99 -O1 -Wall -Wextra -Wpedantic -Werror -fsanitize=address,undefined -fno-sanitize-recover=all"
    command = ["make", "-s", "test", f"CFLAGS={flags}"]
    done = subprocess.run(command, cwd=tmp_path / "with a space", capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "answers: 0 of 108 differ" in done.stdout and done.stdout.endswith("PASS\n")


def test_each_detector_s_crop_has_a_macro_of_its_own(odd):
    """Even if names differ only in punctuation, or one equals what another would become."""
    header = make_project(odd, [])["network.h"].decode()
    lines = re.findall(r"#define EDGEFER_CROP_(\w+) \{(\S+), .*\} /\* (.*) \*/", header)
    assert len(lines) == len({macro for macro, _, _ in lines}) == len(odd.bundle.card.crops)
    scales = {shown: float(scale) for _, scale, shown in lines if "?" not in shown}
    assert scales == {name: odd.bundle.card.crops[name].scale for name in scales} and "yunet-2" in scales
    assert macros(CROPS) == {
        "*/ x": "___X", "_2": "_2", "yunet": "YUNET", "yunet 2": "YUNET_2", "yunet-2": "YUNET_2_2", "脸": "_", "顔": "__2",
    }  # fmt: skip


@pytest.mark.chromium
def test_exported_page_passes_its_self_check(odd, tmp_path):
    export_web(odd, device_of(odd.bundle.card), tmp_path / "page")
    row = prove_page(tmp_path / "page")
    assert row.status is Status.PASS and "answers differ" in row.detail


def test_readme_states_the_quantization_for_tensorflow_lite_micro(odd):
    """Not the pixel with its top bit flipped, as edgefer's own networks need it."""
    text = tflm.readme(odd)
    assert "pixel ^ 0x80" not in text
    assert text.count("/ 0.0156999994) + 3`") == len(set(odd.bundle.card.input.per_channel()))
