"""The text tower of a CLIP model: as question encoder, and for the embeddings of class names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import text_global_pool
from torch import Tensor, nn

from harness.data.batches import VqaBatch
from harness.errors import HarnessError
from harness.models.backbones.open_clip_models import Clip, Tokenizer, build_clip
from harness.models.config import BackboneConfig, ModelConfig, OpenClipTextConfig, PlaceholderConfig
from harness.models.placeholders import TokenStream
from harness.models.text import Words, insertions

EXCHANGES = 2  # sites in a text tower, evenly spaced
CHUNK = 256  # class texts that are embedded together
_PARTS = ("token_embedding", "transformer", "ln_final", "positional_embedding", "text_projection")


@dataclass(frozen=True)
class ClassTexts:
    """What image embeddings are compared with.

    Attributes:
        embeddings: float [C, D], of length 1.
        scale: The model's learned factor of the cosine, a scalar.
        bias: Added to it, a scalar; 0 for most models.
    """

    embeddings: Tensor
    scale: Tensor
    bias: Tensor | float


def open_clip_text(config: ModelConfig, own: Callable[[], Clip]) -> ClipText:
    """The text tower that a model section asks for: the backbone's own, or that of the model that it names.

    Args:
        config: The model section.
        own: Gives the whole model that the backbone is part of, and its tokenizer.

    Raises:
        HarnessError: The model is unknown, cannot be had, or has a text tower of a kind that is not supported.
    """
    text, source = config.text, config.backbone
    if isinstance(text, OpenClipTextConfig) and text.name is not None:
        source = BackboneConfig(library="open_clip", name=text.name, pretrained=text.pretrained)
    model, tokenizer = own() if source is config.backbone else build_clip(source)
    asked = text if isinstance(text, OpenClipTextConfig) else OpenClipTextConfig(library="open_clip")
    tower = ClipText(model, tokenizer, source.name, config.placeholders, asked.frozen, asked.max_words)
    if config.heads.classification.name != "zero_shot":  # then nothing is embedded, and these never get a gradient
        for parameter in (tower.logit_scale, tower.logit_bias, *_parameters(tower.text_projection)):
            if parameter is not None:
                parameter.requires_grad_(False)
    return tower


def _parameters(part: Any) -> list[nn.Parameter]:
    return list(part.parameters()) if isinstance(part, nn.Module) else [part]


class ClipText(nn.Module):
    """The text half of an open_clip model.

    Its attention is causal and stays so: inserted placeholder tokens see each other and are seen by the words, but see
    no word. Exchange sites read and write whole questions, which is right where a question is answered, not where
    class names are embedded; these meet no placeholder tokens.

    Args:
        model: An open_clip model. Its text modules are used as they are, so the towers stay one model.
        tokenizer: The model's own.
        name: The model's name, for errors.
        placeholders: Says how tokens meet words.
        frozen: Do not train.
        max_words: Questions are cut to so many tokens.

    Raises:
        HarnessError: The model's text tower is of a kind that is not supported.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        name: str,
        placeholders: PlaceholderConfig,
        frozen: bool = False,
        max_words: int = 77,
    ) -> None:
        super().__init__()
        source: Any = getattr(model, "text", model)
        pool = getattr(source, "text_pool_type", getattr(source, "pool_type", None))
        plain = all(hasattr(source, part) for part in _PARTS) and getattr(source, "cls_emb", None) is None
        if not plain or pool not in ("argmax", "eos") or source.attn_mask is None:
            raise HarnessError(
                f"model.text: the text tower of {name} is not a causal transformer with an end-of-text token, as"
                " CLIP's is; take another open_clip model or library: own"
            )
        for part in _PARTS:
            setattr(self, part, getattr(source, part))
        self.logit_scale: nn.Parameter = model.logit_scale  # type: ignore[assignment]
        self.logit_bias: nn.Parameter | None = getattr(model, "logit_bias", None)
        self.requires_grad_(not frozen)
        self.width = int(source.ln_final.normalized_shape[0])
        self._pool = pool
        self._end: Any = getattr(source, "text_eos_id", getattr(source, "eos_id", None))
        self._context = int(source.context_length)
        # Every text is split into tokens once; the limit keeps millions of questions from filling the memory.
        self._tokenize = lru_cache(maxsize=50_000)(lambda text, length: tokenizer([text], context_length=length)[0])
        self._max_words = min(max_words, self._context)
        self.blocks: list[nn.Module] = list(source.transformer.resblocks)
        self._insertions = insertions(placeholders, len(self.blocks))
        self.inserts = len(self._insertions)  # at how many blocks tokens are inserted
        self._masked = placeholders.masked
        self._exchanges: dict[int, str] = {}
        if placeholders.way == "exchange":
            ends = {round(len(self.blocks) * (part + 1) / EXCHANGES) - 1 for part in range(EXCHANGES)}
            self._exchanges = {end: f"text.{end}" for end in sorted(ends)}
        self.sites: dict[str, int] = dict.fromkeys([*self._exchanges.values(), *self._insertions], self.width)
        self._embedded: tuple[Any, Tensor] | None = None

    def forward(self, batch: VqaBatch, stream: TokenStream | None = None) -> Words:
        """Encode questions.

        Args:
            batch: The questions; their texts are read, not their word indices.
            stream: Placeholder tokens of these questions' samples, or None.
        """
        ids = self._tokens(batch.texts, self._max_words)
        ends = self._ends(ids)
        ids = ids[:, : int(ends.max()) + 1]  # nothing behind the longest question matters: attention is causal
        padding = torch.arange(ids.shape[1], device=ids.device) > ends[:, None]
        return Words(self._run(ids, padding, stream), padding)

    def class_texts(self, prompts: Sequence[Sequence[str]]) -> ClassTexts:
        """Embeddings of classes: of each, the mean of its prompts' embeddings, as open_clip computes them.

        Args:
            prompts: For every class its sentences, equally many.
        """
        bias = self.logit_bias if self.logit_bias is not None else 0.0
        return ClassTexts(self._embeddings(prompts), self.logit_scale.exp(), bias)

    def embed(self, texts: Sequence[str]) -> Tensor:
        """CLIP's embeddings of texts, float [N, D], not normalised."""
        ids = self._tokens(texts, self._context)
        x = self._run(ids, None, None)
        pooled = text_global_pool(x, ids, self._pool, eos_token_id=self._end)
        projection: Any = self.text_projection
        if projection is None:
            return pooled
        return projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection

    def train(self, mode: bool = True) -> ClipText:
        """Going to train forgets the class texts, unless the weights are frozen."""
        if mode and self._learns():
            self._embedded = None
        return super().train(mode)

    def _learns(self) -> bool:
        return any(parameter.requires_grad for parameter in self.parameters())

    def _embeddings(self, prompts: Sequence[Sequence[str]]) -> Tensor:
        learning = torch.is_grad_enabled() and self._learns()
        if learning:
            self._embedded = None
        # Without gradients they are computed once for all batches. A weight's version tells that others were loaded;
        # it does not tell an optimizer's step, for fused optimizers leave it as it is.
        state = (prompts, [(parameter.data_ptr(), parameter._version) for parameter in self.parameters()])
        if self._embedded is not None and self._embedded[0] == state:
            return self._embedded[1]
        texts = [text for sentences in prompts for text in sentences]
        # A thousand classes in eighty sentences each do not fit into memory at once.
        flat = torch.cat([self.embed(texts[start : start + CHUNK]) for start in range(0, len(texts), CHUNK)])
        means = F.normalize(flat, dim=-1).unflatten(0, (len(prompts), -1)).mean(1)
        embeddings = F.normalize(means, dim=-1)
        if not learning:
            self._embedded = (state, embeddings)
        return embeddings

    def _run(self, ids: Tensor, padding: Tensor | None, stream: TokenStream | None) -> Tensor:
        embedding: Any = self.token_embedding
        length = ids.shape[1]
        x = embedding(ids) + self.positional_embedding[:length]  # type: ignore[index]
        mask = causal_mask(length, 0, x)
        for number, block in enumerate(self.blocks):
            if stream is not None and number < len(self._insertions):
                x = x[:, :length]
                inserted = stream.prefix(self._insertions[number], x, padding)
                x = torch.cat([x, inserted.to(x.dtype)], dim=1)
                mask = causal_mask(length, inserted.shape[1], x, self._masked)
            x = block(x, attn_mask=mask)
            if stream is not None and number in self._exchanges:
                x = stream.exchange(self._exchanges[number], x, padding)
        return self.ln_final(x[:, :length])  # type: ignore[operator]

    def _tokens(self, texts: Sequence[str], length: int) -> Tensor:
        """int64 [N, length], token ids."""
        return torch.stack([self._tokenize(text, length) for text in texts]).to(self.logit_scale.device)

    def _ends(self, ids: Tensor) -> Tensor:
        """int64 [N], where the end-of-text token stands."""
        return torch.eq(ids, self._end).int().argmax(1) if self._pool == "eos" else ids.argmax(1)


def causal_mask(words: int, inserted: int, like: Tensor, masked: bool = False) -> Tensor:
    """What may not be seen, as numbers to add to attention scores.

    A word sees itself, the words before it and the inserted tokens behind the text; these see each other only, so
    that nothing of a word's future reaches it through them.

    Args:
        words: L.
        inserted: K.
        like: Gives dtype and device.
        masked: Words do not see the inserted tokens either.

    Returns:
        float [L + K, L + K], 0 or minus infinity.
    """
    mask = torch.full((words + inserted, words + inserted), float("-inf"), dtype=like.dtype, device=like.device)
    mask[:, words:] = 0
    mask[:words, :words] = mask[:words, :words].triu(1)
    if masked:
        mask[:words, words:] = float("-inf")
    return mask
