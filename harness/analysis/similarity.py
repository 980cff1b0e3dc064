"""How alike two representations of the same images are: linear CKA and Pearson correlation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def linear_cka(x: Matrix, y: Matrix, debiased: bool = False) -> float | None:
    """Linear centred kernel alignment of two representations of the same n samples.

    ||Y^T X||_F^2 / (||X^T X||_F ||Y^T Y||_F) with centred columns. It is 1 for representations that are equal up to
    rotation and one common scale, whatever their widths. With few samples and wide features it is too high even for
    unrelated ones; the debiased form, with the unbiased estimator of HSIC, is 0 on average there and may be below 0.

    Args:
        x: float64 [n, p].
        y: float64 [n, q].
        debiased: Use the unbiased estimator, for n > 3.

    Returns:
        None where a representation is the same for all samples, or there are too few.

    Source:
        Kornblith et al. 2019, section 3 (arXiv:1905.00414); Song et al. 2012, eq. 5 for the unbiased HSIC, as in
        Nguyen et al. 2021, eq. 3 (arXiv:2010.15327).
    """
    if len(x) < (4 if debiased else 2):
        return None
    k, l = (_gram(one) for one in (x, y))  # noqa: E741 - K and L, as in the papers
    hsic = _unbiased if debiased else _biased
    own = hsic(k, k) * hsic(l, l)
    return hsic(k, l) / float(np.sqrt(own)) if own > 0 else None


def centred(x: Matrix) -> Matrix:
    """Without the mean of each column; exactly 0 where a column is the same everywhere, whose mean may be rounded."""
    x = x - x[:1]
    return x - x.mean(0)


def pearson(x: Matrix, y: Matrix) -> float | None:
    """Mean over dimensions of the correlation, over samples, of a dimension of x with the same dimension of y.

    For representations in one common space, as tokens of one bank are: unlike CKA it notices a rotation.

    Args:
        x: float64 [n, d].
        y: float64 [n, d].

    Returns:
        None where no dimension varies in both.
    """
    x, y = centred(x), centred(y)
    norms = np.linalg.norm(x, axis=0) * np.linalg.norm(y, axis=0)
    varies = norms > 0
    if not varies.any():
        return None
    return float(((x * y).sum(0)[varies] / norms[varies]).mean())


def _gram(x: Matrix) -> Matrix:
    x = centred(x)
    return x @ x.T


def _biased(k: Matrix, l: Matrix) -> float:  # noqa: E741
    """Of centred Gram matrices; without the factor that cancels in CKA."""
    return float((k * l).sum())


def _unbiased(k: Matrix, l: Matrix) -> float:  # noqa: E741
    n = len(k)
    k, l = (one - np.diag(np.diag(one)) for one in (k, l))  # noqa: E741
    total = float((k * l).sum())
    total += k.sum() * l.sum() / ((n - 1) * (n - 2))
    total -= 2 / (n - 2) * float(k.sum(0) @ l.sum(0))
    return float(total / (n * (n - 3)))
