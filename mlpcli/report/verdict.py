"""What the learning curves say, as sentences, each from a rule that the page and docs/report.md state."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mlpcli.progress import less_is_better

LATE = 0.1
"""The last tenth of the epochs decides whether a training still improves."""
IMPROVES = 0.01
"""By at least that share of the value before, that is."""
OVERFITS = 0.05
"""By how much, as a share of its lowest value, the validation loss has risen at the end where it overfits."""
RISES = 1.5
"""By which factor the training loss has risen above its lowest value where it runs away."""
FEWEST = 5
"""Epochs without which a curve says nothing."""

RULES = {
    "diverged": "a training loss is not finite, or the training ended because something was not",
    "unstable": f"the last training loss is more than {RISES:g} times the lowest one",
    "overfitting": f"the last validation loss is more than {OVERFITS:.0%} above its lowest value, at epoch k, and "
    "the training loss has fallen since",
    "improving": f"the best value of the last {LATE:.0%} of the epochs is at least {IMPROVES:.0%} better than the "
    "best one before",
    "levelled": "none of the other rules holds",
    "short": f"fewer than {FEWEST} epochs say nothing",
}


@dataclass(frozen=True)
class Verdict:
    """A sentence, and which of the `RULES` it follows from."""

    rule: str
    text: str

    @property
    def because(self) -> str:
        """The rule, in words."""
        return RULES[self.rule]


def verdicts(
    epochs: Sequence[int],
    train: Sequence[float],
    validation: Sequence[float],
    monitored: Sequence[float],
    monitor: str,
    *,
    diverged: bool = False,
    stopped_early: bool = False,
) -> list[Verdict]:
    """What the curves say, the most urgent first.

    Args:
        epochs: their numbers, ascending.
        train, validation: the loss in each; NaN where there is none.
        monitored: what chooses the best epoch.
        monitor: its name, as in `validation.loss`.
        diverged: whether the run ended for that reason.
        stopped_early: whether early stopping ended it.
    """
    found: list[Verdict] = []
    lost = [epoch for epoch, loss in zip(epochs, train, strict=True) if not math.isfinite(loss)]
    lost = lost if len(lost) < len(epochs) else []  # an old run may have no losses at all
    if diverged or lost:
        at = f" The training loss is not finite in epoch {lost[0]}." if lost else ""
        found.append(Verdict("diverged", f"The training diverged.{at} Try a smaller learning rate."))
    if len(epochs) < FEWEST:
        return found or [Verdict("short", "Too few epochs to say where the curves lead.")]
    runs_away = _unstable(epochs, train)
    overfits = _overfitting(epochs, train, validation)
    found += [each for each in (runs_away, overfits) if each is not None]
    if found:
        return found
    gain = _late_gain(monitored, less_is_better(monitor.partition(".")[2]))
    if gain is not None and gain >= IMPROVES and not stopped_early:
        text = f"Still improving: in the last {LATE:.0%} of the epochs {monitor} became {gain:.1%} better. "
        return [Verdict("improving", text + "More epochs may help.")]
    end = "early stopping ended the training" if stopped_early else f"{monitor} hardly improved at the end"
    held_out = [loss for loss in validation if math.isfinite(loss)]
    if not held_out:
        also = ". There is no validation split, so overfitting would not show."
    elif held_out[-1] <= (1 + OVERFITS) * min(held_out):
        also = ", and the validation loss has not risen much."
    else:  # the training loss has risen too, or the lowest is 0
        also = f". The validation loss was {min(held_out):.4g} at its lowest and is {held_out[-1]:.4g} at the end."
    return [Verdict("levelled", f"Levelled off: {end}{also}")]


def _unstable(epochs: Sequence[int], train: Sequence[float]) -> Verdict | None:
    finite = [(loss, epoch) for epoch, loss in zip(epochs, train, strict=True) if math.isfinite(loss)]
    if not finite:
        return None
    low, at = min(finite)
    last = finite[-1][0]
    if low <= 0 or last <= RISES * low:
        return None
    text = f"Unstable: the training loss was {low:.4g} in epoch {at} and is {last:.4g} at the end. "
    return Verdict("unstable", text + "Try a smaller learning rate, or a schedule that lowers it.")


def _overfitting(epochs: Sequence[int], train: Sequence[float], validation: Sequence[float]) -> Verdict | None:
    both = [
        (held_out, epoch, loss)
        for epoch, loss, held_out in zip(epochs, train, validation, strict=True)
        if math.isfinite(loss) and math.isfinite(held_out)
    ]
    if not both:
        return None
    low, at, loss_then = min(both)
    last, _, loss_now = both[-1]
    if low <= 0 or last <= (1 + OVERFITS) * low or loss_now >= loss_then:
        return None
    text = f"Overfitting since epoch {at}: the validation loss rose from {low:.4g} to {last:.4g}, while the "
    text += f"training loss fell from {loss_then:.4g} to {loss_now:.4g}. "
    return Verdict("overfitting", text + "Try early stopping, dropout, weight decay, or more data.")


def _late_gain(values: Sequence[float], less: bool) -> float | None:
    """How much better the best value of the last epochs is than the best one before, as a share of that one."""
    finite = [value if less else -value for value in values if math.isfinite(value)]
    late = max(1, round(LATE * len(finite)))
    if len(finite) <= late:
        return None
    before, after = min(finite[:-late]), min(finite[-late:])
    return (before - after) / abs(before) if before else None
