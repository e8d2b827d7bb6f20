"""OpenVINO as a runtime: the stored answers within its tolerance, the detector on frames of any shape, and what it refuses."""

import sys

import numpy as np
import pytest

from edgefer import drawn
from edgefer.bundle import Bundle, shipped_networks
from edgefer.devices.reader import Reader
from edgefer.errors import InputError, MissingDependency, RuntimeFault
from edgefer.interpreter import Network, RuntimeOptions, open_interpreter
from edgefer.options import ReaderOptions
from edgefer.parity import check_answers
from edgefer.runtimes import installed_runtimes
from edgefer.vectors import Vectors

OPENVINO = RuntimeOptions(runtime="openvino")


@pytest.mark.openvino
@pytest.mark.parametrize("name", shipped_networks())
def test_every_shipped_network_gives_its_stored_answers(name):
    bundle = Bundle.open(shipped_networks()[name])
    checks = check_answers(bundle, Vectors.load(bundle), runtime="openvino")
    assert checks and all(check.passed and check.subject.endswith("on openvino") for check in checks), checks


@pytest.mark.openvino
def test_openvino_finds_and_reads_the_same_faces_as_litert():
    image = next(drawn.scene())[0].image_bgr
    found = {}
    for runtime in ("litert", "openvino"):
        bundle = Bundle.open(shipped_networks()["ferplus-small"])
        reader = Reader.open(bundle, ReaderOptions(runtime=runtime, detector="own", reject=0))
        found[runtime] = [(face.label, face.box_xyxy) for face in reader(image)]  # a canvas of the frame's own shape
    assert len(found["openvino"]) == 2
    for (label, box), (other, near) in zip(found["litert"], found["openvino"], strict=True):
        assert label == other and np.abs(np.subtract(box, near)).max() <= 2


@pytest.mark.openvino
def test_unsupported_use_of_openvino_gives_a_clear_error():
    assert installed_runtimes()[-1] == "openvino"  # auto prefers every other runtime
    bundle = Bundle.open(shipped_networks()["fer-nano"])
    with pytest.raises(RuntimeFault, match="no reference kernels"):
        Network.of(bundle.read("int8"), bundle.card, RuntimeOptions(runtime="openvino", kernels="reference"))
    with pytest.raises(InputError, match="damaged"):
        open_interpreter(bundle.read("int8")[:5000], OPENVINO)
    _, interpreter = open_interpreter(bundle.read("int8"), OPENVINO)
    with pytest.raises(ValueError, match=r"it takes int8 \(1, 48, 48, 1\)"):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.zeros((1, 48, 48), np.int8))


def test_error_without_openvino_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    bundle = Bundle.open(shipped_networks()["fer-nano"])
    with pytest.raises(MissingDependency, match="pip install openvino"):
        Network.of(bundle.read("int8"), bundle.card, OPENVINO)
