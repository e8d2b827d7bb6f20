"""`edgefer export web`: the page proves itself in a browser, reads a camera, and sends nothing."""

import base64
import gzip
import json
import re
import shutil
import zlib

import pytest

from edgefer.checks import Status
from edgefer.convert.c.targets import prove_page
from edgefer.convert.exported import read_list
from edgefer.convert.web import wasm
from edgefer.convert.web.questions import VIEWS
from edgefer.convert.web.site import gzip_bytes
from tests.convert.pages import browse, reported, with_script

LIMIT = 900_000  # bytes to download, compressed


def proof(dom: str) -> dict[str, tuple[str, str]]:
    """The page's table: name -> (differing, total)."""
    rows = re.findall(r"<tr[^>]*><th[^>]*>([^<]+)</th><td[^>]*>([\d,]+)</td><td[^>]*>([\d,]+)</td></tr>", dom)
    return {name: (wrong, of) for name, wrong, of in rows}


def files_of(site) -> dict[str, bytes]:
    """The exported files by name."""
    return {name: (site / name).read_bytes() for name in read_list(site).files}


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
        "Detector's answers": ("0", "6,504"),
    }
    assert re.search(r'<button id="camera" class="main">', dom)
    assert subject.bundle.hash in dom


@pytest.mark.chromium
def test_browser_check_names_its_version_and_fails_on_changed_answers(site, tmp_path):
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


@pytest.mark.parametrize(
    ("dom", "reason"),
    [("<html></html>", "did not open the page"), ('<body data-state="starting">', "did not finish")],
)
def test_page_is_not_checked_if_the_browser_cannot_open_it_or_is_too_slow(tmp_path, monkeypatch, dom, reason):
    (tmp_path / "chromium").write_text(f"#!/bin/sh\necho '{dom}'\n")
    (tmp_path / "chromium").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    row = prove_page(tmp_path)
    assert row.status is Status.NOT_CHECKED and reason in row.detail and row.fix


@pytest.mark.chromium
def test_engine_without_simd_gives_the_same_answers(site, tmp_path):
    script = """
      Engine.start(BUNDLE, false).then(engine => prove(engine, BUNDLE)).then(rows => {
        document.body.dataset.plain = JSON.stringify(rows.map(row => row.wrong)) })"""
    assert 'data-plain="[0,0,0,0,0]"' in browse(with_script(site, tmp_path, script))


@pytest.mark.chromium
@pytest.mark.parametrize("part", ["reader", "finder", "refiner", "answers", "boxes", "labels", "hash"])
def test_a_flipped_bit_keeps_the_camera_off(site, tmp_path, part):
    shutil.copytree(site, tmp_path / "page")
    file = tmp_path / "page" / "bundle.js"
    bundle = json.loads(file.read_text().removeprefix("const BUNDLE = "))
    if part == "labels":  # in another order
        card = json.loads(bundle["settings"])["card"]["labels"]
        bundle["settings"] = bundle["settings"].replace(json.dumps(card), json.dumps(card[::-1]))
    elif part == "hash":  # of the bundle, which is what the certificate names
        bundle["settings"] = bundle["settings"].replace('"bundle_sha256": "', '"bundle_sha256": "f', 1)
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
def test_a_browser_that_randomizes_canvas_pixels_is_distinguished_from_images_without_faces(site, tmp_path):
    """As Firefox does with privacy.resistFingerprinting; a few steps, as other settings add, do no harm."""
    script = """
      const real = CanvasRenderingContext2D.prototype.getImageData
      CanvasRenderingContext2D.prototype.getImageData = function (...box) {
        const image = real.apply(this, box)
        image.data.forEach((value, at) => { image.data[at] = %s })
        return image
      }"""
    for name, noise, state in (("much", "37 * at", "failed"), ("little", "value + at % 3 - 1", "ready")):
        (tmp_path / name).mkdir()
        dom = browse(with_script(site, tmp_path / name, script % noise))
        assert f'data-state="{state}"' in dom and ("gives noise instead of images" in dom) == (state == "failed")
        assert ('class="main" disabled=""' in dom) == (state == "failed")


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


CAMERA = """
  const wait = setInterval(() => {
    if (document.body.dataset.state === 'ready' && !stream) document.getElementById('camera').click()
    if (rows.length > 5) {
      clearInterval(wait)
      report({ rows: rows.length, ids: [...new Set(rows.map(row => row[2]))], label: rows[5][7], box: rows[5].slice(3, 7) })
    }
  }, 100)"""


@pytest.mark.chromium
def test_face_from_the_camera_is_found_read_and_keeps_its_id(site, tmp_path, fake_camera, subject):
    with reported(site, tmp_path, CAMERA, *fake_camera) as result:
        seen = result.get(timeout=90)
    assert seen["rows"] > 5 and len(seen["ids"]) == 1
    assert seen["label"] in (*subject.bundle.card.labels, "unsure")
    left, top, right, bottom = seen["box"]
    assert right - left > 60 and bottom - top > 60


@pytest.mark.chromium
def test_a_late_camera_stream_is_stopped_and_the_last_image_is_cleared(site, tmp_path):
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
    with reported(site, tmp_path, script) as result:
        assert result.get(timeout=90) == {"given": 2, "live": 0, "left": False}


@pytest.mark.chromium
def test_page_is_cached_for_offline_use(site, tmp_path):
    script = """
      navigator.serviceWorker.ready.then(async () => {
        const [name] = await caches.keys(), kept = await (await caches.open(name)).keys()
        report({ name, kept: kept.map(request => new URL(request.url).pathname) }) })"""
    with reported(site, tmp_path, script) as result:
        seen = result.get(timeout=90)
    assert seen["name"].startswith("edgefer ")
    assert {f"/{name}" for name in files_of(site) if name not in ("sw.js", "README.md")} <= set(seen["kept"])


@pytest.mark.chromium
@pytest.mark.parametrize("width", [320, 1280])
def test_nothing_is_wider_than_the_window(site, tmp_path, width):
    """Chromium's own window is never narrower than 500 px, so the page is shown in a frame of that width."""
    script = f"""
      if (window === top) {{
        const frame = document.createElement('iframe')
        frame.style.width = '{width}px'
        frame.src = 'index.html'
        document.body.replaceChildren(frame)
      }} else setTimeout(() => {{
        const root = document.documentElement
        BUNDLE.card.labels[0] = 'W'.repeat(64)
        show([{{ id: 1, box: [0, 0, 64, 48], scores: [1, 0, 0, 0, 0, 0, 0, 0], unsure: '' }}], {{ width: 640, height: 480 }})
        const bar = document.querySelector('.bar').clientWidth
        report({{ bar, width: root.clientWidth, over: root.scrollWidth - root.clientWidth, state: document.body.dataset.state }})
      }}, 3000)"""
    shutil.copytree(site, tmp_path / "site")
    index = tmp_path / "site" / "index.html"
    index.write_text(index.read_text().replace("default-src 'none'", "default-src 'none'; frame-src 'self'"))
    with reported(tmp_path / "site", tmp_path, script, "--window-size=1400,1000") as result:
        seen = result.get(timeout=90)
    assert seen["bar"] >= 40, "even beside a label of 64 wide letters"
    assert seen["over"] == 0 and width - 20 <= seen["width"] <= width


@pytest.mark.chromium
def test_every_enabled_control_is_reachable_by_keyboard_and_shows_focus(site, tmp_path):
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


def test_untrusted_names_and_labels_are_shown_as_plain_text(site):
    script = (site / "page.js").read_text() + (site / "proof.js").read_text()
    assert "innerHTML" not in script and "insertAdjacentHTML" not in script and "document.write" not in script


def test_the_whole_page_is_small_enough_to_download(site):
    size = gzip_bytes(files_of(site))
    assert size < LIMIT, size


def test_the_page_s_views_of_its_stored_frame_hold_faces_of_many_sizes(subject, site):
    bundle = json.loads((site / "bundle.js").read_text().removeprefix("const BUNDLE = "))
    sides = [face["box"][2] - face["box"][0] for faces in bundle["questions"]["faces"] for face in faces]
    assert len(bundle["questions"]["faces"]) == len(VIEWS) and len(sides) >= 8 and max(sides) > 4 * min(sides)
    assert len({VIEWS[number].of(subject.vectors.frames[0]).shape for number in range(len(VIEWS))}) == len(VIEWS)


def test_service_worker_lists_every_file_with_its_hash(site):
    files = files_of(site)
    worker = files["sw.js"].decode()
    kept = json.loads(re.search(r"FILES = (\{.*\})\n", worker)[1])
    assert set(kept) == {*files} - {"sw.js", "README.md"}
    assert "@" not in worker
    assert json.loads(files["manifest.webmanifest"])["display"] == "standalone"


def test_the_page_makes_no_network_requests(site):
    for file in site.iterdir():
        if file.suffix in {".html", ".css", ".js", ".webmanifest"} and file.name != "bundle.js":
            assert not re.search(r"https?://(?!www\.w3\.org)", file.read_text()), file.name
    index = (site / "index.html").read_text()
    assert "default-src 'none'" in index and "connect-src 'none'" in index


# ---- the committed WebAssembly ----


def test_committed_webassembly_was_built_from_the_current_c_sources():
    facts = json.loads(wasm.committed(wasm.FACTS))
    assert facts["sources_sha256"] == wasm.sources_sha256(), "python -m edgefer.convert.web.wasm"


@pytest.mark.wasm
@pytest.mark.parametrize("name", wasm.FILES)
def test_committed_webassembly_is_reproduced_by_its_compiler(name):
    made_by = json.loads(wasm.committed(wasm.FACTS))["compiler"]
    if made_by != wasm.clang_version():
        pytest.skip(f"it was made by {made_by}, here is {wasm.clang_version()}")
    assert wasm.build(wasm.FILES[name]) == wasm.committed(name)
    assert len(gzip.compress(wasm.committed(name))) < 12_000


def test_export_web_writes_a_page_and_reports_its_size(edgefer, tmp_path):
    done = edgefer("export", "web", "fer-nano", tmp_path / "page", "--json")
    result = json.loads(done.stdout)
    assert result["gzip_bytes"] < LIMIT and (tmp_path / "page" / "index.html").exists()
