"""The multi-task network: a shared trunk, placeholder tokens, a question encoder and one head per task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness.cards import Task
from harness.data.batches import Batch, VqaBatch
from harness.models.config import ModelConfig
from harness.models.features import Features, FeatureShape
from harness.models.heads import HEADS
from harness.models.placeholders import Placeholders, TokenStream
from harness.models.sharing import SHARING
from harness.models.text import TextEncoder
from harness.registry import look_up


@dataclass(frozen=True)
class TaskSpec:
    """What the network must know about a task's data.

    Attributes:
        task: What is predicted.
        classes: C, number of classes (VQA: of answers).
        words: VQA: size of the question vocabulary.
    """

    task: Task
    classes: int
    words: int = 0


class MultiTaskNetwork(nn.Module):
    """All tasks in one module, with one `forward` per step.

    Everything but the placeholder tokens is drawn first, and the tokens and their sites from a random stream of their
    own: with the same seed, a network with placeholders and its ``count: 0`` control start from the same weights.

    Args:
        config: The model section.
        specs: The tasks, by dataset name.

    Raises:
        HarnessError: A name in the config is unknown, or its parts do not fit together.
    """

    def __init__(self, config: ModelConfig, specs: Mapping[str, TaskSpec]) -> None:
        super().__init__()
        self.specs = dict(specs)
        self._blind = config.heads.vqa.question_only
        looking = [name for name, spec in specs.items() if not (spec.task == "vqa" and self._blind)]
        pooled_only = [name for name in looking if specs[name].task == "classification"]
        sharing = look_up(SHARING, config.sharing.name, "sharing architecture")
        self.shared = sharing(config, looking, pooled_only) if looking else None
        shape = self.shared.shape if self.shared is not None else FeatureShape(config.neck.strides, 0, 0)
        questioning = {name: spec for name, spec in specs.items() if spec.task == "vqa"}
        self.text = nn.ModuleDict({name: TextEncoder(config.text, spec.words) for name, spec in questioning.items()})
        self.heads = nn.ModuleDict()
        for name, spec in specs.items():
            head = look_up(HEADS, spec.task, "head")
            extra = (config.text.width,) if spec.task == "vqa" else ()
            self.heads[name] = head(getattr(config.heads, spec.task), shape, spec.classes, *extra)

        self._sites = dict(self.shared.sites()) if self.shared is not None else {}
        self._vqa_sites: dict[str, int] = {}
        for name in questioning:
            head = self.heads[name]
            self._vqa_sites |= {TextEncoder.SITE: config.text.width, **head.sites()}  # type: ignore[operator]
        self.placeholders: Placeholders | None = None
        if config.placeholders.count:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(torch.initial_seed() + 1)
                self.placeholders = Placeholders(config.placeholders, self._sites | self._vqa_sites)

    def forward(self, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        """Losses of one step: one batch of each task, one call, one backward (the pattern that is exact under DDP).

        Args:
            batches: By dataset name.

        Returns:
            Scalar loss by dataset name.
        """
        return {name: self._head(name, "loss", features, batches[name]) for name, features in self._encode(batches)}

    @torch.no_grad()
    def predict(self, name: str, batch: Batch) -> Any:
        """Predictions of one task; what they are is documented at the head's `predict`."""
        ((_, features),) = self._encode({name: batch})
        return self._head(name, "predict", features, batch)

    def site_names(self) -> list[str]:
        """Where placeholder tokens are exchanged, in the order of a forward pass; empty for the plain network."""
        return [*self._sites, *self._vqa_sites] if self.placeholders is not None else []

    def parameters_by_part(self) -> dict[str, int]:
        """Number of parameters of the backbone, neck, question encoder, placeholders and each head."""
        parts: dict[str, nn.Module | None] = {"text": self.text, "placeholders": self.placeholders}
        if self.shared is not None:
            parts = {"shared": self.shared, **parts}
        parts |= {f"head {name}": head for name, head in self.heads.items()}
        counts = {part: _count(module) for part, module in parts.items() if module is not None}
        return {part: count for part, count in counts.items() if count}

    def _encode(self, batches: Mapping[str, Batch]) -> list[tuple[str, Features | None]]:
        seeing = {name: batch for name, batch in batches.items() if not self._is_blind(name)}
        features = self.shared(seeing, self.placeholders) if self.shared is not None and seeing else {}
        return [(name, features.get(name)) for name in batches]

    def _head(self, name: str, method: str, features: Features | None, batch: Batch) -> Any:
        head: Any = self.heads[name]
        call = getattr(head, method)
        stream = features.stream if features is not None else None
        expected = list(self._sites) if features is not None else []
        if not isinstance(batch, VqaBatch):
            result = call(features, batch)
        else:
            image = head.positions(features) if features is not None else None
            stream = self._question_stream(stream, batch)
            words = self.text[name](batch.words, stream)
            result = call(image, batch, words, stream)
            expected += [TextEncoder.SITE, *head.sites()]
        if stream is not None:
            stream.check(expected)
        return result

    def _question_stream(self, stream: TokenStream | None, batch: VqaBatch) -> TokenStream | None:
        """Questions go on with the tokens of their images; without images they start afresh."""
        if self.placeholders is None:
            return None
        return stream.rows(batch.image_index) if stream is not None else self.placeholders.begin(len(batch.words))

    def _is_blind(self, name: str) -> bool:
        return self._blind and self.specs[name].task == "vqa"


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
