"""Addresses: what may be shown of them, and which are refused."""

import time

import pytest

from edgefer.devices.sources.urls import holds_secret, redact, shown_address, split_url, without_passwords
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
        ("http://host/a?loginuse=me&loginpas=own", "http://host/a?loginuse=...&loginpas=..."),
        ("http://host/a?psw=own&ticket=own", "http://host/a?psw=...&ticket=..."),
        ("http://host/a?auth[token]=own&token%5B%5D=own", "http://host/a?auth[token]=...&token%5B%5D=..."),
        ("http://host/a?bearer=own&sas=own&pin=own", "http://host/a?bearer=...&sas=...&pin=..."),
        ("//me:own@host/a", "//host/a"),
        ("http://me:own@-host/", "http://-host/"),
        ("http://me:own@/a", "http:///a"),
        ("http://host/a?url=rtsp%3A%2F%2Fme%3Aown%40host", "http://host/a?url=..."),
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
def test_error_for_an_invalid_address_does_not_show_its_password(address):
    with pytest.raises(InputError) as caught:
        split_url(address)
    assert "me:" not in str(caught.value) and "\x00" not in str(caught.value)


HIDDEN_ANYWHERE = [  # each holds "own", which must not be shown, neither alone nor within a sentence
    "http://host/a?user=own&p=own&hash=own&code=own&nonce=own&x=own",
    "srt://host:9000?mode=caller&latency=200&streamid=own&passphrase=own&s=own",
    "https://host/api/webhook/ownownown",
    "https://hooks.slack.com/services/T00/B00/XXXXownXXXX8xK3a",
    "https://api.telegram.org/bot123456789:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDown/x",
    "https://host/hls/9f86d081884c7d659a2feaa0c55ad015own/index.m3u8",
    "http://host/t/eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.own/b.mp4",
    "http://host/token/own/b.mp4",
    "http://host/token=own/b.mp4",
    "http://host/film.mp4;jsessionid=own",
    "http://host/a?own",
    "http://host/a#own",
    "http://host/a?stream=kd83Jd93kfown",
    "http://host/proxy/rtsp%3A%2F%2Fme%3Aown%40host",
    "http://host/proxy/rtsp%253A%252F%252Fme%253Aown%2540host",
    "http://host/proxy/rtsp://me:own@host2/x",
    "rtsp%3A%2F%2Fme%3Aown%40host",
    "//me:own@h",
    "me:own@-h",
    "me:own@/x",
    "rtsp:/me:own@h",
    "rtsp:me:own@h",
    "rtsp:\\\\me:own@h",
    "rtsp://me:own%40host/a",
    "rtsp://me: own@host/a",
    "rtsp://me:own @host/a",
    "rtsp://me:x own y@host/a",
    "rtsp://host:own/a",
    "http://me:own\uff20host/x",
    "http://me:own@host:80/a?mail=x@y",
    "gst:rtspsrc location=rtsp://host/a user-id=own user-pw=own ! x",
    'gst:souphttpsrc location=http://h extra-headers="headers,Authorization=(string)\\"Bearer own\\",x=own" cookies="a=own" ! x',
    r"gst:souphttpsrc location=http://h extra-headers=headers,Authorization=(string)Bearer\ own ! x",
    "gst:srtsrc uri=srt://h:1?passphrase=own passphrase=own streamid=own ! x",
    "gst:rtspsrc location = rtsp://me:own@host/a user-pw = own ! x",
    "gst:souphttpsrc proxy=http://me:own@p:80 proxy-id=own proxy-pw=own ! x",
    "--mqtt-password own --csv a.csv",
    "X-Api-Key: own",
    '{"token": "own"}',
    "{'password': 'own'}",
    "user 'own' password 'own'",
]


@pytest.mark.parametrize("text", HIDDEN_ANYWHERE)
def test_possible_secrets_are_hidden_alone_and_within_a_sentence(text):
    for shown in (shown_address(text), redact(text), redact(f"The stream {text} has ended."), redact(f"'{text}'")):
        assert "own" not in shown


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://host:554/Streaming/Channels/101?transportmode=unicast&profile=Profile_1",
        "rtsp://host/cam/realmonitor?channel=1&subtype=0",
        "rtsp://[fe80::1%25eth0]:554/h264Preview_01_main",
        "http://host/axis-cgi/mjpg/video.cgi?resolution=640x480&compression=30",
        "http://host:8080/?action=stream",
        "http://host/videos/2024-05-01_12-30-00_camera1.mp4",
        "http://host/a?tcp",
        "srt://host:9000?mode=caller&latency=200",
        "C:/films/a.mp4",
        "/home/me/films/9f86d081884c7d659a2feaa0c55ad015.mp4",
        "gst:rtspsrc location=rtsp://host/a protocols=tcp latency=0 ! x264enc key-int-max=30 ! mux",
    ],
)
def test_parts_that_distinguish_cameras_are_shown(text):
    assert shown_address(text) == redact(text) == text and not holds_secret(text)


@pytest.mark.parametrize(
    "text", ["a:" * 50_000, "http://" * 20_000, "//a" * 30_000, "x=" * 50_000, "?a" * 50_000, "%40" * 30_000]
)
def test_long_text_is_redacted_quickly(text):
    began = time.process_time()
    redact(text), shown_address(text)
    assert time.process_time() - began < 2


def test_only_known_secrets_are_refused_for_a_service():
    assert holds_secret("rtsp://me:own@host") and holds_secret("http://host/a?api_key=own")
    assert holds_secret("srt://h:1?passphrase=own") and holds_secret("rtspsrc location=x user-pw=own ! y")
    assert not holds_secret("http://host/a?cmd=Snap") and "..." in shown_address("http://host/a?cmd=Snap")


@pytest.mark.parametrize(
    ("sentence", "shown"),
    [
        ("There is no data at https://me:own@h/x.csv?token=own: name a file.", "There is no data at https://h/x.csv?token=...: name a file."),
        ("https:/me:own@h/x.keras cannot be read.", "https:/h/x.keras cannot be read."),
        ("Write rtsp://host/path or mqtt://user@host:1883/topic-prefix, with --token TOKEN.", None),
        ("C:/data/a.csv has no column 'key': name it.", None),
        ("The page at http://127.0.0.1:8080/ needs EDGEFER_TOKEN=...", None),
    ],
)  # fmt: skip
def test_only_the_secrets_within_a_sentence_are_removed(sentence, shown):
    assert without_passwords(sentence) == (shown or sentence)


@pytest.mark.parametrize(
    "command",
    [("train", "--data"), ("evaluate", "fer-nano", "--data"), ("lint",), ("verify",), ("import",), ("data", "check")],
)
def test_no_command_shows_the_password_of_an_address_that_it_refuses(command, monkeypatch, capsys):
    from edgefer import cli

    monkeypatch.setattr("sys.argv", ["edgefer", *command, "https://me:own@host/x.csv?token=own"])
    assert cli._run() == 2
    assert "own" not in capsys.readouterr().err
