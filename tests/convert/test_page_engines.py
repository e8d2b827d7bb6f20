"""An exported page in every engine that is installed: one visit each, with its proof, a camera, photographs, settings, errors, a
CSV and, once its server is gone, the page again. Closer tests, in Chromium only, are in the other test_page files."""

import base64
import csv
import io
import json
import shutil

import cv2
import pytest

import edgefer
from edgefer import drawn
from tests.convert.browsers import ENGINES
from tests.convert.pages import REPORT, reported

TIMEOUT_S = 600  # of a visit on a busy machine; on an idle one it takes some seconds

VISIT = """
const pause = ms => new Promise(done => setTimeout(done, ms))
const until = async test => { while (!test()) await pause(50) }
const result = {}, REST_MS = 4000  // in which the test takes the server's files away
let blob = null
save = made => { blob = made }
const named = { 'me.png': 'image/png', 'me.jpg': 'image/jpeg', 'film.mp4': 'video/mp4' }

async function openPhoto(name, content) {
  const files = new DataTransfer()
  files.items.add(new File(content, name, { type: named[name] }))
  $('photo').files = files.files
  await $('photo').onchange()
  return [$('status').textContent, $('canvas').width, $('canvas').height]
}

const bytesOf = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0))

// A camera that sees the drawn face: the stream of a canvas, which every engine has.
async function standIn() {
  const source = document.createElement('canvas'), image = await createImageBitmap(new Blob([bytesOf(FACE)], { type: 'image/png' }))
  Object.assign(source, { width: image.width, height: image.height })
  const draw = () => source.getContext('2d').drawImage(image, 0, 0)
  draw()
  setInterval(draw, 50)
  navigator.mediaDevices.getUserMedia = async () => source.captureStream()
}

async function visit() {
  await until(() => document.body.dataset.state !== 'starting')
  result.state = document.body.dataset.state
  result.proof = [...$('proof').rows].map(row => [...row.cells].map(cell => cell.textContent))
  result.over = document.documentElement.scrollWidth - document.documentElement.clientWidth
  if (OWN_CAMERA) {
    $('camera').click()
    await until(() => $('canvas').getAttribute('aria-label') !== 'No image yet' || $('status').textContent.startsWith('No'))
    result.own = [$('status').textContent, $('canvas').width, $('canvas').height]
    $('camera').click()
  }
  navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('of its own', 'NotAllowedError') }
  $('camera').click()
  await pause(100)
  result.refused = $('status').textContent
  await standIn()
  rows.length = 0
  $('camera').click()
  await until(() => rows.length >= 3)
  result.camera = rows.map(row => row[1])
  $('reject').value = 0.9
  $('reject').dispatchEvent(new Event('input'))
  $('smooth').value = 'off'
  $('smooth').dispatchEvent(new Event('input'))
  result.settings = [$('reject-value').textContent, smoother.reject, smoother.preset === BUNDLE.rules.presets.off]
  $('camera').click()
  result.off = [$('status').textContent, stream]
  $('reject').value = 0
  $('reject').dispatchEvent(new Event('input'))
  rows.length = 0
  result.photo = await openPhoto('me.png', [bytesOf(FACE)])
  $('snapshot').click()
  await until(() => blob)
  result.snapshot = blob.type
  $('csv').click()
  result.csv = await blob.text()
  const upright = await new Promise(done => $('canvas').toBlob(done, 'image/jpeg'))
  const jpeg = new Uint8Array(await upright.arrayBuffer())
  const exif = [0xFF, 0xE1, 0, 34, 69, 120, 105, 102, 0, 0, 77, 77, 0, 42, 0, 0, 0, 8, 0, 1, 1, 18, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0]
  result.turned = (await openPhoto('me.jpg', [jpeg.slice(0, 20), Uint8Array.from(exif), jpeg.slice(20)])).slice(1)
  result.broken = await openPhoto('me.png', ['no image'])
  result.film = await openPhoto('film.mp4', [bytesOf(FILM)])
  await navigator.serviceWorker.ready
  await until(() => navigator.serviceWorker.controller)
  sessionStorage.again = 'yes'
  report(result)
  await pause(REST_MS)
  location.reload()
}

async function again() {
  await until(() => document.body.dataset.state !== 'starting')
  report(document.body.dataset.state)
}

(sessionStorage.again ? again() : visit()).catch(error => report({ error: String(error) }))
"""


@pytest.fixture(scope="module")
def frame():
    """A drawn person, [480, 640, 3]."""
    return next(iter(drawn.scene(seconds=1, fps=1, size=(640, 480), people=1, seed=3)))[0].image_bgr


@pytest.fixture(scope="module")
def film(frame, tmp_path_factory) -> bytes:
    """A second of it, as a video that a browser may or may not know."""
    file = tmp_path_factory.mktemp("film") / "film.mp4"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"mp4v"), 10, (160, 120))
    for _ in range(10):
        writer.write(cv2.resize(frame, (160, 120)))
    writer.release()
    return file.read_bytes()


@pytest.fixture(scope="module", params=ENGINES)
def seen(request, site, frame, film, fake_camera, tmp_path_factory) -> dict:
    """What one engine showed in its visit; `again` is the page's state after its server lost its files."""
    folder, engine = tmp_path_factory.mktemp(request.param), request.param
    shutil.copytree(site, folder / "site")
    given = {"FACE": cv2.imencode(".png", frame)[1].tobytes(), "FILM": film}
    constants = "".join(f"const {name} = '{base64.b64encode(content).decode()}'\n" for name, content in given.items())
    with (folder / "site" / "page.js").open("a") as page:
        page.write(f"{{\n{constants}const OWN_CAMERA = {json.dumps(engine != 'webkit')}\n{REPORT}{VISIT}}}\n")
    flags = {"chromium": fake_camera, "firefox": (), "webkit": ("--enable-media-stream=true",)}[engine]
    with reported(folder / "site", folder, "", *flags, engine=engine) as result:
        shown = result.get(timeout=TIMEOUT_S)
        assert "error" not in shown, shown
        for file in (folder / "page").iterdir():
            file.unlink()
        return shown | {"again": result.get(timeout=TIMEOUT_S)}


def test_the_page_proves_itself_and_fits_its_window(seen):
    assert seen["state"] == "ready" and seen["over"] == 0
    assert seen["proof"] == [
        ["Networks and settings", "0", "4"],
        ["Pixels", "0", "46,080"],
        ["Box edges", "0", "32"],
        ["Answers", "0", "448"],
        ["Detector's answers", "0", "6,504"],
    ]


def test_a_camera_is_read_until_it_is_stopped(seen):
    """The engine's own, where it has one that needs no permission, and the stream of a canvas that shows a face."""
    assert seen.get("own", ["Reading the camera", 640, 480]) == ["Reading the camera", 640, 480]
    assert set(seen["camera"]) == {"camera"}
    assert seen["off"] == ["Camera off", None]


def test_settings_apply_while_the_camera_runs(seen):
    assert seen["settings"] == ["90%", 0.9, True]


def test_a_photo_and_its_csv_agree_with_edgefer_run(seen, frame):
    assert seen["photo"] == ["1 face in the photo", 640, 480] and seen["snapshot"] == "image/png"
    (row,) = csv.DictReader(io.StringIO(seen["csv"]))
    (face,) = edgefer.load("ferplus-small", detector="own", reject=0)(frame)
    assert row["source"] == "me.png" and row["label"] == face.label
    assert tuple(int(row[edge]) for edge in ("left", "top", "right", "bottom")) == face.box_xyxy
    assert {name: float(row[f"p_{name}"]) for name in face.scores} == pytest.approx(face.scores, abs=1e-4)


def test_a_photo_follows_its_exif_orientation(seen):
    assert seen["turned"] == [480, 640]


def test_a_file_that_cannot_be_opened_gets_a_one_sentence_message(seen):
    assert seen["refused"] == "No camera: it was not allowed."
    assert seen["broken"][0] == "me.png cannot be read as an image: choose a JPEG or PNG."
    assert seen["film"][0] == "film.mp4 cannot be read as an image: choose a JPEG or PNG."


def test_page_reloads_without_its_server(seen):
    assert seen["again"] == "ready"
