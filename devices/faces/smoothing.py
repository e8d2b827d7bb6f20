"""Keeps a face's label from flickering, at a price in delay that is bounded; and says `unsure` rather than guess."""

import math
from dataclasses import dataclass, field

from edgefer.devices.faces.tracking import FORGET_S

LOW = "low score"
UNSURE_LEAD = 0.5  # what counts as the lead of or over `unsure`, which has no score
EASE = 0.05  # by how much a score must exceed the reject threshold again before an unsure face gets its label back


@dataclass(frozen=True, kw_only=True)
class Preset:
    """How steady: `mean_s` is the time constant of the probabilities' mean. Another label is shown once its lead times the
    time that it leads has come to `lead_s`: a clear one soon, one that a syllable brings forth hardly ever. Or once it has
    led at all for `patience_s`, which bounds the delay when two labels are nearly level."""

    mean_s: float
    lead_s: float
    patience_s: float


# Measured on faces that talk: tests/benchmarks/measure_steadiness.py.
PRESETS = {
    "off": Preset(mean_s=0.0, lead_s=0.0, patience_s=0.0),
    "responsive": Preset(mean_s=0.06, lead_s=0.1, patience_s=0.8),
    "calm": Preset(mean_s=0.1, lead_s=0.15, patience_s=1.0),
}


@dataclass
class _State:
    """One tracked face: the mean of its scores, and what is shown of it.

    decided: the mean as it was when it last agreed with `label`: the numbers that go with it.
    """

    seen_s: float
    mean: dict[str, float]
    mean_s: float | None = None  # when `mean` was last added to; None while no image of the face was fit to be read
    shown: bool = False  # whether anything was, by the rules in force
    label: str | None = None  # None: unsure. No word says so, for a network may have a label of that name
    unsure: str = ""
    decided: dict[str, float] = field(default_factory=dict)
    rival: str | None = None  # what is called for instead of `label`
    against_s: float = 0.0  # for how long any other than `label` has been called for
    lead_s: float = 0.0  # and the lead of `rival` times the time that it has led


class LabelSmoother:
    """One steady decision per frame for each tracked face.

    Everything is measured in seconds of the source, so that it is as steady at 5 frames a second as at 30. A frame
    stands for the time since the one before: at a low rate nothing waits for a second frame.

    While a label is held against a rival, the scores that it was decided on are held too, for at most `patience_s`: so
    the label is always the likeliest of the scores beside it, and never below `reject`.

    reject: below this probability of the likeliest label a face is unsure, until it exceeds it by EASE; 0 never says so,
    whatever the reason.
    """

    def __init__(self, preset: Preset, *, reject: float = 0.0):
        self.preset, self.reject = preset, reject
        self._states: dict[int, _State] = {}

    def change(self, preset: Preset, reject: float) -> None:
        """Other rules from the next frame on. What is shown was decided by the old ones, and is not held on to."""
        if (preset, reject) == (self.preset, self.reject):
            return
        self.preset, self.reject = preset, reject
        for state in self._states.values():
            state.shown = False

    def settle(
        self, track: int, time_s: float, scores: dict[str, float], fault: str = ""
    ) -> tuple[dict[str, float], str]:
        """(scores, why it is unsure or "") to show of face `track` at `time_s`, given the scores of this frame alone.

        fault: why this image of the face cannot be read, "" if it can. One that cannot leaves the mean alone.
        """
        self._states = {key: one for key, one in self._states.items() if 0 <= time_s - one.seen_s < FORGET_S}
        state = self._states.setdefault(track, _State(seen_s=time_s, mean=scores))
        passed_s, state.seen_s = time_s - state.seen_s, time_s
        if not self.reject:
            fault = ""
        if not fault:
            state.mean = self._mean(state, time_s, scores)
            state.mean_s = time_s
        top = max(state.mean, key=state.mean.__getitem__)
        wanted, unsure = self._wanted(state, top, fault)
        if self._agreed(state, wanted, passed_s):
            state.shown, state.label, state.unsure, state.decided = True, wanted, unsure, state.mean
        return state.decided, state.unsure

    def _mean(self, state: _State, time_s: float, scores: dict[str, float]) -> dict[str, float]:
        """The exponential mean over time. Of probabilities, not logits: one odd frame then weighs no more than any."""
        if state.mean_s is None or not self.preset.mean_s:
            return scores
        share = 1 - math.exp(-(time_s - state.mean_s) / self.preset.mean_s)
        return {label: old + share * (scores[label] - old) for label, old in state.mean.items()}

    def _wanted(self, state: _State, top: str, fault: str) -> tuple[str | None, str]:
        """The label this moment calls for, None for `unsure`, and why it is that."""
        ease = EASE if state.shown and state.label is None and self.preset.lead_s else 0.0
        if fault:
            return None, fault
        if state.mean[top] < self.reject + ease:
            return None, LOW
        return top, ""

    def _agreed(self, state: _State, wanted: str | None, passed_s: float) -> bool:
        """Whether to show `wanted`: at once if it or nothing was shown, else only once it has led clearly or long enough."""
        if wanted == state.label or not state.shown:
            state.against_s = state.lead_s = 0.0
            return True
        lead = UNSURE_LEAD
        if wanted is not None and state.label is not None:
            lead = state.mean[wanted] - state.mean[state.label]
        state.against_s += passed_s
        state.lead_s = (state.lead_s if wanted == state.rival else 0.0) + lead * passed_s
        state.rival = wanted
        if state.lead_s >= self.preset.lead_s or state.against_s >= self.preset.patience_s:
            state.against_s = state.lead_s = 0.0
            return True
        return False
