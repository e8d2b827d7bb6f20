"""A file or address from a stranger opens no other file, and blocks nothing."""

import os

import pytest

from edgefer.devices.sources.cameras import open_source
from edgefer.errors import InputError, SourceError
from tests.devices.sources.videos import write_video


@pytest.mark.parametrize("kind", ["fifo", "endless"])
def test_detector_file_and_ca_file_must_be_regular_files(tmp_path, kind):
    from edgefer.devices.faces.yunet_lite import YuNetLite
    from edgefer.devices.outputs.broker import parse_broker

    file = tmp_path / "file"
    os.mkfifo(file) if kind == "fifo" else file.symlink_to("/dev/zero")
    with pytest.raises(SourceError, match="not a regular file"):
        YuNetLite(file, tmp_path)
    with pytest.raises(InputError, match="not a regular file"):
        parse_broker("mqtts://host/desk", ca=file)


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXTINF:1,\none.avi\n",
        "ffconcat version 1.0\nfile one.avi\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
        '<?xml version="1.0"?>\n<MPD type="static"></MPD>\n',
        '<?xml version="1.0"?>\n<CompositionPlaylist></CompositionPlaylist>\n',
        "v=0\n" + 999 * "a=long\n" + "c=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
        "v=0\n\rc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
        "ID3\4\0\0\0\0\x2e\x70" + 6000 * "\0" + "ffconcat version 1.0\nfile one.avi\n",
        "ID3\4\0\x10\0\0\0\0" + 10 * "\0" + "#EXTM3U\n#EXTINF:1,\none.avi\n",
    ],
)
def test_playlist_is_refused_and_opens_no_other_file(tmp_path, text):
    write_video(tmp_path / "one.avi", 5, "MJPG")
    (tmp_path / "two.mp4").write_text(text)
    with pytest.raises(SourceError, match="a list of other files or URLs"), open_source(str(tmp_path / "two.mp4")):
        pass


@pytest.mark.parametrize("spelling", ["file://{}", "FILE://{}", "file://localhost{}"])
def test_a_file_named_by_a_url_is_checked_and_read_as_one_named_by_its_path(tmp_path, spelling):
    write_video(tmp_path / "a film.avi", 5, "MJPG")
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile 'a film.avi'\n")
    with open_source(spelling.format(tmp_path / "a%20film.avi")) as source:
        assert not source.live and len(list(source)) == 5
    with pytest.raises(SourceError, match="a list of other"), open_source(spelling.format(tmp_path / "list.mp4")):
        pass


@pytest.mark.parametrize(
    "address",
    [
        "file://host/one.avi",
        "concat:file:///one.avi|file:///two.avi",
        "subfile,,start,0,end,0,,:file:///one.avi",
        "crypto:file:///one.avi",
        "crypto+file:///one.avi",
        "async:file:///one.avi",
        "data://text/plain,ffconcat",
        "pipe://0",
        " http://host/one.avi",
    ],
)
def test_address_by_which_ffmpeg_would_read_a_local_file_is_refused(address):
    with pytest.raises(InputError, match=r"is not the address of a stream: .* and a file as its path"):
        open_source(address)
