"""How far two views' outputs are apart, place by place, whatever the task."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.data.batches import Batch
from harness.models.features import padding_of


def pseudo_labels(
    weak: Tensor, strong: Tensor, valid: Tensor, exclusive: bool, threshold: float
) -> tuple[Tensor, Tensor]:
    """What the weak view is, learned by the strong one.

    With a softmax, p = softmax(weak): the loss of a place is w · H(argmax p, softmax(strong)), and its weight
    w = max p · [max p >= threshold]. With sigmoids every class is a decision of its own: p = sigmoid(weak), the target
    is [p > 1/2], the weight w = max(p, 1 - p) · [max(p, 1 - p) >= threshold], and a place's loss the sum over classes.
    The mean is over all places, those of weight 0 included. Source: Sohn et al. 2020, "FixMatch" (arXiv:2001.07685),
    eq. 4, where a place that counts has weight 1.

    Args:
        weak: float [R, C, N], logits; no gradient goes through them.
        strong: float [R, C, N].
        valid: bool [R, N], the places that count.
        exclusive: Whether one class at most is right at a place.
        threshold: As above.

    Returns:
        The loss, the mean over rows of the means over their places, a scalar; and the share of places (of places and
        classes, with sigmoids) that reach the threshold, a scalar.
    """
    weak, strong = weak.detach().float(), strong.float()
    confidence = _confidence(weak, exclusive)
    if exclusive:
        # A row per place: of maps GPUs have no deterministic kernel.
        rows, labels = strong.transpose(1, 2).flatten(0, 1), weak.argmax(1)
        terms = F.cross_entropy(rows, labels.flatten(), reduction="none").view_as(labels)[:, None]
    else:
        terms = F.binary_cross_entropy_with_logits(strong, (weak > 0).float(), reduction="none")
    kept = confidence >= threshold
    return _mean((confidence * kept * terms).sum(1), valid), _mean(kept.float().mean(1), valid)


def soft_labels(
    weak: Tensor, strong: Tensor, valid: Tensor, exclusive: bool, threshold: float, temperature: float
) -> tuple[Tensor, Tensor]:
    """The softened probabilities of the weak view, learned by the strong one.

    T² · KL(σ(weak / T) ‖ σ(strong / T)), with σ a softmax over classes, or a sigmoid of each; the square makes up for
    gradients that shrink by it. The gradient is that of the cross-entropy. Places weigh as in `pseudo_labels`, by p at
    temperature 1. Source: Hinton et al. 2015 (arXiv:1503.02531), section 2.

    Args and result are those of `pseudo_labels`, with T.
    """
    weak, strong = weak.detach().float(), strong.float()
    confidence = _confidence(weak, exclusive)
    kept = confidence >= threshold
    terms = temperature**2 * _divergence(weak / temperature, strong / temperature, exclusive)
    return _mean((confidence * kept * terms).sum(1), valid), _mean(kept.float().mean(1), valid)


def divergence(clean: Tensor, changed: Tensor, valid: Tensor, exclusive: bool) -> Tensor:
    """KL(p(clean) ‖ p(changed)), summed over classes, the mean over each row's places: float [R].

    No gradient goes through `clean`. Source: Miyato et al. 2018 (arXiv:1704.03976), eq. 5. The other arguments are
    those of `pseudo_labels`.
    """
    terms = _divergence(clean.detach().float(), changed.float(), exclusive)
    return _rows(terms.sum(1), valid)


def places(outputs: Sequence[Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
    """The maps of a head as one list of places.

    Args:
        outputs: float [R, C, h, w] each; R rows are images, or questions (one place each).
        batch: Tells what is padding.

    Returns:
        float [R, C, N], all places of all maps; and bool [R, N], those that do not lie in padding.
    """
    valid = []
    for level in outputs:
        padding = padding_of(level, batch)
        valid.append(torch.ones_like(level[:, 0], dtype=torch.bool) if padding is None else ~padding)
    return torch.cat([level.flatten(2) for level in outputs], 2), torch.cat([one.flatten(1) for one in valid], 1)


def _confidence(logits: Tensor, exclusive: bool) -> Tensor:
    """Probability of what is most probable: float [R, 1, N] with a softmax, [R, C, N] with sigmoids."""
    return logits.softmax(1).amax(1, keepdim=True) if exclusive else logits.abs().sigmoid()


def _divergence(teacher: Tensor, student: Tensor, exclusive: bool) -> Tensor:
    """KL of every class's share: float [R, C, N]; sums over classes are not negative."""
    if exclusive:
        return F.kl_div(student.log_softmax(1), teacher.log_softmax(1), reduction="none", log_target=True)
    target = teacher.sigmoid()
    crossed = F.binary_cross_entropy_with_logits(student, target, reduction="none")
    return crossed - F.binary_cross_entropy_with_logits(teacher, target, reduction="none")


def _rows(terms: Tensor, valid: Tensor) -> Tensor:
    """Mean over the valid places of each row: float [R] of float [R, N]."""
    return (terms * valid).sum(1) / valid.sum(1).clamp(min=1)


def _mean(terms: Tensor, valid: Tensor) -> Tensor:
    return _rows(terms, valid).mean()
