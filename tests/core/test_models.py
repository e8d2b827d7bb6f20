"""The networks that come with edgefer."""

import cv2
import numpy as np
import pytest

from edgefer.bundle import Bundle, shipped_bundles
from edgefer.errors import RuntimeFault
from edgefer.interpreter import Classifier, Network
from edgefer.parity import check_at_load, verify


@pytest.mark.parametrize("name", shipped_bundles())
def test_shipped_network_is_intact_and_small_and_gives_its_stored_answers(name):
    bundle = Bundle.open(shipped_bundles()[name])
    assert all(check.passed for check in verify(bundle))
    max_bytes = {"fer-nano": 200_000, "pets-small": 1_000_000}
    assert bundle.card.variants["int8"].bytes <= max_bytes.get(name, 600_000)
    page = (bundle.path / "README.md").read_text()
    figures = bundle.card.metrics[bundle.card.measured_on]["int8"]
    assert f"{figures.accuracy:.2%}" in page and f"{figures.macro_f1:.3f}" in page
    assert f"{bundle.card.variants['int8'].bytes:,}" in page
    if bundle.card.faces == "human":
        assert bundle.card.crops["haar"].faces > 100 and "AI Act" in page


def test_default_network_reads_a_real_smile(edgefer, tmp_path):
    """scikit-image's astronaut, a public-domain portrait, through the whole of `edgefer run` with no bundle named."""
    data = pytest.importorskip("skimage.data")
    cv2.imwrite(str(tmp_path / "astronaut.png"), data.astronaut()[..., ::-1])
    done = edgefer("run", "--source", tmp_path / "astronaut.png", "--headless", cwd=tmp_path)
    assert "happy" in done.stdout and "1 face in 1 frame: happy 1" in done.stderr and "Ctrl-C" not in done.stderr


def test_check_at_load_stops_a_network_with_wrong_answers(edgefer, monkeypatch):
    bundle = Bundle.open(shipped_bundles()["fer-small"])
    network = Classifier.load(bundle).network
    check_at_load(bundle, network, "int8")
    monkeypatch.setattr(Network, "raw", lambda self, pixels, **limits: np.zeros((len(pixels), 7), np.int8))
    with pytest.raises(RuntimeFault, match="every answer is zero"):
        check_at_load(bundle, network, "int8")


def test_models_lists_the_networks_by_the_names_that_commands_accept(edgefer, tmp_path):
    listed = edgefer("models").stdout
    assert all(name in listed for name in shipped_bundles()), listed
    assert "fer-small" in edgefer("run", "fer-small", "--source", "builtin", "--frames", "1", cwd=tmp_path).stderr


def test_converted_shipped_network_is_written_under_runs_in_the_current_folder(edgefer, tmp_path):
    rows = [f"{label},{'90 ' * 2304},{usage}" for usage in ("Training", "PublicTest") for label in range(7)]
    (tmp_path / "fer.csv").write_text("\n".join(["emotion,pixels,Usage", *rows, ""]))
    edgefer("convert", "fer-nano", "--data", "fer.csv", "--no-int8", cwd=tmp_path)
    made = Bundle.open(tmp_path / "runs" / "fer-nano-float32")
    assert made.has("float32") and not made.has("int8")
