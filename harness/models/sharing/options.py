"""Sections of the sharing architectures that mix, attend, route or have experts. Light: no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from harness.documents import Section

Count = Annotated[int, Field(ge=1, le=64)]
ExpertWidth = Annotated[int, Field(ge=4, le=4096)]
Levels = Annotated[int, Field(ge=1, le=8)]
Stages = Annotated[int, Field(ge=1, le=16)]
Coefficient = Annotated[float, Field(ge=0, le=1000)]


class MoeConfig(Section):
    """Experts behind the trunk, weighed by one gate for all tasks.

    Attributes:
        experts: E, experts of every map that heads read.
        width: Channels between an expert's two convolutions.
    """

    name: Literal["moe"]
    experts: Count = 4
    width: ExpertWidth = 64


class MmoeConfig(Section):
    """Experts behind the trunk, weighed by a gate per task.

    Attributes:
        experts: E, experts of every map that heads read.
        width: Channels between an expert's two convolutions.
    """

    name: Literal["mmoe"]
    experts: Count = 4
    width: ExpertWidth = 64


class MlMmoeConfig(Section):
    """Several levels of MMoE.

    Attributes:
        experts: E, experts of every map that heads read, on each level.
        width: Channels between an expert's two convolutions.
        levels: How many.
    """

    name: Literal["ml_mmoe"]
    experts: Count = 4
    width: ExpertWidth = 64
    levels: Levels = 2


class CgcConfig(Section):
    """Experts of each task's own and shared ones.

    Attributes:
        own: Experts of each task, for every map that its head reads.
        shared: Shared experts of every map.
        width: Channels between an expert's two convolutions.
    """

    name: Literal["cgc"]
    own: Count = 2
    shared: Count = 2
    width: ExpertWidth = 64


class PleConfig(Section):
    """Several levels of own and shared experts, with a shared gate between them.

    Attributes:
        own: Experts of each task, for every map that its head reads, on each level.
        shared: Shared experts of every map, on each level.
        width: Channels between an expert's two convolutions.
        levels: How many.
    """

    name: Literal["ple"]
    own: Count = 2
    shared: Count = 2
    width: ExpertWidth = 64
    levels: Levels = 2


class MtanConfig(Section):
    """A soft attention mask per task at each of the trunk's maps.

    Attributes:
        reduction: How many times fewer channels a mask's first convolution has than the map (1 as published for
            SegNet, whose maps have 512 channels at most).
    """

    name: Literal["mtan"]
    reduction: Annotated[int, Field(ge=1, le=64)] = 4


class CrossStitchConfig(Section):
    """A trunk per task; after chosen stages their features are mixed, channel by channel.

    Attributes:
        stages: After how many of the last stages; of a plain transformer's blocks so many, evenly spaced.
    """

    name: Literal["cross_stitch"]
    stages: Stages = 4


class SluiceConfig(Section):
    """Cross-stitch over two halves of the channels, heads that read a mix of levels, and halves kept different.

    Attributes:
        stages: After how many of the last stages; of a plain transformer's blocks so many, evenly spaced.
        orthogonality: Coefficient of the penalty on what two halves have in common.
    """

    name: Literal["sluice"]
    stages: Stages = 4
    orthogonality: Coefficient = 1e-4


class DynamicRoutingConfig(Section):
    """Each task keeps or skips each block of the trunk.

    Attributes:
        temperature: Of the Gumbel-softmax: lower ones are nearer to yes or no, with noisier gradients.
        sparsity: Coefficient of the penalty on blocks that are kept.
        sharing: Coefficient of the penalty on tasks that choose differently.
        curriculum: Over which share of the training decisions are opened, one block after another from the last to the
            first; until then every task keeps a block. 0: all are open from the start.
    """

    name: Literal["dynamic_routing"]
    temperature: Annotated[float, Field(gt=0, le=100)] = 5.0
    sparsity: Coefficient = 0.05
    sharing: Coefficient = 0.05
    curriculum: Annotated[float, Field(ge=0, le=1)] = 0.0
