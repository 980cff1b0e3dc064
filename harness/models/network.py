"""The multi-task network: a shared trunk, placeholder tokens, a question encoder and one head per task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from harness.cards import Task
from harness.data.batches import Batch, VqaBatch
from harness.errors import HarnessError
from harness.models.backbones.open_clip_models import Clip, build_clip, image_tower
from harness.models.clip_text import ClipText, open_clip_text
from harness.models.config import ModelConfig, OpenClipTextConfig, OwnTextConfig, ZeroShotConfig
from harness.models.features import Features, FeatureShape
from harness.models.heads import HEADS
from harness.models.heads.vqa import LookHead
from harness.models.normalization import forgetful
from harness.models.placeholders import Placeholders, TokenStream, output_site
from harness.models.sharing import SHARING
from harness.models.step_tokens import IMAGES, StepTokens, TokenObjectives
from harness.models.substitution import Substitution
from harness.models.text import TextEncoder
from harness.registry import look_up

FOR_TRAINING = ("placeholder objectives", "substitution")  # parts that predictions do without
PENALTY = "penalty"  # among the losses of `forward`: a term of the sharing architecture, already with its coefficient


@dataclass(frozen=True)
class TaskSpec:
    """What the network must know about a task's data.

    Attributes:
        task: What is predicted.
        classes: C, number of classes (VQA: of answers).
        words: VQA: size of the question vocabulary.
        names: What the classes are called in a sentence, for heads that read them.
    """

    task: Task
    classes: int
    words: int = 0
    names: tuple[str, ...] = ()


def _require_free_names(names: Iterable[str]) -> None:
    """See to it that modules can be kept by the names of the data sets, and losses as well.

    Raises:
        HarnessError: A name means something else to torch, or to the losses.
    """
    for name in names:
        if name == PENALTY or any(hasattr(one, name) for one in (nn.ModuleDict(), nn.ParameterDict())):
            raise HarnessError(
                f"tasks: a network cannot keep the parts of a data set that is called {name!r}, for the name means"
                " something else there; give its card another name"
            )


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
        _require_free_names(specs)
        self.specs = dict(specs)
        self._blind = config.heads.vqa.question_only
        looking = [name for name, spec in specs.items() if not (spec.task == "vqa" and self._blind)]
        pooled_only = [name for name in looking if specs[name].task == "classification"]
        sharing = look_up(SHARING, config.sharing.name, "sharing architecture")
        # Where the text tower is the backbone's own, both are of one model, drawn or loaded once.
        whole = cache(partial(build_clip, config.backbone))
        build = partial(image_tower, whole, config.backbone) if self._reads_own_text(config) else None
        self.shared = sharing(config, looking, pooled_only, build) if looking else None
        shape = self.shared.shape if self.shared is not None else FeatureShape(config.neck.strides, 0, 0)
        self._add_text(config, whole)
        self.heads = nn.ModuleDict({name: self._head_for(config, shape, spec, name) for name, spec in specs.items()})

        way = config.placeholders.way
        self._sites: dict[str, int] = dict(self.shared.sites()) if self.shared is not None else {}
        # With a trunk per task, a task's images meet the sites of some trunks only.
        sites_of = getattr(self.shared, "sites_of", lambda name: self._sites)
        self._image_sites = {name: list(sites_of(name)) for name in looking}
        self._task_sites: dict[str, dict[str, int]] = {name: {} for name in specs}
        for name, spec in specs.items():
            if way == "output":
                self._task_sites[name] = {output_site(name): spec.classes}
            elif spec.task == "vqa":
                self._task_sites[name] = {**self._encoder(name).sites, **self.heads[name].sites}  # type: ignore[dict-item]
        self.placeholders: Placeholders | None = None
        if config.placeholders.count:
            sites = self._sites | {key: width for own in self._task_sites.values() for key, width in own.items()}
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(torch.initial_seed() + 1)
                self.placeholders = Placeholders(config.placeholders, sites, list(specs), self._ways())
        self.objectives: TokenObjectives | None = None
        self.substitution: Substitution | None = None  # added by who trains with it
        self._recomputing = [module for module in self.modules() if hasattr(module, "grad_checkpointing")]

    def forward(
        self,
        batches: Mapping[str, Batch],
        shares: Mapping[str, float] | None = None,
        samples: Callable[[MultiTaskNetwork], dict[str, Tensor]] | None = None,
    ) -> dict[str, Tensor]:
        """Losses of one step: one batch of each task, one call, one backward (the pattern that is exact under DDP).

        Args:
            batches: By dataset name.
            shares: What each loss is multiplied with where the batches are parts of a step's (see
                `harness.training.parts`); None for whole batches.
            samples: What else the network is asked in this call, after the batches: unlabelled images (see
                `harness.training.placeholders.samples`); None for nothing.

        Returns:
            Scalar loss by dataset name, and under `PENALTY` the sharing architecture's penalty, if it has one. In
            training also the terms of `objectives` and what `samples` gives, by names that no data set has.

        Raises:
            HarnessError: A library's own gradient checkpointing is on.
        """
        encoded = self._encode(batches)
        tokens = self._watch(batches, encoded, shares)
        ends = tokens.ends if tokens is not None else None
        if self.substitution is not None:
            encoded = self.substitution(encoded, batches, self.heads, shares)
        losses = {name: self._run(name, "loss", features, batches[name], ends) for name, features in encoded}
        if shares is not None:
            losses = {name: loss * shares[name] for name, loss in losses.items()}
        penalty = getattr(self.shared, "penalty", None)
        if penalty is not None:
            losses[PENALTY] = penalty(list(batches))
        if tokens is not None and self.objectives is not None:
            losses |= self.objectives(tokens)
        return losses if samples is None else losses | samples(self)

    def advance(self, step: int, steps: int) -> None:
        """Tell which step of training comes next, of how many; see `Placeholders.advance`. All processes."""
        if self.placeholders is not None:
            self.placeholders.advance(step, steps)

    def outputs(self, batches: Mapping[str, Batch]) -> dict[str, tuple[Tensor, ...]]:
        """What heads say of images, as maps of logits by dataset name (see each head's `outputs`); labels are not read.

        For code that runs inside `forward`: outside, several processes would not exchange gradients.
        """
        return {name: self._run(name, "outputs", features, batches[name]) for name, features in self._encode(batches)}

    def exclusive(self, name: str) -> bool:
        """Whether one class at most is right at each place of a task's `outputs` (softmax, not sigmoids)."""
        return bool(self.heads[name].exclusive)

    def counts(self, batches: Mapping[str, Batch]) -> dict[str, int]:
        """Over how many things each task's loss is a mean: labelled pixels, questions, matched positions, images.

        With `objectives` also how many images there are, by `IMAGES` and the dataset name.

        Args:
            batches: By dataset name. The numbers follow from their targets alone.
        """
        counts = {name: self.heads[name].count(batch) for name, batch in batches.items()}  # type: ignore[operator]
        if self.objectives is not None:
            counts |= {IMAGES + name: len(batch.ids) for name, batch in batches.items()}
        return counts

    @torch.no_grad()
    def predict(self, name: str, batch: Batch) -> Any:
        """Predictions of one task; what they are is documented at the head's `predict`."""
        ((_, features),) = self._encode({name: batch})
        return self._run(name, "predict", features, batch)

    @torch.no_grad()
    def trace(self, name: str, batch: Batch) -> tuple[Features | None, tuple[Tensor, ...], Tensor | None]:
        """What a task's head gets of its images (a blind one nothing), its output maps, and the tokens in the end.

        The maps are the head's `outputs`; tokens are float [B, K, d], in VQA [Q, K, d], and None where there are none.
        """
        ends: dict[str, Tensor] = {}
        ((_, features),) = self._encode({name: batch})
        outputs = self._run(name, "outputs", features, batch, ends)
        return features, outputs, ends.get(name)

    @torch.no_grad()
    def prepare(self, name: str) -> None:
        """Compute what a task's predictions need once for all images: the class texts of a zero-shot head."""
        if name in self._prompts and self.clip_text is not None:
            self.clip_text.class_texts(self._prompts[name])

    def reads(self, name: str) -> Literal["nothing", "pooled", "maps"]:
        """What a task takes of the backbone's features."""
        if self._is_blind(name):
            return "nothing"
        maps = self.specs[name].task != "classification" or getattr(self.shared, "needs_maps", False)
        return "maps" if maps else "pooled"

    def site_names(self) -> list[str]:
        """Where placeholder tokens come in, in the order of a forward pass; empty for the plain network."""
        if self.placeholders is None:
            return []
        return list(dict.fromkeys([*self._sites, *(site for own in self._task_sites.values() for site in own)]))

    def parts(self) -> dict[str, nn.Module]:
        """The network in parts that share no parameter: backbone, neck, text, placeholders and each head."""
        found = dict(self.shared.parts()) if self.shared is not None else {}
        found["text"] = nn.ModuleList([self.text, *([self.clip_text] if self.clip_text is not None else [])])
        if self.placeholders is not None:
            found["placeholders"] = self.placeholders
        if self.substitution is not None:
            found["substitution"] = self.substitution
        found |= {f"head {name}": head for name, head in self.heads.items()}
        if isinstance(self.objectives, nn.Module):
            found["placeholder objectives"] = self.objectives
        return {name: module for name, module in found.items() if any(True for _ in module.parameters())}

    def parameters_by_part(self, trainable: bool = False) -> dict[str, int]:
        """Number of parameters of each part, or of those that are trained."""
        return {
            name: sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)
            for name, module in self.parts().items()
        }

    def _ways(self) -> dict[str, list[str]]:
        """For each task the sites that its samples come to, in order."""
        # Image positions of a head are made before the question is read.
        return {
            name: [*self._image_sites.get(name, ()), *sorted(own, key=lambda site: site != LookHead.IMAGE_SITE)]
            for name, own in self._task_sites.items()
        }

    def _reads_own_text(self, config: ModelConfig) -> bool:
        """Whether the text tower of the backbone's own model is needed."""
        tasks = {spec.task for spec in self.specs.values()}
        if config.heads.classification.name == "zero_shot" and "classification" in tasks:
            return True
        return isinstance(config.text, OpenClipTextConfig) and config.text.name is None and "vqa" in tasks

    def _add_text(self, config: ModelConfig, own: Callable[[], Clip]) -> None:
        """Question encoders: one for each VQA data set's vocabulary, or a CLIP tower for all of them."""
        asking = [name for name, spec in self.specs.items() if spec.task == "vqa"]
        self.text = nn.ModuleDict()
        self.clip_text: ClipText | None = None
        if isinstance(config.text, OwnTextConfig):
            for name in asking:
                self.text[name] = TextEncoder(config.text, self.specs[name].words, config.placeholders)
        head = config.heads.classification
        self._prompts: dict[str, list[list[str]]] = {}
        if isinstance(head, ZeroShotConfig):
            for name, spec in self.specs.items():
                if spec.task == "classification":
                    self._prompts[name] = [[t.replace("{}", one) for t in head.templates] for one in spec.names]
        if self._prompts or (asking and not isinstance(config.text, OwnTextConfig)):
            self.clip_text = open_clip_text(config, own)

    def _head_for(self, config: ModelConfig, shape: FeatureShape, spec: TaskSpec, name: str) -> nn.Module:
        options = getattr(config.heads, spec.task)
        head = look_up(HEADS, options.name, "head")
        if name in self._prompts:
            return head(options)
        if spec.task == "vqa":
            exchanging = config.placeholders.way == "exchange"
            return head(options, shape, spec.classes, self._encoder(name).width, exchanging)
        return head(options, shape, spec.classes)

    def _encode(self, batches: Mapping[str, Batch]) -> list[tuple[str, Features | None]]:
        if any(module.grad_checkpointing for module in self._recomputing):
            raise HarnessError(
                "the library's own gradient checkpointing: recomputed stages pass by the hooks that read features, and"
                " would meet placeholder tokens that have moved on; switch it off, and training.gradient_checkpointing"
                " on"
            )
        seeing = {name: batch for name, batch in batches.items() if not self._is_blind(name)}
        features = self.shared(seeing, self.placeholders) if self.shared is not None and seeing else {}
        return [(name, features.get(name)) for name in batches]

    def _watch(
        self,
        batches: Mapping[str, Batch],
        encoded: list[tuple[str, Features | None]],
        shares: Mapping[str, float] | None,
    ) -> StepTokens | None:
        """What the objectives of the tokens will see, where they are wanted; its `ends` are yet to come."""
        if self.objectives is None or self.placeholders is None or not (self.training and torch.is_grad_enabled()):
            return None
        streams = {name: found.stream for name, found in encoded if found is not None and found.stream is not None}
        return StepTokens(
            batches,
            {name: stream.tokens for name, stream in streams.items()},
            {},
            {name: stream.seen for name, stream in streams.items() if stream.seen is not None},
            self.placeholders,
            self._encode_aside,
            shares,
        )

    def _encode_aside(self, batches: Mapping[str, Batch]) -> dict[str, Features]:
        """Features of images of which no statistics are kept."""
        assert self.shared is not None
        with forgetful(self.shared):
            found: dict[str, Features] = self.shared(batches, self.placeholders)
        return found

    def _run(
        self, name: str, method: str, features: Features | None, batch: Batch, ends: dict[str, Tensor] | None = None
    ) -> Any:
        head: Any = self.heads[name]
        call = getattr(head, method)
        stream = features.stream if features is not None else None
        expected = [*(self._image_sites[name] if features is not None else ()), *self._task_sites[name]]
        if isinstance(batch, VqaBatch):
            image = head.positions(features) if features is not None else None
            stream = self._question_stream(name, stream, batch)
            result = call(image, batch, self._encoder(name)(batch, stream), stream)
        elif name in self._prompts:
            result = call(
                features,
                batch,
                self.clip_text.class_texts(  # type: ignore[union-attr]
                    self._prompts[name]
                ),
            )
        else:
            result = call(features, batch)
        if stream is not None:
            stream.check(expected)
            if ends is not None:
                ends[name] = stream.tokens
        return result

    def _question_stream(self, name: str, stream: TokenStream | None, batch: VqaBatch) -> TokenStream | None:
        """Questions go on with the tokens of their images; without images they start afresh."""
        if self.placeholders is None:
            return None
        if stream is not None:
            return stream.rows(batch.image_index)
        return self.placeholders.begin({name: len(batch.words)})

    def _encoder(self, name: str) -> Any:
        return self.text[name] if name in self.text else self.clip_text  # noqa: SIM401 - no dict

    def _is_blind(self, name: str) -> bool:
        return self._blind and self.specs[name].task == "vqa"
