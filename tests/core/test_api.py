"""`import edgefer`: what it offers, what it costs, and that it works from a checkout."""

import doctest
import importlib
import inspect
import json
import pydoc
import re
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from typer.main import get_command

import edgefer
import edgefer.api
from edgefer.cli import app
from edgefer.train.start import TrainRequest
from edgefer.words import FLAGS, with_keywords

ROOT = Path(__file__).parents[2]
HEAVY = (
    "cv2",
    "numpy",
    "tensorflow",
    "tf_keras",
    "ai_edge_litert",
    "tflite_runtime",
    "typer",
    "pydantic",
    "matplotlib",
)


def python(code: str, **options) -> str:
    done = subprocess.run(
        [sys.executable, *options.pop("flags", []), "-c", code], capture_output=True, text=True, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_is_fast_and_loads_nothing_heavy():
    """Under 50 ms of CPU time (median of seven; about 1 to 16 ms measured), and nothing heavy is loaded."""
    code = (
        "import sys, time; began = time.process_time(); import edgefer; print(1000 * (time.process_time() - began)); "
    )
    code += f"assert not [name for name in {HEAVY!r} if name in sys.modules]"
    assert statistics.median(float(python(code)) for _ in range(7)) < 50


def test_every_public_name_exists():
    assert len(edgefer.__all__) <= 14 and edgefer.__all__ == sorted(edgefer.__all__)
    assert all(callable(getattr(edgefer, name)) for name in edgefer.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = edgefer.nothing


@pytest.mark.parametrize("first", ["import edgefer.train.recipes, edgefer.convert.quantize", "pass"])
def test_train_and_convert_are_packages_and_functions_in_any_import_order(first):
    python(
        f"import edgefer; {first}\nassert callable(edgefer.train) and callable(edgefer.convert)\n"
        "import edgefer.train.recipes\nassert edgefer.train.recipes and callable(edgefer.train)"
    )


@pytest.mark.parametrize(("name", "parameter"), [("train", "resume"), ("convert", "edgetpu")])
def test_a_callable_package_shows_the_parameters_of_its_function(name, parameter):
    package = getattr(edgefer, name)
    assert parameter in inspect.signature(package).parameters
    shown = pydoc.plain(pydoc.render_doc(package))
    assert f"edgefer.{name}(" in shown and f"{parameter}:" in shown


@pytest.mark.parametrize(
    "code",
    [
        "import edgefer.devices.reader, edgefer.train.recipes, edgefer.convert",
        "import edgefer; edgefer.load('fer-nano')",
    ],
)
def test_package_works_from_a_checkout_as_the_current_folder(code):
    """Without the finder of the installed package: the folder edgefer/ alone provides all of it."""
    paths = [path for path in sys.path if "site-packages" in path]
    setup = f"import sys; sys.meta_path = [one for one in sys.meta_path if 'ditable' not in repr(one)]; sys.path += {paths!r}\n"
    python(setup + code, cwd=ROOT)
    done = subprocess.run([sys.executable, "-m", "edgefer", "--version"], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == f"edgefer {edgefer.__version__}"


@pytest.mark.parametrize("module", ["api", "bundle", "devices.reader", "errors", "records", "verification"])
def test_docstring_examples_give_their_stated_results(module):
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    results = doctest.testmod(importlib.import_module(f"edgefer.{module}"), optionflags=flags)
    assert results.failed == 0
    assert results.attempted >= {"api": 20}.get(module, 2)


def test_every_exported_name_is_documented_with_an_example():
    for name in set(edgefer.__all__) - {"convert", "train"}:
        value = getattr(edgefer, name)
        assert ">>>" in str(value.__doc__) or any(">>>" in str(part.__doc__) for part in vars(value).values()), name
    assert ">>>" in str(edgefer.train.__doc__) and ">>>" in str(edgefer.convert.__doc__)


@pytest.mark.slow
def test_training_and_conversion_return_bundles_from_python(cache, builtin, tmp_path, monkeypatch):
    """The same work as that of the commands: nothing is printed, and the bundle is returned."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setenv("PATH", "")  # compilers, emulators and browsers are the certificate's tests'
    trained = edgefer.train("builtin", recipe="demo", epochs=1, set=["model.layers=C16/2 C32/2"])
    assert trained.path == Path("runs/demo-1") and trained.card.provenance.recipe["fit"]["epochs"] == 1
    converted = edgefer.convert(trained)
    assert converted.path == Path("runs/demo-1-int8") and converted.has("int8")
    proof = edgefer.verify(converted, "builtin")
    assert proof.certificate and {check.question for check in proof} >= {1, 2, 3}
    page = proof.save(tmp_path / "out")
    assert page.name == "parity.html" and page.with_suffix(".json").is_file()
    assert "What conversion cost" in page.read_text() and "McNemar" in proof._repr_html_()
    with pytest.raises(edgefer.EdgeferError, match="already holds a finished bundle"):
        edgefer.train("builtin", recipe="demo", out=trained.path)
    with pytest.raises(edgefer.EdgeferError, match="there already"):
        edgefer.convert(trained, out=converted.path)


def test_training_takes_paths_bundles_lists_and_dicts_as_well_as_texts():
    nano = edgefer.api.find_bundle("fer-nano")
    given = TrainRequest.of(
        data=Path("faces"), recipe=Path("own.toml"), init_from=nano, teacher=[nano, Path("a"), "b"],
        names={0: "angry", "1": "happy"}, set={"optimizer.rate": 0.05, "augment.flip": False},
    )  # fmt: skip
    assert given == TrainRequest(
        data="faces", recipe="own.toml", init_from=str(nano.path), teacher=f"{nano.path},a,b",
        names="0=angry,1=happy", set=("optimizer.rate=0.05", "augment.flip=false"),
    )  # fmt: skip
    for option in ("init_from", "teacher"):
        with pytest.raises(edgefer.EdgeferError, match="There is no bundle at nowhere"):
            edgefer.train("builtin", **{option: Path("nowhere")})


def test_a_certificate_is_never_written_over_a_file_that_is_not_one(tmp_path):
    notes = tmp_path / "notes.html"
    notes.write_text("mine")
    proof = replace(edgefer.verify("fer-nano"), certificate=mock.Mock())
    with pytest.raises(edgefer.EdgeferError, match="not a page of edgefer"):
        proof.save(notes)
    assert notes.read_text() == "mine" and not notes.with_suffix(".json").exists()
    notes.rename(notes.with_suffix(".json"))
    with pytest.raises(edgefer.EdgeferError, match="not a certificate of edgefer"):
        proof.save(notes)
    assert notes.with_suffix(".json").read_text() == "mine" and not notes.exists()


def test_proof_and_card_can_be_displayed_and_converted_to_rows():
    proof = edgefer.verify("fer-nano")
    assert proof.passed and len(proof.rows()) == len(proof) == len(proof.to_dict()["checks"])
    assert str(proof) in proof._repr_html_()
    assert not any("quanta differ" in check.detail for check in proof)
    assert repr(proof) == f"<edgefer.Verification of fer-nano: {proof}>"
    assert repr(proof.bundle) == f"<edgefer.Bundle fer-nano: int8, keras; {proof.bundle.path}>"
    with pytest.raises(edgefer.EdgeferError, match="no certificate without labelled images"):
        proof.save("out")
    bundle = edgefer.load("fer-nano", check=False)
    (row,) = [row for row in bundle.card.rows() if row["form"] == "int8" and row["split"] == "valid"]
    assert row["accuracy"] == bundle.card.metrics["valid"]["int8"].accuracy and row["bytes"] > 100_000
    for shown in (bundle.card, edgefer.api.find_bundle("fer-nano")):
        assert f"{row['accuracy']:.2%}" in shown._repr_html_()
        assert json.loads(json.dumps(shown.to_dict()))


def test_an_untrusted_card_is_shown_as_plain_text():
    card = edgefer.api.find_bundle("fer-nano").card.model_copy(update={"name": "<script>alert(1)</script>"})
    assert "<script>" not in card._repr_html_()


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: edgefer.load(3), "bundle 3 is not a path: give text or a pathlib.Path"),
        (lambda: edgefer.load(""), "bundle is an empty text"),
        (lambda: edgefer.load("fer-nano", finder=3), "finder 3 is not a path: give text or a pathlib.Path"),
        (lambda: edgefer.load("fer-nano", refiner=b"x"), "refiner b'x' is not a path"),
        (lambda: edgefer.load("fer-nano", yunet=""), "yunet is an empty text"),
        (lambda: edgefer.load("fer-nano", roi=(1, 2)), "roi .* should be longer"),
        (lambda: edgefer.load("fer-nano", roi=(1, 2, 3, 4, 5)), "roi .* should be shorter"),
        (lambda: edgefer.load("fer-nano")(""), "'' is not an image: give a path"),
        (lambda: next(edgefer.load("fer-nano").watch("")), "Name a source"),
        (lambda: edgefer.verify("fer-nano", runtimes=3), "runtimes 3 is not a list of names"),
        (lambda: edgefer.train("builtin", out=""), "out is an empty text"),
        (lambda: edgefer.convert("fer-nano", out=""), "out is an empty text"),
        (lambda: edgefer.import_model(3), "file 3 is not a path"),
        (lambda: edgefer.import_model("x.h5", labels=3), "labels 3 is not a list of texts"),
        (lambda: edgefer.load("fer-nano", smoth="calm"), "no option 'smoth': choose check, smooth"),
        (lambda: edgefer.load("fer-nano", roi=5), "roi 5 is not right"),
        (lambda: edgefer.load("fer-nano", roi=(1.5, 0, 9, 9)), r"it should be a whole number \(got 1\.5\)"),
        (lambda: edgefer.load("fer-nano", detector="x"), "choose auto, own, yunet, haar"),
        (lambda: next(edgefer.load("fer-nano").watch("builtin", lop=True)), "no option 'lop'"),
        (lambda: next(edgefer.load("fer-nano").watch("builtin", skip_bad="yes")), "skip_bad 'yes' is not right: give True or False"),
        (lambda: next(edgefer.load("fer-nano").watch("builtin", loop=1)), "loop 1 is not right: give True or False"),
        (lambda: next(edgefer.load("fer-nano").watch("builtin", rotate="left")), "rotate 'left' is not known: choose 0, 90"),
        (lambda: next(edgefer.load("fer-nano").watch(0, size=3)), "size 3 is not right"),
        (lambda: edgefer.load("fer-nano", check="no"), "check 'no' is not right: give True or False"),
        (lambda: edgefer.load("fer-nano", log=3), "log 3 is not right: give a function of one text"),
        (lambda: edgefer.draw(edgefer.Frame(index=0, time_s=0, image_bgr=np.zeros((9, 9, 3), np.uint8)), blur_faces="no"), "blur_faces 'no' is not right"),
        (lambda: edgefer.verify("fer-nano", "builtin", reference_kernels="no"), "reference_kernels 'no' is not right"),
        (lambda: edgefer.verify("fer-nano", "builtin", progress=print), "progress .* is not right: give an edgefer.progress.Progress"),
        (lambda: edgefer.train("builtin", resume="no"), "resume 'no' is not right"),
        (lambda: edgefer.train("builtin", skip_bad="no"), "skip_bad 'no' is not right"),
        (lambda: edgefer.convert("fer-nano", onnx="no"), "onnx 'no' is not right"),
        (lambda: edgefer.convert("fer-nano", int8="no"), "int8 'no' is not right"),
        (lambda: edgefer.import_model("x.h5", skip_bad=1), "skip_bad 1 is not right"),
        (lambda: edgefer.import_model("x.h5", trust="no"), "trust 'no' is not right"),
        (lambda: edgefer.verify("fer-nano", runtimes="x"), "runtime 'x' is not known"),
        (lambda: edgefer.verify("fer-nano", "builtin", max_drop=-3), "max_drop -3 is not a number from 0 to 100"),
        (lambda: edgefer.verify("fer-nano", runtimes=3), "runtimes 3 is not a list of names"),
        (lambda: edgefer.verify("fer-nano", skip_bad=True), "^skip_bad is about decisions on labelled images"),
        (lambda: edgefer.verify("fer-nano", split="test"), "^split is about decisions on labelled images"),
        (lambda: edgefer.verify("fer-nano", max_drop=0.5), "^max_drop is about decisions on labelled images"),
        (lambda: edgefer.load("fer\0nano"), "holds a NUL"),
        (lambda: edgefer.draw([1]), "takes the Frame that a reader returns"),
        (lambda: edgefer.train(), "Name the data"),
        (lambda: edgefer.train("builtin", epoch=3), "no option 'epoch': choose data, recipe, epochs"),
        (lambda: edgefer.train("builtin", epochs=0), "epochs 0"),
        (lambda: edgefer.train("builtin", valid_fraction=3), "^valid_fraction=3.0 is not a share"),
        (lambda: edgefer.train("builtin", epochs=True), "epochs True is not right"),
        (lambda: edgefer.train("builtin", out="a\0b"), "holds a NUL"),
        (lambda: edgefer.train("x" * 5000), "There is no data at x"),
        (lambda: edgefer.train("builtin", names="0=happy"), "the built-in faces have names"),
        (lambda: edgefer.train("builtin", set="a=b"), "a: there is no such field: choose name"),
        (lambda: edgefer.train(resume=True), "give resume=True and out alone"),
        (lambda: edgefer.convert("fer-nano", prune="x"), "prune 'x' is not right"),
        (lambda: edgefer.convert("fer-nano", sparsity=0.5), "no option 'sparsity': choose .*prune"),
        (lambda: edgefer.convert("fer-nano", epochs=-3), "^epochs=-3 is not a number from 0"),
        (lambda: edgefer.convert("fer-nano", prune=0.99), "^prune=0.99: the share to remove must lie between 0 and 0.95"),
        (lambda: edgefer.convert("fer-nano", qat=True, int8=False), "^qat=True is about the int8 network: leave int8=False out"),
        (lambda: edgefer.convert("fer-nano", ethosu="u1"), "^ethosu='u1' is none of u55-32"),
        (lambda: edgefer.load("fer-nano", detector="own", yunet="x"), '^yunet is for detector="yunet"'),
        (lambda: edgefer.train(str(ROOT), recipe="face-finder", yunet="no.onnx"), "There is no no.onnx.* named with yunet=FILE"),
        (lambda: edgefer.train("builtin", folds=1), "^folds=1: name 2 or more"),
        (lambda: edgefer.import_model("x.h5", scale="x"), "^scale='x' is none of 0..1"),
        (lambda: edgefer.convert("fer-nano", max_drop=-3), "^max_drop=-3 is not a number from 0 to 100"),
        (lambda: edgefer.convert("fer-nano", max_drop=float("nan")), "^max_drop nan is not a number from 0 to 100"),
        (lambda: edgefer.import_model("x.h5", labels="a,b"), "not a list of texts"),
        (lambda: edgefer.import_model("x.h5", labels=5), "not a list of texts"),
        (lambda: edgefer.import_model("x.h5", scale=3), "neither a name nor a pair"),
        (lambda: edgefer.import_model("x.h5", faces=""), "faces '' is not known: choose human"),
        (lambda: edgefer.import_model("x.h5", label=["a", "b"]), "no option 'label': choose labels, scale"),
        (lambda: edgefer.import_model("none.h5", out=3, labels=["a", "b"]), "out 3 is not a path"),
        (lambda: edgefer.import_model("none.h5", labels=["a", "b"], scale=(1 / 255, 0), color="rgb", outputs="logits", faces="cat", trust=True), "none.h5"),
    ],
)  # fmt: skip
def test_invalid_python_arguments_give_one_sentence_before_any_work(call, expected):
    with pytest.raises(edgefer.EdgeferError, match=expected) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and "class" not in message
    assert "--" not in re.sub(r"`[^`]*`", "", message), "options are the command line's"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("leave such rows out with --skip-bad.", "leave such rows out with skip_bad=True."),
        ("more than --max-drop 1.5: the best is kept", "more than max_drop=1.5: the best is kept"),
        ("or --set model.freeze=false.", 'or set=["model.freeze=false"].'),
        ("try another --runtime, or --no-check.", "try another runtime, or check=False."),
        ("name it with --data PATH.", "name it with data=PATH."),
        ("pip install 'edgefer[onnx]', or leave --onnx out.", "pip install 'edgefer[onnx]', or leave onnx out."),
        ("Continue with: edgefer train --resume --out a--b", "Continue with: edgefer train --resume --out a--b"),
        ("run `edgefer convert x --int8` first, or --out.", "run `edgefer convert x --int8` first, or out."),
        ("Leave --outputs out, or state --outputs logits.", 'Leave outputs out, or state outputs="logits".'),
        (
            "--finder is for --detector own and --yunet for YuNet",
            'finder is for detector="own" and yunet for YuNet',
        ),
        (
            "try another --runtime, auto or litert; --finder own or --labels cat",
            "try another runtime, auto or litert; finder own or labels cat",
        ),
        ("the --data frame by frame; --data builtin", 'the data frame by frame; data="builtin"'),
        ("/a/b--c is there already", "/a/b--c is there already"),
    ],
)
def test_options_in_messages_become_keywords_and_commands_stay(message, expected):
    assert with_keywords(message) == expected


def test_flags_in_messages_are_those_of_the_command_line():
    left, flags = [get_command(app)], set()
    while left:
        command = left.pop()
        left += getattr(command, "commands", {}).values()
        options = [one for one in command.params if getattr(one, "is_flag", False)]
        flags |= {name.strip("-").replace("-", "_") for one in options for name in one.opts}
    assert flags - {"install_completion", "show_completion"} == FLAGS


def test_opencv_version_is_found_under_each_of_its_package_names(monkeypatch):
    import importlib.metadata as metadata

    from edgefer.train.backend import versions

    real = metadata.version

    def headless(name):
        if name == "opencv-python":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", headless)
    assert versions()["opencv-python"].startswith("4.")
