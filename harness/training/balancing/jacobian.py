"""Methods on the tasks' gradients, by torchjd's aggregators.

They work on the parameters that two tasks or more reach; one that a single task reaches gets that task's gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from harness.data.transforms import derive_seed
from harness.documents import Section
from harness.errors import HarnessError
from harness.training.balancing.base import Balancer, Setting
from harness.training.balancing.config import (
    AlignedMtlConfig,
    CagradConfig,
    FairgradConfig,
    GradvacConfig,
)


class JacobianBalancer(Balancer):
    """A method that makes one gradient of those of the tasks.

    Random draws are a function of the run's seed and the step, the same in every process and on every resume. Tasks are
    handed on in alphabetical order, so that the order in a submission does not matter.

    Args:
        config: The method's section.
        setting: Tells tasks and seed.

    Raises:
        HarnessError: A package is not installed.

    Attributes:
        weighs: The result is a weighted sum of the gradients. The weights are found for gradients of norm 1 together:
            torchjd's solvers take a squared norm below 1e-4 for 0, which small gradients at the end of a training have.
    """

    by_task = True
    weighs: ClassVar[bool] = True

    def __init__(self, config: Section, setting: Setting) -> None:
        super().__init__(config, setting)
        self._seed, self._step = setting.seed, 0
        try:
            self._aggregator: Any = [self.build(config)]  # in a list, so that it is no module of this one
        except ImportError as error:
            raise HarnessError(
                f"training.balancing: {getattr(config, 'name', '')} needs packages that are not installed ({error});"
                f" pip install 'placeholder-harness[jacobian]'"
            ) from None

    def build(self, config: Section) -> Any:
        """Torchjd's aggregator."""
        raise NotImplementedError

    def aggregate(self, jacobian: Tensor, tasks: Sequence[str]) -> tuple[Tensor, dict[str, float]]:
        """One gradient of those of the tasks; see `Balancer.aggregate`."""
        aggregator = self._aggregator[0]
        gramian = jacobian @ jacobian.T
        size = float(gramian.trace()) ** 0.5
        if not size:
            return torch.zeros_like(jacobian[0]), {}
        devices = [jacobian.device] if jacobian.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            torch.manual_seed(derive_seed("aggregate", self._seed, self._step))
            self.recall(tasks, jacobian.dtype)
            weights: dict[str, float] = {}
            if self.weighs:
                row = self.weights(gramian / size**2) * self.rescaled(size)
                vector, weights = row @ jacobian, dict(zip(tasks, row.tolist(), strict=True))
            else:
                vector = aggregator(jacobian)
            self.remember(tasks)
        return vector, weights

    def weights(self, gramian: Tensor) -> Tensor:
        """Weights of the gradients, float [T].

        Args:
            gramian: float [T, T], their inner products, of trace 1.
        """
        found: Tensor = self._aggregator[0].gramian_weighting(gramian)
        return found

    def rescaled(self, size: float) -> float:
        """What weights are multiplied with when all gradients are `size` times as large; for most methods 1."""
        return 1.0

    def recall(self, tasks: Sequence[str], dtype: torch.dtype) -> None:
        """Give the aggregator what it must remember of these tasks."""

    def remember(self, tasks: Sequence[str]) -> None:
        """Take what it remembers."""

    def observe(self, losses: Mapping[str, float]) -> None:
        """The next step draws anew."""
        self._step += 1

    def get_extra_state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {"step": self._step}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore `get_extra_state`."""
        self._step = state["step"]


class PcGrad(JacobianBalancer):
    """PCGrad: Σ g_t, after every g_t lost its part against each g_s that it conflicts with, in random order.

    g_t ← g_t - (g_t·g_s / ‖g_s‖²) g_s where g_t·g_s < 0, g_s as it was before. Source: Yu et al. 2020
    (arXiv:2001.06782), algorithm 1.
    """

    def build(self, config: Section) -> Any:
        """Torchjd's aggregator."""
        from torchjd.aggregation import PCGrad

        return PCGrad()


class CaGrad(JacobianBalancer):
    """CAGrad: the d in a ball around the mean gradient g_0 that helps the task most that it helps least.

    max_d min_t g_t·d with ‖d - g_0‖ ≤ c ‖g_0‖. Source: Liu et al. 2021 (arXiv:2110.14048), algorithm 1; c = 0.4 as in
    its experiments on NYU-v2.
    """

    def build(self, config: Section) -> Any:
        """Torchjd's aggregator."""
        from torchjd.aggregation import CAGrad

        assert isinstance(config, CagradConfig)
        return CAGrad(config.c)


class Mgda(JacobianBalancer):
    """MGDA: the shortest gradient in the convex hull of those of the tasks.

    min_w ‖Σ w_t g_t‖ with w ≥ 0 and Σ w_t = 1, by Frank-Wolfe. Sources: Désidéri 2012; Sener and Koltun 2018
    (arXiv:1810.04650), algorithm 2.
    """

    def build(self, config: Section) -> Any:
        """Torchjd's aggregator."""
        from torchjd.aggregation import MGDA

        return MGDA()


class ImtlG(JacobianBalancer):
    """IMTL-G: Σ w_t g_t whose projections on all g_t / ‖g_t‖ are equal, with Σ w_t = 1; w_t may be negative.

    Source: Liu et al. 2021 (ICLR, "Towards Impartial Multi-task Learning"), section 3.1.
    """

    def build(self, config: Section) -> Any:
        """Torchjd's aggregator."""
        from torchjd.aggregation import IMTLG

        return IMTLG()


class GradDrop(JacobianBalancer):
    """GradDrop: for each weight one sign is drawn, and the gradients of the other sign are left out.

    Positive with probability ½ (1 + Σ g_t / Σ |g_t|). Source: Chen et al. 2020 (arXiv:2010.06808), algorithm 1 with
    its default f and leak, on weights' gradients instead of activations'.
    """

    weighs = False

    def build(self, config: Section) -> Any:
        """Torchjd's aggregator."""
        from torchjd.aggregation import GradDrop

        return GradDrop()


class AlignedMtl(JacobianBalancer):
    """Aligned-MTL: the mean of the gradients after they were made orthogonal and equally long.

    All singular values of the matrix of gradients become its smallest one, its median one, or the root of their mean
    square. Source: Senushkin et al. 2023 (arXiv:2305.19000), algorithm 1.
    """

    def build(self, config: Section) -> Any:
        """Torchjd's aggregator."""
        from torchjd.aggregation import AlignedMTL

        assert isinstance(config, AlignedMtlConfig)
        return AlignedMTL(scale_mode=config.scale_mode)


class GradVac(JacobianBalancer):
    """GradVac: Σ g_t, after every g_t was turned towards each g_s until their cosine is what it usually is.

    Where the cosine φ is below its moving average φ̂: g_t ← g_t + g_s ‖g_t‖ (φ̂ √(1-φ²) - φ √(1-φ̂²)) / (‖g_s‖ √(1-φ̂²)).
    Averages are kept by pair of tasks, so that tasks may rest. Source: Wang et al. 2021 (arXiv:2010.05874), algorithm 1
    with β = 0.01, over the whole of the shared weights.
    """

    def __init__(self, config: Section, setting: Setting) -> None:
        super().__init__(config, setting)
        self._cosines: dict[str, dict[str, float]] = {}

    def build(self, config: Section) -> Any:
        """Torchjd's aggregator."""
        from torchjd.aggregation import GradVac

        assert isinstance(config, GradvacConfig)
        return GradVac(beta=config.beta)

    def recall(self, tasks: Sequence[str], dtype: torch.dtype) -> None:
        """Torchjd forgets all pairs when the number of tasks changes: it gets those of the tasks that are here."""
        known = [[self._cosines.get(a, {}).get(b, 0.0) for b in tasks] for a in tasks]
        weighting = self._aggregator[0].gramian_weighting
        weighting._phi_t, weighting._state_key = torch.tensor(known, dtype=dtype), (len(tasks), dtype)

    def remember(self, tasks: Sequence[str]) -> None:
        """Take the averages of the pairs of these tasks."""
        for a, row in zip(tasks, self._aggregator[0].gramian_weighting._phi_t.tolist(), strict=True):
            self._cosines.setdefault(a, {}).update(zip(tasks, row, strict=True))

    def get_extra_state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return super().get_extra_state() | {"cosines": self._cosines}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore `get_extra_state`."""
        super().set_extra_state(state)
        self._cosines = {task: dict(row) for task, row in state["cosines"].items()}


class FairGrad(JacobianBalancer):
    """FairGrad: Σ w_t g_t that shares out the gains g_t·d α-fairly.

    (G Gᵀ) w = w^(-1/α), elementwise. With α = 1 it is Nash-MTL's equation. Source: Ban and Ji 2024 (arXiv:2402.15638),
    algorithm 1.
    """

    _alpha: float

    def build(self, config: Section) -> Any:
        """Torchjd's aggregator."""
        from torchjd.aggregation import FairGrad

        assert isinstance(config, FairgradConfig)
        self._alpha = config.alpha
        return FairGrad(config.alpha)

    def rescaled(self, size: float) -> float:
        """From s² (G Gᵀ) w = w^(-1/α)."""
        return size ** (-2 * self._alpha / (1 + self._alpha))


class ConFig(JacobianBalancer):
    """ConFIG: the direction with the same positive cosine to every gradient, as long as all projections on it together.

    Source: Liu et al. 2024 (arXiv:2408.11104), eq. 2. As nothing but inner products of the gradients counts, it is
    found for T vectors of length T that have the same ones: torchjd's pseudo-inverse of all N columns takes longer than
    a backward pass, and is zero for more than 8 million of them (its tolerance grows with N).
    """

    def build(self, config: Section) -> Any:
        """Torchjd's aggregator."""
        from torchjd.aggregation import ConFIG

        return ConFIG()

    def weights(self, gramian: Tensor) -> Tensor:
        """See `JacobianBalancer.weights`."""
        values, vectors = torch.linalg.eigh(gramian.double())
        values = values.where(values > 1e-6 * values[-1], 0.0)  # what is below is 32-bit noise
        small = vectors * values.sqrt()  # [T, T], its rows have the gradients' inner products
        return (torch.linalg.pinv(small.T) @ self._aggregator[0](small)).to(gramian)


class UpGrad(JacobianBalancer):
    """UPGrad: the mean of the gradients, each projected to where no task loses.

    The projections are onto the dual cone of all gradients. Source: Quinton and Rey 2024 (arXiv:2406.16232), section 3.
    """

    def build(self, config: Section) -> Any:
        """Torchjd's aggregator, with a solver that is not under the GPL as torchjd's own is."""
        from torchjd.aggregation import UPGrad

        from harness.training.balancing.dual_cone import DualCone

        return UPGrad(projector=DualCone())
