"""What users see and choose in an export: credits, usage, labels in their language, JSON for scripts."""

import json
import queue
import re
import shutil
import socket
import struct
import subprocess
import threading
import time
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from edgefer.cli import app
from edgefer.commands.page_rules import device_of
from edgefer.convert.c.project import TAKEN, make_project
from edgefer.convert.c.text import credit
from edgefer.convert.web import serve
from edgefer.convert.web.site import download_bytes, make_site
from edgefer.errors import InputError
from tests.convert.pages import browse

GERMAN = "wütend,Ekel,Angst,froh,traurig,überrascht,neutral"
USE = """
static const uint8_t camera_buffer[240 * 320];
int main(void) {
  %s
  const int label = read_face(&frame, box, &crop);
  return label < 0 || label >= EDGEFER_LABELS;
}
"""


def test_both_exports_name_the_network_s_author_and_licence(nano, project):
    readmes = ((project / "README.md").read_text(), make_site(nano, device_of(nano.bundle.card))["README.md"].decode())
    for readme in readmes:
        assert "by the edgefer authors, licence Apache-2.0" in readme
    anonymous = nano.bundle.card.model_copy(update={"author": "", "license": "*/ GPL"})
    assert credit(anonymous) == "author not named in its card, licence ?? GPL"


def test_readmes_keep_the_letters_of_every_script(nano):
    labels = ("wütend", "Ekel", "खुश", "שמח", "日本", "a|b", "<i>`x`")
    card = nano.bundle.card.model_copy(update={"labels": labels, "author": "José Ñandú", "name": "Gefühle"})
    subject = replace(nano, bundle=replace(nano.bundle, card=card))
    page = make_site(subject, device_of(card))["README.md"].decode()
    readme = make_project(subject, [])["README.md"].decode()
    assert "| labels | 7: wütend, Ekel, खुश, שמח, 日本, a?b, ?i??x? |" in readme
    assert "--labels 'wütend,Ekel,खुश,שמח,日本,a?b,?i??x?' --smooth" in page
    for shown in (readme, page):
        assert shown.startswith("# Gefühle ") and "by José Ñandú, licence Apache-2.0" in shown


@pytest.mark.gcc
def test_readme_example_from_frame_to_label_compiles_and_runs(project, tmp_path):
    readme = (project / "README.md").read_text()
    use = re.search(r"```c\n(.*?)```", readme, re.DOTALL)[1]
    lines = re.findall(r"^    ((?:const )?Edgefer(?:Frame|Crop) .*;|const int32_t box.*;)$", readme, re.MULTILINE)
    assert len(lines) == 3
    (tmp_path / "main.c").write_text(use + USE % "\n  ".join(lines))
    sources = [str(project / name) for name in TAKEN]
    program = tmp_path / "main"
    command = [
        "cc",
        "-std=c99",
        "-O2",
        "-Wall",
        "-Werror",
        "-ffp-contract=off",
        f"-I{project}",
        "-o",
        program,
        tmp_path / "main.c",
    ]
    built = subprocess.run([*command, *sources], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert subprocess.run([program]).returncode == 0


@pytest.mark.gcc
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler: sudo apt install g++")
@pytest.mark.parametrize("standard", ["c++11", "c++17"])
def test_c_plus_plus_can_include_the_headers_and_call_the_c(project, tmp_path, standard):
    use = re.search(r"```c\n(.*?)```", (project / "README.md").read_text(), re.DOTALL)[1]
    main = (
        "int main() { return edgefer_check(edgefer_network, EDGEFER_NETWORK_WORDS) + !edgefer_labels[0] + !model[0]; }"
    )
    (tmp_path / "main.cpp").write_text('#include "model.h"\n#include "model.h"\n' + use + main)
    for name in TAKEN:
        subprocess.run(["cc", "-std=c99", "-c", project / name, "-o", tmp_path / f"{name}.o"], check=True)
    warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    objects = [tmp_path / f"{name}.o" for name in TAKEN]
    command = ["g++", f"-std={standard}", *warnings, f"-I{project}", tmp_path / "main.cpp", *objects]
    built = subprocess.run([*command, "-o", tmp_path / "main"], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert subprocess.run([tmp_path / "main"]).returncode == 0


@pytest.mark.arm
def test_make_size_shows_the_firmware_parts_separately_from_the_self_test(nano, project, tmp_path):
    project = shutil.copytree(project, tmp_path / "c")
    done = subprocess.run(["make", "-s", "size"], cwd=project, capture_output=True, text=True, check=True)
    text = {line.split()[-1]: int(line.split()[0]) for line in done.stdout.splitlines()[1:]}
    assert list(text) == ["edgefer_net.arm.o", "edgefer_pixels.arm.o", "network.arm.o", "selftest_arm.elf"]
    assert 4 * len(nano.program.words) <= text["network.arm.o"] < 4 * len(nano.program.words) + 500
    assert text["edgefer_net.arm.o"] + text["edgefer_pixels.arm.o"] < 10_000
    subprocess.run(["make", "-s", "clean"], cwd=project, check=True)
    assert not list(project.glob("*.o"))


def test_page_can_have_translated_labels_and_other_initial_settings(nano):
    device = device_of(nano.bundle.card, labels=GERMAN, smooth="calm", reject=0.6)
    bundle = json.loads(make_site(nano, device)["bundle.js"].decode().removeprefix("const BUNDLE = "))
    settings = json.loads(bundle["settings"])
    assert settings["card"]["labels"] == GERMAN.split(",")
    assert settings["rules"]["smooth"] == "calm" and settings["rules"]["reject"] == 0.6
    plain = device_of(nano.bundle.card)
    assert list(settings["colors"].values()) == list(plain.colors.values()), "a label keeps its colour"


@pytest.mark.parametrize(
    "labels", ["froh", GERMAN + ",noch", GERMAN.replace("froh", "Angst"), GERMAN.replace("froh", "")]
)
def test_labels_that_do_not_fit_the_network_are_refused(nano, labels):
    with pytest.raises(InputError, match=r"name 7 different labels.*angry,disgust"):
        device_of(nano.bundle.card, labels=labels)


@pytest.mark.chromium
def test_page_shows_its_passed_self_check_and_the_licence(nano, tmp_path):
    for name, content in make_site(nano, device_of(nano.bundle.card, labels=GERMAN)).items():
        (tmp_path / name).write_bytes(content)
    dom = browse(tmp_path / "index.html", budget=60_000)
    assert "Yes: of all this, not one value differs" in dom and "licence Apache-2.0" in dom


def test_export_web_serve_shows_the_proof_first_and_prints_json_alone_on_stdout(tmp_path, monkeypatch):
    served = []

    def pretend(folder, port, ready):
        served.append(folder)
        ready(f"http://127.0.0.1:{port}/")

    monkeypatch.setattr(serve, "serve", pretend)
    out = tmp_path / "page"
    done = CliRunner().invoke(app, ["export", "web", "fer-nano", str(out), "--serve", "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["out"] == str(out) and served == [out]
    assert "127.0.0.1:8080" in done.stderr
    (out / "CNAME").write_text("example.org\n" * 999)  # a file that a host needs beside the page is no part of it
    assert download_bytes(out) == json.loads(done.stdout)["gzip_bytes"]
    (out / "CNAME").unlink()
    shown = CliRunner().invoke(app, ["export", "web", "fer-nano", str(out), "--serve"]).stdout
    assert shown.index("checks passed") < shown.index("127.0.0.1:8080")


def test_client_disconnect_during_a_download_prints_no_traceback(tmp_path, capfd):
    (tmp_path / "bundle.js").write_bytes(bytes(30_000_000))
    addresses: queue.Queue = queue.Queue()
    threading.Thread(target=serve.serve, args=(tmp_path, 0, addresses.put), daemon=True).start()
    port = int(addresses.get(timeout=30).split(":")[2].strip("/"))
    before = threading.active_count()
    with socket.create_connection(("127.0.0.1", port)) as left:
        left.sendall(b"GET /bundle.js HTTP/1.0\r\n\r\n")
        assert left.recv(100)
        assert threading.active_count() > before, "it is being sent"
        left.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closed by a reset
    for _ in range(300):
        if threading.active_count() <= before:
            break
        time.sleep(0.1)
    assert threading.active_count() <= before and capfd.readouterr().err == ""
