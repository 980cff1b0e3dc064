"""Self-supervision: tokens that read a part of a feature map predict the rest of it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.data.transforms import derive_seed
from harness.documents import Section
from harness.errors import HarnessError
from harness.models.attention import attend, position_embedding
from harness.models.placeholders import Placeholders, Seen
from harness.models.step_tokens import StepTokens
from harness.training.placeholders.objectives.config import SelfSupervisedConfig
from harness.training.placeholders.objectives.objective import Objective, Setting

WIDTH, HEADS = 64, 4  # of the decoder (ours)


class MaskedFeatures(Objective):
    """weight · mean squared error of masked features, decoded from tokens that did not read them.

    Of every image's map X [N, C] at the last site a share of the positions is masked. Fresh tokens P read the others at
    that site, and become Z. A decoder's query is the embedding of a masked position; it attends to Z, and a perceptron
    makes X̂ of what it finds. The target is sg LN(X) of the masked positions, LN without weights. Mean over masked
    positions and channels, over images, over tasks. Padding and class tokens are neither read nor predicted.

    As X is not differentiated, the objective trains tokens, reads and decoder, and cannot make the features themselves
    easy to predict. Source: He et al. 2022 (arXiv:2111.06377): the error on masked positions only, targets normed per
    position; there pixels of a masked image are predicted, here features of a whole one.

    Args:
        config: Share and weight.
        setting: Tells seed, widths and image sizes.

    Raises:
        HarnessError: No task reads images, or a map has a single position.
    """

    def __init__(self, config: Section, setting: Setting) -> None:
        assert isinstance(config, SelfSupervisedConfig)
        super().__init__(config, setting)
        self._share, self._weight, self._seed = config.mask, config.weight, setting.seed
        channels = _channels(setting)
        self.token_norm = nn.LayerNorm(setting.width)
        self.query = nn.Linear(WIDTH, WIDTH, bias=False)
        self.key = nn.Linear(setting.width, WIDTH, bias=False)
        self.value = nn.Linear(setting.width, WIDTH, bias=False)
        self.decoder = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.GELU())
        self.out = nn.Linear(2 * WIDTH, channels)

    def forward(self, tokens: StepTokens) -> Tensor | None:
        """See `Objective`."""
        losses = {}
        for task, seen in tokens.seen.items():
            masked = self.mask(seen, tokens.batches[task].ids)
            features = seen.features.detach()
            read = visible_tokens(tokens.placeholders, task, seen, masked)
            predicted = self.decode(read, seen.grid)
            patches = features[:, features.shape[1] - predicted.shape[1] :].float()
            errors = (predicted.float() - F.layer_norm(patches, patches.shape[-1:])).square().mean(-1)
            # Images with nothing to mask count as 0.
            losses[task] = ((errors * masked).sum(1) / masked.sum(1).clamp(min=1)).mean()
        return self._weight * tokens.mean_over_images(losses) if losses else None

    def mask(self, seen: Seen, ids: tuple[str, ...]) -> Tensor:
        """Which positions are masked: of each image's the wanted share, rounded, one at least and not all.

        Args:
            seen: The map.
            ids: Of the B images.

        Returns:
            bool [B, h * w], on the map's device.
        """
        count = math.prod(seen.grid)
        masked = torch.zeros(len(ids), count, dtype=torch.bool)
        there = torch.ones_like(masked) if seen.padding is None else ~seen.padding[:, -count:].cpu()
        for row, name in enumerate(ids):
            places = there[row].nonzero()[:, 0]
            if len(places) > 1:
                draw = torch.Generator().manual_seed(derive_seed("mask", self._seed, self.step, name))
                number = min(max(1, round(self._share * len(places))), len(places) - 1)
                masked[row, places[torch.randperm(len(places), generator=draw)[:number]]] = True
        return masked.to(seen.features.device)

    def decode(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """What tokens float [B, K, d] tell of each position of a map: float [B, h * w, C]."""
        normed = self.token_norm(tokens)
        places = position_embedding(*grid, WIDTH, normed)
        query = self.query(places).expand(len(tokens), -1, -1)
        found: Tensor = self.out(self.decoder(attend(query, self.key(normed), self.value(normed), HEADS)))
        return found


def visible_tokens(placeholders: Placeholders, task: str, seen: Seen, masked: Tensor) -> Tensor:
    """Fresh tokens of a task that have read what is not masked of a map, and neither padding nor class tokens.

    Args:
        placeholders: The tokens.
        task: Whose.
        seen: The map.
        masked: bool [B, h * w].

    Returns:
        float [B, K, d].
    """
    features = seen.features.detach()
    hidden = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
    hidden[:, -masked.shape[1] :] = masked
    if seen.padding is not None:
        hidden |= seen.padding
    stream = placeholders.begin({task: len(features)})
    stream.exchange(seen.site, features, hidden)
    return stream.tokens


def _channels(setting: Setting) -> int:
    """C of the map at the last site, where every task's has two positions at least."""
    key = "training.placeholders.self_supervised"
    backbone = setting.backbone
    if backbone is None:
        raise HarnessError(f"{key}: predicts features of images, and no task reads any; leave it out")
    site = list(backbone.sites)[-1]
    stage = next(one for one in backbone.structure.stages if f"backbone.{one.module}" == site)
    for task in setting.submission.tasks:
        cells = math.prod(-(-side // stage.stride) for side in task.image_size)
        if cells < 2:
            raise HarnessError(
                f"{key}: the map at the last site ({site}, stride {stage.stride}) has a single position at"
                f" image_size {list(task.image_size)} of {task.dataset}; take larger images"
            )
    return backbone.sites[site]
