"""How far a stream is behind: the images of one that is decoded more slowly than it comes wait in the network's buffers."""

MAX_STEP_S = 2.0  # between two time stamps; a larger one, or one backwards, is a clock that was set
DRIFT = 0.001  # of a camera's clock against this machine's, at most: seconds per second


class Delay:
    """The delay that images have gained since the shortest one, by their time stamps."""

    def __init__(self) -> None:
        self.behind_s = 0.0
        self._now_s = self._stamp_s = self._shortest_s = 0.0
        self._begun = False

    def add(self, now_s: float, stamp_s: float) -> None:
        """An image that was read at now_s, of the monotonic clock."""
        delay_s = now_s - stamp_s
        if self._begun and 0 <= stamp_s - self._stamp_s <= MAX_STEP_S:
            self._shortest_s = min(delay_s, self._shortest_s + DRIFT * (now_s - self._now_s))
        else:
            self._shortest_s = delay_s
        self._begun, self._now_s, self._stamp_s = True, now_s, stamp_s
        self.behind_s = delay_s - self._shortest_s
