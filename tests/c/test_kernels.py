"""The C kernels on this host: the answers of numpy for every layer, whatever the compiler flags; and their arena."""

import cv2
import numpy as np
import pytest

from edgefer.bundle import FACE_NETWORKS, Bundle, shipped_bundles, shipped_networks
from edgefer.c import host, prove
from edgefer.c.host import HostNetwork
from edgefer.c.program import make_program
from edgefer.c.subject import read_subject
from edgefer.checks import Status
from edgefer.devices.faces.canvas import MapNetwork
from edgefer.preprocess import to_int8
from edgefer.tflite import arithmetic
from edgefer.tflite.arena import plan
from edgefer.tflite.arithmetic import run
from edgefer.tflite.int8_network import UnsupportedNetwork
from edgefer.tflite.layers import read_layers
from tests.tflite.networks import Maker, every_mean
from tests.tflite.random_networks import ONE_OPERATOR, RandomNetwork, every_operator

EXTREME_FLAGS = (
    ("-std=c99", "-O0"),
    ("-std=c99", "-O1", "-fsanitize=undefined", "-fno-sanitize-recover=all"),
    ("-std=c99", "-O3", "-march=native", "-ffast-math", "-ffp-contract=fast"),
)


@pytest.mark.gcc
@pytest.mark.parametrize("name", shipped_bundles())
def test_every_stored_answer_and_pixel_is_reproduced_exactly_on_this_host(name):
    checks = prove.prove_on_host(read_subject(Bundle.open(shipped_bundles()[name])))
    assert [check.status for check in checks] == [Status.PASS, Status.PASS]
    assert all(check.detail.startswith("0 of ") for check in checks)


@pytest.mark.gcc
@pytest.mark.parametrize("flags", [host.FLAGS, *EXTREME_FLAGS], ids=" ".join)
def test_mean_near_a_tie_is_rounded_as_in_numpy(flags):
    content, image = every_mean()
    network = read_layers(content, "made")
    answers = HostNetwork(make_program(network), flags).answers((image.view(np.uint8) ^ 0x80)[None])
    assert np.array_equal(answers[0], run(network, image)[network.output.index].ravel())


@pytest.mark.gcc
@pytest.mark.parametrize("kind", [*ONE_OPERATOR, "every operator"])
def test_every_inner_tensor_of_random_networks_is_the_same_as_in_numpy(kind):
    for seed in range(6):
        draw = RandomNetwork(seed)
        if kind == "every operator":
            content = every_operator(draw)
        else:
            x = draw.input()
            content = draw.make.finish(ONE_OPERATOR[kind](draw, draw.make.conv(x, 7) if seed % 2 else x))
        network = read_layers(content, "made")
        compiled = HostNetwork(
            make_program(network), EXTREME_FLAGS[seed % len(EXTREME_FLAGS)] if seed < 3 else host.FLAGS
        )
        image = draw.rng.integers(0, 256, network.input.shape, np.uint8)
        tensors = run(network, (image ^ 0x80).view(np.int8))
        for number, layer in enumerate(network.layers, start=1):
            expected = tensors[layer.output.index].ravel()
            assert (compiled.inner(image, number) != expected).sum() == 0, (seed, layer.kind)


@pytest.mark.gcc
def test_number_of_rows_of_a_dense_layer_is_that_of_its_weights():
    """Otherwise a file could make the C code read beyond the network's words."""
    make = Maker(np.random.default_rng(0))
    y = make.dense(make.input((1, 16, 16, 1)), 10)
    make.tensors[y].shape = [1, 10, 1]
    network = read_layers(make.finish(y), "made")
    image = np.random.default_rng(1).integers(0, 256, (16, 16, 1), np.uint8)
    expected = run(network, (image ^ 0x80).view(np.int8))[y].ravel()
    assert np.array_equal(HostNetwork(make_program(network)).answers(image[None])[0], expected)


@pytest.mark.gcc
@pytest.mark.parametrize("name", FACE_NETWORKS)
def test_face_networks_reproduce_all_their_outputs_exactly(name):
    subject = read_subject(Bundle.open(shipped_networks()[name]))
    answers = HostNetwork(subject.program).answers(subject.vectors.pixels)
    assert answers.shape[1] == subject.bundle.card.answers and (answers != subject.vectors.answers).sum() == 0
    first = subject.vectors.pixels[:1]
    assert (arithmetic.answers(subject.network, first) != subject.vectors.answers[:1]).sum() == 0


@pytest.mark.gcc
def test_finder_gives_the_same_answers_as_its_runtime_for_any_canvas_size():
    content = Bundle.open(shipped_networks()["face-finder"]).read("int8")
    full, runtime = HostNetwork(make_program(read_layers(content, "finder"))), MapNetwork(content)
    rng = np.random.default_rng(4)
    for height, width in ((32, 192), (160, 192), (192, 96), (64, 64), (192, 192)):
        image = cv2.resize(rng.integers(0, 256, (height // 8, width // 8), np.uint8), (width, height))[..., None]
        expected = np.concatenate([one.ravel() for one in runtime.sized(height, width).run(to_int8(image))])
        sized = full.sized(height, width)
        assert np.array_equal(sized.answers(image[None])[0], expected)
        assert np.array_equal(sized.sized(192, 192).words, full.words)


@pytest.mark.gcc
@pytest.mark.parametrize("flags", EXTREME_FLAGS, ids=" ".join)
def test_compiler_flags_change_no_answer(nano, flags):
    compiled = HostNetwork(nano.program, flags)
    assert (compiled.answers(nano.vectors.pixels) != nano.vectors.answers).sum() == 0


@pytest.mark.gcc
def test_any_flipped_bit_of_the_network_is_detected(nano):
    compiled = HostNetwork(nano.program)
    assert compiled.check() == 0
    rng = np.random.default_rng(0)
    for place in rng.integers(0, 32 * len(compiled.words), 40):
        compiled.words = nano.program.words.copy()
        compiled.words[place // 32] ^= np.uint32(1 << (place % 32))
        assert compiled.check() != 0, place


@pytest.mark.gcc
def test_custom_input_scale_is_applied_by_a_table(nano):
    rng = np.random.default_rng(1)
    table = rng.integers(-128, 128, (256, 1)).astype(np.int8)
    image = rng.integers(0, 256, nano.network.input.shape, np.uint8)
    compiled = HostNetwork(make_program(nano.network, table))
    expected = run(nano.network, table[image, 0])[nano.network.output.index]
    assert np.array_equal(compiled.answers(image[None])[0], expected.ravel())


def test_tensors_in_use_do_not_overlap_in_the_arena():
    for seed in range(20):
        network = read_layers(every_operator(RandomNetwork(seed)), "made")
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


def test_network_too_large_for_any_memory_is_refused():
    """130 activations of 16 MB that are all in use at once, in a file of a few kilobytes."""
    make = Maker(np.random.default_rng(0))
    x = make.input((1, 64, 64, 1))
    large = [make.pad(x, ((0, 0), (2016, 2016), (2016, 2016), (0, 0))) for _ in range(130)]
    sums = [make.add(large[0], other) for other in large[1:]]
    network = read_layers(make.finish(make.pool("MAX", sums[-1], (2, 2), (2, 2), "VALID")), "made")
    with pytest.raises(UnsupportedNetwork, match="bytes of RAM"):
        make_program(network)


def test_arena_sizes_of_the_shipped_networks_are_the_measured_ones():
    sizes = {}
    for name in ("fer-nano", "fer-small"):
        bundle = Bundle.open(shipped_bundles()[name])
        sizes[name] = plan(read_layers(bundle.read("int8"), name)).size
    assert sizes == {"fer-nano": 19_584, "fer-small": 57_600}


def test_without_a_compiler_the_c_rows_are_not_checked_and_numpy_is(nano, monkeypatch):
    monkeypatch.setattr(prove, "compiler", lambda: None)
    checks = prove.prove_on_host(nano)
    assert [check.status for check in checks] == [Status.NOT_CHECKED, Status.NOT_CHECKED, Status.PASS]
