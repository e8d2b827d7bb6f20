"""Keeps a face's label from flickering, at a price in delay that is bounded; and says `unsure` rather than guess."""

import math
from dataclasses import dataclass

from edgefer.devices.faces.tracking import FORGET_S
from edgefer.records import UNSURE, Prediction

LOW = "low score"
EASE = 0.05  # by how much a score must exceed the reject threshold again before an unsure face gets its label back


@dataclass(frozen=True, kw_only=True)
class Preset:
    """How steady: `mean_s` is the time constant of the probabilities' mean; another label must lead by `margin` for
    `dwell_s` to be shown, or lead at all for `patience_s`, which bounds the delay when two labels are nearly level."""

    mean_s: float
    margin: float
    dwell_s: float
    patience_s: float


PRESETS = {
    "off": Preset(mean_s=0.0, margin=0.0, dwell_s=0.0, patience_s=0.0),
    "responsive": Preset(mean_s=0.12, margin=0.1, dwell_s=0.12, patience_s=0.5),
    "calm": Preset(mean_s=0.15, margin=0.3, dwell_s=0.2, patience_s=0.6),
}


@dataclass
class _Voice:
    """What one tracked face has been saying."""

    seen_s: float
    scores: dict[str, float]
    heard_s: float | None = None  # when `scores` was last added to; None while no picture of it was fit to be read
    shown: str = ""  # "" until something was shown
    why: str = ""
    next: str = ""
    leads_s: float = 0.0  # for how long `next` has been called for
    clear_s: float = 0.0  # and for how long by the margin


class Steadier:
    """One steady prediction a frame for each tracked face.

    Everything is measured in seconds of the source, so that it is as steady at 5 frames a second as at 30. A frame
    stands for the time since the one before: at a low rate nothing waits for a second frame.

    reject: below this probability of the likeliest label a face is `unsure`; 0 never says so, whatever the reason.
    """

    def __init__(self, preset: Preset, *, reject: float = 0.0):
        self.preset, self.reject = preset, reject
        self._voices: dict[int, _Voice] = {}

    def settle(self, track: int, time_s: float, prediction: Prediction, wrong: str = "") -> Prediction:
        """What to show of face `track` at `time_s`, given what the network says of this frame alone.

        wrong: why this picture of the face cannot be read, "" if it can. One that cannot leaves the mean alone.
        """
        self._voices = {key: one for key, one in self._voices.items() if 0 <= time_s - one.seen_s < FORGET_S}
        voice = self._voices.setdefault(track, _Voice(seen_s=time_s, scores=prediction.scores))
        passed_s, voice.seen_s = time_s - voice.seen_s, time_s
        if not self.reject:
            wrong = ""
        if not wrong:
            voice.scores = self._mean(voice, time_s, prediction.scores)
            voice.heard_s = time_s
        top = max(voice.scores, key=voice.scores.__getitem__)
        wanted, why = self._wanted(voice, top, wrong)
        self._switch(voice, wanted, passed_s)
        if voice.shown == UNSURE:
            voice.why = why or voice.why
            return Prediction(label=UNSURE, score=voice.scores[top], scores=voice.scores, unsure=voice.why)
        return Prediction(label=voice.shown, score=voice.scores[voice.shown], scores=voice.scores)

    def _mean(self, voice: _Voice, time_s: float, scores: dict[str, float]) -> dict[str, float]:
        """The exponential mean over time. Of probabilities, not logits: one odd frame then weighs no more than any."""
        if voice.heard_s is None or not self.preset.mean_s:
            return scores
        share = 1 - math.exp(-(time_s - voice.heard_s) / self.preset.mean_s)
        return {label: old + share * (scores[label] - old) for label, old in voice.scores.items()}

    def _wanted(self, voice: _Voice, top: str, wrong: str) -> tuple[str, str]:
        """The label this moment calls for, and why it is `unsure` if it is."""
        ease = EASE if voice.shown == UNSURE and self.preset.dwell_s else 0.0
        if wrong:
            return UNSURE, wrong
        if voice.scores[top] < self.reject + ease:
            return UNSURE, LOW
        return top, ""

    def _switch(self, voice: _Voice, wanted: str, passed_s: float) -> None:
        """Show `wanted` at once if nothing was shown, else only once it has led clearly or long enough."""
        if wanted != voice.next:
            voice.next, voice.leads_s, voice.clear_s = wanted, 0.0, 0.0
        scored = wanted != UNSURE and voice.shown in voice.scores
        lead = voice.scores[wanted] - voice.scores[voice.shown] if scored else 1.0  # to or from `unsure`: always clear
        voice.leads_s += passed_s
        voice.clear_s = voice.clear_s + passed_s if lead >= self.preset.margin else 0.0
        settled = lead >= self.preset.margin and voice.clear_s >= self.preset.dwell_s
        if not voice.shown or settled or voice.leads_s >= self.preset.patience_s:
            voice.shown = wanted
