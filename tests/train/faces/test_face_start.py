"""Trainings of networks that find faces, as people ask for them."""

import json

import pytest

import edgefer
from edgefer.errors import InputError
from edgefer.train.faces.recipe import FACE_ORDER
from edgefer.train.faces.run import FaceOrder
from edgefer.train.faces.start import is_face_run, new_order
from edgefer.train.start import TrainRequest


@pytest.fixture
def scenes(tmp_path):
    """A folder of scenes and a file that stands for YuNet's."""
    (tmp_path / "scenes").mkdir()
    (tmp_path / "yunet.onnx").write_bytes(b"")
    return tmp_path


def request(scenes, recipe="face-refiner", **options):
    return TrainRequest(data=str(scenes / "scenes"), recipe=recipe, **options)


@pytest.mark.parametrize(
    "option",
    [{"labels": "ferplus"}, {"folds": 5}, {"teacher": "fer-small"}, {"skip_bad": True}, {"valid_fraction": 0.1}],
)
def test_an_option_that_has_no_meaning_for_a_face_network_is_refused(scenes, option):
    with pytest.raises(InputError, match=next(iter(option)).replace("_", "-")):
        new_order(request(scenes, **option), scenes / "yunet.onnx", scenes / "run")


def test_a_finder_begins_with_no_finder(scenes):
    with pytest.raises(InputError, match="leave it out for a finder"):
        new_order(request(scenes, "face-finder", init_from="mine"), scenes / "yunet.onnx", scenes / "run")


def test_a_resumed_refiner_learns_from_the_finder_that_it_began_with(scenes):
    run, order = new_order(request(scenes, init_from="mine", seed=3), scenes / "yunet.onnx", scenes / "run")
    order.save(run)
    assert is_face_run(run)
    assert FaceOrder.load(run) == order and order.finder.endswith("/mine") and order.recipe.fit.seed == 3


def test_an_order_from_before_finders_were_kept_is_read(scenes):
    run, order = new_order(request(scenes), scenes / "yunet.onnx", scenes / "run")
    order.save(run)
    fields = json.loads((run / FACE_ORDER).read_text())
    del fields["finder"]
    (run / FACE_ORDER).write_text(json.dumps(fields))
    assert FaceOrder.load(run).finder == ""


def test_the_library_trains_face_networks_as_the_command_does(scenes):
    with pytest.raises(InputError, match="name a folder that holds archives"):
        edgefer.train("builtin", recipe="face-finder", out=scenes / "run")
    assert not (scenes / "run").exists()
