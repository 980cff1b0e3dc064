"""Heads: against their libraries' own results, padded batches, and that each can learn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from tests_support import batches, document
from torch import Tensor

from harness.data.batches import ClassificationBatch, DetectionBatch, SegmentationBatch, VqaBatch
from harness.errors import HarnessError
from harness.models.clip_text import ClipText
from harness.models.config import (
    CoAttentionConfig,
    FasterRcnnConfig,
    LookConfig,
    ModelConfig,
    PlaceholderConfig,
    UperNetConfig,
    ZeroShotConfig,
)
from harness.models.features import Features, FeatureShape
from harness.models.heads.co_attention import CoAttentionHead
from harness.models.heads.faster_rcnn import FasterRcnnHead
from harness.models.heads.upernet import UperNetHead
from harness.models.heads.vqa import LookHead
from harness.models.heads.zero_shot import ZeroShotHead
from harness.models.network import MultiTaskNetwork, TaskSpec
from harness.models.text import Words

SHAPE = FeatureShape((8, 16), 32, 20)


def pyramid(samples: int, seed: int = 0, learned: bool = False) -> Features:
    generator = torch.Generator().manual_seed(seed)
    levels = {stride: torch.randn(samples, 32, 64 // stride, 64 // stride, generator=generator) for stride in (8, 16)}
    for level in levels.values():
        level.requires_grad_(learned)
    return Features(levels, torch.randn(samples, 20, generator=generator), None)


def of_kind(kind: type) -> Any:
    return next(batch for batch in batches().values() if isinstance(batch, kind))


def faster_rcnn(**options: Any) -> FasterRcnnHead:
    torch.manual_seed(0)
    return FasterRcnnHead(FasterRcnnConfig(name="faster_rcnn", width=32, anchor_scale=2, **options), SHAPE, 3)


def test_zero_shot_logits_equal_open_clips_own_with_the_same_random_weights() -> None:
    torch.manual_seed(0)
    vision = {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
    model = open_clip.model.CLIP(20, vision, text, init_logit_bias=-3.0).eval()  # type: ignore[arg-type]
    tower = ClipText(model, open_clip.SimpleTokenizer(), "tiny", PlaceholderConfig())
    prompts = [["a photo of a star."], ["a photo of a circle."], ["a photo of a ring."]]
    images = torch.randn(4, 3, 32, 32)
    expected, _ = model.get_logits(images, open_clip.tokenize([prompt for (prompt,) in prompts]))

    batch = of_kind(ClassificationBatch)
    head = ZeroShotHead(ZeroShotConfig(name="zero_shot"))
    features = Features({}, model.encode_image(images), None)
    torch.testing.assert_close(head.predict(features, batch, tower.class_texts(prompts)), expected)
    assert not list(head.parameters())


def test_a_template_without_a_place_for_the_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'a photo' must hold \{\} once"):
        ZeroShotConfig(name="zero_shot", templates=("a photo",))


def test_faster_rcnn_learns_the_boxes_and_labels_of_a_batch() -> None:
    head, batch = faster_rcnn(), of_kind(DetectionBatch)
    features = pyramid(2)
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        head.loss(features, batch).backward()
        optimizer.step()
    first, second = head.predict(features, replace(batch, sizes=torch.tensor([[64, 64], [64, 64]])))
    best = {int(label): int(first["scores"][first["labels"] == label].argmax()) for label in (0, 2)}
    for (label, place), box in zip(best.items(), batch.boxes[0], strict=True):
        assert first["scores"][first["labels"] == label][place] > 0.7
        assert (first["boxes"][first["labels"] == label][place] - box).abs().max() < 4
    assert not (second["scores"] > 0.5).any()  # an image without objects


def test_faster_rcnn_proposes_and_predicts_inside_the_content_of_a_padded_image() -> None:
    head, batch = faster_rcnn(score_threshold=0.0), of_kind(DetectionBatch)
    padded = replace(batch, contents=torch.tensor([[32, 48], [64, 64]]), sizes=torch.tensor([[64, 96], [64, 64]]))
    first, second = head.predict(pyramid(2), padded)
    assert first["boxes"][:, 2].max() <= 96
    assert first["boxes"][:, 3].max() <= 64
    assert (first["boxes"][:, 3] > 40).any()  # scaled by two, or they would end at 32
    assert second["boxes"].max() <= 64
    assert set(first["labels"].tolist()) <= {0, 1, 2}


def test_faster_rcnn_pools_regions_at_the_pyramids_strides_whatever_the_first_batch_was() -> None:
    batch = of_kind(DetectionBatch)
    small = replace(batch, contents=torch.tensor([[16, 16], [16, 16]]))
    fresh, used = faster_rcnn(), faster_rcnn()
    used.predict(pyramid(2), small)
    for a, b in zip(fresh.predict(pyramid(2), batch), used.predict(pyramid(2), batch), strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_faster_rcnn_needs_strides_that_double() -> None:
    with pytest.raises(HarnessError, match=r"strides must double, .* but are \[8, 32\]"):
        FasterRcnnHead(FasterRcnnConfig(name="faster_rcnn"), FeatureShape((8, 32), 32, 20), 3)


def upernet() -> UperNetHead:
    torch.manual_seed(0)
    return UperNetHead(UperNetConfig(name="upernet", channels=32), SHAPE, 4)


def test_upernet_trains_on_a_batch_of_one_image() -> None:
    head, batch = upernet().train(), of_kind(SegmentationBatch)
    one = replace(batch, images=batch.images[:1], masks=batch.masks[:1], sizes=batch.sizes[:1], ids=batch.ids[:1])
    features = pyramid(1, learned=True)
    head.loss(features, one).backward()
    for level in features.pyramid.values():
        assert torch.isfinite(level.grad).all()  # type: ignore[arg-type]
        assert level.grad.abs().sum() > 0  # type: ignore[union-attr]
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_upernets_context_reaches_every_pixel() -> None:
    head, batch = upernet().eval(), of_kind(SegmentationBatch)
    features = pyramid(2)
    before = head.predict(features, batch)
    assert before.shape == (2, 4, 64, 64)
    features.pyramid[16][0, :, 0, 0] += 5
    after = head.predict(features, batch)
    assert (after[0] != before[0]).any(0)[-1, -1]
    assert torch.equal(after[1], before[1])


def test_upernet_does_not_pool_what_lies_in_the_padding() -> None:
    head = upernet().eval()
    batch = replace(of_kind(SegmentationBatch), contents=torch.tensor([[16, 64], [64, 64]]))
    features = pyramid(2)
    before = head._with_context(features.pyramid[16], batch.contents)
    changed = features.pyramid[16].clone()
    changed[0, :, 1:] += 5
    after = head._with_context(changed, batch.contents)
    assert torch.equal(after[0, :, :1], before[0, :, :1])
    assert torch.equal(after[0, 32:, 1:], torch.zeros_like(after[0, 32:, 1:]))
    assert torch.equal(after[1], before[1])
    whole = head._with_context(features.pyramid[16], None)
    torch.testing.assert_close(whole[1], before[1])


def vqa_head(kind: str, question_only: bool = False, width: int = 16) -> LookHead | CoAttentionHead:
    torch.manual_seed(0)
    options: dict[str, Any] = {"width": width, "heads": 2, "stride": 8, "question_only": question_only}
    if kind == "look":
        return LookHead(LookConfig(**options), SHAPE, 7, 12, exchanging=False)
    return CoAttentionHead(CoAttentionConfig(name="co_attention", **options), SHAPE, 7, 12, exchanging=False)


def words() -> Words:
    generator = torch.Generator().manual_seed(1)
    padding = torch.tensor([[False, False, True], [False, True, True], [False, False, False]])
    return Words(torch.randn(3, 3, 12, generator=generator), padding)


@pytest.mark.parametrize("kind", ["look", "co_attention"])
def test_a_vqa_head_reads_its_image_and_no_padding(kind: str) -> None:
    head, batch = vqa_head(kind).eval(), of_kind(VqaBatch)
    image = head.positions(pyramid(2))
    before = head.predict(image, batch, words(), None)
    assert before.shape == (3, 7)
    other = words()
    other.tokens[other.padding] = 99.0
    torch.testing.assert_close(head.predict(image, batch, other, None), before)
    moved = torch.stack([image[0], image[1] + torch.randn_like(image[1])])
    after = head.predict(moved, batch, words(), None)
    torch.testing.assert_close(after[:2], before[:2])  # questions about image 0
    assert not torch.allclose(after[2], before[2])


@pytest.mark.parametrize("kind", ["look", "co_attention"])
def test_a_question_only_head_has_no_weights_for_images(kind: str) -> None:
    blind, seeing = vqa_head(kind, question_only=True), vqa_head(kind)
    assert not any("image" in name for name, _ in blind.named_parameters())
    assert any("image" in name for name, _ in seeing.named_parameters())
    assert blind.predict(None, of_kind(VqaBatch), words(), None).shape == (3, 7)


def test_co_attention_learns_answers_that_depend_on_word_and_place_together() -> None:
    """The answer is which of two marks stands at the place that the word names: neither alone tells."""
    torch.manual_seed(0)
    shape = FeatureShape((8,), 32, 20)
    head = CoAttentionHead(CoAttentionConfig(name="co_attention", width=16, stride=8), shape, 2, 12, exchanging=False)
    marks = torch.randint(0, 2, (32, 2))
    level = torch.zeros(32, 32, 2, 2)
    level[:, 0, 0, 0], level[:, 0, 1, 1] = (2.0 * marks - 1).T
    place = torch.randint(0, 2, (32,))
    asked = Words(F.one_hot(place, 12).float().unsqueeze(1), torch.zeros(32, 1, dtype=torch.bool))
    answers = marks[torch.arange(32), place]
    batch = replace(of_kind(VqaBatch), image_index=torch.arange(32), targets=F.one_hot(answers, 2).float())
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
    features = Features({8: level}, torch.zeros(32, 20), None)
    loss: Tensor = torch.zeros(())
    for _ in range(60):
        optimizer.zero_grad()
        loss = head.loss(head.positions(features), batch, asked, None)
        loss.backward()
        optimizer.step()
    assert (head.predict(head.positions(features), batch, asked, None).argmax(1) == answers).float().mean() > 0.95


@pytest.mark.parametrize("detector", ["fcos", "faster_rcnn"])
def test_outputs_are_the_logits_that_predictions_are_made_of(detector: str) -> None:
    model = document(0)["model"]
    model["heads"] = {**model.get("heads", {}), "detection": {"name": detector}}
    torch.manual_seed(0)
    specs = {
        "c": TaskSpec("classification", 5),
        "d": TaskSpec("detection", 3),
        "s": TaskSpec("segmentation", 4),
        "v": TaskSpec("vqa", 7, words=10),
    }
    net = MultiTaskNetwork(ModelConfig.model_validate(model), specs).eval()
    given = batches()
    found = {}
    with torch.no_grad():
        for name, features in net._encode(given):
            found[name] = net._run(name, "outputs", features, given[name])
    assert torch.equal(found["c"][0][..., 0, 0], net.predict("c", given["c"]))
    assert torch.equal(found["v"][0][..., 0, 0], net.predict("v", given["v"]))
    resized = F.interpolate(found["s"][0], given["s"].images.shape[-2:], mode="bilinear", align_corners=False)
    assert torch.equal(resized, net.predict("s", given["s"]))
    strides = model["neck"]["strides"]
    side = given["d"].images.shape[-1]
    channels = 3  # classes, or anchors of three aspects
    assert [tuple(level.shape[1:]) for level in found["d"]] == [(channels, side // s, side // s) for s in strides]
    if detector == "fcos":
        best = max(float(level.sigmoid().max()) for level in found["d"])
        scores = [one["scores"].max() for one in net.predict("d", given["d"]) if len(one["scores"])]
        assert all(score <= best**0.5 for score in scores)  # sqrt(class score x centerness)
    assert [net.heads[name].exclusive for name in "cdsv"] == [True, False, True, False]
