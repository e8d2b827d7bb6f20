"""What C++ writes to stderr while it starts is held back, in one thread or in several."""

import os
import threading

import pytest

from edgefer.quiet import quiet


def test_what_is_written_is_held_back_and_shown_when_the_work_fails(capfd):
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


def test_two_threads_that_are_quiet_at_once_leave_stderr_as_it_was(capfd):
    """The first to begin ends first: as two videos that begin again at once, each in a thread of its own."""
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


def test_a_failure_shows_only_what_was_written_since_its_own_work_began(capfd):
    with quiet():
        os.write(2, b"of others")
        with pytest.raises(ValueError), quiet():
            os.write(2, b"of its own")
            raise ValueError
    assert capfd.readouterr().err == "of its own"
