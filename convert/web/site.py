"""The files of `edgefer export web`: a static page that proves its network and reads faces, offline."""

import base64
import gzip
import hashlib
import json
import shlex
import zlib
from pathlib import Path

import numpy as np

from edgefer import __version__
from edgefer.c.prove import prove_on_host
from edgefer.c.subject import Subject
from edgefer.checks import Check
from edgefer.convert.c.text import credit, readable
from edgefer.convert.exported import check_folder, read_list, write_folder
from edgefer.convert.web import wasm
from edgefer.convert.web.device import Device
from edgefer.convert.web.questions import make_questions
from edgefer.tflite.int8_network import UnsupportedNetwork

PAGE = (
    "index.html", "page.css", "page.js", "engine.js", "faces.js", "following.js", "rules.js", "questions.js", "proof.js", "icon.svg",
)  # fmt: skip


def export_web(subject: Subject, device: Device, out: Path) -> list[Check]:
    """Write the page at `out`, and return the checks of its C code on this host."""
    check_folder(out)
    if subject.bundle.card.task != "read":
        raise UnsupportedNetwork(
            f"{subject.bundle.path} detects faces and does not classify them: name a network that reads expressions."
        )
    checks = prove_on_host(subject)
    write_folder(out, "web", subject.bundle, make_site(subject, device), checks)
    return checks


def make_site(subject: Subject, device: Device) -> dict[str, bytes]:
    """Every file by name."""
    files = {name: wasm.committed(name) for name in PAGE}
    files["bundle.js"] = f"const BUNDLE = {json.dumps(_bundle(subject, device))}\n".encode()
    files["manifest.webmanifest"] = json.dumps(_manifest(subject.bundle.card.name), indent=2).encode()
    names = sorted(files)  # what the page needs, so without the README
    files["README.md"] = _readme(subject).encode()
    version = hashlib.sha256(b"".join(files[name] for name in names)).hexdigest()[:16]
    hashes = {name: integrity(files[name]) for name in names}
    worker = wasm.committed("sw.js").decode()
    files["sw.js"] = worker.replace("@VERSION@", version).replace("@FILES@", json.dumps(hashes)).encode()
    return files


def integrity(content: bytes) -> str:
    """A file's hash as browsers check it (W3C Subresource Integrity)."""
    return f"sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}"


def _readme(subject: Subject) -> str:
    labels = ",".join(readable(label) for label in subject.bundle.card.labels)
    return f"""# {readable(subject.bundle.card.name)} as a page

Bundle `{subject.bundle.hash}`, {credit(subject.bundle.card)}; written by edgefer {__version__}, whose page and C are Apache-2.0.

## On a desktop

Open `index.html` as it is, or run `edgefer export web BUNDLE OUT --serve`.

## On a phone

A browser opens a camera only for a page served over https, or from `localhost`; photos can be opened anywhere. All files are
static and their URLs relative, so any folder of any https host will do:

- GitHub Pages: put this folder into a repository as `docs`, push, and choose Settings, Pages, "Deploy from a branch", `/docs`.
- A server of your own: copy the folder there; `caddy file-server --domain NAME --root FOLDER` gets a TLS certificate automatically.
- No host, an Android phone on a USB cable: `edgefer export web BUNDLE OUT --serve` here, `adb reverse tcp:8080 tcp:8080`, and
  open `http://localhost:8080` on the phone.

Open the page there once; "Add to home screen" installs it, and it then works offline. After another export copy all files
again: the next visit still shows the old ones, while the page fetches the new ones. It keeps files for offline use only if all of
them are exactly those of one export, so a host that alters files, by minifying HTML for instance, prevents offline use.

## Proof and privacy

- No image data leaves the browser: its scripts send nothing, and the page's content security policy
  (`default-src 'none'; connect-src 'none'`) blocks connections, forms, and third-party images, scripts and frames.
- Before it enables the camera, the page checks the CRC-32 of its networks and settings, and that its pixels, answers and detected
  faces equal those of the machine that exported it. Nothing may differ; it shows how many were compared.
- The bundle's hash that it shows is the one that `edgefer verify BUNDLE` prints and its certificate contains.

| row | compared |
|---|---|
| Networks and settings | every byte of the networks, labels, thresholds and scales, by CRC-32 |
| Pixels | faces cropped from stored images, levelled and resized |
| Box edges | where the detector found the faces of stored images |
| Answers | the network's int8 outputs |
| Detector's answers | those of the detector's two networks |

## Other labels and thresholds

    edgefer export web BUNDLE OUT --labels {shlex.quote(labels)} --smooth calm --reject 0.6

shows other names for the labels, in this order, and starts with other settings. The proof covers them: if they are edited in a
file, the camera stays off. Expressions are not feelings: show the score with every label.
"""


def gzip_bytes(files: dict[str, bytes]) -> int:
    """Their download size with gzip compression."""
    return sum(len(gzip.compress(content, 9, mtime=0)) for content in files.values())


def download_bytes(out: Path) -> int:
    """The download size of an exported page, without its README and other files in the folder."""
    return gzip_bytes({name: (out / name).read_bytes() for name in read_list(out).files if name != "README.md"})


def _bundle(subject: Subject, device: Device) -> dict:
    """The page's data, as JSON. Arrays are deflated and in base64, since a page opened from a file cannot fetch."""
    networks = {"reader": subject}
    if device.networks:
        networks |= {"finder": device.networks.finder, "refiner": device.networks.refiner}
    asked = make_questions(subject, device)
    settings = json.dumps(_settings(subject, device, networks))
    return {
        "settings": settings,  # as text, so that the page can compute its CRC-32
        "settings_crc": zlib.crc32(settings.encode()),
        "networks": {name: _network(one) for name, one in networks.items()},
        "engine": _packed(wasm.committed("engine.wasm")),
        "engine_simd": _packed(wasm.committed("engine_simd.wasm")),
        "questions": {
            **{name: _packed(value) if isinstance(value, np.ndarray) else value for name, value in asked.items()},
            "height": asked["frame"].shape[0],
            "width": asked["frame"].shape[1],
            "crop": _crop(subject.vectors.crop),
        },
    }


def _settings(subject: Subject, device: Device, networks: dict[str, Subject]) -> dict:
    """All settings that affect, beside the networks, what the page shows for a face, and the network's credit."""
    card = subject.bundle.card
    return {
        "edgefer": __version__,
        "bundle_sha256": subject.bundle.hash,
        "card": {
            "name": card.name,
            "labels": list(device.labels),
            "input": {**card.input.model_dump(include={"height", "width", "color"}), "channels": card.input.channels},
            "temperature": card.temperature,
            "output_scale": float(subject.network.output.scale),
            "output_zero": subject.network.output.zero,
        },
        "credit": credit(card),
        "colors": dict(device.colors),
        "detector": {
            "crop": _crop(card.crop_for(device.detector)),
            **(dict(device.networks.numbers) if device.networks else {}),
        },
        "rules": dict(device.rules),
        "outputs": {name: _outputs(one) for name, one in networks.items()},
    }


def _outputs(subject: Subject) -> list[dict]:
    """The scale and zero point of each of a network's outputs, the largest first."""
    return [{"scale": float(value.scale), "zero": value.zero} for value in subject.program.network.outputs]


def _network(subject: Subject) -> dict:
    """A network in the page's format."""
    program = subject.program
    return {"words": _packed(program.words), "count": len(program.words), "crc": program.crc}


def _manifest(name: str) -> dict:
    return {
        "name": f"{name} · edgefer",
        "short_name": name[:12],
        "start_url": "./",
        "display": "standalone",
        "background_color": "#14171a",
        "theme_color": "#00795a",
        "icons": [{"src": "icon.svg", "sizes": "any", "type": "image/svg+xml"}],
    }


def _packed(content: bytes | np.ndarray) -> str:
    raw = content if isinstance(content, bytes) else np.ascontiguousarray(content).tobytes()
    return base64.b64encode(zlib.compress(raw, 9)).decode()


def _crop(crop) -> dict[str, float]:
    return {"scale": crop.scale, "dx": crop.dx, "dy": crop.dy}
