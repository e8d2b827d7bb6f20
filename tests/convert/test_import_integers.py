"""Imported .tflite files with an integer input: its range says how pixels are scaled only where it is a usual one."""

import json
from dataclasses import replace

import numpy as np
import pytest

from edgefer.bundle import Bundle
from edgefer.convert.contract import candidates, parse_scale
from edgefer.convert.foreign import read_foreign
from edgefer.errors import BundleError, InputError
from edgefer.parity import verify
from tests.convert.foreign_files import changed, import_file


def quantized(tmp_path, step, zero):
    """fer-nano, with an integer input of another scale."""

    def change(image, _):
        image.quantization.scale, image.quantization.zeroPoint = np.float32([step]), np.int64([zero])

    (tmp_path / "theirs.tflite").write_bytes(changed(change))
    return tmp_path / "theirs.tflite"


LETTERS = tuple("abcdefg")


@pytest.mark.parametrize(
    ("step", "zero"), [(2 / 255, 0), (2 / 255, -1), (1 / 128, 0), (0.996 / 255, -128), (1.0, -128)]
)
def test_an_integer_input_of_a_usual_range_takes_pixels_and_the_name_of_the_range_is_no_contradiction(
    tmp_path, step, zero
):
    file = quantized(tmp_path, step, zero)
    card = import_file(file, tmp_path / "silent", labels=LETTERS).bundle.card
    assert np.allclose((card.input.scale, card.input.offset), (step, -(zero + 128) * step))
    name = "-1..1" if zero > -128 else "0..1" if step < 1 else "0..255"
    card = import_file(file, tmp_path / "stated", labels=LETTERS, scale=parse_scale(name)).bundle.card
    assert (card.input.scale, card.input.offset) == parse_scale(name)[1]
    with pytest.raises(InputError, match="itself says that it takes"):
        import_file(file, tmp_path / "wrong", labels=LETTERS, scale=parse_scale("0..255" if step < 1 else "0..1"))


@pytest.mark.parametrize(("step", "zero"), [(0.5 / 255, -128), (0.0186577, -14)])
def test_an_integer_input_of_another_range_only_says_what_numbers_calibration_saw(tmp_path, step, zero):
    """Such as 0..0.5, on dark images, or -2.1..2.6, the ends of three channels that are scaled differently."""
    file = quantized(tmp_path, step, zero)
    with pytest.raises(
        InputError, match=r"does not say how it is fed \(its INT8 input stands for [^)]*\): state --scale"
    ):
        import_file(file, tmp_path / "silent", labels=LETTERS)
    scale = parse_scale("0..1") if zero == -128 else parse_scale("0.0171,-2.1")
    card = import_file(file, tmp_path / "stated", labels=LETTERS, scale=scale).bundle.card
    assert (card.input.scale, card.input.offset) == scale[1]
    with pytest.raises(InputError, match=r"and pixels as 0\.\.255 would fill too little of it: state the --scale"):
        import_file(file, tmp_path / "wrong", labels=LETTERS, scale=parse_scale("0..255"))


def test_another_kind_of_output_in_its_card_fails_the_proof(tmp_path):
    bundle = import_file(quantized(tmp_path, 1 / 255, -128), tmp_path / "out", labels=LETTERS).bundle
    assert verify(bundle)
    card = json.loads((bundle.path / "card.json").read_text())
    card["output"] = {"values": "probabilities"}
    (bundle.path / "card.json").write_text(json.dumps(card))
    with pytest.raises(BundleError, match="output is probabilities but its parity vectors were made with logits"):
        verify(Bundle.open(bundle.path))


def test_what_an_integer_input_of_another_range_takes_is_measured(tmp_path):
    foreign = read_foreign(quantized(tmp_path, 0.5 / 255, -128))
    open_ones = candidates(replace(foreign.stated, labels=LETTERS), 1, 7)
    spec = [one.spec(48, 48) for one in open_ones]
    fitting = [one.scale for one, spec in zip(open_ones, spec, strict=True) if foreign.stated.quanta.holds(spec)]
    assert [one.scale for one in open_ones] == ["0..1", "0..255", "-1..1", "quantized"] and fitting == [
        "0..1",
        "quantized",
    ]
