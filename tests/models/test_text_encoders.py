"""Question encoders: our own and CLIP's; where placeholder tokens meet the words, and that nothing leaks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import open_clip
import pytest
import torch
from tests_support import batches
from torch import Tensor, nn

from harness.data.batches import VqaBatch
from harness.errors import HarnessError
from harness.models.clip_text import ClipText, causal_mask
from harness.models.config import OwnTextConfig, PlaceholderConfig
from harness.models.placeholders import Placeholders
from harness.models.text import TextEncoder

TEXTS = ("what is red", "how many blue circles are there left of the small star", "is it a star")


def questions() -> VqaBatch:
    batch = batches()["v"]
    assert isinstance(batch, VqaBatch)
    return replace(batch, texts=TEXTS)


def clip(layers: int = 3, **text: Any) -> nn.Module:
    torch.manual_seed(0)
    vision = {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16}
    sizes = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": layers}
    return open_clip.model.CLIP(24, vision, sizes | text).eval()  # type: ignore[arg-type]


def tower(model: nn.Module, max_words: int = 77, frozen: bool = False, **placeholders: Any) -> ClipText:
    config = PlaceholderConfig(count=3, width=8, attention_width=4, heads=1, **placeholders)
    return ClipText(model, open_clip.SimpleTokenizer(), "tiny", config, frozen, max_words)


def tokens(encoder: Any, samples: int = 3, std: float = 1.0, **placeholders: Any) -> Any:
    config = PlaceholderConfig(count=3, width=8, attention_width=4, heads=1, **placeholders)
    found = Placeholders(config, encoder.sites)
    for parameter in found.parameters():
        nn.init.normal_(parameter, std=std)
    return found.begin(samples)


def test_embeddings_equal_open_clips_own_with_the_same_weights() -> None:
    model = clip()
    expected = model.encode_text(open_clip.tokenize(list(TEXTS)))  # type: ignore[operator]
    assert torch.equal(tower(model).embed(TEXTS), expected)


def test_words_equal_open_clips_own_final_tokens_without_computing_the_padding() -> None:
    model = clip()
    words = tower(model)(questions())
    ids = open_clip.tokenize(list(TEXTS))
    x = model.token_embedding(ids) + model.positional_embedding  # type: ignore[operator]
    expected = model.ln_final(model.transformer(x, attn_mask=model.attn_mask))  # type: ignore[operator]
    lengths = (~words.padding).sum(1)
    assert lengths.tolist() == [5, 13, 6]  # words and the two marks
    assert words.tokens.shape == (3, 13, 16)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(words.tokens[row, :length], expected[row, :length])


def test_a_question_of_more_tokens_than_allowed_is_cut_and_still_ends() -> None:
    encoder = tower(clip(), max_words=6)
    words = encoder(questions())
    assert words.tokens.shape[1] == 6
    assert (~words.padding).sum(1).tolist() == [5, 6, 6]


def test_class_texts_are_normalised_means_over_templates_as_open_clip_builds_its_classifier() -> None:
    model = clip()
    names, templates = ["star", "circle"], [lambda c: f"a {c}.", lambda c: f"a photo of a {c}."]
    expected = open_clip.build_zero_shot_classifier(
        model, open_clip.SimpleTokenizer(), names, templates, num_classes_per_batch=None
    ).T
    found = tower(model).class_texts([[t(name) for t in templates] for name in names])
    torch.testing.assert_close(found.embeddings, expected)
    assert found.scale == model.logit_scale.exp()  # type: ignore[operator]


def test_many_class_texts_are_embedded_in_chunks_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [[f"a {name}.", f"one {name}."] for name in ("star", "ring", "box")]
    whole = tower(clip()).class_texts(prompts).embeddings
    monkeypatch.setattr("harness.models.clip_text.CHUNK", 4)
    torch.testing.assert_close(tower(clip()).class_texts(prompts).embeddings, whole)


def test_class_texts_are_kept_between_batches_until_other_weights_are_loaded() -> None:
    encoder = tower(clip())
    other = {name: -value for name, value in encoder.state_dict().items()}
    with torch.no_grad():
        first = encoder.class_texts([["a star"]]).embeddings
        assert encoder.class_texts([["a star"]]).embeddings is first
        encoder.load_state_dict(other)
        assert not torch.equal(encoder.class_texts([["a star"]]).embeddings, first)


def test_class_texts_follow_an_optimizer_that_leaves_the_weights_version_as_it_was() -> None:
    encoder = tower(clip()).eval()
    with torch.no_grad():
        first = encoder.class_texts([["a star"]]).embeddings
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=0.1, fused=True)
    for parameter in encoder.parameters():
        parameter.grad = torch.ones_like(parameter)
    encoder.train()
    optimizer.step()
    encoder.eval()
    with torch.no_grad():
        assert not torch.equal(encoder.class_texts([["a star"]]).embeddings, first)


def test_class_texts_of_a_frozen_tower_are_kept_in_training_and_those_of_a_free_one_have_gradients() -> None:
    frozen = tower(clip(), frozen=True)
    first = frozen.class_texts([["a star"]]).embeddings
    assert frozen.train().class_texts([["a star"]]).embeddings is first
    assert not first.requires_grad
    assert tower(clip()).class_texts([["a star"]]).embeddings.requires_grad


@pytest.mark.parametrize("mechanism", ["prefix_shallow", "prefix_deep"])
def test_inserted_tokens_change_every_word_but_carry_nothing_back_from_later_words(mechanism: str) -> None:
    encoder = tower(clip(), mechanism=mechanism)
    assert len(encoder.sites) == (1 if mechanism == "prefix_shallow" else 3)
    batch = questions()
    plain = encoder(batch).tokens
    torch.manual_seed(1)
    stream = tokens(encoder, mechanism=mechanism)
    full = encoder(batch, stream).tokens
    stream.check(encoder.sites)
    assert full.shape == plain.shape
    assert ((full - plain).abs().amax(-1) > 1e-4).all()

    torch.manual_seed(1)
    later = replace(batch, texts=("what is blue", TEXTS[1], "is it a circle"))  # other last words
    changed = encoder(later, tokens(encoder, mechanism=mechanism)).tokens
    torch.testing.assert_close(changed[0, :3], full[0, :3])
    assert not torch.allclose(changed[0, 3], full[0, 3])


def test_the_mask_lets_words_see_inserted_tokens_and_these_only_each_other() -> None:
    visible = causal_mask(3, 2, torch.zeros(())) == 0
    assert visible.int().tolist() == [
        [1, 0, 0, 1, 1],
        [1, 1, 0, 1, 1],
        [1, 1, 1, 1, 1],
        [0, 0, 0, 1, 1],
        [0, 0, 0, 1, 1],
    ]


def test_exchange_sites_are_spread_over_the_tower_and_do_not_read_the_padding() -> None:
    encoder = tower(clip(layers=4))
    assert list(encoder.sites) == ["text.1", "text.3"]
    padded, alone = questions(), replace(questions(), texts=TEXTS[:1])
    torch.manual_seed(2)
    stream = tokens(encoder)
    together = encoder(padded, stream)
    torch.manual_seed(2)
    single_stream = tokens(encoder, samples=1)
    single = encoder(alone, single_stream)
    torch.testing.assert_close(together.tokens[:1, :5], single.tokens, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(stream.tokens[:1], single_stream.tokens, rtol=1e-4, atol=1e-5)


def test_a_frozen_tower_has_no_gradient_and_a_free_one_has() -> None:
    for frozen in (False, True):
        encoder = tower(clip(), frozen=frozen)
        assert encoder(questions()).tokens.requires_grad is not frozen


def test_a_text_tower_without_causal_attention_is_refused() -> None:
    with pytest.raises(HarnessError, match="tiny is not a causal transformer"):
        tower(clip(pool_type="last"))


@pytest.mark.parametrize("mechanism", ["prefix_shallow", "prefix_deep"])
def test_tokens_inserted_into_our_own_encoder_are_read_and_taken_out_again(mechanism: str) -> None:
    torch.manual_seed(0)
    config = PlaceholderConfig(count=3, width=8, mechanism=mechanism)  # type: ignore[arg-type]
    encoder = TextEncoder(OwnTextConfig(width=16, heads=2, layers=2), 10, config)
    assert list(encoder.sites) == (["text.0"] if mechanism == "prefix_shallow" else ["text.0", "text.1"])
    stream = tokens(encoder, mechanism=mechanism)
    plain, full = encoder(questions()), encoder(questions(), stream)
    stream.check(encoder.sites)
    assert full.tokens.shape == plain.tokens.shape == (3, 3, 16)
    assert torch.equal(full.padding, plain.padding)
    assert ((full.tokens - plain.tokens).abs().amax(-1) > 1e-5).all()


def test_our_own_encoder_does_not_read_padding_beside_inserted_tokens() -> None:
    torch.manual_seed(0)
    config = PlaceholderConfig(count=3, width=8, mechanism="prefix_shallow")
    encoder = TextEncoder(OwnTextConfig(width=16, heads=2, layers=2), 10, config)
    batch = questions()
    wider = replace(batch, words=nn.functional.pad(batch.words, (0, 4)))

    def encoded(of: VqaBatch) -> Tensor:
        torch.manual_seed(3)
        return encoder(of, tokens(encoder, mechanism="prefix_shallow")).tokens

    torch.testing.assert_close(encoded(wider)[:, :3], encoded(batch))
