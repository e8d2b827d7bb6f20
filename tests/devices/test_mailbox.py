"""Items passed between threads: in order, none lost silently, and no reader waits for an item that cannot come."""

import threading
import time

import pytest

from edgefer.devices.mailbox import Ended, Late, Mailbox


def test_push_to_a_full_mailbox_drops_the_oldest_item_and_counts_it():
    box = Mailbox(room=2)
    assert all(box.push(number) for number in range(5))
    assert box.dropped == 3 and [box.take(), box.take()] == [3, 4]


def test_put_blocks_while_full_until_stopped():
    box, stop = Mailbox(room=1), threading.Event()
    assert box.put(1, stop.is_set)
    threading.Timer(0.1, stop.set).start()
    assert not box.put(2, stop.is_set)
    assert box.dropped == 0 and box.take() == 1
    assert box.put(3, stop.is_set), "with room left, a stop does not lose the item"


def test_remaining_items_are_delivered_before_the_error():
    box = Mailbox(room=3)
    box.put("a")
    box.end(ValueError("broken"))
    assert box.take() == "a"
    with pytest.raises(Ended) as ended:
        box.take()
    assert str(ended.value.error) == "broken"


def test_mailbox_ends_when_its_last_producer_ends():
    box = Mailbox(givers=2)
    box.end()
    with pytest.raises(Late):
        box.take(limit_s=0.05)
    box.end()
    with pytest.raises(Ended):
        box.take(limit_s=0.05)


def test_an_error_of_one_producer_ends_the_mailbox_at_once():
    box = Mailbox(givers=2)
    box.end(OSError("gone"))
    with pytest.raises(Ended):
        box.take(limit_s=60)


def test_leave_unblocks_a_waiting_producer():
    box = Mailbox(room=1)
    box.put(1)
    put = []
    giver = threading.Thread(target=lambda: put.append(box.put(2)))
    giver.start()
    box.leave()
    giver.join(2)
    assert put == [False] and not box.push(3) and not box.wait(limit_s=1)


def test_stop_ends_a_wait_but_an_item_about_to_arrive_is_still_taken():
    box, stop = Mailbox(), threading.Event()
    stop.set()
    began = time.monotonic()
    with pytest.raises(Ended):
        box.take(60, stop.is_set)
    assert time.monotonic() - began < 5
    threading.Timer(0.02, box.put, (1,)).start()
    assert box.take(60, stop.is_set) == 1


def test_items_of_two_producers_are_neither_lost_nor_reordered():
    box = Mailbox(room=3, givers=2)

    def give(first):
        for number in range(first, first + 5000):
            box.put(number)
        box.end()

    for first in (0, 5000):
        threading.Thread(target=give, args=(first,), daemon=True).start()
    taken = []
    while box.wait():
        taken.append(box.take())
    assert [n for n in taken if n < 5000] == list(range(5000))
    assert [n for n in taken if n >= 5000] == list(range(5000, 10000))
