"""Auxiliary task: what the tokens of an image tell of where it came from, or of how it was turned."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.data.batches import Batch
from harness.data.transforms import derive_seed
from harness.documents import Section
from harness.models.step_tokens import StepTokens
from harness.training.placeholders.objectives.config import AuxiliaryConfig
from harness.training.placeholders.objectives.objective import Objective, Setting, perceptron


def auxiliary(config: Section, setting: Setting) -> Objective:
    """The auxiliary task that a section names."""
    assert isinstance(config, AuxiliaryConfig)
    return (DatasetOfImage if config.target == "dataset" else RotationOfImage)(config, setting)


class DatasetOfImage(Objective):
    """weight · cross-entropy of MLP(z̄) against the data set that the image is of, mean over images, then over tasks.

    z̄ is the mean of an image's tokens after the backbone, before any text. A task that takes another's images shares
    its label.

    Args:
        config: The weight.
        setting: Tells tasks and widths.
    """

    def __init__(self, config: Section, setting: Setting) -> None:
        assert isinstance(config, AuxiliaryConfig)
        super().__init__(config, setting)
        self._weight = config.weight
        tasks = setting.submission.tasks
        labels = {name: label for label, name in enumerate(task.dataset for task in tasks if task.images_of is None)}
        self._labels = {task.dataset: labels[task.images_of or task.dataset] for task in tasks}
        self.classifier = perceptron(setting.width, len(labels))

    def forward(self, tokens: StepTokens) -> Tensor | None:
        """See `Objective`."""
        losses = {}
        for task, images in tokens.images.items():
            logits = self.classifier(images.mean(1)).float()
            wanted = torch.full((len(logits),), self._labels[task], device=logits.device)
            losses[task] = F.cross_entropy(logits, wanted)
        return self._weight * tokens.mean_over_images(losses) if losses else None


class RotationOfImage(Objective):
    """weight · cross-entropy of MLP(z̄) against the quarter turns of a further copy of the image (Gidaris 2018).

    The tasks' own images stay upright. One copy of each goes through the shared part a second time, turned by 0, 90,
    180 or 270 degrees (arXiv:1803.07728, which takes all four, at twice the cost again); of images that are no squares
    the central square. The second pass leaves no trace: batch norms use its statistics but do not remember them, for
    nothing is turned in evaluation, and dropout draws from a stream of its own.

    Args:
        config: The weight.
        setting: Tells seed and widths.
    """

    def __init__(self, config: Section, setting: Setting) -> None:
        assert isinstance(config, AuxiliaryConfig)
        super().__init__(config, setting)
        self._weight, self._seed = config.weight, setting.seed
        self._leaders = setting.submission.leaders()
        self.classifier = perceptron(setting.width, 4)

    def forward(self, tokens: StepTokens) -> Tensor | None:
        """See `Objective`."""
        # Tasks of the very same images turn them once.
        own = [task for task in tokens.images if self._leaders.get(task) not in tokens.images]
        if not own:
            return None
        turned = {task: self._turned(tokens.batches[task]) for task in own}
        device = tokens.images[own[0]].device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(derive_seed("dropout of turned images", self._seed, self.step))
            features = tokens.encode({task: batch for task, (batch, _) in turned.items()})
        losses = {}
        for task, (_, turns) in turned.items():
            stream = features[task].stream
            assert stream is not None
            losses[task] = F.cross_entropy(self.classifier(stream.tokens.mean(1)).float(), turns)
        return self._weight * tokens.mean_over_images(losses)

    def _turned(self, batch: Batch) -> tuple[Batch, Tensor]:
        keys = [derive_seed("rotation", self._seed, self.step, name) for name in batch.ids]
        turns = torch.tensor([key % 4 for key in keys], device=batch.images.device)
        return replace(batch, images=turned_images(batch.images, turns), contents=None), turns


def turned_images(images: Tensor, turns: Tensor) -> Tensor:
    """Central squares, each turned by so many quarters.

    Args:
        images: uint8 [B, 3, H, W].
        turns: int64 [B], 0 to 3, counterclockwise.

    Returns:
        uint8 [B, 3, S, S] with S the smaller of H and W.
    """
    height, width = images.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    squares = images[..., top : top + side, left : left + side].clone()
    for number in (1, 2, 3):
        chosen = turns == number
        squares[chosen] = squares[chosen].rot90(number, (-2, -1))
    return squares
