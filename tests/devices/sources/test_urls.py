"""Addresses: what may be shown of them, and which are refused."""

import pytest

from edgefer.devices.sources.urls import redact, shown_address, split_url
from edgefer.errors import InputError


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://me:own@host/a", "rtsp://host/a"),
        ("rtsp://me:my own@host/a", "rtsp://host/a"),
        ("rtsp://me:o/w?n@host/a", "rtsp://host/a"),
        ("me:own@host/a", "host/a"),
        ("me:my own@host", "host"),
        ("http://me:own@[::1/x.mp4", "http://[::1/x.mp4"),
        ("http://host/a?token=own&n=1", "http://host/a?token=...&n=1"),
        ("http://host/a?n=1&auth=my own&key=own", "http://host/a?n=1&auth=...&key=..."),
        ("http://host/a?%74oken=own", "http://host/a?%74oken=..."),
        ("http://host/a?api_key=own", "http://host/a?api_key=..."),
        ("https://host/a?X-Amz-Signature=own", "https://host/a?X-Amz-Signature=..."),
        ("https://host/a?sv=1&sig=own%3D", "https://host/a?sv=1&sig=..."),
        ("http://host/a?loginuse=me&loginpas=own", "http://host/a?loginuse=me&loginpas=..."),
        ("http://host/a?psw=own&ticket=own", "http://host/a?psw=...&ticket=..."),
        ("http://host/a?auth[token]=own&token%5B%5D=own", "http://host/a?auth[token]=...&token%5B%5D=..."),
        ("http://host/a?bearer=own&sas=own&pin=own", "http://host/a?bearer=...&sas=...&pin=..."),
        ("//me:own@host/a", "//host/a"),
        ("http://me:own@-host/", "http://-host/"),
        ("http://me:own@/a", "http:///a"),
        ("http://host/a?url=rtsp%3A%2F%2Fme%3Aown%40host", "http://host/a?url=rtsp%3A%2F%2Fhost"),
        ("http://host/#access_token=own", "http://host/#access_token=..."),
        ("http://host:80/film.mp4?width=640", "http://host:80/film.mp4?width=640"),
        ("film.mp4", "film.mp4"),
        ("C:/films/a@b.mp4", "b.mp4"),  # hidden rather than shown where a colon and an @ could be a password's
    ],
)
def test_an_address_is_shown_without_its_secrets(address, shown):
    assert shown_address(address) == shown
    assert "own" not in shown_address(address) and "\x1b" not in shown_address(address + "\x1b[31m")


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("The stream rtsp://me:own@host/a has ended.", "The stream rtsp://host/a has ended."),
        ("rtspsrc location=rtsp://me:own@host/a user-pw=own ! x", "rtspsrc location=rtsp://host/a user-pw=... ! x"),
        ('souphttpsrc location=http://h/ user-pw="my own" ! x', "souphttpsrc location=http://h/ user-pw=... ! x"),
        ("Authorization: Bearer abcdefgh.own", "Authorization: Bearer ..."),
        ("GET /a?token=own failed, me:own@host", "GET /a?token=... failed, host"),
        ("x264enc key-int-max=30 ! mux", "x264enc key-int-max=30 ! mux"),
        (
            "Write to admin@site: the camera at rtsp://host is gone",
            "Write to admin@site: the camera at rtsp://host is gone",
        ),
    ],
)
def test_a_message_is_shown_without_the_secrets_in_it(message, shown):
    assert redact(message) == shown


@pytest.mark.parametrize(
    "address", ["http://me:own@[::1/x.mp4", "rtsp://host:99999/a", "rtsp://host:own/a", "http://h\x00/a"]
)
def test_an_address_that_cannot_be_one_is_a_sentence_without_its_password(address):
    with pytest.raises(InputError) as caught:
        split_url(address)
    assert "me:" not in str(caught.value) and "\x00" not in str(caught.value)
