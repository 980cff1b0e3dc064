"""The ``model`` section of a submission. Light: no torch, so that a misspelt key is told at once."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from harness.documents import Section
from harness.models.placeholders.config import PlaceholderConfig as PlaceholderConfig
from harness.models.sharing.config import HardConfig, SharingConfig

Width = Annotated[int, Field(gt=0, le=8192)]

# What a stranger may hand to a library's builder: numbers only, so neither a path nor an address, and no other loader.
OptionName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,60}$")]
Number = bool | int | float
Option = Number | tuple[Number, ...] | dict[OptionName, Number | tuple[Number, ...]]


def _chosen_by(key: str, default: str, other: str) -> Discriminator:
    """One of two sections, told apart by `key`, which may be left out."""

    def tag(value: Any) -> str:
        return str(value.get(key, default) if isinstance(value, dict) else getattr(value, key, default))

    return Discriminator(
        tag, custom_error_type="unknown_choice", custom_error_message=f"{key} must be {default} or {other}"
    )


class BackboneConfig(Section):
    """The image network, without its classifier.

    Attributes:
        library: Where the name is looked up.
        name: The library's own name, e.g. ``resnet50`` (``harness ls backbones`` lists them). A tag of pretrained
            weights follows a dot: ``resnet50.a1_in1k``, ``ViT-B-32.openai``.
        options: Sizes handed to the library's builder, e.g. ``{depth: 4, embed_dim: 96}``, for reduced models;
            open_clip takes ``{vision_cfg: {...}, text_cfg: {...}}``.
        pretrained: Load the library's own pretrained weights (needs network or the library's cache).
        weights: Load these instead: a ``.safetensors``, ``.pth``, ``.pt`` or ``.bin`` file, or a folder that holds one;
            open_clip also takes ``local-dir:<folder>``, whose ``open_clip_config.json`` then describes the model.
        allow_mismatch: Load `weights` although some of them are missing, unexpected or of another shape.
        frozen: Which weights stay as they are: ``none``, ``all``, ``norm`` (weights and statistics of every norm
            layer) or a number n: the first n stages that ``harness validate`` lists and all that lies before them.
        feature_cache: Where the features of a model that is frozen wholly and meets no placeholder token are kept.
            ``disk``: for later runs, too, where images are not augmented (these are not decoded again), otherwise in
            memory. ``memory``: for this run. ``none``: nowhere. The result is the same.
        batch_norm: ``shared``: batches of tasks with equal image sizes go through the network together, so tasks
            share batch-norm statistics. ``per_task``: each task is normalised by statistics of its own (same affine
            weights), which is needed where the tasks' images look different.
    """

    library: Literal["timm", "torchvision", "open_clip"] = "timm"
    name: str = Field(min_length=1, max_length=200)
    options: dict[OptionName, Option] = Field(default_factory=dict)
    pretrained: bool = False
    weights: str | None = Field(default=None, min_length=1, max_length=4096)
    allow_mismatch: bool = False
    frozen: Literal["none", "all", "norm"] | Annotated[int, Field(ge=1, le=1000, strict=True)] = "none"
    feature_cache: Literal["disk", "memory", "none"] = "disk"
    batch_norm: Literal["shared", "per_task"] = "shared"

    @field_validator("options", mode="before")
    @classmethod
    def _only_numbers(cls, options: Any) -> Any:
        values = [*options.values()] if isinstance(options, dict) else []
        values += [inner for value in values if isinstance(value, dict) for inner in value.values()]
        for value in values:
            parts = value if isinstance(value, (list, tuple)) else [value]
            if not isinstance(value, dict) and not all(isinstance(part, (bool, int, float)) for part in parts):
                raise ValueError(f"options: {value!r} is neither a number nor a list of numbers")
        return options

    @model_validator(mode="after")
    def _consistent(self) -> BackboneConfig:
        if self.pretrained and self.weights is not None:
            raise ValueError(f"pretrained: cannot be true when weights ({self.weights!r}) are given; leave one out")
        if self.allow_mismatch and self.weights is None:
            raise ValueError("allow_mismatch: only speaks of weights, and none are given; leave it out")
        return self


class NeckConfig(Section):
    """Feature pyramid (Lin 2017) that detection, segmentation and VQA read.

    Attributes:
        channels: Channels of every pyramid level; a multiple of 32, because FCOS normalises groups of 32.
        strides: Which of the backbone's strides the pyramid takes, finest first.
    """

    channels: Width = 64
    strides: tuple[int, ...] = (8, 16, 32)

    @model_validator(mode="after")
    def _valid(self) -> NeckConfig:
        if self.channels % 32:
            raise ValueError(f"channels: {self.channels} must be a multiple of 32")
        if not self.strides or list(self.strides) != sorted(set(self.strides)) or min(self.strides) < 1:
            raise ValueError(f"strides: {list(self.strides)} must be positive and rising, e.g. [8, 16, 32]")
        return self


class OwnTextConfig(Section):
    """Question encoder: a small transformer over the words of the training questions.

    Attributes:
        width: Token width.
        layers: Transformer layers.
        heads: Attention heads.
        max_words: Longer questions are cut.
    """

    library: Literal["own"] = "own"
    width: Width = 128
    layers: int = Field(default=1, ge=1, le=24)
    heads: int = Field(default=4, ge=1)
    max_words: int = Field(default=24, ge=1, le=512)

    @model_validator(mode="after")
    def _divisible(self) -> OwnTextConfig:
        if self.width % self.heads:
            raise ValueError(f"heads: {self.heads} does not divide width {self.width}")
        return self


class OpenClipTextConfig(Section):
    """Question encoder: the text tower of a CLIP model, with the model's own tokenizer.

    Attributes:
        name: An open_clip model; None takes the one that ``model.backbone`` names, so that both towers are one model.
        pretrained: With a `name`: load the library's own pretrained weights.
        frozen: Do not train the tower.
        max_words: Longer questions are cut to so many tokens, start and end marks included (and to the model's own
            context, usually 77).
    """

    library: Literal["open_clip"]
    name: str | None = None
    pretrained: bool = False
    frozen: bool = False
    max_words: int = Field(default=77, ge=3, le=512)

    @model_validator(mode="after")
    def _named(self) -> OpenClipTextConfig:
        if self.pretrained and self.name is None:
            raise ValueError("pretrained: needs a name; without one the tower is that of model.backbone")
        return self


TextConfig = Annotated[
    Annotated[OwnTextConfig, Tag("own")] | Annotated[OpenClipTextConfig, Tag("open_clip")],
    _chosen_by("library", "own", "open_clip"),
]


class LinearConfig(Section):
    """Global pooling and a linear layer.

    Attributes:
        label_smoothing: Of the cross-entropy.
        dropout: Before the linear layer.
    """

    name: Literal["linear"] = "linear"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)


class ZeroShotConfig(Section):
    """Cosine to the text embeddings of the class names, by a CLIP model's two towers (Radford 2021 §3.1.4).

    Attributes:
        templates: Sentences with ``{}`` in place of the class name; a class is the mean of their embeddings.
        label_smoothing: Of the cross-entropy.
    """

    name: Literal["zero_shot"]
    templates: tuple[str, ...] = Field(default=("a photo of a {}.",), min_length=1, max_length=1000)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _one_gap(self) -> ZeroShotConfig:
        for template in self.templates:
            if template.count("{}") != 1:
                raise ValueError(f"templates: {template!r} must hold {{}} once, in place of the class name")
        return self


ClassificationHeadConfig = Annotated[
    Annotated[LinearConfig, Tag("linear")] | Annotated[ZeroShotConfig, Tag("zero_shot")],
    _chosen_by("name", "linear", "zero_shot"),
]


class FcosConfig(Section):
    """FCOS (Tian 2019), torchvision's.

    Attributes:
        convolutions: Depth of the two towers (published: 4).
        score_threshold: Detections below it are dropped (torchvision's default 0.2 costs AP; 0.05 is customary).
        nms_threshold: IoU above which a lower-scored box of the same class is dropped.
        detections: Kept per image.
    """

    name: Literal["fcos"] = "fcos"
    convolutions: int = Field(default=4, ge=1, le=8)
    score_threshold: float = Field(default=0.05, ge=0, lt=1)
    nms_threshold: float = Field(default=0.6, gt=0, le=1)
    detections: int = Field(default=100, ge=1, le=1000)


class FasterRcnnConfig(Section):
    """Faster R-CNN (Ren 2015) with a feature pyramid (Lin 2017), torchvision's.

    Attributes:
        width: Of the two layers that score a region (published: 1024).
        anchor_scale: Side of an anchor, in strides of its level (published: 8); 4 suits small images.
        proposals: Regions that each image keeps after the first stage.
        samples: Regions per image that the second stage learns from.
        score_threshold: Detections below it are dropped.
        nms_threshold: IoU above which a lower-scored box of the same class is dropped.
        detections: Kept per image.
    """

    name: Literal["faster_rcnn"]
    width: Width = 1024
    anchor_scale: float = Field(default=8.0, gt=0, le=64)
    proposals: int = Field(default=1000, ge=1, le=4000)
    samples: int = Field(default=512, ge=4, le=4096)
    score_threshold: float = Field(default=0.05, ge=0, lt=1)
    nms_threshold: float = Field(default=0.5, gt=0, le=1)
    detections: int = Field(default=100, ge=1, le=1000)


DetectionHeadConfig = Annotated[
    Annotated[FcosConfig, Tag("fcos")] | Annotated[FasterRcnnConfig, Tag("faster_rcnn")],
    _chosen_by("name", "fcos", "faster_rcnn"),
]


class FcnConfig(Section):
    """Pyramid levels summed at the finest stride, then torchvision's FCN head."""

    name: Literal["fcn"] = "fcn"


class UperNetConfig(Section):
    """UPerNet (Xiao 2018): pooled context at the coarsest level, a top-down path, all levels fused.

    Attributes:
        channels: Of every layer of the head (published: 512).
        dropout: Before the classifier (published: 0.1).
    """

    name: Literal["upernet"]
    channels: Width = 256
    dropout: float = Field(default=0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _grouped(self) -> UperNetConfig:
        if self.channels % 16:
            raise ValueError(f"channels: {self.channels} must be a multiple of 16, which are normalised together")
        return self


SegmentationHeadConfig = Annotated[
    Annotated[FcnConfig, Tag("fcn")] | Annotated[UperNetConfig, Tag("upernet")], _chosen_by("name", "fcn", "upernet")
]


class _VqaFields(Section):
    width: Width
    layers: int = Field(default=2, ge=1, le=12)
    heads: int = Field(default=4, ge=1)
    stride: int = Field(default=8, ge=1)
    question_only: bool = False
    dropout: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.width % self.heads or self.width % 4:
            raise ValueError(f"width: {self.width} must be a multiple of 4 and of heads ({self.heads})")
        return self


class LookConfig(_VqaFields):
    """The question, as one vector, looks at image positions, then an answer classifier.

    Attributes:
        width: Token width of the fusion.
        layers: How often it looks.
        heads: Attention heads.
        stride: Which pyramid level's positions are looked at.
        question_only: Do not look at the image: the baseline that shows what the questions alone give away.
        dropout: Before the answer layer.
    """

    name: Literal["look"] = "look"
    width: Width = 128


class CoAttentionConfig(_VqaFields):
    """Words and image positions attend to each other (Yu 2019, Tan 2019), then an answer classifier.

    Attributes:
        width: Token width of the fusion.
        layers: Co-attention layers.
        heads: Attention heads.
        stride: Which pyramid level's positions take part.
        question_only: Leave the image stream out.
        dropout: Before the answer layer.
    """

    name: Literal["co_attention"]
    width: Width = 256


VqaHeadConfig = Annotated[
    Annotated[LookConfig, Tag("look")] | Annotated[CoAttentionConfig, Tag("co_attention")],
    _chosen_by("name", "look", "co_attention"),
]


class HeadsConfig(Section):
    """One head per task."""

    classification: ClassificationHeadConfig = LinearConfig()
    detection: DetectionHeadConfig = FcosConfig()
    segmentation: SegmentationHeadConfig = FcnConfig()
    vqa: VqaHeadConfig = LookConfig()


class ModelConfig(Section):
    """The network."""

    backbone: BackboneConfig
    neck: NeckConfig = NeckConfig()
    text: TextConfig = OwnTextConfig()
    placeholders: PlaceholderConfig = PlaceholderConfig()
    sharing: SharingConfig = HardConfig()
    heads: HeadsConfig = HeadsConfig()

    @model_validator(mode="after")
    def _one_clip(self) -> ModelConfig:
        named = self.text.name if isinstance(self.text, OpenClipTextConfig) else None
        if self.backbone.library != "open_clip":
            if self.heads.classification.name == "zero_shot":
                raise ValueError(
                    f"heads.classification: zero_shot compares images with texts, which {self.backbone.library} models"
                    " cannot; take a backbone of library open_clip"
                )
            if isinstance(self.text, OpenClipTextConfig) and named is None:
                raise ValueError(
                    f"text.name: is needed, for a backbone of library {self.backbone.library} has no text tower"
                )
        elif named is not None and self.heads.classification.name == "zero_shot":
            raise ValueError(f"text.name: zero_shot needs the backbone's own text tower, not that of {named}; drop it")
        return self

    @model_validator(mode="after")
    def _vqa_level(self) -> ModelConfig:
        if self.heads.vqa.stride not in self.neck.strides:
            raise ValueError(
                f"heads.vqa.stride: {self.heads.vqa.stride} is not one of neck.strides {list(self.neck.strides)}"
            )
        return self
