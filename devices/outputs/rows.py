"""The rows of a run's CSV, and the labels of one face over time."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

MAX_LANES = 12  # faces in a timeline, those seen most often
GAP_S = 1.0  # after a longer absence, of more than one frame, a face begins another stretch


@dataclass(frozen=True, kw_only=True)
class Row:
    """One face of one frame. clock: the time in UTC, as in the file. source: its name, "" if the file has none."""

    clock: str
    source: str
    frame: int
    time_s: float
    id: int
    label: str
    score: float


def near(before: Row, row: Row) -> bool:
    """Whether a face was not absent between two of its rows."""
    return row.time_s - before.time_s <= GAP_S or row.frame == before.frame + 1


@dataclass
class Lane:
    """One face of a timeline: how often it had each label in each bin that it was seen in."""

    bins: defaultdict[int, Counter] = field(default_factory=lambda: defaultdict(Counter))
    last: tuple[int, str, Row] | None = None  # with its bin and label

    def add(self, place: int, label: str, row: Row) -> None:
        """The next row, in the bin `place`; bins between two near rows have the earlier one's label."""
        if self.last and near(self.last[2], row):
            for between in range(self.last[0] + 1, place):
                self.bins[between][self.last[1]] += 1
        self.bins[place][label] += 1
        self.last = place, label, row

    def stretches(self) -> Iterator[tuple[int, int, str]]:
        """The first bin, the bin after the last and the most frequent label of each stretch with the same one."""
        begin = end = 0
        going = ""
        for place in sorted(self.bins):
            label = self.bins[place].most_common(1)[0][0]
            if (place, label) != (end, going):
                if end > begin:
                    yield begin, end, going
                begin, going = place, label
            end = place + 1
        if end > begin:
            yield begin, end, going
