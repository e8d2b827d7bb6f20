"""What a source is doing, for the page, the metrics and MQTT."""

from dataclasses import dataclass
from enum import StrEnum


class SourceStatus(StrEnum):
    """OK: it gives frames, or has given none yet. INCOMPLETE: it is played in a loop, with frames missing. LOST: it is tried
    again until it is back. FAILED: it has ended, with frames missing. ENDED: all of it was read."""

    OK = "ok"
    INCOMPLETE = "incomplete"
    LOST = "lost"
    FAILED = "failed"
    ENDED = "ended"


@dataclass(frozen=True, kw_only=True)
class SourceState:
    """A source by its name in the outputs. trouble: a sentence about why it is lost, incomplete or has failed, otherwise ""."""

    name: str
    state: SourceStatus = SourceStatus.OK
    trouble: str = ""

    @property
    def up(self) -> bool:
        """Whether it gives frames, or has given all of them."""
        return self.state not in (SourceStatus.LOST, SourceStatus.FAILED)
