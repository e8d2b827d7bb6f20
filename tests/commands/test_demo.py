"""The demo is the first thing a newcomer runs: it must work, and leave what it promises."""

import json
import re

import cv2
import pytest

from edgefer.commands.demo import _score
from edgefer.errors import EdgeferError


def test_demo_interrupted_in_its_video_gives_a_clear_error(tmp_path):
    (tmp_path / "faces.jsonl").write_text('{"frame": 0, "time_s": 0.0, "faces": []}\n')
    with pytest.raises(EdgeferError, match="Stopped while reading the video"):
        _score(tmp_path / "faces.jsonl")


@pytest.mark.slow
def test_demo_does_the_main_job(demo):
    printed = (demo / "printed.txt").read_text()
    right, faces = map(int, re.search(r"In the video (\d+) of (\d+) faces", printed).groups())
    assert faces == 240 and right / faces > 0.85
    promised = re.findall(r"  (runs/demo-1/\S+)$", printed, re.MULTILINE)
    assert len(promised) == 6
    assert all((demo / path).exists() for path in promised)
    *_, last = printed.strip().splitlines()
    certificate = demo / "runs/demo-1/certificate/parity.html"
    assert last == f"Open the certificate in a browser: {certificate.as_uri()}"
    assert "<html" in certificate.read_text() and json.loads(certificate.with_suffix(".json").read_text())["passed"]
    video = cv2.VideoCapture(str(demo / "runs/demo-1/faces.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 120
