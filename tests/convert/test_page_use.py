"""An exported page in use: settings while the camera runs, cameras that fail, photographs, and the CSV that it saves."""

import csv
import io
import os
import re
import shutil

import pytest

from edgefer.convert.web.site import integrity
from tests.convert.pages import reported

pytestmark = pytest.mark.chromium

READY = """
  const pause = ms => new Promise(done => setTimeout(done, ms))
  const until = async test => { while (!test()) await pause(50) }
  const ready = until(() => document.body.dataset.state === 'ready')
  const saved = new Promise(done => { save = async blob => done(await blob.text()) })
"""


def test_ids_survive_changed_settings_and_are_never_reused(site, tmp_path, fake_camera):
    script = (
        READY
        + """
      ready.then(async () => {
        const read = async count => { const had = rows.length; await until(() => rows.length >= had + count) }
        $('camera').click()
        await read(3)
        $('reject').value = 0.9
        $('reject').oninput()
        await read(3)
        const before = rows.length
        $('camera').click()
        $('camera').click()
        await read(3)
        report({ first: rows.slice(0, before).map(row => row[2]), then: rows.slice(before).map(row => row[2]),
          times: rows.map(row => Number(row[0])), sources: rows.map(row => row[1]) })
      })"""
    )
    with reported(site, tmp_path, script, *fake_camera) as result:
        seen = result.get(timeout=90)
    assert set(seen["first"]) == {1} and set(seen["then"]) == {2}
    assert seen["times"] == sorted(seen["times"]) and set(seen["sources"]) == {"camera"}


def test_camera_frame_is_read_once_regardless_of_the_display_refresh_rate(site, tmp_path):
    """Read twice, a false detection of one frame would be shown."""
    script = (
        READY
        + """
      ready.then(async () => {
        const source = document.createElement('canvas'), pen = source.getContext('2d')
        let drawn = 0
        const draw = () => {
          pen.fillStyle = drawn++ % 2 ? 'black' : 'white'
          pen.fillRect(0, 0, source.width, source.height)
        }
        draw()
        setInterval(draw, 200)
        navigator.mediaDevices.getUserMedia = async () => source.captureStream()
        engine.detector = new FrameDetector()
        $('camera').click()
        await until(() => rows.length)
        const before = [drawn, rows.length]
        await pause(3000)
        report([drawn - before[0], rows.length - before[1]])
      })"""
    )
    with reported(site, tmp_path, script) as result:
        drawn, read = result.get(timeout=90)
    assert 1 < read <= drawn + 3


def test_csv_cells_stay_text_whatever_the_labels_and_file_names(site, tmp_path):
    """Including those that begin with a minus and a digit, which a spreadsheet takes for a formula as well."""
    labels = ["-2+3+cmd|' /C calc'!A0", "=1+1", 'a "b", c', "+x", "@y", " =z", "\u05d0", "a; =1"]
    script = (
        READY
        + f"""
      ready.then(async () => {{
        BUNDLE.card.labels.splice(0, 8, ...{labels!r})
        const scores = at => Array.from({{ length: 8 }}, (_, place) => place === at ? 1 : 0)
        for (let at = 0; at < 8; at++) record([{{ id: 1, box: [0, 0, 9, 9], scores: scores(at), unsure: '' }}], 0, '=photo, "1".jpg')
        $('csv').click()
        report(await saved)
      }})"""
    )
    with reported(site, tmp_path, script) as result:
        head, *rows = csv.reader(io.StringIO(result.get(timeout=90)))
    plain = {'a "b", c': 'a "b", c', "\u05d0": "\u05d0", "a; =1": "a; '=1"}
    assert [row[7] for row in rows] == [plain.get(one, f"'{one}") for one in labels]
    assert {row[1] for row in rows} == {'\'=photo, "1".jpg'}
    assert head[10:] == [f"p_{plain.get(label, label)}" for label in labels] and {len(row) for row in rows} == {
        len(head)
    }


def test_camera_failure_is_explained_and_the_page_stays_usable(site, tmp_path, fake_camera):
    script = (
        READY
        + """
      ready.then(async () => {
        const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices), messages = []
        for (const name of ['NotAllowedError', 'NotFoundError', 'NotReadableError', 'OddError']) {
          navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('of its own', name) }
          $('camera').click()
          await pause(50)
          messages.push($('status').textContent)
        }
        navigator.mediaDevices.getUserMedia = real
        $('camera').click()
        await until(() => rows.length)
        stream.getVideoTracks()[0].dispatchEvent(new Event('ended'))
        messages.push($('status').textContent)
        Object.defineProperty(navigator, 'mediaDevices', { value: undefined })
        $('camera').click()
        await pause(50)
        report({ messages: [...messages, $('status').textContent], state: document.body.dataset.state })
      })"""
    )
    with reported(site, tmp_path, script, *fake_camera) as result:
        seen = result.get(timeout=90)
    assert seen["messages"] == [
        "No camera: it was not allowed.",
        "No camera: none was found.",
        "No camera: something else uses it.",
        "No camera: of its own.",
        "The camera was taken away",
        "No camera: a browser opens one only for a page that came over https.",
    ]
    assert seen["state"] == "ready"


def test_a_photo_follows_its_exif_orientation_and_is_read_again_when_settings_change(site, tmp_path):
    """An orientation of 6 is how phones store upright photographs."""
    script = (
        READY
        + """
      ready.then(async () => {
        const drawing = new OffscreenCanvas(60, 40)
        drawing.getContext('2d').fillRect(0, 0, 60, 40)
        const jpeg = new Uint8Array(await (await drawing.convertToBlob({ type: 'image/jpeg' })).arrayBuffer())
        const exif = [0xFF, 0xE1, 0, 34, 69, 120, 105, 102, 0, 0, 77, 77, 0, 42, 0, 0, 0, 8, 0, 1, 1, 18, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0]
        const open = async content => {
          const files = new DataTransfer()
          files.items.add(new File(content, 'me.jpg', { type: 'image/jpeg' }))
          $('photo').files = files.files
          await $('photo').onchange()
          return [$('status').textContent, $('canvas').width, $('canvas').height]
        }
        const result = [await open([jpeg.slice(0, 2), Uint8Array.from(exif), jpeg.slice(2)]), await open(['no image'])]
        engine.detector = new FrameDetector()
        const middle = () => $('faces').textContent
        result.push(await open([jpeg]))
        const before = middle(), had = rows.length
        $('reject').value = before.startsWith('unsure') ? 0 : 0.9
        $('reject').oninput()
        const changed = middle() !== before, more = rows.length - had
        await open([jpeg])
        report({ result, changed, rows: more, source: rows[0][1], faces: rows.map(row => row[2]), shown: shown[0].id })
      })"""
    )
    with reported(site, tmp_path, script) as result:
        seen = result.get(timeout=90)
    assert seen["result"] == [
        ["No faces in the photo", 40, 60],
        ["me.jpg cannot be read as an image: choose a JPEG or PNG.", 40, 60],
        ["1 face in the photo", 60, 40],
    ]
    assert seen["changed"] and seen["rows"] == 0 and seen["source"] == "me.jpg"
    assert seen["faces"] == [1, 2] and seen["shown"] == 2, "no two faces of a CSV have the same id"


def test_page_reloads_and_checks_itself_without_its_server(site, tmp_path):
    script = """
      const note = result => { new Image().src = 'result?' + encodeURIComponent(JSON.stringify(result)) }
      if (sessionStorage.again) {
        const wait = setInterval(() => {
          if (document.body.dataset.state === 'starting') return
          clearInterval(wait)
          note(document.body.dataset.state)
        }, 100)
      } else navigator.serviceWorker.ready.then(() => {
        sessionStorage.again = 'yes'
        note('kept')
        setTimeout(() => location.reload(), 4000)
      })"""
    shutil.copytree(site, tmp_path / "site")
    with (tmp_path / "site" / "page.js").open("a") as page:
        page.write(script)
    with reported(tmp_path / "site", tmp_path, "") as result:
        assert result.get(timeout=90) == "kept"
        for file in (tmp_path / "page").iterdir():
            file.unlink()
        assert result.get(timeout=90) == "ready"


def test_files_of_two_exports_are_never_cached_together(site, tmp_path):
    """While a new export is being copied to its host, the page stays the old one."""
    script = (
        READY
        + """
      navigator.serviceWorker.ready.then(async registration => {
        registration.onupdatefound = () => {
          const worker = registration.installing
          worker.onstatechange = () => ['activated', 'redundant'].includes(worker.state) && report(worker.state)
        }
        report('kept')
        for (;;) {
          await pause(300)
          await registration.update().catch(() => {})
        }
      })"""
    )
    with reported(site, tmp_path, script) as result:
        assert result.get(timeout=90) == "kept"
        worker, rules = tmp_path / "page" / "sw.js", tmp_path / "page" / "rules.js"
        newer = rules.read_bytes() + b"\n// newer\n"
        content = re.sub(r'"rules.js": "[^"]+"', f'"rules.js": "{integrity(newer)}"', worker.read_text())
        (tmp_path / "sw.js").write_text(content)
        os.replace(tmp_path / "sw.js", worker)
        assert result.get(timeout=90) == "redundant", "its rules.js is still the old one"
        rules.write_bytes(newer)
        states = {result.get(timeout=90)}
        assert "activated" in states or result.get(timeout=90) == "activated"
