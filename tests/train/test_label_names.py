"""The class names of data and a network's labels: matched ignoring case, some without images, none misspelt."""

import json
import re
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from edgefer import drawn
from edgefer.bundle import Bundle, shipped_bundles
from edgefer.card import InputSpec
from edgefer.cli import app
from edgefer.errors import DataError, InputError
from edgefer.train.data.dataset import Dataset, Split
from edgefer.train.data.load import DataOptions, load_dataset
from edgefer.train.data.matching import absent_note, matched
from edgefer.train.data.trained import training_data

FERPLUS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral", "contempt")
NUMBERS = "1=surprise,2=fear,3=disgust,4=happy,5=sad,6=angry,7=neutral"


def faces_in(folder: Path, names: dict[str, str], count: int = 8) -> Path:
    """Drawn faces by class, in a folder of the given name for each."""
    images, labels = drawn.face_set(count, 3)
    for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        name = names.get(drawn.EXPRESSIONS[label])
        if name:
            (folder / name).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / name / f"{number:03}.png"), image)
    return folder


@pytest.fixture(scope="module")
def capitalised(tmp_path_factory) -> Path:
    """The seven classes of FER2013, as folders that begin with a capital."""
    return faces_in(tmp_path_factory.mktemp("faces"), {name: name.capitalize() for name in drawn.EXPRESSIONS})


def dataset(*labels: str, targets: np.ndarray | None = None) -> Dataset:
    count = len(labels)
    split = Split(
        images=np.zeros((count, 1, 1, 1), np.uint8), labels=np.arange(count), ids=np.arange(count), targets=targets
    )
    return Dataset(name="faces", labels=labels, splits={"train": split})


def test_names_match_in_any_case_and_form_and_the_same_case_comes_first():
    assert matched(["angry", "ärger"], ["HAPPY", "Angry", unicodedata.normalize("NFD", "Ärger")]) == {
        "angry": "Angry",
        "ärger": unicodedata.normalize("NFD", "Ärger"),
    }
    assert matched(["b", "B"], ["B", "b"]) == {"b": "b", "B": "B"}
    assert matched(["sad", "Sad"], ["SAD"]) == {"sad": "SAD"}


def test_labels_and_soft_targets_move_to_the_network_s_classes():
    targets = np.array([[0.75, 0.25], [0.25, 0.75]], np.float32)
    moved = dataset("sad", "happy", targets=targets).with_labels(("Happy", "Contempt", "Sad"))
    assert moved.labels == ("Happy", "Contempt", "Sad") and moved.split("train").labels.tolist() == [2, 0]
    assert moved.split("train").targets.tolist() == [[0.25, 0, 0.75], [0.75, 0, 0.25]]
    assert moved.absent_note.startswith("No images of Contempt in faces: how well it is recognized is not measured")
    assert absent_note(("a", "b"), 3, "x").endswith("over the one class with images")


def test_an_unknown_class_is_named_with_the_label_that_it_may_mean_and_what_to_do():
    message = r"\(angry, happy, sad\): angri \(for angry\?\)\. Name them .*--names .*import it again with the right --labels\.$"
    with pytest.raises(DataError, match=message):
        dataset("angri", "happy").with_labels(("angry", "happy", "sad"))


def evaluated(*arguments: object) -> tuple[dict, str]:
    done = CliRunner().invoke(app, ["evaluate", *map(str, arguments), "--split", "all", "--json"])
    assert done.exit_code == 0, (done.output, done.exception)
    result = json.loads(done.stdout)
    return result, Path(result["report"]).read_text()


def test_a_network_is_evaluated_on_folders_that_lack_one_of_its_classes(capitalised, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result, page = evaluated("ferplus-small", "--data", capitalised)
    assert result["labels"] == list(FERPLUS) and result["without_images"] == ["contempt"]
    for figures in result["networks"].values():
        matrix = np.array(figures["confusion"])
        recall = np.diag(matrix)[:7] / matrix[:7].sum(axis=1)
        assert matrix[7].sum() == 0 and figures["macro_recall"] == pytest.approx(recall.mean())
    assert "No images of contempt in the data" in page and "over the 7 classes with images" in page
    assert not re.search(r"\bnan\b", page.split("base64")[0] + json.dumps(result), re.IGNORECASE)


def test_numbered_folders_are_named_for_the_commands_that_measure(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    numbers = {name: key for key, name in (pair.split("=") for pair in NUMBERS.split(","))}
    folder = faces_in(tmp_path / "faces", numbers, 4)
    result, _ = evaluated("fer-nano", "--data", folder, "--names", NUMBERS)
    assert result["without_images"] == []
    bundle = Bundle.open(shipped_bundles()["fer-nano"])
    with pytest.raises(DataError, match=r"does not know .*: 1, 2, 3, .*--names LABEL=NAME"):
        training_data(bundle, str(folder), False)
    for command in ("verify", "convert", "compare", "import"):
        assert "--names" in CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output
    refused = CliRunner().invoke(app, ["verify", "fer-nano", "--names", NUMBERS])
    assert isinstance(refused.exception, InputError) and "--names is about decisions" in str(refused.exception)


def test_a_csv_of_numbers_may_lack_classes_where_a_network_is_measured(tmp_path):
    rows = [f"{label},{' '.join(['7'] * 64)}" for label in (0, 3, 4) for _ in range(6)]
    (tmp_path / "few.csv").write_text("\n".join(["emotion,pixels", *rows]))
    spec = InputSpec(height=48, width=48)
    with pytest.raises(DataError, match="no training image of class 'disgust'"):
        load_dataset(tmp_path / "few.csv", spec)
    few = load_dataset(tmp_path / "few.csv", spec, DataOptions(for_measuring=True))
    assert few.labels == ("angry", "happy", "sad")
    measured = training_data(Bundle.open(shipped_bundles()["fer-nano"]), str(tmp_path / "few.csv"), False)
    assert np.unique(measured.split("train").labels).tolist() == [0, 3, 4]
    assert measured.absent_note.startswith(
        "No images of disgust, fear, surprise, neutral in few.csv: how well they are"
    )


def test_the_certificate_has_a_row_for_a_class_without_images(capitalised):
    from edgefer.convert.certificate import certify

    bundle = Bundle.open(shipped_bundles()["ferplus-small"])
    certificate = certify(bundle, training_data(bundle, str(capitalised), False), "valid")
    (row,) = [check for check in certificate.checks if check.subject == "every class"]
    assert row.status == "not checked" and "contempt in the valid split" in row.detail and certificate.passed
    content = certificate.to_json()
    assert content["data"]["without_images"] == ("contempt",)
    assert content["comparisons"][0]["candidate"]["f1"][7] is None
    assert "no images" in certificate.to_html() and "NaN" not in json.dumps(content)


def test_names_are_an_option_of_the_python_functions_too(tmp_path):
    import edgefer

    with pytest.raises(InputError, match="names is about decisions"):
        edgefer.verify("fer-nano", names=NUMBERS)
    assert edgefer.verify("fer-nano").passed
    with pytest.raises(InputError, match=r"names \{0: 'angry'\} is not right: give a text"):
        edgefer.convert("fer-nano", names={0: "angry"})


def test_labels_of_teachers_soft_labels_and_initial_weights_match_in_any_case(tmp_path):
    from edgefer.train.distill import load_soft_labels, save_soft_labels, teacher_probabilities
    from edgefer.train.networks import build, initialize, load_keras
    from edgefer.train.recipes import load_recipe

    bundle = Bundle.open(shipped_bundles()["fer-nano"])
    labels = tuple(label.upper() for label in reversed(bundle.card.labels))
    images = np.random.default_rng(0).integers(0, 256, (7, 48, 48, 1), np.uint8)
    split = Split(images=images, labels=np.arange(7), ids=np.arange(7))
    own = teacher_probabilities(bundle, split, bundle.card.labels, 2.0)
    assert np.array_equal(teacher_probabilities(bundle, split, labels, 2.0), own[:, ::-1])
    save_soft_labels(tmp_path / "soft.npz", split, bundle.card.labels, own)
    np.testing.assert_allclose(load_soft_labels(tmp_path / "soft.npz", split, labels), own[:, ::-1], atol=1e-6)
    recipe = load_recipe("fer-nano")
    model = build(recipe.model, recipe.input, 7)
    initialize(model, labels, bundle)
    trained = load_keras(bundle, "keras").layers[-1].get_weights()[0]
    assert np.array_equal(model.get_layer("logits").get_weights()[0], trained[:, ::-1])
