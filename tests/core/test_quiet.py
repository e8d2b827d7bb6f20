"""What C++ libraries write to stderr while they start is suppressed, in one thread or in several."""

import os
import sys
import threading

import pytest

from edgefer.quiet import quiet


def test_stderr_is_suppressed_and_shown_when_the_work_fails(capfd):
    with quiet():
        os.write(2, b"a greeting")
    with pytest.raises(ValueError), quiet():
        os.write(2, b"the reason")
        raise ValueError
    with pytest.raises(ValueError), quiet(show_on_failure=False):
        os.write(2, b"known already")
        raise ValueError
    os.write(2, b"; afterwards")
    assert capfd.readouterr().err == "the reason; afterwards"


def test_two_quiet_threads_at_once_restore_stderr(capfd):
    """The first to start ends first, as with two looped videos that restart at once, each in its own thread."""
    first_in, second_in, first_out = threading.Event(), threading.Event(), threading.Event()

    def first():
        with quiet():
            first_in.set()
            second_in.wait(10)
        first_out.set()

    def second():
        first_in.wait(10)
        with quiet():
            second_in.set()
            first_out.wait(10)
            os.write(2, b"held back")

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    os.write(2, b"shown")
    assert capfd.readouterr().err == "shown"


def test_failure_shows_only_the_output_of_its_own_block(capfd):
    with quiet():
        os.write(2, b"of others")
        with pytest.raises(ValueError), quiet():
            os.write(2, b"of its own")
            raise ValueError
    assert capfd.readouterr().err == "of its own"


def test_a_program_without_stderr_keeps_what_it_writes_to_descriptor_2(capfd, monkeypatch):
    """As in a daemon, whose descriptor 2 may be any file."""
    monkeypatch.setattr(sys, "stderr", None)
    with quiet():
        os.write(2, b"its own")
    assert capfd.readouterr().err == "its own"
