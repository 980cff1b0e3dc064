"""How sure a number is: bootstrap over images, and over training seeds where there are several.

One mechanism serves every metric: a draw is a weight per image (how often it was drawn), a metric reduces its
statistics under these weights. Copies of an image tie as one, so a draw never depends on how ties are broken.

Claims are made from paired differences: both entries are reduced under the same draws, so what makes an image set
hard or easy for both cancels. Sources: Efron and Tibshirani 1993, "An Introduction to the Bootstrap"; Davison and
Hinkley 1997, "Bootstrap Methods and their Application", section 5.2.
"""

from harness.evaluation.draws import draw_weights
from harness.evaluation.resampling.contrasts import contrast, paired_sums
from harness.evaluation.resampling.differences import (
    PairedDifference,
    drawn_difference,
    images_needed,
    paired_breakdown,
    paired_difference,
)
from harness.evaluation.resampling.intervals import LEVEL, Interval, entry_interval, single_interval
from harness.evaluation.resampling.levels import require_breakdown, require_comparable, seed_noise
from harness.evaluation.resampling.p_values import holm

__all__ = [
    "LEVEL",
    "Interval",
    "PairedDifference",
    "contrast",
    "draw_weights",
    "drawn_difference",
    "entry_interval",
    "holm",
    "images_needed",
    "paired_breakdown",
    "paired_difference",
    "paired_sums",
    "require_breakdown",
    "require_comparable",
    "seed_noise",
    "single_interval",
]
