"""`edgefer export web`: the page proves itself in a browser, reads a camera, sends nothing, and its rules are `run`'s own."""

import base64
import gzip
import json
import queue
import re
import shutil
import subprocess
import threading
import zlib
from contextlib import contextmanager
from functools import partial
from http.server import ThreadingHTTPServer
from urllib.parse import unquote

import cv2
import numpy as np
import pytest

from edgefer import drawn
from edgefer.bundle import Bundle, shipped_bundles
from edgefer.c.host import FLAGS, address, compiled
from edgefer.c.subject import read_subject
from edgefer.checks import Status
from edgefer.commands.page_rules import device_of
from edgefer.convert.c.targets import prove_page
from edgefer.convert.web import wasm
from edgefer.convert.web.haar import cascade_file, read_cascade
from edgefer.convert.web.serve import _Handler
from edgefer.convert.web.site import export_web, gzip_bytes, make_site
from edgefer.devices.faces.detectors import HaarDetector
from edgefer.devices.faces.quality import quality_fault
from edgefer.devices.faces.smoothing import PRESETS, LabelSmoother
from edgefer.preprocess import prepare
from edgefer.records import Detection
from tests.conftest import CHROMIUM, GRAY48

LIMIT = 900_000  # bytes to download, compressed


@pytest.fixture(scope="module")
def subject():
    return read_subject(Bundle.open(shipped_bundles()["ferplus-small"]))


@pytest.fixture(scope="module")
def site(subject, tmp_path_factory):
    """The exported page of ferplus-small; copy what you change."""
    out = tmp_path_factory.mktemp("site") / "page"
    export_web(subject, device_of(subject.bundle.card), out)
    return out


def browse(page, *flags, budget=20_000) -> str:
    """The page's DOM once it has settled: Chromium's virtual time does not wait for WebAssembly that is still compiling."""
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"--virtual-time-budget={budget}", *flags,
        f"file://{page}",
    ]  # fmt: skip
    for _ in range(3):
        dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
        if 'data-state="starting"' not in dom:
            break
    return dom


def with_script(site, folder, script: str):
    """A copy of the page that also runs `script`, and its path."""
    shutil.copytree(site, folder / "page")
    (folder / "page" / "test.js").write_text(script)
    index = folder / "page" / "index.html"
    index.write_text(index.read_text().replace("</head>", '<script src="test.js" defer></script></head>'))
    return index


def proof(dom: str) -> dict[str, tuple[str, str]]:
    """What the page's table says: name -> (differ, of)."""
    rows = re.findall(r"<tr[^>]*><th[^>]*>(\w+)</th><td[^>]*>([\d,]+)</td><td[^>]*>([\d,]+)</td></tr>", dom)
    return {name: (wrong, of) for name, wrong, of in rows}


# ---- the page ----


@pytest.mark.chromium
def test_the_page_proves_itself_and_only_then_offers_the_camera(site, subject):
    dom = browse(site / "index.html")
    assert 'data-state="ready"' in dom
    assert proof(dom) == {"Network": ("0", "1"), "Pixels": ("0", "9,216"), "Answers": ("0", "384")}
    assert re.search(r'<button id="camera" class="main">', dom)
    assert subject.bundle.hash in dom


@pytest.mark.chromium
def test_the_browser_gives_a_row_with_its_version(site, tmp_path):
    row = prove_page(site)
    assert row.status is Status.PASS and "0 of 384 answers differ" in row.detail and "Chrom" in row.subject
    shutil.copytree(site, tmp_path / "page")
    script = (tmp_path / "page" / "bundle.js").read_text()
    place = script.index('"answers": "') + 60
    (tmp_path / "page" / "bundle.js").write_text(script[:place] + "AAAA" + script[place + 4 :])
    assert prove_page(tmp_path / "page").status is Status.FAIL


@pytest.mark.chromium
def test_the_engine_without_simd_gives_the_same(site, tmp_path):
    script = """
      Engine.start(BUNDLE, false).then(engine => prove(engine, BUNDLE)).then(rows => {
        document.body.dataset.plain = JSON.stringify(rows.map(row => row.wrong)) })"""
    assert 'data-plain="[0,0,0]"' in browse(with_script(site, tmp_path, script))


@pytest.mark.chromium
@pytest.mark.parametrize("part", ["network", "vectors"])
def test_a_flipped_bit_keeps_the_camera_off(site, tmp_path, part):
    shutil.copytree(site, tmp_path / "page")
    file = tmp_path / "page" / "bundle.js"
    bundle = json.loads(file.read_text().removeprefix("const BUNDLE = "))
    place = bundle if part == "network" else bundle["vectors"]
    name = "network" if part == "network" else "answers"
    raw = bytearray(zlib.decompress(base64.b64decode(place[name])))
    raw[len(raw) // 2] ^= 1
    place[name] = base64.b64encode(zlib.compress(bytes(raw))).decode()
    file.write_text(f"const BUNDLE = {json.dumps(bundle)}\n")
    dom = browse(tmp_path / "page" / "index.html")
    assert 'data-state="failed"' in dom and "not the network that was proven" in dom
    assert re.search(r'<button id="camera" class="main" disabled="">', dom)


@pytest.mark.chromium
def test_the_page_can_send_nothing(site, tmp_path):
    script = """
      const results = []
      addEventListener('securitypolicyviolation', event => { results.push(event.effectiveDirective); document.body.dataset.refused = results.join() })
      fetch('https://example.org/').catch(() => {})
      new Image().src = 'https://example.org/x.png'
      try { new WebSocket('wss://example.org/') } catch {}
      navigator.sendBeacon('https://example.org/', 'x')"""
    dom = browse(with_script(site, tmp_path, script))
    refused = set(re.search(r'data-refused="([^"]*)"', dom)[1].split(","))
    assert {"connect-src", "img-src"} <= refused


@pytest.fixture(scope="module")
def fake_camera(tmp_path_factory):
    """A .y4m of a drawn face that keeps still."""
    file = tmp_path_factory.mktemp("camera") / "face.y4m"
    frame = next(iter(drawn.scene(seconds=1, fps=1, size=(640, 480), people=1, seed=3)))[0].image_bgr
    with file.open("wb") as out:
        out.write(b"YUV4MPEG2 W640 H480 F10:1 Ip A1:1 C420jpeg\n")
        for _ in range(10):
            out.write(b"FRAME\n" + cv2.cvtColor(frame, cv2.COLOR_BGR2YUV_I420).tobytes())
    return file


@contextmanager
def reported(site, folder, script: str, *flags):
    """What `script` reports in a running browser, in real time, as JSON: the page comes from a server on this machine,
    which reads it off the name of an image; nothing else of the page's policy lets out a word."""
    with_script(
        site,
        folder,
        "const report = told => { new Image().src = 'told?' + encodeURIComponent(JSON.stringify(told)) };" + script,
    )
    told: queue.Queue = queue.Queue()

    class Handler(_Handler):
        def do_GET(self):
            if self.path.startswith("/told?"):
                told.put(json.loads(unquote(self.path.partition("?")[2])))
                self.send_error(404)
            else:
                super().do_GET()

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder / "page")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://localhost:{server.server_address[1]}/"
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}", *flags]
    browser = subprocess.Popen([*command, "--remote-debugging-port=0", address], stderr=subprocess.DEVNULL)
    try:
        yield told
    finally:
        browser.kill()
        browser.wait()
        server.shutdown()
        server.server_close()


CAMERA = """
  const wait = setInterval(() => {
    if (document.body.dataset.state === 'ready' && !stream) document.getElementById('camera').click()
    if (rows.length > 5) {
      clearInterval(wait)
      report({ rows: rows.length, ids: [...new Set(rows.map(row => row[1]))], label: rows[5][6], box: rows[5].slice(2, 6) })
    }
  }, 100)"""


@pytest.mark.chromium
def test_a_camera_s_face_is_found_read_and_keeps_its_number(site, tmp_path, fake_camera, subject):
    flags = (
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={fake_camera}",
    )
    with reported(site, tmp_path, CAMERA, *flags) as told:
        seen = told.get(timeout=90)
    assert seen["rows"] > 5 and len(seen["ids"]) == 1
    assert seen["label"] in (*subject.bundle.card.labels, "unsure")
    left, top, right, bottom = seen["box"]
    assert right - left > 60 and bottom - top > 60


@pytest.mark.chromium
def test_the_page_is_kept_for_use_without_a_network(site, tmp_path, subject):
    script = """
      navigator.serviceWorker.ready.then(async () => {
        const [name] = await caches.keys(), kept = await (await caches.open(name)).keys()
        report({ name, kept: kept.map(request => new URL(request.url).pathname) }) })"""
    with reported(site, tmp_path, script) as told:
        seen = told.get(timeout=90)
    assert seen["name"].startswith("edgefer-")
    assert {
        f"/{name}" for name in make_site(subject, device_of(subject.bundle.card)) if name not in ("sw.js", "README.md")
    } <= set(seen["kept"])


@pytest.mark.chromium
@pytest.mark.parametrize("width", [320, 1280])
def test_nothing_is_wider_than_the_window(site, tmp_path, width):
    """Chromium's own window is never narrower than 500 px, so the page stands in a frame of that width."""
    script = f"""
      if (window === top) {{
        const frame = document.createElement('iframe')
        frame.style.width = '{width}px'
        frame.src = 'index.html'
        document.body.replaceChildren(frame)
      }} else setTimeout(() => {{
        const root = document.documentElement
        report({{ width: root.clientWidth, over: root.scrollWidth - root.clientWidth, state: document.body.dataset.state }})
      }}, 3000)"""
    shutil.copytree(site, tmp_path / "site")
    index = tmp_path / "site" / "index.html"
    index.write_text(index.read_text().replace("default-src 'none'", "default-src 'none'; frame-src 'self'"))
    with reported(tmp_path / "site", tmp_path, script, "--window-size=1400,1000") as told:
        seen = told.get(timeout=90)
    assert seen["over"] == 0 and width - 20 <= seen["width"] <= width


@pytest.mark.chromium
def test_every_control_that_works_is_reached_by_keyboard_and_shows_it(site, tmp_path):
    script = """
      const wait = setInterval(() => {
        if (document.body.dataset.state !== 'ready') return
        clearInterval(wait)
        const shown = control => control.id === 'photo' ? document.getElementById('open') : control
        const reached = [...document.querySelectorAll('button, input, select')].filter(control => {
          control.focus()
          return document.activeElement === control && getComputedStyle(shown(control)).outlineStyle === 'solid' })
        document.body.dataset.reached = reached.map(control => control.id).join()
      }, 100)"""
    assert 'data-reached="camera,photo,smooth,reject"' in browse(with_script(site, tmp_path, script))


def test_a_stranger_s_name_and_labels_stay_text(site):
    script = (site / "page.js").read_text() + (site / "proof.js").read_text()
    assert "innerHTML" not in script and "insertAdjacentHTML" not in script and "document.write" not in script


def test_the_whole_page_is_small_enough_to_download(subject):
    files = make_site(subject, device_of(subject.bundle.card))
    assert gzip_bytes(files) < LIMIT, gzip_bytes(files)


def test_the_service_worker_keeps_every_file_and_changes_with_them(subject):
    files = make_site(subject, device_of(subject.bundle.card))
    worker = files["sw.js"].decode()
    kept = re.findall(r"'([^']+)'", worker.split("FILES = [")[1].split("]")[0])
    assert set(kept) == {"./", *files} - {"sw.js", "README.md"}
    assert "@" not in worker.split("\n")[2]
    assert json.loads(files["manifest.webmanifest"])["display"] == "standalone"


def test_the_page_asks_the_network_for_nothing(site):
    for file in site.iterdir():
        if file.suffix in {".html", ".css", ".js", ".webmanifest"} and file.name != "bundle.js":
            assert not re.search(r"https?://(?!www\.w3\.org)", file.read_text()), file.name
    index = (site / "index.html").read_text()
    assert "default-src 'none'" in index and "connect-src 'none'" in index


# ---- its rules are those of `run` ----

RULES = """
  const given = %s, out = { labels: [], faults: [] }
  for (const { preset, reject, steps } of given.runs) {
    const smoother = new LabelSmoother(BUNDLE.rules.presets[preset], reject, BUNDLE.rules)
    out.labels.push(steps.map(([id, time_s, scores, fault]) => smoother.settle(id, time_s, scores, fault)))
  }
  for (const { box, pixels } of given.faces) out.faults.push(qualityFault(box, Uint8Array.from(pixels), BUNDLE.card.input, BUNDLE.rules))
  document.body.dataset.rules = JSON.stringify(out)"""


@pytest.mark.chromium
def test_smoothing_and_unsure_are_run_s_own(site, tmp_path):
    rng = np.random.default_rng(2)
    labels = ("a", "b", "c")
    runs, expected = [], []
    for preset in PRESETS:
        for reject in (0.0, 0.45):
            smoother, time_s, steps, told = LabelSmoother(PRESETS[preset], reject=reject), 0.0, [], []
            leaning = rng.dirichlet((1, 1, 1))
            for number in range(80):
                time_s += float(rng.choice([0.03, 0.1, 0.3]))
                if number % 12 == 0:
                    leaning = rng.dirichlet((0.5, 0.5, 0.5))
                scores = (0.6 * leaning + 0.4 * rng.dirichlet((1, 1, 1))).tolist()
                fault = str(rng.choice(["", "", "", "dark"]))
                track = int(rng.integers(1, 3))
                steps.append((track, time_s, scores, fault))
                shown, unsure = smoother.settle(track, time_s, dict(zip(labels, scores, strict=True)), fault)
                told.append((list(shown.values()), unsure))
            runs.append({"preset": preset, "reject": reject, "steps": steps})
            expected.append(told)
    faces, faults = _faces(rng)
    dom = browse(with_script(site, tmp_path, RULES % json.dumps({"runs": runs, "faces": faces})))
    got = json.loads(re.search(r'data-rules="([^"]*)"', dom)[1].replace("&quot;", '"'))
    for run, told in zip(got["labels"], expected, strict=True):
        assert [one["unsure"] for one in run] == [unsure for _, unsure in told]
        assert np.allclose([one["scores"] for one in run], [scores for scores, _ in told], atol=1e-9)
    assert got["faults"] == faults and len(set(faults)) >= 4


def _faces(rng) -> tuple[list[dict], list[str]]:
    """Faces in every light and sharpness, and what `run` says of each."""
    drawn_faces, _ = drawn.face_set(8, 5)
    faces, faults = [], []
    for number, image in enumerate(drawn_faces):
        side = int(rng.choice([15, 60]))
        changed = [
            image,
            image // 8,
            np.clip(image.astype(int) + 190, 0, 255).astype(np.uint8),
            cv2.blur(image, (15, 15)),
        ]
        pixels = prepare(changed[number % 4], GRAY48)
        box = (0, 0, side, side)
        faces.append({"box": box, "pixels": pixels.ravel().tolist()})
        faults.append(quality_fault(Detection(box_xyxy=box), pixels))
    return faces, faults


# ---- the detector, and the committed WebAssembly ----


@pytest.mark.gcc
@pytest.mark.parametrize("kind", ["human", "cat"])
def test_the_detector_finds_the_boxes_that_opencv_finds(kind):
    library = compiled(("edgefer_faces.c", "edgefer_pixels.c"), (*FLAGS, "-fno-math-errno"))
    file = cascade_file(HaarDetector.CASCADES[kind])
    words, opencv = read_cascade(file), cv2.CascadeClassifier(str(file))
    found = 0
    for seed in range(12):
        size = ((320, 240), (240, 320), (203, 151))[seed % 3]
        image = next(iter(drawn.scene(seconds=1, fps=1, size=size, people=2, seed=seed)))[0].image_bgr
        gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        height, width = gray.shape
        workspace = np.zeros(library.edgefer_faces_bytes(height, width) // 8 + 1, np.uint64)
        boxes = np.zeros((64, 4), np.int32)
        count = library.edgefer_faces(
            address(words), address(gray), height, width, 24, address(workspace), address(boxes), 64
        )
        expected = [(x, y, x + w, y + h) for x, y, w, h in opencv.detectMultiScale(gray, 1.1, 4, minSize=(24, 24))]
        assert sorted(map(tuple, boxes[:count].tolist())) == sorted(tuple(map(int, box)) for box in expected), seed
        found += count
    assert found or kind == "cat"


def test_the_committed_webassembly_was_made_of_this_very_c():
    facts = json.loads(wasm.committed(wasm.FACTS))
    assert facts["sources_sha256"] == wasm.sources_sha256(), "python -m edgefer.convert.web.wasm"


@pytest.mark.wasm
@pytest.mark.parametrize("name", wasm.FILES)
def test_the_committed_webassembly_is_what_this_compiler_makes(name):
    made_by = json.loads(wasm.committed(wasm.FACTS))["compiler"]
    if made_by != wasm.clang_version():
        pytest.skip(f"it was made by {made_by}, here is {wasm.clang_version()}")
    assert wasm.build(wasm.FILES[name]) == wasm.committed(name)
    assert len(gzip.compress(wasm.committed(name))) < 12_000


def test_the_command_writes_a_page_and_lists_it(edgefer, tmp_path):
    done = edgefer("export", "web", "fer-nano", tmp_path / "page", "--json")
    told = json.loads(done.stdout)
    assert told["gzip_bytes"] < LIMIT and (tmp_path / "page" / "index.html").exists()
