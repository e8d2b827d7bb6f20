"""The command line as a newcomer meets it: quick help, one clear sentence for every mistake."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from forks import Fork
from typer.main import get_command

from edgefer.bundle import Bundle, made_from, shipped_bundles, write_bundle
from edgefer.cli import app, main
from edgefer.errors import InputError
from edgefer.options import MIN_TARGET_FPS
from edgefer.train.networks import keras_bytes, load_keras

HEAVY = ("cv2", "numpy", "ai_edge_litert", "tensorflow", "pydantic", "rich.progress")


PEER = """
import sys, typer
app = typer.Typer(rich_markup_mode="markdown")
@app.command()
def command(number: int):
    "Help in *Markdown*."
sys.argv = ["peer", "--help"]
app()
"""


def cpu_seconds(code: str) -> tuple[float, subprocess.CompletedProcess]:
    """CPU time of a new Python process: other work on this machine does not count."""
    began = os.times()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ended = os.times()
    return ended.children_user + ended.children_system - began.children_user - began.children_system, done


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_starts_within_2_5_times_the_time_of_any_typer_program_and_without_heavy_imports(option):
    code = f"""
import sys
sys.argv = ["edgefer", {option!r}]
from edgefer.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    runs = [(cpu_seconds(code), cpu_seconds(PEER)[0]) for _ in range(3)]
    assert runs[0][0][1].stderr.strip() == "[]"
    assert min(ours for (ours, _), _ in runs) < 2.5 * min(peer for _, peer in runs)


def test_windows_is_refused_in_a_sentence(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SystemExit, match=r"^edgefer: Windows is not supported: use Linux"):
        main()


def commands(command, name="edgefer"):
    """Every command below this one, hidden ones too, by its full name."""
    yield name, command
    for word, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{name} {word}")


def test_no_help_holds_words_in_angle_brackets_which_markdown_would_drop():
    seen = 0
    for name, command in commands(get_command(app)):
        texts = [command.help or "", *(getattr(parameter, "help", None) or "" for parameter in command.params)]
        for text in texts:
            seen += 1
            assert not re.search(r"<\S+?>", re.sub(r"`[^`]*`", "", text)), f"{name}: {text}"
    assert seen > 150


def test_no_option_or_argument_accepts_an_empty_text():
    seen = 0
    for name, command in commands(get_command(app)):
        for param in [] if hasattr(command, "commands") else command.params:
            if not getattr(param, "is_flag", False):
                given = [param.opts[0], ""] if param.param_type_name == "option" else [""]
                with pytest.raises(
                    InputError, match=r"^(--)?\S+( RUN-ARGUMENTS)? is given an empty text: give it a value"
                ):
                    command.make_context(name, given)
                seen += 1
    assert seen > 100


@pytest.fixture
def empty_video(tmp_path):
    file = tmp_path / "broken.mp4"
    file.write_bytes(b"not a video" * 100)
    return file


def test_mistakes_are_named_in_one_sentence(edgefer, tmp_path, trained, empty_video):
    def refuse(*arguments, code=2):
        lines = edgefer(*arguments, cwd=tmp_path, expect=code).stderr.strip().splitlines()
        assert lines[-1].startswith("edgefer: "), lines
        return lines[-1]

    assert "There is no data at nowhere.csv" in refuse("train", "--data", "nowhere.csv")
    assert "no recipe 'huge'" in refuse("train", "--data", "builtin", "--recipe", "huge")
    assert "optimizer.rate" in refuse("train", "--data", "builtin", "--set", "optimizer.rate=fast")
    assert "section.field=value" in refuse("train", "--data", "builtin", "--set", "rate")
    assert "Name the data" in refuse("train")
    assert "already holds a finished bundle" in refuse("train", "--data", "builtin", "--out", trained)
    assert "no unfinished training" in refuse("train", "--resume")
    assert "nothing to resume" in refuse("train", "--resume", "--out", trained)
    assert "keeps its data and recipe" in refuse("train", "--resume", "--recipe", "demo")
    assert "There is no bundle at nowhere" in refuse("convert", "nowhere")
    assert "or one of fer-nano, fer-small, ferplus-small" in refuse("run", "fer-smal", "--source", "builtin")
    no_keras = "holds no Keras network (it has int8, parity)"
    beginning = refuse("train", "--data", "builtin", "--init-from", "pets-small")
    assert no_keras in beginning and "it ships converted, so name fer-nano, fer-small, ferplus-small, or" in beginning
    assert "a network of task 'find-faces'" in refuse("train", "--data", "builtin", "--teacher", "face-finder")
    assert "holds no TFLite network" in refuse("run", trained, "--source", "builtin")
    assert "Name what to read" in refuse("run", trained)
    assert "--wait is for cameras and streams" in refuse("run", "--source", "builtin", "--wait")
    assert "--mjpg is for USB cameras" in refuse("run", "--camera", "csi", "--mjpg")


def test_a_file_in_place_of_a_command_gets_a_hint(edgefer, tmp_path):
    (tmp_path / "photo.jpg").touch()
    assert "edgefer run photo.jpg" in edgefer("photo.jpg", cwd=tmp_path, expect=2).stderr
    for words in (["other.jpg"], ["data", "photo.jpg"]):
        assert "edgefer run" not in edgefer(*words, cwd=tmp_path, expect=2).stderr


def test_ferplus_means_the_votes_file_and_not_a_folder_of_that_name(edgefer, tmp_path):
    (tmp_path / "ferplus").mkdir()
    (tmp_path / "fer.csv").write_text(f"emotion,pixels,Usage\n0,{'7 ' * 2304},Training\n")
    stderr = edgefer("train", "--data", "fer.csv", "--labels", "ferplus", cwd=tmp_path, expect=2).stderr
    assert f"no FER+ votes at {tmp_path / 'ferplus.csv'} or " in stderr and "instead of ferplus." in stderr
    assert sorted(file.name for file in tmp_path.iterdir()) == ["fer.csv", "ferplus"]


def test_folds_with_several_workers_are_refused(edgefer, tmp_path):
    config = '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}'
    order = ("train", "--data", "builtin", "--folds", 2, "--out", tmp_path / "run")
    assert "Leave TF_CONFIG out" in edgefer(*order, expect=2, TF_CONFIG=config).stderr


def test_bad_sources_are_named_in_one_sentence(edgefer, tmp_path, converted, empty_video):
    def refuse(*arguments):
        return edgefer("run", converted.path, "--headless", *arguments, expect=2).stderr

    assert "no file or folder" in refuse("--source", tmp_path / "missing.mp4")
    assert "is not a video" in refuse("--source", empty_video)
    assert "holds no images" in refuse("--source", tmp_path / "." if not list(tmp_path.glob("*.png")) else tmp_path)
    assert "There is no camera 97" in refuse("--camera", "97")
    assert "--camera 'front' is not a camera: name a number" in refuse("--camera", "front")
    assert "cannot be opened" in refuse("--source", "http://127.0.0.1:9/none.mjpg")
    assert "name a .mp4" in refuse("--source", "builtin", "--save", tmp_path / "faces.gif")
    empty_video.with_suffix(".avi").write_bytes(b"mine")
    assert "is there already" in refuse("--source", "builtin", "--save", empty_video.with_suffix(".avi"))
    assert empty_video.with_suffix(".avi").read_bytes() == b"mine"


def test_parity_over_budget_exits_with_1_and_writes_a_report(edgefer, converted, tmp_path):
    model = load_keras(converted, "keras")
    model.layers[-1].set_weights([weights[..., ::-1] for weights in model.layers[-1].get_weights()])  # other labels
    files = {name: converted.read(name) for name in converted.card.variants} | {"keras": keras_bytes(model)}
    spoilt = write_bundle(tmp_path / "spoilt", converted.card, files).path
    edgefer("verify", spoilt, "--data", "builtin", "--runtime", "litert", expect=1)
    written = json.loads((spoilt / "report" / "parity.json").read_text())
    assert written["passed"] is False
    assert [check["passed"] for check in written["checks"] if "on litert against" in check["subject"]] == [False, False]


def test_ctrl_c_while_loading_prints_no_traceback(tmp_path):
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")
    done = subprocess.run(
        [sys.executable, "-m", "edgefer", "models"], env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_termination_signals_clean_up_like_ctrl_c(tmp_path, number):
    """Unfinished work is cleaned up: the folder that a training has made is removed while it is empty."""
    code = f"""
import os
from edgefer import cli
from edgefer.train import pipeline
pipeline.load_dataset = lambda *args, **more: os.kill(os.getpid(), {int(number)})
cli.main()
"""
    (tmp_path / "ends.py").write_text(code)
    (tmp_path / "here").mkdir()
    order = ("train", "--data", "builtin", "--recipe", "demo", "--out", "run")
    done = Fork(order, dict(os.environ), tmp_path / "here", tmp_path / "ends.py").done()
    assert (done.returncode, list((tmp_path / "here").iterdir())) == (
        130,
        [],
    ) and "nothing is left of it" in done.stderr


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGINT, 130)], ids=["term", "hup", "int"]
)
def test_run_that_is_terminated_while_it_loads_exits_as_one_terminated_later(tmp_path, number, code):
    (tmp_path / "ends.py").write_text(f"""
import os, signal, time
from edgefer import bundle, cli
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
bundle.Bundle.open = lambda *args, **more: os.kill(os.getpid(), {int(number)}) or time.sleep(60)
cli.main()
""")
    done = Fork(("run", "fer-nano", "builtin"), dict(os.environ), tmp_path, tmp_path / "ends.py").done()
    assert done.returncode == code and "Traceback" not in done.stderr


def test_broken_pipe_is_quiet(converted):
    code = "from edgefer.cli import main; main()"
    command = [sys.executable, "-c", code, "run", str(converted.path), "--source", "builtin", "--headless", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    assert json.loads(process.stdout.readline())["frame"] == 0
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    assert process.wait() == 1


@pytest.mark.parametrize(("source", "code", "lines"), [("builtin", 0, 120), ("missing.jpg", 2, 0)])
def test_a_reader_of_messages_that_has_ended_changes_neither_results_nor_exit_code(source, code, lines):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "edgefer", "run", "fer-nano", source, "--headless", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=write, text=True)
    os.close(write)
    assert (done.returncode, len(done.stdout.splitlines())) == (code, lines)


def test_stored_accuracy_is_that_of_the_network(builtin, converted):
    """The accuracy that `convert` stored equals one computed from the network's predictions."""
    from edgefer.interpreter import Classifier

    split = builtin.split("valid")
    predicted = Classifier.load(converted).network.logits(split.images).argmax(axis=1)
    stored = converted.card.metrics["valid"]["int8"]
    assert stored.accuracy == pytest.approx(np.mean(predicted == split.labels))
    assert stored.accuracy > 0.9


def test_colons_in_an_address_are_not_printed_as_emoji(capsys):
    from edgefer import console

    console.show("http://[fd00:a:b::1]:8000/")
    console.show_table("", ("folder",), [("/data/:dog:/x",)])
    printed = capsys.readouterr().out
    assert ":a:b:" in printed and ":dog:" in printed


@pytest.mark.parametrize(
    "arguments",
    [
        ["bench", "fer-nano", "rtsp://me:hunter2@cam/1"],
        ["compare", "fer-nano", "me:hunter2@host"],
        ["bench", "fer-nano", "token=hunter2"],
        ["doctor", "http://h/?auth=hunter2"],
        ["data", "check", "x", "rtsp://me:own hunter2@cam/1"],
        ["mqtt://me:hunter2@h"],
        ["data", "mqtt://me:hunter2@h"],
        ["run", "--smooth", "mqtt://me:hunter2@h"],
        ["run", "--smooth=mqtt://me:hunter2@h"],
        ["verify", "fer-nano", "--runtime", "me:hunter2@h"],
    ],
)
def test_wrong_usage_shows_no_password(arguments, monkeypatch):
    from typer.testing import CliRunner

    monkeypatch.setenv("COLUMNS", "200")
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2 and "Error" in done.output
    assert "hunter2" not in done.output, done.output


def test_wrong_usage_quotes_harmless_arguments_as_they_were_given(monkeypatch):
    from typer.testing import CliRunner

    monkeypatch.setenv("COLUMNS", "200")
    assert "(runs/a-1 it's)" in CliRunner().invoke(app, ["bench", "fer-nano", "runs/a-1", "it's"]).output
    assert "No such option: --tokn" in CliRunner().invoke(app, ["run", "--tokn=1"]).output


def start(*arguments, code="", **environment):
    """`edgefer ARGS` as a process, after `code`."""
    program = (
        f"import sys\n{code}\nfrom edgefer.cli import main\nsys.argv = ['edgefer', *{[*map(str, arguments)]!r}]\nmain()"
    )
    environment = os.environ | {"DISPLAY": "", "WAYLAND_DISPLAY": ""} | environment
    return subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_characters_that_a_terminal_cannot_show_are_escaped_and_json_stays_valid(encoding, tmp_path):
    name = tmp_path / "喜び.csv"
    name.write_text("emotion,pixels\n0,1 2\n")
    shown = start("data", "check", name, PYTHONIOENCODING=encoding)
    assert b"\\u559c\\u3073.csv" in shown.stderr and b"Traceback" not in shown.stderr
    assert start("--help", PYTHONIOENCODING=encoding).returncode == 0
    labels = json.dumps({"labels": ["喜び", "é", "😀"]})
    code = f"from edgefer import console; console.show_json({labels}); sys.exit(0)"
    assert json.loads(start(code=code, PYTHONIOENCODING=encoding).stdout) == json.loads(labels)


@pytest.mark.parametrize("arguments", [["run", "builtin", "--frames", "1"], ["models", "--json"]])
def test_closed_stdout_causes_no_error(arguments, tmp_path):
    done = subprocess.run(
        ["sh", "-c", '"$0" -c "from edgefer.cli import main; main()" "$@" >&-', sys.executable, *arguments],
        capture_output=True,
        cwd=tmp_path,
        env=os.environ | {"DISPLAY": "", "WAYLAND_DISPLAY": ""},
    )
    assert done.returncode == 0 and b"NoneType" not in done.stderr, done.stderr


def test_an_empty_name_is_not_the_current_folder(edgefer, tmp_path):
    (tmp_path / "happy").mkdir()
    assert "empty text" in edgefer("run", "", cwd=tmp_path, expect=2).stderr
    assert "empty text" in edgefer("data", "check", "", cwd=tmp_path, expect=2).stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "builtin", "--threads", "100000"], ["run", "builtin", "--target-fps", "inf"],
        ["run", "builtin", "--target-fps", "0.05"], ["run", "builtin", "--fps", "1e300"],
        ["convert", "--prune", "1.5"], ["convert", "--slim", "0.96"], ["compare", "--prune", "1.5"],
    ],
)  # fmt: skip
def test_out_of_range_numbers_are_wrong_usage(edgefer, arguments):
    assert f"Invalid value for '{arguments[-2]}'" in edgefer(*arguments, expect=2).stderr


def test_minimum_frame_rate_is_the_same_as_in_python(edgefer):
    edgefer("run", "builtin", "--frames", 1, "--target-fps", MIN_TARGET_FPS)


@pytest.mark.parametrize("folder", [".", "..", "/"])
def test_folder_without_a_name_gives_a_clear_error(edgefer, tmp_path, folder):
    (tmp_path / "inner").mkdir()
    for command in ("report", "import"):
        assert edgefer(command, folder, cwd=tmp_path / "inner", expect=2).stderr.startswith("edgefer: ")


def test_output_made_from_the_current_folder_is_written_beside_it(tmp_path, monkeypatch):
    card = Bundle.open(shipped_bundles()["fer-nano"]).card
    monkeypatch.chdir(tmp_path)
    for named in (Path("."), Path("../mine"), tmp_path / "mine"):
        (tmp_path / "mine").mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / "mine")
        assert made_from(Bundle(named, card), "int8").resolve() == tmp_path / "mine-int8"
