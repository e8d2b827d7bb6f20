"""Keeps a face's label from flickering, with a bounded delay, and gives `unsure` instead of guessing."""

import math
from dataclasses import dataclass, field

from edgefer.devices.faces.tracking import FORGET_S

LOW = "low score"
UNSURE_LEAD = 0.5  # the assumed lead of or over `unsure`, which has no score
EASE = 0.05  # by how much, or half as far as possible, a score must exceed `reject` again before an unsure face gets its label


@dataclass(frozen=True, kw_only=True)
class Preset:
    """`mean_s`: time constant of the probabilities' mean. The label changes once another one's lead times the time that it
    leads reaches `lead_s`, which is soon for a clear change and rare for a spoken syllable; or once it has led at all for
    `patience_s`, which bounds the delay between two almost equal labels."""

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
    """One tracked face: the mean of its scores, and its displayed label.

    decided: the mean when it last agreed with `label`: the scores to show with it.
    """

    seen_s: float
    mean: dict[str, float]
    mean_s: float | None = None  # when `mean` was last updated; None until an image of the face can be read
    shown: bool = False  # whether anything was, by the current rules
    label: str | None = None  # None: unsure. Not a string, since a network may have a label of that name
    unsure: str = ""
    decided: dict[str, float] = field(default_factory=dict)
    rival: str | None = None  # what leads instead of `label`
    against_s: float = 0.0  # how long anything but `label` has led
    lead_s: float = 0.0  # the lead of `rival` times the time that it has led


class LabelSmoother:
    """One smoothed decision per frame for each tracked face.

    Everything is measured in seconds of the source, so that smoothing is the same at 5 and at 30 frames per second. A
    frame represents the time since the previous one, so at a low rate no decision waits for a second frame.

    While a label is held against a rival, its scores are held too, for at most `patience_s`, so that the label is always
    the one with the highest shown score, and never below `reject`.

    reject: a face is unsure if its highest probability is below this, until it exceeds it by EASE, or by half of what is
    left to 1 if that is less; with 0 a face is never unsure, for any reason.
    """

    def __init__(self, preset: Preset, *, reject: float = 0.0):
        self.preset, self.reject = preset, reject
        self._states: dict[int, _State] = {}

    def change(self, preset: Preset, reject: float) -> None:
        """Change the rules from the next frame on. The shown label was decided by the old ones, so it is not held."""
        if (preset, reject) == (self.preset, self.reject):
            return
        self.preset, self.reject = preset, reject
        for state in self._states.values():
            state.shown = False

    def settle(
        self, track: int, time_s: float, scores: dict[str, float], fault: str = ""
    ) -> tuple[dict[str, float], str]:
        """(scores, why it is unsure or "") to show for face `track` at `time_s`, given this frame's scores.

        fault: why this image of the face cannot be read, "" if it can. If not, the mean is not updated.
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
        """The exponential mean over time. Of probabilities, not logits, which limits the weight of an outlier frame."""
        if state.mean_s is None or not self.preset.mean_s:
            return scores
        share = 1 - math.exp(-(time_s - state.mean_s) / self.preset.mean_s)
        return {label: old + share * (scores[label] - old) for label, old in state.mean.items()}

    def _wanted(self, state: _State, top: str, fault: str) -> tuple[str | None, str]:
        """The label for this moment, None for `unsure`, and the reason for unsure."""
        eased = state.shown and state.label is None and self.preset.lead_s
        ease = min(EASE, (1 - self.reject) / 2) if eased else 0.0
        if fault:
            return None, fault
        if state.mean[top] < self.reject + ease:
            return None, LOW
        return top, ""

    def _agreed(self, state: _State, wanted: str | None, passed_s: float) -> bool:
        """Whether to show `wanted`: at once if it or nothing is shown, else only once it has led clearly or long enough."""
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
