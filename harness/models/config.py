"""The ``model`` section of a submission. Light: no torch, so that a misspelt key is told at once."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.documents import Section

Width = Annotated[int, Field(gt=0, le=8192)]


class BackboneConfig(Section):
    """The image network, without its classifier.

    Attributes:
        library: Where the name is looked up.
        name: The library's own name, e.g. ``resnet50`` (``harness ls backbones`` lists them).
        pretrained: Load the library's own pretrained weights (needs network or the library's cache).
        batch_norm: ``shared``: batches of tasks with equal image sizes go through the network together, so tasks
            share batch-norm statistics. ``per_task``: each task is normalised by statistics of its own (same affine
            weights), which is needed where the tasks' images look different.
    """

    library: Literal["timm"] = "timm"
    name: str
    pretrained: bool = False
    batch_norm: Literal["shared", "per_task"] = "shared"


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


class TextConfig(Section):
    """Question encoder: a small transformer over words.

    Attributes:
        width: Token width.
        layers: Transformer layers.
        heads: Attention heads.
        max_words: Longer questions are cut.
    """

    width: Width = 128
    layers: int = Field(default=1, ge=1, le=24)
    heads: int = Field(default=4, ge=1)
    max_words: int = Field(default=24, ge=1, le=512)

    @model_validator(mode="after")
    def _divisible(self) -> TextConfig:
        if self.width % self.heads:
            raise ValueError(f"heads: {self.heads} does not divide width {self.width}")
        return self


class PlaceholderConfig(Section):
    """Placeholder tokens: one learned parameter that all tasks and modalities read and write.

    Attributes:
        count: K, the number of tokens; 0 gives exactly the plain network.
        width: d, the width of a token.
        attention_width: a, the width in which tokens and features attend to each other.
        heads: Attention heads of an exchange.
        stages: At how many of the backbone's last stages tokens and features are exchanged.
    """

    count: int = Field(default=16, ge=0, le=4096)
    width: Width = 256
    attention_width: Width = 64
    heads: int = Field(default=4, ge=1)
    stages: int = Field(default=2, ge=0, le=8)

    @model_validator(mode="after")
    def _divisible(self) -> PlaceholderConfig:
        if self.attention_width % self.heads:
            raise ValueError(f"heads: {self.heads} does not divide attention_width {self.attention_width}")
        return self


class SharingConfig(Section):
    """How tasks share parameters. ``hard``: one backbone, neck and question encoder, a head per task."""

    name: str = "hard"


class ClassificationHeadConfig(Section):
    """Global pooling and a linear layer.

    Attributes:
        label_smoothing: Of the cross-entropy.
        dropout: Before the linear layer.
    """

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)


class DetectionHeadConfig(Section):
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


class SegmentationHeadConfig(Section):
    """Pyramid levels summed at the finest stride, then torchvision's FCN head."""

    name: Literal["fcn"] = "fcn"


class VqaHeadConfig(Section):
    """The question looks at image positions, then an answer classifier.

    Attributes:
        width: Token width of the fusion.
        layers: How often it looks.
        heads: Attention heads.
        stride: Which pyramid level's positions are looked at.
        question_only: Do not look at the image: the baseline that shows what the questions alone give away.
        dropout: Before the answer layer.
    """

    width: Width = 128
    layers: int = Field(default=2, ge=1, le=12)
    heads: int = Field(default=4, ge=1)
    stride: int = Field(default=8, ge=1)
    question_only: bool = False
    dropout: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _divisible(self) -> VqaHeadConfig:
        if self.width % self.heads or self.width % 4:
            raise ValueError(f"width: {self.width} must be a multiple of 4 and of heads ({self.heads})")
        return self


class HeadsConfig(Section):
    """One head per task."""

    classification: ClassificationHeadConfig = ClassificationHeadConfig()
    detection: DetectionHeadConfig = DetectionHeadConfig()
    segmentation: SegmentationHeadConfig = SegmentationHeadConfig()
    vqa: VqaHeadConfig = VqaHeadConfig()


class ModelConfig(Section):
    """The network."""

    backbone: BackboneConfig
    neck: NeckConfig = NeckConfig()
    text: TextConfig = TextConfig()
    placeholders: PlaceholderConfig = PlaceholderConfig()
    sharing: SharingConfig = SharingConfig()
    heads: HeadsConfig = HeadsConfig()

    @model_validator(mode="after")
    def _vqa_level(self) -> ModelConfig:
        if self.heads.vqa.stride not in self.neck.strides:
            raise ValueError(
                f"heads.vqa.stride: {self.heads.vqa.stride} is not one of neck.strides {list(self.neck.strides)}"
            )
        return self
