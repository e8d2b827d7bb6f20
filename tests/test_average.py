"""The mean of networks that began alike."""

import numpy as np

from edgefer.bundle import Bundle
from edgefer.train.models import load_keras


def test_the_mean_of_two_that_began_alike_is_a_network(edgefer, trained, tmp_path):
    """Two further epochs each from one network's weights: their mean is a bundle that knows where it comes from."""
    order = (
        "train",
        "--data",
        "builtin",
        "--recipe",
        "demo",
        "--epochs",
        1,
        "--init-from",
        trained,
        "--set",
        "optimizer.rate=0.01",
    )
    for seed in (1, 2):
        edgefer(*order, "--seed", seed, "--out", tmp_path / f"run-{seed}")
    said = edgefer("average", tmp_path / "run-1", tmp_path / "run-2", cwd=tmp_path).stdout
    assert "their mean" in said and "Next: edgefer convert" in said
    members = [Bundle.open(tmp_path / f"run-{seed}") for seed in (1, 2)]
    mean = Bundle.open(tmp_path / "run-1-average")
    assert mean.card.metrics["valid"]["keras"].accuracy > 0.85
    assert mean.card.provenance.steps[-1] == "average the weights with run-2"
    kernels = [load_keras(each, "keras").layers[1].get_weights()[0] for each in (*members, mean)]
    np.testing.assert_allclose(kernels[2], (kernels[0] + kernels[1]) / 2, atol=1e-6)
    assert not np.allclose(kernels[0], kernels[1])
    edgefer("evaluate", mean.path)  # it remembers its data


def test_networks_that_have_no_mean_are_refused(edgefer, trained, tmp_path):
    assert "two bundles or more" in edgefer("average", trained, expect=2).stderr
    complaint = edgefer(
        "average", trained, "fer-nano", "--data", "builtin", "--out", tmp_path / "mean", expect=2
    ).stderr
    assert "differ in labels, input or layers" in complaint and not (tmp_path / "mean").exists()
