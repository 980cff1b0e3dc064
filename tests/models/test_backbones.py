"""Every family of backbones of every library, small and with random weights: maps, pooled feature, sites, prefixes."""

from __future__ import annotations

import math
from typing import Any

import open_clip
import pytest
import timm
import torch
import torchvision
from safetensors.torch import load, save
from torch import Tensor, nn

from harness.errors import HarnessError
from harness.models.backbones import BACKBONES
from harness.models.backbones.base import BackboneFeatures, ImageBackbone
from harness.models.backbones.border import BORDER, WIDTH, add_border
from harness.models.backbones.pyramid import SimplePyramid
from harness.models.config import BackboneConfig, PlaceholderConfig
from harness.models.placeholders import ExchangeSite, Placeholders
from harness.registry import look_up

NONE = PlaceholderConfig(count=0)
PYRAMID = (4, 8, 16, 32)
CLIP_VIT = {"embed_dim": 24, "vision_cfg": {"layers": 3, "width": 64, "head_width": 32, "image_size": 64}}
CLIP_RESNET = {"embed_dim": 24, "vision_cfg": {"layers": [1, 1, 1, 1], "width": 16, "image_size": 64}}
SWIN = {"embed_dim": 24, "depths": [1, 2, 1, 1], "num_heads": [1, 2, 4, 8]}
slow = pytest.mark.slow

# (library, name, options, strides, image sizes), plain transformers of both kinds among them.
ODD = ((64, 64), (64, 96), (75, 50))
FAST: list[Any] = [
    ("timm", "test_resnet", {}, (4, 8, 16, 32), ODD),
    ("timm", "test_convnext", {}, (4, 8, 16), ODD),
    ("timm", "test_vit", {}, PYRAMID, ODD),
    ("timm", "swin_tiny_patch4_window7_224", SWIN, PYRAMID, ODD),
    ("torchvision", "resnet18", {}, PYRAMID, ODD),
    ("open_clip", "ViT-S-16", CLIP_VIT, PYRAMID, ODD),
]
SLOW: list[Any] = [
    ("timm", "test_efficientnet", {}, (8, 16), ODD),
    ("timm", "mobilenetv3_small_100", {}, PYRAMID, ODD),
    ("timm", "regnetx_002", {}, PYRAMID, ODD),
    ("timm", "pvt_v2_b0", {}, PYRAMID, ODD),
    ("timm", "maxvit_nano_rw_256", {"img_size": [64, 64], "depths": [1, 1, 1, 1]}, PYRAMID, ((64, 64), (64, 96))),
    ("timm", "deit_tiny_distilled_patch16_224", {"depth": 3}, PYRAMID, ODD),
    ("timm", "eva02_tiny_patch14_224", {"depth": 3}, PYRAMID, ODD),
    ("timm", "vit_small_patch14_reg4_dinov2", {"depth": 3}, PYRAMID, ODD),
    ("timm", "vit_small_patch16_dinov3", {"depth": 3}, PYRAMID, ODD),
    ("timm", "beit_base_patch16_224", {"depth": 2, "img_size": [96, 96]}, PYRAMID, ((96, 96), (64, 50))),
    ("torchvision", "mobilenet_v3_small", {}, PYRAMID, ((64, 64), (75, 50))),
    ("torchvision", "regnet_y_400mf", {}, PYRAMID, ((64, 64), (75, 50))),
    ("open_clip", "RN50", CLIP_RESNET, PYRAMID, ODD),
]
LARGE = [
    ("torchvision", "convnext_tiny"),
    ("torchvision", "swin_t"),
    ("torchvision", "vit_b_32"),
    ("torchvision", "densenet121"),
    ("open_clip", "convnext_tiny"),
    ("open_clip", "ViT-B-16-SigLIP"),
]
ALL = FAST + [pytest.param(*case, marks=slow) for case in SLOW]
CASES = pytest.mark.parametrize(("library", "name", "options", "strides", "sizes"), ALL)


def build(
    library: str,
    name: str,
    options: dict[str, Any] | None = None,
    strides: tuple[int, ...] = (8, 16),
    placeholders: PlaceholderConfig = NONE,
    **config: Any,
) -> ImageBackbone:
    torch.manual_seed(0)
    section = BackboneConfig.model_validate({"library": library, "name": name, "options": options or {}, **config})
    backbone: ImageBackbone = look_up(BACKBONES, library, "library")(section, strides, placeholders)
    return backbone


def pictures(height: int, width: int, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(height * 1000 + width)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def tokens(**changes: Any) -> PlaceholderConfig:
    return PlaceholderConfig.model_validate({"count": 3, "width": 8, "attention_width": 4, "heads": 2, **changes})


def run_with(
    backbone: ImageBackbone, config: PlaceholderConfig, images: Tensor, written: float = 0.0, **passed: Any
) -> tuple[BackboneFeatures, Placeholders]:
    """A forward pass with placeholder tokens, after which every site has fired once."""
    torch.manual_seed(1)
    placeholders = Placeholders(config, backbone.sites)
    for site in placeholders.sites.values():
        if written and isinstance(site, ExchangeSite):
            nn.init.normal_(site.up.weight, std=written)
    stream = placeholders.begin(len(images))
    features = backbone(images, stream, **passed)
    stream.check(backbone.sites)
    return features, placeholders


def same(a: BackboneFeatures, b: BackboneFeatures) -> bool:
    return (
        torch.equal(a.pooled, b.pooled)
        and torch.equal(a.tokens, b.tokens)
        and all(torch.equal(a.maps[stride], b.maps[stride]) for stride in a.maps)
    )


def library_pooled(backbone: ImageBackbone, library: str, name: str, options: dict[str, Any], images: Tensor) -> Tensor:
    """The pooled feature by the library's own forward pass, of a model that the library built itself."""
    normalized = (images / 255 - backbone.mean) / backbone.std
    if library == "timm":
        own = timm.create_model(name, num_classes=0, **options, **backbone.structure.growth)
        own.load_state_dict(backbone.body.state_dict())
        return own.eval()(normalized)
    if library == "torchvision":
        own = torchvision.models.get_model(name)
        own.load_state_dict(backbone.body.state_dict(), strict=False)
        seen: list[Tensor] = []
        last = [module for module in own.modules() if isinstance(module, nn.Linear)][-1]
        last.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        own.eval()(normalized)
        return seen[0]
    whole = open_clip.get_model_config(name)
    for key, value in options.items():
        whole[key] = whole[key] | value if isinstance(value, dict) else value
    whole.pop("custom_text", None)
    model = open_clip.create_model(name, **{k: whole[k] for k in ("embed_dim", "vision_cfg", "text_cfg")})
    model.visual.load_state_dict(backbone.body.state_dict())
    return model.eval().encode_image(normalized)


@CASES
def test_maps_have_the_stated_strides_and_channels_at_every_size(
    library: str, name: str, options: dict[str, Any], strides: tuple[int, ...], sizes: tuple[tuple[int, int], ...]
) -> None:
    backbone = build(library, name, options, strides).eval()
    assert list(backbone.channels) == list(strides)
    for height, width in sizes:
        with torch.no_grad():
            found = backbone(pictures(height, width))
        assert {stride: tuple(level.shape) for stride, level in found.maps.items()} == {
            stride: (2, backbone.channels[stride], math.ceil(height / stride), math.ceil(width / stride))
            for stride in strides
        }
        last = backbone.structure.stages[-1]
        positions = math.ceil(height / last.stride) * math.ceil(width / last.stride)
        assert found.tokens.shape == (2, positions, last.channels)
        assert found.pooled.shape == (2, backbone.pooled_width)
        assert all(torch.isfinite(level).all() for level in [found.pooled, *found.maps.values()])


@CASES
def test_the_pooled_feature_is_the_librarys_own(
    library: str, name: str, options: dict[str, Any], strides: tuple[int, ...], sizes: tuple[tuple[int, int], ...]
) -> None:
    backbone = build(library, name, options, strides).eval()
    size = backbone.library.native_size(BackboneConfig(name=name, options=options), backbone.body)
    # Where the library knows one size only, that one is compared; timm pads nothing, so the size must suit.
    unit = backbone.structure.divisor
    height, width = (-(-64 // unit) * unit, -(-96 // unit) * unit) if library == "timm" else (size, size)
    if backbone.structure.fixed:
        height = width = size
    with torch.no_grad():
        images = pictures(height, width, 1)
        own = library_pooled(backbone, library, name, options, images)
        torch.testing.assert_close(backbone(images).pooled, own, rtol=1e-4, atol=1e-5)


@CASES
def test_a_fresh_exchange_site_changes_nothing_and_a_trained_one_reaches_everything(
    library: str, name: str, options: dict[str, Any], strides: tuple[int, ...], sizes: tuple[tuple[int, int], ...]
) -> None:
    config = tokens(stages=2)
    plain, backbone = build(library, name, options, strides), build(library, name, options, strides, config)
    assert plain.state_dict().keys() == backbone.state_dict().keys()  # sites hold their weights elsewhere
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), backbone.parameters(), strict=True))
    assert len(backbone.sites) == 2
    images = pictures(*sizes[-1])
    plain.eval(), backbone.eval()
    with torch.no_grad():
        expected = plain(images)
        fresh, _ = run_with(backbone, config, images)
    assert same(fresh, expected)
    backbone.train()
    written, placeholders = run_with(backbone, config, images, written=0.5)
    assert not torch.allclose(written.pooled, expected.pooled)
    (written.pooled.square().sum() + sum(level.square().sum() for level in written.maps.values())).backward()
    gradient = placeholders.bank.tokens.grad
    assert gradient is not None
    assert torch.isfinite(gradient).all()
    assert gradient.abs().sum() > 0


@CASES
def test_weights_survive_a_round_trip_through_safetensors(
    library: str, name: str, options: dict[str, Any], strides: tuple[int, ...], sizes: tuple[tuple[int, int], ...]
) -> None:
    backbone = build(library, name, options, strides).eval()
    stored = save({key: value.contiguous() for key, value in backbone.state_dict().items()})
    other = build(library, name, options, strides).eval()
    for parameter in other.parameters():
        nn.init.zeros_(parameter)
    other.load_state_dict(load(stored))
    images = pictures(*sizes[0])
    with torch.no_grad():
        assert same(backbone(images), other(images))


@CASES
def test_prefixes_enter_transformers_and_are_refused_elsewhere(
    library: str, name: str, options: dict[str, Any], strides: tuple[int, ...], sizes: tuple[tuple[int, int], ...]
) -> None:
    shallow, deep = tokens(mechanism="prefix_shallow"), tokens(mechanism="prefix_deep")
    if not build(library, name, options, strides).structure.takes_prefix:
        with pytest.raises(HarnessError, match=f"{name} has no sequence that prefix_deep could extend; use mechanism"):
            build(library, name, options, strides, deep)
        return
    images = pictures(*sizes[-1])
    with torch.no_grad():
        plain = build(library, name, options, strides).eval()(images)
    for config in (shallow, deep):
        backbone = build(library, name, options, strides, config).eval()
        stages = backbone.structure.stages
        assert list(backbone.sites) == [f"backbone.{s.module}" for s in (stages if config is deep else stages[:1])]
        assert set(backbone.sites.values()) == {stages[0].channels}
        found, placeholders = run_with(backbone, config, images)
        assert {key: level.shape for key, level in found.maps.items()} == {k: v.shape for k, v in plain.maps.items()}
        assert found.tokens.shape == plain.tokens.shape
        assert not torch.equal(found.pooled, plain.pooled)
        found.maps[strides[0]].square().sum().backward()
        assert placeholders.bank.tokens.grad is not None
        assert placeholders.bank.tokens.grad.abs().sum() > 0
        with torch.no_grad():  # without tokens the very same module is the plain network
            assert same(backbone(images), plain)


@slow
@pytest.mark.parametrize(("library", "name"), LARGE)
def test_larger_models_have_their_maps_their_librarys_pooled_feature_and_fresh_sites(library: str, name: str) -> None:
    config = tokens(stages=2)
    backbone = build(library, name, {}, PYRAMID, config).eval()
    size = backbone.library.native_size(BackboneConfig(name=name), backbone.body)
    with torch.no_grad():
        found = backbone(pictures(75, 50))
        assert {stride: level.shape[2:] for stride, level in found.maps.items()} == {
            stride: (math.ceil(75 / stride), math.ceil(50 / stride)) for stride in PYRAMID
        }
        fresh, _ = run_with(backbone, config, pictures(75, 50))
        assert same(fresh, found)
        images = pictures(size, size, 1)
        own = library_pooled(backbone, library, name, {}, images)
        torch.testing.assert_close(backbone(images).pooled, own, rtol=1e-4, atol=1e-5)


@slow
@pytest.mark.parametrize("name", ["test_vit", "vit_small_patch16_dinov3"])
def test_a_shallow_prefix_is_what_a_longer_sequence_would_give(name: str) -> None:
    config = tokens(mechanism="prefix_shallow")
    options = {} if name == "test_vit" else {"depth": 2}
    backbone = build("timm", name, options, (16,), config).eval()
    body: Any = backbone.body
    images = pictures(64, 96)
    with torch.no_grad():
        found, placeholders = run_with(backbone, config, images)
        (site,) = backbone.sites
        inserted = placeholders.begin(2).prefix(site)
        embedded = body.patch_embed((images / 255 - backbone.mean) / backbone.std)
        sequence, rope = body._pos_embed(embedded), None
        if isinstance(sequence, tuple):
            sequence, rope = sequence
        own = backbone.structure.stages[0].prefix
        sequence = body.norm_pre(sequence) if hasattr(body, "norm_pre") else sequence
        sequence = torch.cat([sequence[:, :own], inserted, sequence[:, own:]], 1)
        for block in body.blocks:
            if rope is not None:
                block.attn.num_prefix_tokens += 3
                sequence = block(sequence, rope=rope)
                block.attn.num_prefix_tokens -= 3
            else:
                sequence = block(sequence)
    patches = sequence[:, own + 3 :]
    torch.testing.assert_close(found.tokens, patches)


def test_sites_are_the_last_stages_of_a_cnn_and_evenly_spaced_blocks_of_a_transformer() -> None:
    assert list(build("timm", "test_resnet", {}, (8, 16), tokens(stages=3)).sites) == [
        f"backbone.layer{index}" for index in (2, 3, 4)
    ]
    deep = build("timm", "deit_tiny_patch16_224", {"depth": 12, "embed_dim": 24}, (16,), tokens(stages=4))
    assert list(deep.sites) == [f"backbone.blocks.{index}" for index in (2, 5, 8, 11)]
    assert set(deep.sites.values()) == {24}
    assert build("timm", "test_resnet", {}, (8, 16), tokens(placement="output")).sites == {}
    assert build("timm", "test_resnet", {}, (8, 16), tokens(stages=0)).sites == {}


def test_a_map_as_high_and_as_wide_as_its_channels_is_not_mistaken_for_channels_first() -> None:
    config = tokens(stages=4)
    backbone = build("timm", "swin_tiny_patch4_window7_224", SWIN, (4, 8), config)
    assert backbone.channels[4] == 24
    images = pictures(96, 96)  # 24 x 24 positions of 24 channels
    backbone.eval()
    with torch.no_grad():
        levels = backbone.body.forward_intermediates(
            (images / 255 - backbone.mean) / backbone.std, indices=[0, 1], output_fmt="NCHW", intermediates_only=True
        )
        found, _ = run_with(backbone, config, images)
    torch.testing.assert_close(found.maps[4], levels[0])
    torch.testing.assert_close(found.maps[8], levels[1])


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_vit"])
def test_tokens_do_not_read_what_was_added_to_make_an_image_fit(name: str) -> None:
    config = tokens(stages=1)
    backbone = build("timm", name, {}, (16,), config).eval()
    read: list[tuple[Tensor, Tensor | None]] = []
    for contents in (None, torch.tensor([[40, 30], [75, 50]])):
        torch.manual_seed(1)
        placeholders = Placeholders(config, backbone.sites)
        next(iter(placeholders.sites.values())).register_forward_pre_hook(
            lambda site, inputs: read.append((inputs[0], inputs[2]))
        )
        with torch.no_grad():
            backbone(pictures(75, 50), placeholders.begin(2), contents)
    stage = backbone.structure.stages[-1]
    grid = [math.ceil(side / stage.stride) for side in (75, 50)]
    (features, mask), (_, masked) = read
    if backbone.structure.divisor > 1:
        assert mask is not None
        added = features.shape[1] - stage.prefix - math.prod(grid)
        assert added >= 0
        assert mask.sum(1).tolist() == [added] * 2
        assert not mask[:, : stage.prefix].any()
    else:
        assert mask is None
    assert masked is not None
    inside = [[math.ceil(40 / stage.stride), math.ceil(30 / stage.stride)], grid]
    assert (~masked).sum(1).tolist() == [math.prod(sides) + stage.prefix for sides in inside]


def test_images_larger_than_a_model_of_one_size_are_refused_with_what_to_do() -> None:
    backbone = build("timm", "beit_base_patch16_224", {"depth": 1, "img_size": [32, 32]}, (16,)).eval()
    assert backbone(pictures(20, 32)).maps[16].shape[2:] == (2, 2)
    with pytest.raises(HarnessError, match=r"takes images of 32 x 32 at most, not 48 x 32; give it .*img_size"):
        backbone(pictures(48, 32))


def test_with_placement_input_tokens_become_a_border_of_pixels_or_a_prefix() -> None:
    config = tokens(placement="input")
    backbone = build("timm", "test_resnet", {}, (8, 16), config).eval()
    assert backbone.sites == {"backbone.border": WIDTH}
    images = pictures(64, 96)
    found, placeholders = run_with(backbone, config, images)
    found.pooled.sum().backward()
    assert placeholders.bank.tokens.grad is not None
    assert placeholders.bank.tokens.grad.abs().sum() > 0
    with torch.no_grad():
        assert not torch.equal(found.pooled, backbone(images).pooled)
    transformer = build("timm", "test_vit", {}, (8, 16), config)
    assert transformer.sites == {"backbone.blocks.0": transformer.structure.stages[0].channels}


@pytest.mark.parametrize("size", [(64, 96), (20, 17), (9, 30)])
def test_a_border_changes_its_ring_alone_and_runs_clockwise(size: tuple[int, int]) -> None:
    height, width = size
    images = torch.zeros(1, 3, height, width)
    ones = add_border(images, torch.ones(1, 5, WIDTH))
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None, :]
    edge = torch.minimum(torch.minimum(rows, height - 1 - rows), torch.minimum(columns, width - 1 - columns))
    assert torch.equal(ones, (edge < BORDER).float().expand(1, 3, -1, -1))
    # As many tokens as pixels around: each pixel of the edge shows one token's first pixel.
    perimeter = 2 * (height + width)
    numbered = torch.arange(perimeter, dtype=torch.float32)[None, :, None].expand(1, -1, WIDTH)
    ring = add_border(images, numbered)[0, 0]
    assert ring[0, :-1].tolist() == list(range(width - 1))
    assert ring[1:-1, -1].tolist() == list(range(width + 1, width + height - 1))
    assert ring[-1, 1:-1].tolist() == [width + height + (width - 1 - column) for column in range(1, width - 1)]
    assert ring[1:-1, 0].tolist() == [2 * width + height + (height - 1 - row) for row in range(1, height - 1)]


def test_a_pyramid_halves_channels_towards_finer_levels_and_keeps_places() -> None:
    torch.manual_seed(0)
    pyramid = SimplePyramid(16, 32, (4, 8, 16, 32))
    assert pyramid.channels == {4: 8, 8: 16, 16: 32, 32: 32}
    levels = pyramid(torch.randn(2, 32, 6, 5), (96, 80))
    assert {stride: tuple(level.shape) for stride, level in levels.items()} == {
        4: (2, 8, 24, 20), 8: (2, 16, 12, 10), 16: (2, 32, 6, 5), 32: (2, 32, 3, 3),
    }  # fmt: skip


@pytest.mark.parametrize("patch", [14, 12, 20])
def test_a_map_of_another_stride_is_resampled_at_the_right_places(patch: int) -> None:
    pyramid = SimplePyramid(patch, 2, (16,))
    pyramid.levels["16"] = nn.Identity()
    size = (160, 112)
    rows = torch.arange(math.ceil(size[0] / patch)) * patch + patch / 2  # a map that holds its own place in pixels
    columns = torch.arange(math.ceil(size[1] / patch)) * patch + patch / 2
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))[None]
    found = pyramid(grid, size)[16][0]
    assert found.shape == (2, 10, 7)
    wanted = torch.stack(torch.meshgrid(torch.arange(10) * 16.0 + 8, torch.arange(7) * 16.0 + 8, indexing="ij"))
    inside = (wanted >= patch / 2) & (wanted <= torch.tensor([rows[-1], columns[-1]]).view(2, 1, 1))
    torch.testing.assert_close(found[inside], wanted[inside])
    assert inside.float().mean() > 0.8


def test_an_unknown_name_is_refused_with_the_nearest_one_of_its_library() -> None:
    with pytest.raises(HarnessError, match=r"'resent18' is not a model of torchvision; did you mean 'resnet18'\?"):
        build("torchvision", "resent18")
    with pytest.raises(HarnessError, match="'ViT-B-99' is not a model of open_clip"):
        build("open_clip", "ViT-B-99")
    with pytest.raises(HarnessError, match=r"squeezenet1_1 gives no feature maps \(it classifies by a convolution"):
        build("torchvision", "squeezenet1_1")
    with pytest.raises(HarnessError, match=r"options: timm cannot build 'test_vit' with .*'colour'"):
        build("timm", "test_vit", {"colour": 3})
    with pytest.raises(HarnessError, match=r"test_resnet has no features at stride 64; it has \[2, 4, 8, 16, 32\]"):
        build("timm", "test_resnet", {}, (64,))
    with pytest.raises(HarnessError, match=r"test_vit has no features at stride 2; it has \[4, 8, 16, 32\]"):
        build("timm", "test_vit", {}, (2,))
