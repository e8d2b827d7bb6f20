"""The demo is the first thing a newcomer runs: it must work, be quick, and leave what it promises."""

import re
import time

import cv2
import pytest


@pytest.mark.slow
def test_demo_does_the_main_job_in_three_minutes(edgefer, tmp_path):
    began = time.monotonic()
    done = edgefer("demo", cwd=tmp_path)
    assert time.monotonic() - began < 180
    right, faces = map(int, re.search(r"In the video (\d+) of (\d+) faces", done.stdout).groups())
    assert faces == 240 and right / faces > 0.85
    promised = re.findall(r"  (runs/demo-1/\S+)$", done.stdout, re.MULTILINE)
    assert len(promised) == 6
    assert all((tmp_path / path).exists() for path in promised)
    video = cv2.VideoCapture(str(tmp_path / "runs/demo-1/faces.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 120
