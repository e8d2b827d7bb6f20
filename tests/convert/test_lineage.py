"""A converted network is compared with the trained one, through chains of conversions and over folds; a missing trained
network is reported."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from edgefer import drawn
from edgefer.bundle import Bundle, Form, shipped_bundles, write_bundle
from edgefer.card import InputSpec, ModelCard, OutputSpec, Provenance
from edgefer.checks import Status
from edgefer.cli import app
from edgefer.convert import search, steps
from edgefer.convert.comparison import Budget, judge
from edgefer.convert.pipeline import Converted, convert
from edgefer.convert.prove import prove
from edgefer.convert.start import Outcome
from edgefer.convert.tune import FineTuning, Tuner, tune
from edgefer.convert.work import Plan
from edgefer.errors import EdgeferError, InputError
from edgefer.lineage import check_origin, check_recorded_cost, origin_form
from edgefer.preprocess import prepare
from edgefer.progress import SILENT
from edgefer.train.backend import tensorflow
from edgefer.train.data.dataset import Dataset, Split
from edgefer.train.networks import build, keras_bytes
from edgefer.train.recipes import load_recipe

SPEC = InputSpec(height=24, width=24)
BUDGET = Budget()


@pytest.fixture(scope="module")
def faces() -> Dataset:
    def draw(count: int, seed: int) -> Split:
        images, labels = drawn.face_set(count, seed=seed, size=48)
        ids = np.array([f"{number}.png" for number in range(len(labels))])
        return Split(images=np.stack([prepare(one, SPEC) for one in images]), labels=labels, ids=ids)

    return Dataset(name="faces", labels=drawn.EXPRESSIONS, splits={"train": draw(20, 0), "valid": draw(20, 1)})


@pytest.fixture(scope="module")
def trained(faces, tmp_path_factory) -> Bundle:
    tensorflow()
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    fields = ('model.layers="C16/2 C32/2"', "input.height=24", "input.width=24", "fit.batch_size=28")
    recipe = load_recipe("demo", fields)
    model = build(recipe.model, recipe.input, 7)
    model.compile(tf_keras.optimizers.Adam(0.01), tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    train = faces.split("train")
    model.fit(train.images / np.float32(255), train.labels, batch_size=28, epochs=25, verbose=0)
    provenance = Provenance(
        data="faces", split_sizes={}, recipe=recipe.model_dump(mode="json"), seed=0, epoch=1, versions={}
    )
    card = ModelCard(name="tiny", labels=faces.labels, input=recipe.input, provenance=provenance)
    report = {"confusion-valid.png": b"of the trained network", "history.png": b"of the training"}
    return write_bundle(tmp_path_factory.mktemp("lineage") / "tiny", card, {Form.KERAS: keras_bytes(model)}, report)


@pytest.fixture
def untuned(monkeypatch):
    """Fine-tuning that does nothing: a slimmed network stays as bad as removing filters makes it."""
    monkeypatch.setattr(steps, "tune", lambda network, task: None)


@pytest.fixture(scope="module")
def slimmed(trained, faces, tmp_path_factory) -> Converted:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "tune", lambda network, task: None)
        return convert(trained, faces, Plan(slimmed=0.6), tmp_path_factory.mktemp("out") / "slim", SILENT)


@pytest.fixture(scope="module")
def slim(slimmed) -> Bundle:
    return slimmed.bundle


def certificate(bundle: Bundle, faces: Dataset, budget: Budget = BUDGET) -> list:
    proof = prove(bundle, faces, "valid", runtimes=["litert"])
    return [proof.origin, *(judge(one, budget) for one in proof.cost)]


def test_a_slimmed_network_at_low_agreement_fails_the_certificate(slim, trained, faces):
    """It agrees with its own float form; only the comparison with the trained network shows that it is worse."""
    assert slim.card.lineage.sha256 == trained.card.variants["keras"].sha256 == slim.card.variants["origin"].sha256
    cost = slim.card.lineage.cost
    assert slim.card.lineage.retrained and cost.agreement < 0.8 and cost.drop > 1 and cost.variant == "int8"
    checks = {check.subject: check for check in certificate(slim, faces)}
    assert checks["int8 on litert against origin"].status is Status.FAIL
    assert checks["keras against origin"].status is Status.FAIL
    assert checks["int8 on litert against keras"].status is not Status.FAIL
    lenient = {check.subject: check for check in certificate(slim, faces, Budget(max_drop=100.0))}
    assert lenient["int8 on litert against origin"].status is Status.FAIL  # no worse does not mean the same
    assert check_recorded_cost(slim).status is Status.WARN and check_recorded_cost(trained) is None
    assert check_recorded_cost(slim).subject != check_origin(slim).subject  # both are rows of its certificate


def test_conversion_says_if_verify_would_fail(slimmed, faces, monkeypatch):
    """By the same rows as `edgefer verify` will give on the same images, and before the command that runs it."""
    rows = certificate(slimmed.bundle, faces)[1:]
    assert [(one.subject.replace(" on litert", ""), one.status, one.detail) for one in rows] == [
        (one.subject, one.status, one.detail) for one in slimmed.decisions
    ]
    outcome = Outcome(bundle=slimmed.bundle, converted=slimmed, data="faces")
    monkeypatch.setattr("edgefer.convert.start.start", lambda *_: outcome)
    shown = CliRunner().invoke(app, ["convert", str(slimmed.bundle.path)]).stdout
    warning = shown.index("`edgefer verify` would fail on these 140 images of valid: int8 against origin, drop +")
    agreement = f"agreement {slimmed.cost.agreement:.2%}"
    assert agreement in shown[:warning] and agreement in shown[warning:] and "(at least 90%" in shown
    assert warning < shown.index("convert it again with more --epochs") < shown.index("Next: edgefer verify")
    allowed = replace(slimmed, max_drop=99.0, decisions=())
    monkeypatch.setattr("edgefer.convert.start.start", lambda *_: replace(outcome, converted=allowed))
    shown = CliRunner().invoke(app, ["convert", str(slimmed.bundle.path)]).stdout
    assert "would fail" not in shown and "--data faces --max-drop 99;" in shown


def test_max_drop_includes_the_loss_from_slimming(trained, faces, untuned, tmp_path, monkeypatch):
    # Calibration alone: no way to int8 can give back what slimming lost.
    monkeypatch.setattr(search, "_ways", lambda work, plan, tuner, ways=search._ways: list(ways(work, plan, tuner))[:1])
    converted = convert(trained, faces, Plan(slimmed=0.6, max_drop=0.3), tmp_path / "out", SILENT)
    assert not converted.holds and not converted.quantized.holds
    assert "against the trained network, more than --max-drop 0.3" in converted.complaint
    assert converted.cost.drop == converted.bundle.card.lineage.cost.drop > 0.3


def test_chain_of_conversions_is_compared_with_the_trained_network(
    slim, trained, faces, untuned, tmp_path, monkeypatch
):
    """Slimmed, then pruned, then converted again: the source bundles may be gone."""
    monkeypatch.setattr(steps, "prune_weights", lambda model, sparsity, task: steps.copy_of(model))
    pruned = convert(slim, faces, Plan(sparsity=0.5), tmp_path / "pruned", SILENT).bundle
    again = convert(pruned, faces, Plan(float16=True, int8=False), tmp_path / "again", SILENT).bundle
    for bundle in (pruned, again):
        assert bundle.card.lineage.sha256 == trained.card.variants["keras"].sha256
        assert bundle.read("origin") == trained.read("keras") and origin_form(bundle.card) is Form.ORIGIN
        assert bundle.card.metrics["valid"]["origin"] == slim.card.metrics["valid"]["origin"]
        failed = {check.subject for check in certificate(bundle, faces) if check.status is Status.FAIL}
        deployed = bundle.best_tflite()
        assert f"{deployed} on litert against origin" in failed
    assert pruned.has("tuned") and again.card.lineage.cost.variant == "float16"


def test_conversion_without_retraining_stores_no_second_copy(trained, faces, tmp_path):
    converted = convert(trained, faces, Plan(), tmp_path / "int8", SILENT)
    bundle = converted.bundle
    assert converted.warning == "" and len(converted.decisions) == 2
    assert not bundle.has("origin") and origin_form(bundle.card) is Form.KERAS and not bundle.card.lineage.retrained
    assert check_recorded_cost(bundle) is None and check_origin(bundle).status is Status.PASS
    subjects = [check.subject for check in certificate(bundle, faces)]
    assert subjects == [
        "file of the trained network",
        "float32 on litert against keras",
        "int8 on litert against keras",
    ]


def test_a_missing_origin_is_reported(slim, trained, faces, tmp_path):
    files = {name: slim.read(name) for name in slim.card.variants if name != "origin"}
    without = write_bundle(tmp_path / "without", slim.card, files)
    assert certificate(without, faces)[0].status is Status.NOT_CHECKED
    older = write_bundle(tmp_path / "older", slim.card.model_copy(update={"lineage": None}), files)
    assert check_origin(older).status is check_recorded_cost(older).status is Status.NOT_CHECKED
    device = write_bundle(tmp_path / "device", slim.card, {name: slim.read(name) for name in ("float32", "int8")})
    assert "holds no Keras network" in certificate(device, faces)[0].detail
    for bundle in (without, older):
        with pytest.raises(InputError, match="does not hold its trained network"):
            convert(bundle, faces, Plan(max_drop=1.0), tmp_path / "refused", SILENT)
    unknown = convert(older, faces, Plan(), tmp_path / "unknown", SILENT).bundle
    assert unknown.card.lineage.sha256 == "" and unknown.card.lineage.cost is None and unknown.card.lineage.retrained
    assert certificate(unknown, faces)[0].status is Status.NOT_CHECKED
    assert check_recorded_cost(unknown).status is Status.NOT_CHECKED


def test_another_network_under_the_name_of_the_origin_fails(slim, faces, tmp_path):
    files = {name: slim.read(name) for name in slim.card.variants} | {"origin": slim.read("keras")}
    swapped = write_bundle(tmp_path / "swapped", slim.card, files)
    (origin, *others) = certificate(swapped, faces)
    assert origin.status is Status.FAIL and not any("origin" in check.subject for check in others)


def test_reports_of_the_trained_network_are_not_copied(trained, slim):
    assert {file.name for file in (trained.path / "report").iterdir()} == {"confusion-valid.png", "history.png"}
    assert {file.name for file in (slim.path / "report").iterdir()} == {"quantization.json"}


def test_the_bytes_that_were_measured_are_the_bytes_that_ship(trained, faces, tmp_path, monkeypatch):
    from edgefer.convert import pipeline

    measured = {}

    def remember(works, splits, forms=tuple(Form), measure=pipeline.measure):
        measured.update(works[0].files)
        return measure(works, splits, forms)

    monkeypatch.setattr(pipeline, "measure", remember)
    bundle = convert(trained, faces, Plan(author="A. Uthor"), tmp_path / "out", SILENT).bundle
    for form in (Form.FLOAT32, Form.INT8):
        assert bundle.read(form) == measured[form] and b"A. Uthor" in measured[form]


def test_fine_tuning_keeps_the_weight_decay_of_the_recipe(faces, tmp_path):
    """What training and fine-tuning minimize differs in teacher and schedule only."""
    for name in ("fer-nano", "demo"):
        recipe = load_recipe(name, ("optimizer.weight_decay=0.001", "fit.ema=0.5"))
        task = FineTuning(
            recipe=recipe, dataset=faces, teacher=None, epochs=2, rate=0.02, folder=tmp_path, progress=SILENT
        )
        optimizer = task.optimizer()
        assert optimizer.weight_decay == 0.001 and not optimizer.use_ema
        schedule = optimizer._learning_rate
        assert float(schedule(0)) == pytest.approx(0.02) and float(schedule(2 * task.steps)) == pytest.approx(0)


@pytest.mark.parametrize("balance", ["none", "logit-adjustment"])
def test_fine_tuning_learns_labels_with_the_loss_of_training(balance, faces, tmp_path):
    """Label smoothing and logit adjustment: without the second, a network would learn again to neglect rare classes."""
    from edgefer.convert.tune import _distillation
    from edgefer.train.objective import make_loss

    tensorflow()
    train = faces.split("train")
    rare = train.take(np.flatnonzero((train.labels != 0) | (np.arange(len(train)) % 4 == 0)))
    task = FineTuning(
        recipe=load_recipe("demo", (f"fit.balance={balance}", "distill.weight=0", "fit.label_smoothing=0.1")),
        dataset=replace(faces, splits={"train": rare}),
        teacher=None, epochs=1, rate=0.02, folder=tmp_path, progress=SILENT,
    )  # fmt: skip
    labels, logits = np.eye(7, dtype=np.float32)[[0, 5]], np.array([np.arange(7)] * 2, np.float32)
    tuned = _distillation(task)(np.stack([labels, np.zeros_like(labels)], axis=1), logits).numpy()
    assert tuned.mean() == pytest.approx(np.mean(make_loss(task.recipe, rare, 7)(labels, logits)), rel=1e-5)


def test_fine_tuning_continues_for_the_same_data_only_and_names_a_damaged_checkpoint(trained, faces, tmp_path):
    from edgefer.train.networks import load_keras

    network, tuner = load_keras(trained, Form.KERAS), Tuner(work_dir=tmp_path, progress=SILENT, epochs=1)
    task = tuner.task("slim-0.5", network, trained.card, faces, network)
    assert tuner.task("slim-0.5", network, trained.card, faces, network).folder == task.folder
    train = faces.split("train")
    other = replace(faces, splits=faces.splits | {"train": replace(train, labels=train.labels[::-1])})
    assert tuner.task("slim-0.5", network, trained.card, other, network).folder != task.folder
    tune(network, task)
    for file in task.folder.glob("ckpt-1.data-*"):
        file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(EdgeferError, match=r"ckpt-1, .* is damaged: remove .* and run the same command again"):
        tune(load_keras(trained, Form.KERAS), task)


def test_folds_are_compared_with_the_networks_they_came_from(trained, faces, untuned, tmp_path, monkeypatch):
    """A cross-validated network that was slimmed: each fold's slimmed network against the fold's own."""
    from edgefer.convert import pipeline
    from edgefer.train.networks import load_keras

    monkeypatch.setattr(pipeline, "fold_network", lambda bundle, fold, recipe: load_keras(trained, Form.KERAS))
    provenance = trained.card.provenance.model_copy(update={"folds": 2})
    card = trained.card.model_copy(update={"provenance": provenance})
    crossed = write_bundle(tmp_path / "crossed", card, {Form.KERAS: trained.read("keras")})
    pooled = replace(faces, splits={"train": faces.split("train")})
    converted = convert(crossed, pooled, Plan(slimmed=0.6, max_drop=100.0), tmp_path / "slim", SILENT)
    figures = converted.bundle.card.metrics["2-fold"]
    assert figures["origin"].count == len(faces.split("train"))
    assert converted.cost.agreement < 0.8 and converted.bundle.card.lineage.cost.split == "2-fold"
    assert figures["origin"].accuracy - figures["int8"].accuracy == pytest.approx(converted.cost.drop / 100)


def test_verify_shows_the_row_and_the_certificate_names_the_lineage(slim, faces, tmp_path):
    from edgefer.convert.certificate import Certificate

    proof = prove(slim, faces, "valid", runtimes=["litert"])
    rows = (proof.origin, *(judge(one, Budget()) for one in proof.cost))
    made = Certificate(
        bundle=slim, checks=rows, proof=proof, budget=Budget(), data="faces", split="valid", runtimes=("litert",)
    )
    plain = json.loads(json.dumps(made.to_json()))
    assert plain["passed"] is False and plain["bundle"]["lineage"]["sha256"] == slim.card.lineage.sha256
    assert "against origin" in made.to_html() and "Flips: int8 on litert against origin" in made.to_html()
    (tmp_path / "parity.html").write_text(made.to_html())


def test_differences_between_logarithms_of_probabilities_are_not_given_in_quanta(tmp_path):
    shipped = Bundle.open(shipped_bundles()["fer-nano"])
    files = {name: shipped.read(name) for name in ("keras", "int8")}
    images = np.random.default_rng(0).integers(0, 256, (16, *shipped.card.input.shape), np.uint8)
    split = Split(images=images, labels=np.arange(16) % 7, ids=np.arange(16).astype(str))
    dataset = Dataset(name="noise", labels=shipped.card.labels, splits={"valid": split})
    for values in ("logits", "probabilities"):
        card = shipped.card.model_copy(update={"output": OutputSpec(values=values)})
        bundle = write_bundle(tmp_path / values, card, files)
        proof = prove(bundle, dataset, "valid", runtimes=["litert"], reference_kernels=True)
        assert all((one.worst_quanta is None) == (values == "probabilities") for one in (*proof.cost, *proof.spread))


def edited(bundle: Bundle, **fields) -> Bundle:
    """The bundle with its card edited by hand; a dict for `lineage` updates its fields."""
    lineage = fields.get("lineage")
    if isinstance(lineage, dict):
        fields["lineage"] = bundle.card.lineage.model_copy(update=lineage)
    return Bundle(bundle.path, bundle.card.model_copy(update=fields))


def test_hand_edited_card_does_not_pass_as_the_trained_network(slim, trained, faces, tmp_path):
    """Whatever of the lineage is changed, the files beside it contradict it."""
    own = slim.card.variants["keras"].sha256
    without_steps = slim.card.provenance.model_copy(update={"steps": ()})
    for one in (
        edited(slim, lineage=None),
        edited(slim, lineage=None, provenance=without_steps),
        edited(slim, lineage={"sha256": own}),
        edited(slim, lineage={"sha256": own, "retrained": False}, provenance=without_steps),
    ):
        check = check_origin(one)
        assert check.status is Status.FAIL and "origin.keras is not the network" in check.detail
        with pytest.raises(InputError, match="--max-drop cannot be checked"):
            convert(one, faces, Plan(max_drop=1.0), tmp_path / "out", SILENT)
    variants = {name: one for name, one in slim.card.variants.items() if name != "origin"}
    check = check_origin(edited(slim, lineage={"sha256": own}, variants=variants))
    assert check.status is Status.FAIL and "slimmed by a step" in check.detail


def test_loss_of_a_retrained_network_is_reported_whatever_its_card_says(slim):
    """`retrained` set to false by hand: the files `tuned` and `origin` exist only if weights were changed."""
    assert check_recorded_cost(edited(slim, lineage={"retrained": False})).status is Status.WARN
    assert check_recorded_cost(edited(slim, lineage={"retrained": False, "cost": None})).status is Status.NOT_CHECKED
    assert check_recorded_cost(edited(slim, lineage=None)).status is Status.NOT_CHECKED
