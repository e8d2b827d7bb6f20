"""The `edgefer` command. Each command imports what it needs inside its body, so that `edgefer --help` is quick."""

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from edgefer import __version__
from edgefer.errors import EdgeferError, InputError

app = typer.Typer(
    help="Facial expressions on small computers: train, convert to int8, prove parity, run on the device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

BundleArgument = Annotated[
    Optional[Path],  # noqa: UP045 - typer reads this at run time
    typer.Argument(metavar="[BUNDLE]", help="Bundle directory; the newest under runs/ when left out."),
]
DataOption = Annotated[str, typer.Option("--data", metavar="PATH", help="CSV (.csv, .gz, .zip), picture folder, or 'builtin'.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave bad rows and pictures out, and list them.")]


def main() -> None:
    """Run the command line; an expected failure is one sentence and an exit code, never a traceback."""
    try:
        app()
    except EdgeferError as error:
        print(f"edgefer: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("edgefer: stopped.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that Python does not complain again while it ends
        sys.exit(1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"edgefer: {where}{error.strerror or error}.", file=sys.stderr)
        sys.exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"edgefer {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


@app.command()
def train(
    data: Annotated[str, typer.Option(metavar="PATH", help="CSV (.csv, .gz, .zip), picture folder, or 'builtin'.")] = "",
    recipe: Annotated[str, typer.Option(metavar="NAME", help="Built-in recipe, or a .toml file.")] = "fer-small",
    epochs: Annotated[int, typer.Option(help="Instead of the recipe's.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Instead of the recipe's.")] = 0,
    seed: Annotated[Optional[int], typer.Option(help="Instead of the recipe's.")] = None,  # noqa: UP045
    set_: Annotated[list[str], typer.Option("--set", metavar="FIELD=VALUE", help="Any recipe field, e.g. optimizer.rate=0.05.")] = [],
    out: Annotated[Optional[Path], typer.Option(metavar="DIR", help="Instead of runs/<recipe>-<n>/.")] = None,  # noqa: UP045
    resume: Annotated[bool, typer.Option("--resume", help="Continue the newest unfinished run, or the one at --out.")] = False,
    valid_fraction: Annotated[float, typer.Option(help="Share held back where the data has no validation split.")] = 0.2,
    skip_bad: SkipBad = False,
) -> None:
    """Train a network by a recipe, and end with a bundle."""
    from edgefer import console
    from edgefer.bundle import CARD, new_directory
    from edgefer.devices.faces import HaarDetector
    from edgefer.train.datasets import cache_folder
    from edgefer.train.pipeline import Order
    from edgefer.train.pipeline import train as run_training
    from edgefer.train.recipes import load_recipe

    if resume:
        if data or epochs or batch_size or seed is not None or set_:
            raise InputError("A resumed run keeps its data and recipe: give --resume alone, or with --out DIR.")
        run = out or _newest_unfinished()
        order = Order.load(run)
    else:
        if not data:
            raise InputError("Name the data: --data fer2013.csv, a folder of pictures, or --data builtin.")
        named = {"fit.epochs": epochs or None, "fit.batch_size": batch_size or None, "fit.seed": seed}
        overrides = [f"{field}={value}" for field, value in named.items() if value is not None]
        order = Order(recipe=load_recipe(recipe, (*overrides, *set_)), data=data, skip_bad=skip_bad, valid_fraction=valid_fraction)
        run = out or new_directory(Path("runs"), order.recipe.name)
        if run.exists():
            done = "a finished bundle" if (run / CARD).exists() else "something (--resume continues a training)"
            raise InputError(f"{run} already holds {done}: choose another --out.")
    console.say(f"Training {order.recipe.name} on {order.data} into {run}")
    try:
        result = run_training(
            order,
            run,
            watcher=console.TrainingProgress(),
            track=console.track,
            detectors={HaarDetector.name: HaarDetector().detect},
            cache=cache_folder(),
        )
    except KeyboardInterrupt:
        raise EdgeferError(f"Stopped; every finished epoch is kept. Continue with: edgefer train --resume --out {run}") from None
    _list_skipped(result.skipped)
    for name, rows in result.classes.items():
        console.show_table(
            f"{name} split",
            ("class", "pictures", "precision", "recall", "F1"),
            [(label, count, *(f"{figure:.3f}" for figure in figures)) for label, count, *figures in rows],
        )
        scores = result.scores[name]
        console.show(
            f"{name}: accuracy {scores.accuracy:.2%}  macro recall {scores.macro_recall:.3f}  macro F1 {scores.macro_f1:.3f}"
        )
    console.show(f"Bundle: {run} (plots in {run / 'report'}). Next: edgefer convert {run} --int8")


def _newest_unfinished() -> Path:
    from edgefer.bundle import CARD

    orders = sorted(Path("runs").glob("*/training/order.json"), key=lambda file: file.stat().st_mtime)
    runs = [file.parent.parent for file in orders if not (file.parent.parent / CARD).exists()]
    if not runs:
        raise InputError("There is no unfinished training under runs/: name one with --out DIR.")
    return runs[-1]


def _list_skipped(skipped: tuple[str, ...]) -> None:
    from edgefer import console

    if skipped:
        console.say(f"Left out {len(skipped)} bad rows or pictures:")
        for line in skipped[:20]:
            console.say(f"  {line}")
        if len(skipped) > 20:
            console.say(f"  and {len(skipped) - 20} more")


def _bundle_path(bundle: Path | None) -> Path:
    from edgefer.bundle import newest_bundle

    return bundle if bundle is not None else newest_bundle()


@app.command()
def convert(
    bundle: BundleArgument = None,
    int8: Annotated[bool, typer.Option("--int8/--no-int8", help="Quantize to int8 in and out, beside float32.")] = True,
    prune: Annotated[float, typer.Option(metavar="SHARE", help="First set this share of the weights to zero, e.g. 0.5.")] = 0.0,
    prune_epochs: Annotated[int, typer.Option(min=1, help="Epochs of fine-tuning while pruning.")] = 4,
    data: Annotated[str, typer.Option(metavar="PATH", help="Calibration data; what it was trained on when left out.")] = "",
    out: Annotated[Optional[Path], typer.Option(metavar="DIR", help="Instead of <bundle>-int8.")] = None,  # noqa: UP045
    skip_bad: SkipBad = False,
) -> None:
    """Convert a trained bundle to TFLite, int8 by default: a new bundle beside the old one."""
    from edgefer import console
    from edgefer.bundle import Bundle, new_directory
    from edgefer.convert.pipeline import Plan
    from edgefer.convert.pipeline import convert as run_conversion

    if not 0 <= prune <= 0.95:
        raise InputError(f"--prune {prune:g}: the share of weights to remove must lie between 0 and 0.95.")
    source = Bundle.open(_bundle_path(bundle))
    plan = Plan(int8=int8, sparsity=prune, prune_epochs=prune_epochs)
    target = out or source.path.with_name(f"{source.path.name}-{plan.suffix}")
    if out is None and target.exists():
        target = new_directory(target.parent, target.name)
    if target.exists():
        raise InputError(f"{target} is there already: choose another --out.")
    dataset = _training_data(source, data, skip_bad)
    console.say(f"Converting {source.path} into {target}")
    converted = run_conversion(source, dataset, plan, target, console.TrainingProgress())
    card = converted.card
    for split, by_variant in card.metrics.items():
        console.show_table(
            f"{split} split, {next(iter(by_variant.values())).count} pictures",
            ("network", "accuracy", "macro recall", "macro F1", "bytes", "gzipped"),
            [
                (name, f"{s.accuracy:.2%}", f"{s.macro_recall:.3f}", f"{s.macro_f1:.3f}",
                 f"{card.variants[name].bytes:,}", f"{card.variants[name].gzip_bytes:,}")
                for name, s in by_variant.items()
            ],
        )  # fmt: skip
    console.show(f"Bundle: {target}. Next: edgefer parity {target} --data {data or 'PATH'}; edgefer run {target} --camera 0")


def _training_data(bundle, data: str, skip_bad: bool):
    """The data a bundle was trained on: as named, or as its training run remembers."""
    from edgefer import console
    from edgefer.train.datasets import cache_folder, load_dataset
    from edgefer.train.pipeline import Order

    valid_fraction = 0.2
    if not data:
        if not (bundle.path / "training" / "order.json").is_file():
            raise InputError(f"{bundle.path} does not remember its training data: name it with --data PATH.")
        order = Order.load(bundle.path)
        data, skip_bad, valid_fraction = order.data, order.skip_bad, order.valid_fraction
    card = bundle.card
    dataset = load_dataset(
        data, card.input, skip_bad=skip_bad, valid_fraction=valid_fraction, seed=card.provenance.seed,
        track=console.track, cache=cache_folder(),
    )  # fmt: skip
    _list_skipped(dataset.skipped)
    return dataset


@app.command()
def parity(
    bundle: BundleArgument = None,
    data: Annotated[str, typer.Option(metavar="PATH", help="Labelled pictures: adds question 2, what conversion cost.")] = "",
    split: Annotated[str, typer.Option(help="Which split of the data.")] = "valid",
    runtime: Annotated[list[str], typer.Option(help="litert, tflite-runtime or tensorflow; every installed one by default.")] = [],
    max_drop: Annotated[float, typer.Option(help="Most points of accuracy conversion may cost.")] = 1.0,
    min_agreement: Annotated[float, typer.Option(help="Least share of equal decisions.")] = 0.97,
    json_file: Annotated[Optional[Path], typer.Option("--json", metavar="FILE", help="Instead of BUNDLE/report/parity.json.")] = None,  # noqa: UP045
    skip_bad: SkipBad = False,
) -> None:
    """Prove that the converted network still is the same model; exit code 1 when it is not."""
    import json

    from edgefer import console
    from edgefer.bundle import Bundle, write_file
    from edgefer.interpreter import installed_runtimes
    from edgefer.parity import Budget, Check, ParityReport, judge, verify

    opened = Bundle.open(_bundle_path(bundle))
    runtimes = runtime or installed_runtimes()
    checks: list[Check] = []
    for name in runtimes:
        found = verify(opened, runtime=name)
        checks += found if not checks else found[1:]  # question 1 is the same for every runtime
    comparisons = ()
    if data:
        from edgefer.convert.prove import prove

        comparisons = prove(opened, _training_data(opened, data, skip_bad), split, runtimes=runtimes, track=console.track)
        budget = Budget(max_drop=max_drop, min_agreement=min_agreement)
        checks += [judge(comparison, budget) for comparison in comparisons]
    report = ParityReport(checks=tuple(checks), comparisons=comparisons)
    console.show_table(
        f"Parity of {opened.path}",
        ("question", "about", "", "figures"),
        [
            (f"{c.question} {('pixels', 'decisions', 'answers')[c.question - 1]}", c.subject, "pass" if c.passed else "FAIL", c.detail)
            for c in sorted(checks, key=lambda c: c.question)
        ],
    )
    file = json_file or opened.path / "report" / "parity.json"
    write_file(file, json.dumps(report.to_json(), indent=2).encode() + b"\n")
    if not data:
        console.say("Question 2, what conversion cost in accuracy, needs labelled pictures: --data PATH.")
    failed = [check for check in checks if not check.passed]
    console.show(f"{'FAIL' if failed else 'pass'}: {len(checks) - len(failed)} of {len(checks)} checks passed; report in {file}")
    if failed:
        raise typer.Exit(1)


@app.command()
def run(
    bundle: BundleArgument = None,
    camera: Annotated[Optional[int], typer.Option(metavar="N", help="Camera number, as in /dev/videoN.")] = None,  # noqa: UP045
    source: Annotated[str, typer.Option(metavar="FILE|FOLDER|URL", help="Video, picture, folder, stream, or 'builtin'.")] = "",
    headless: Annotated[bool, typer.Option("--headless", help="No window.")] = False,
    save: Annotated[Optional[Path], typer.Option(metavar="FILE", help="Annotated video (.mp4, .avi) or picture (.png, .jpg).")] = None,  # noqa: UP045
    json_lines: Annotated[bool, typer.Option("--json", help="One JSON object a frame on stdout.")] = False,
    frames: Annotated[Optional[int], typer.Option(min=1, help="Stop after so many.")] = None,  # noqa: UP045
    runtime: Annotated[str, typer.Option(help="auto, litert, tflite-runtime or tensorflow.")] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="For the network.")] = 1,
) -> None:
    """Read faces from a camera, video or pictures. No frame is stored or sent unless asked."""
    from edgefer import console
    from edgefer.bundle import Bundle
    from edgefer.devices import loop, sinks
    from edgefer.devices.cameras import open_source
    from edgefer.devices.faces import HaarDetector
    from edgefer.interpreter import Classifier

    if (camera is None) == (not source):
        raise InputError("Name one input: --camera 0, or --source with a video, picture, folder, URL or builtin.")
    opened = Bundle.open(_bundle_path(bundle))
    classifier = Classifier.load(opened, runtime=runtime, threads=threads)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a service's stop ends as cleanly as Ctrl-C
    with open_source(camera if camera is not None else source) as frames_in:
        targets: list[sinks.Sink] = []
        if save:
            targets.append(sinks.VideoFile(save, frames_in.fps))
        if json_lines:
            targets.append(sinks.JsonLines(sys.stdout))
        if not headless and sinks.Window.possible():
            targets.append(sinks.Window())
        elif not headless:
            console.say("There is no display: running without a window.")
        if not targets:
            targets.append(sinks.Changes(sys.stdout))
        console.say(f"{opened.card.name} on {classifier.network.runtime}; Ctrl-C ends.")
        summary = loop.run(frames_in, HaarDetector(), classifier, targets, frames=frames)
    stages = "  ".join(f"{stage} {ms:.1f}" for stage, ms in summary.stage_ms().items())
    console.say(f"{summary.frames} frames in {summary.seconds:.1f} s: {summary.fps:.1f} frames/s. Milliseconds a frame: {stages}")
    if summary.faces == 0:
        console.say("No face was found: faces must look at the camera and fill an eighth of the picture's height or more.")
    else:
        seen = ", ".join(f"{label} {count}" for label, count in sorted(summary.labels.items(), key=lambda item: -item[1]))
        console.say(f"{summary.faces} faces in {summary.frames_with_faces} frames: {seen}")
    if save and save.exists():
        console.say(f"Saved {save}")


@app.command()
def demo(
    out: Annotated[Optional[Path], typer.Option(metavar="DIR", help="Instead of runs/demo-<n>/.")] = None,  # noqa: UP045
) -> None:
    """The main job in one go on built-in drawn faces: train, prune, quantize, prove, run. No data needed."""
    from edgefer.bundle import new_directory
    from edgefer.demo import run_demo

    target = out or new_directory(Path("runs"), "demo")
    if target.exists():
        raise InputError(f"{target} is there already: choose another --out.")
    run_demo(target)
