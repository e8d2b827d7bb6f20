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
from itertools import chain
from urllib.parse import unquote

import cv2
import numpy as np
import pytest
import skimage.data

from edgefer import drawn
from edgefer.bundle import Bundle, shipped_bundles
from edgefer.c.subject import read_subject
from edgefer.checks import Status
from edgefer.commands.page_rules import device_of
from edgefer.convert.c.targets import prove_page
from edgefer.convert.web import wasm
from edgefer.convert.web.questions import VIEWS
from edgefer.convert.web.serve import _Handler
from edgefer.convert.web.site import export_web, gzip_bytes, make_site
from edgefer.devices.faces.own import OwnDetector
from edgefer.devices.faces.quality import quality_fault
from edgefer.devices.faces.smoothing import PRESETS, LabelSmoother
from edgefer.devices.faces.tracking import Tracker
from edgefer.preprocess import prepare
from edgefer.records import Detection, Frame
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
    rows = re.findall(r"<tr[^>]*><th[^>]*>([^<]+)</th><td[^>]*>([\d,]+)</td><td[^>]*>([\d,]+)</td></tr>", dom)
    return {name: (wrong, of) for name, wrong, of in rows}


# ---- the page ----


@pytest.mark.chromium
def test_the_page_proves_itself_and_only_then_offers_the_camera(site, subject):
    dom = browse(site / "index.html")
    assert 'data-state="ready"' in dom
    assert proof(dom) == {
        "Networks and settings": ("0", "4"),
        "Pixels": ("0", "46,080"),
        "Box edges": ("0", "32"),
        "Answers": ("0", "448"),
        "Detector's answers": ("0", "7,974"),
    }
    assert re.search(r'<button id="camera" class="main">', dom)
    assert subject.bundle.hash in dom


@pytest.mark.chromium
def test_the_browser_gives_a_row_with_its_version(site, tmp_path):
    row = prove_page(site)
    assert (
        row.status is Status.PASS
        and "0 of 448 answers differ" in row.detail
        and "0 of 32 box edges" in row.detail
        and "Chrom" in row.subject
    )
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
    assert 'data-plain="[0,0,0,0,0]"' in browse(with_script(site, tmp_path, script))


@pytest.mark.chromium
@pytest.mark.parametrize("part", ["reader", "finder", "refiner", "answers", "boxes", "labels"])
def test_a_flipped_bit_keeps_the_camera_off(site, tmp_path, part):
    shutil.copytree(site, tmp_path / "page")
    file = tmp_path / "page" / "bundle.js"
    bundle = json.loads(file.read_text().removeprefix("const BUNDLE = "))
    if part == "labels":  # in another order
        card = json.loads(bundle["settings"])["card"]["labels"]
        bundle["settings"] = bundle["settings"].replace(json.dumps(card), json.dumps(card[::-1]))
    elif part == "boxes":
        bundle["questions"]["faces"][1][2]["box"][0] ^= 1
    else:
        place, name = (bundle["questions"], part) if part == "answers" else (bundle["networks"][part], "words")
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
def test_a_camera_that_comes_late_is_switched_off_and_nothing_of_the_last_image_stays(site, tmp_path):
    """Two presses while the browser asks for permission open two cameras, of which one would have stayed on."""
    script = """
      const source = document.createElement('canvas'), given = []
      source.getContext('2d').fillRect(0, 0, 9, 9)
      navigator.mediaDevices.getUserMedia = () => new Promise(done => setTimeout(() => {
        given.push(source.captureStream())
        done(given.at(-1))
      }, 200))
      const pause = ms => new Promise(done => setTimeout(done, ms))
      const wait = setInterval(async () => {
        if (document.body.dataset.state !== 'ready') return
        clearInterval(wait)
        $('camera').click()
        $('camera').click()
        closeCamera()
        await pause(1000)
        const live = given.filter(one => one.getTracks().some(track => track.readyState === 'live')).length
        const red = new OffscreenCanvas(20, 20), clear = new OffscreenCanvas(20, 20)
        red.getContext('2d').fillStyle = 'red'
        red.getContext('2d').fillRect(0, 0, 20, 20)
        clear.getContext('2d')
        read(red, 20, 20, 100)
        report({ given: given.length, live, left: [...read(clear, 20, 20, 100).pixels].some(Boolean) })
      }, 100)"""
    with reported(site, tmp_path, script) as told:
        assert told.get(timeout=90) == {"given": 2, "live": 0, "left": False}


@pytest.mark.chromium
def test_the_page_is_kept_for_use_without_a_network(site, tmp_path, subject):
    script = """
      navigator.serviceWorker.ready.then(async () => {
        const [name] = await caches.keys(), kept = await (await caches.open(name)).keys()
        report({ name, kept: kept.map(request => new URL(request.url).pathname) }) })"""
    with reported(site, tmp_path, script) as told:
        seen = told.get(timeout=90)
    assert seen["name"].startswith("edgefer ")
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


def test_the_page_s_views_of_its_stored_frame_hold_faces_of_many_sizes(subject, site):
    bundle = json.loads((site / "bundle.js").read_text().removeprefix("const BUNDLE = "))
    sides = [face["box"][2] - face["box"][0] for faces in bundle["questions"]["faces"] for face in faces]
    assert len(bundle["questions"]["faces"]) == len(VIEWS) and len(sides) >= 8 and max(sides) > 4 * min(sides)
    assert len({VIEWS[number].of(subject.vectors.frames[0]).shape for number in range(len(VIEWS))}) == len(VIEWS)


def test_the_service_worker_keeps_every_file_and_changes_with_them(subject):
    files = make_site(subject, device_of(subject.bundle.card))
    worker = files["sw.js"].decode()
    kept = re.findall(r"'([^']+)'", worker.split("FILES = [")[1].split("]")[0])
    assert set(kept) == {"./", *files} - {"sw.js", "README.md"}
    assert "@" not in worker
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
  for (const { box, pixels } of given.faces) out.faults.push(qualityFault({ box, turn: 0 }, Uint8Array.from(pixels), BUNDLE.card.input, BUNDLE.rules))
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


FACES = """
  const given = %s, out = []
  Engine.start(BUNDLE).then(async engine => {
    for (const { pixels, height, width } of given)
      out.push(engine.detector.find(engine.take({ pixels: await unpack(pixels), height, width, format: 'bgr' })))
    document.body.dataset.faces = JSON.stringify(out)
  })"""


@pytest.mark.chromium
def test_the_faces_are_those_that_edgefer_s_own_detector_finds(site, tmp_path):
    """On a photograph at several sizes and tilts, and on drawn people; with the runtime that is installed here."""
    photo = cv2.cvtColor(skimage.data.astronaut(), cv2.COLOR_RGB2BGR)
    turned = cv2.warpAffine(photo, cv2.getRotationMatrix2D((256, 256), 25, 1.0), (512, 400))
    small, tall = cv2.resize(photo, (150, 150), interpolation=cv2.INTER_AREA), cv2.resize(photo, (700, 1000))
    crowd = next(iter(drawn.scene(seconds=1, fps=1, size=(640, 360), people=3, seed=8)))[0].image_bgr
    frames = [photo, turned, small, tall, crowd, photo[:, 120:300], np.zeros((90, 100, 3), np.uint8)]
    given = [
        {
            "pixels": base64.b64encode(zlib.compress(np.ascontiguousarray(frame).tobytes())).decode(),
            "height": frame.shape[0],
            "width": frame.shape[1],
        }
        for frame in frames
    ]
    detector = OwnDetector.shipped()
    expected = [detector.find(frame) for frame in frames]
    dom = browse(with_script(site, tmp_path, FACES % json.dumps(given)))
    got = json.loads(re.search(r'data-faces="([^"]*)"', dom)[1].replace("&quot;", '"'))
    assert [[tuple(face["box"]) for face in found] for found in got] == [
        [face.box_xyxy for face in found] for found in expected
    ]
    for here, there in zip(chain(*got), chain(*expected), strict=True):
        told = here["score"], here["rollDeg"], here["turn"]
        assert told == pytest.approx((there.score, there.roll_deg, there.turn), abs=1e-6)
    assert [len(found) for found in expected][:4] == [1, 1, 1, 1] and len(expected[4]) >= 2 and not expected[6]


TRACKS = """
  const given = %s, told = new Tracker(BUNDLE.rules)
  document.body.dataset.tracks = JSON.stringify(given.map(([faces, time_s]) =>
    told.follow(faces, time_s).map(face => [face.id, face.box, face.rollDeg])))"""


class Told:
    """A detector that finds the faces it is given."""

    name, min_new_score = "told", OwnDetector.min_new_score

    def __init__(self, steps):
        self.steps = iter(steps)

    def find(self, image_bgr):
        return next(self.steps)


@pytest.mark.chromium
def test_faces_keep_their_numbers_and_roll_as_they_do_in_run(site, tmp_path):
    """One face from the first frame, one that comes in and is sure once, and one that never is."""
    rng, steps = np.random.default_rng(6), []
    times = np.cumsum(rng.choice([0.03, 0.1, 0.2], 40)).tolist()
    for number in range(40):
        scores = [0.9, *([0.8 if number == 20 else 0.62] if number > 9 else []), *([0.65] if number > 14 else [])]
        faces = []
        for place, score in enumerate(scores):
            x, y = 150 * place + int(rng.integers(0, 12)), 30 + number
            faces.append(
                Detection(box_xyxy=(x, y, x + 90 - 9 * place, y + 90), score=score, roll_deg=rng.uniform(-180, 180))
            )
        steps.append(faces)
    tracker, blank = Tracker(Told(steps)), np.zeros((200, 500, 3), np.uint8)
    expected = [tracker.follow(Frame(index=0, image_bgr=blank, time_s=time_s)) for time_s in times]
    given = [
        [[{"box": f.box_xyxy, "score": f.score, "rollDeg": f.roll_deg, "turn": 0} for f in faces], time_s]
        for faces, time_s in zip(steps, times, strict=True)
    ]
    dom = browse(with_script(site, tmp_path, TRACKS % json.dumps(given)))
    got = json.loads(re.search(r'data-tracks="([^"]*)"', dom)[1])
    assert [[(one[0], tuple(one[1])) for one in shown] for shown in got] == [
        [(face.id, face.box_xyxy) for face in shown] for shown in expected
    ]
    for shown, faces in zip(got, expected, strict=True):
        assert [one[2] for one in shown] == pytest.approx([face.roll_deg for face in faces], abs=1e-9)
    assert [len(shown) for shown in expected] == [1] * 20 + [2] * 20


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


# ---- the committed WebAssembly ----


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
