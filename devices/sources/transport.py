"""Checks whether an MPEG-2 transport stream (ISO 13818-1: .ts, .m2ts) is damaged or truncated within a frame."""

from typing import BinaryIO

import numpy as np

SYNC, PACKET, STAMPED = 0x47, 188, 192  # .m2ts has a 4-byte time stamp before each packet
TABLES = (0, 17)  # a stream begins with the program table, or the service description before it
STUFFING_PID = 0x1FFF
CHUNK = 16_384  # packets read at a time


def packet_size(head: bytes) -> int:
    """The packet size in bytes of a stream with this beginning; 0 if it is not one."""
    for size in (PACKET, STAMPED):
        at = size - PACKET
        if len(head) > at + size and head[at] == head[at + size] == SYNC:
            return size
    return 0


class TransportCheck:
    """Checks the continuity counters of each PID, and whether the last frame of each video is complete."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[int, int]] = {}  # PID -> counter and number of its last packet with content
        self._begun = -1  # number of the first packet of the latest of several concatenated streams
        self._is_video: dict[int, bool] = {}
        self._ends_full: dict[int, bool] = {}
        self._done = 0

    def is_broken(self, opened: BinaryIO, size: int) -> bool:
        """Whether packets are overwritten, missing or marked as faulty, or a video's last frame is truncated."""
        while chunk := opened.read(size * CHUNK):
            if len(chunk) % size:
                return True
            packets = np.frombuffer(chunk, np.uint8).reshape(-1, size)[:, size - PACKET :]
            if (packets[:, 0] != SYNC).any() or (packets[:, 1] & 0x80).any() or self._gaps(packets):
                return True
        return any(full and self._is_video.get(pid, False) for pid, full in self._ends_full.items())

    def _gaps(self, packets: np.ndarray) -> bool:
        """packets: uint8 [n, 188]. Whether one of their counters is discontinuous."""
        pids = (packets[:, 1].astype(np.int32) & 0x1F) << 8 | packets[:, 2]
        filled = (packets[:, 3] & 0x10) != 0
        found = sorted(set(pids[filled].tolist()) - {STUFFING_PID}, key=lambda pid: pid not in TABLES)
        try:
            return any(self._part(pid, np.flatnonzero((pids == pid) & filled), packets) for pid in found)
        finally:
            self._done += len(packets)

    def _part(self, pid: int, at: np.ndarray, packets: np.ndarray) -> bool:
        part, numbers = packets[at], at + self._done
        counters = part[:, 3].astype(np.int32) & 15
        before, number = self._last.get(pid, (int(counters[0]) - 1, int(numbers[0])))
        steps = np.diff(counters, prepend=before) & 15
        adapted = (part[:, 3] & 0x20) != 0
        said = adapted & (part[:, 4] > 0) & ((part[:, 5] & 0x80) != 0)  # marked as a discontinuity
        leaps = (steps > 1) & ~said  # a packet may be repeated
        self._last[pid] = int(counters[-1]), int(numbers[-1])
        self._look_at_frames(pid, part)
        if pid in TABLES:  # concatenated streams, such as segments of a live one, each begin with these
            self._begun = max(self._begun, *numbers[leaps].tolist(), -1)
            return False
        earlier = np.concatenate([[number], numbers[:-1]])
        return bool((leaps & ~((earlier < self._begun) & (self._begun <= numbers))).any())

    def _look_at_frames(self, pid: int, part: np.ndarray) -> None:
        """Each frame begins in a new packet, so the last packet of a frame is padded; if it is full, the frame is
        truncated."""
        starts = part[(part[:, 1] & 0x40) != 0]
        if pid not in self._is_video and len(starts):
            first = starts[0]
            content = first[4 + (1 + int(first[4]) if first[3] & 0x20 else 0) :]
            self._is_video[pid] = content[:3].tobytes() == b"\0\0\1" and len(content) > 3 and content[3] >> 4 == 0xE
        last = part[-1]
        clocks = (6 * bool(last[5] & 0x10) + 6 * bool(last[5] & 0x08) + bool(last[5] & 0x04)) if last[4] else 0
        self._ends_full[pid] = not last[3] & 0x20 or int(last[4]) == 1 + clocks
