"""The part of a record's schema that says how alike the tasks of one run are, on the same images."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import combinations
from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.board.fields import Document, Undefined

SLACK = 1e-6  # rounding of a measure that has an exact bound


Share = Annotated[float, Field(ge=-SLACK, le=1 + SLACK)]
Cosine = Annotated[float, Field(ge=-1 - SLACK, le=1 + SLACK)]
Alignment = Annotated[Share | None, Undefined]
Correlation = Annotated[Cosine | None, Undefined]


class Likeness(Document):
    """What two tasks make of the same images; see `harness.analysis.similarity`.

    Attributes:
        a: A data set.
        b: Another one.
        cka: Linear centred kernel alignment, in [0, 1] (Kornblith et al. 2019).
        cka_debiased: The same without its bias, 0 on average for what is unrelated, and so below 0 at times.
        pearson: Mean correlation of equal dimensions, in [-1, 1]; None between spaces of different widths.
        identical: Both are the very same numbers, as where tasks share all of their path.
    """

    a: str
    b: str
    cka: Alignment
    cka_debiased: Annotated[float | None, Undefined]
    pearson: Correlation
    identical: bool

    @model_validator(mode="after")
    def _identical_is_alike(self) -> Likeness:
        for field in ("cka", "pearson") if self.identical else ():
            value = getattr(self, field)
            if value is not None and abs(value - 1) > SLACK:
                raise ValueError(f"{field}: is {value}, but what is identical has 1")
        return self


class Information(Document):
    """Mutual information of two tasks' outputs; see `harness.analysis.information`.

    Attributes:
        nats: The estimate; of independent outputs it is about 0, and may be below.
        null_mean: Its mean where images are shuffled.
        null_high: 97.5% of the shuffles are below.
        p_value: Share of shuffles that come up to it, one-sided.
    """

    nats: float
    null_mean: float
    null_high: float
    p_value: float = Field(gt=0, le=1)


class OutputLikeness(Document):
    """What the heads of two tasks say of the same images.

    Attributes:
        a: A data set.
        b: Another one.
        cka: As of `Likeness`.
        cka_debiased: As of `Likeness`.
        information: Of the outputs; None where they are the same for all images, or there are fewer than ten.
    """

    a: str
    b: str
    cka: Alignment
    cka_debiased: Annotated[float | None, Undefined]
    information: Information | None


class Relatedness(Document):
    """How alike the tasks of a run are: the same evaluation images through every task's path.

    Reported by the run: the features are not stored, so nobody can compute these numbers from the record again.

    Attributes:
        version: Of the measures.
        images: How many images went through all paths.
        features: What the heads get, for every pair of tasks.
        tokens: Mean placeholder tokens, for every pair; empty without tokens.
        outputs: What the heads say, for every pair.
    """

    version: Literal[1] = 1
    images: int = Field(ge=2, lt=2**31)
    features: list[Likeness]
    tokens: list[Likeness] = []
    outputs: list[OutputLikeness]

    def require_tasks(self, tasks: Collection[str]) -> None:
        """See to it that every list holds each pair of these tasks once. Raises ValueError if not."""
        wanted = sorted(tuple(sorted(pair)) for pair in combinations(tasks, 2))
        lists: dict[str, Sequence[Likeness | OutputLikeness]] = {"features": self.features, "outputs": self.outputs}
        if self.tokens:
            lists["tokens"] = self.tokens
        for field, pairs in lists.items():
            if sorted(tuple(sorted((one.a, one.b))) for one in pairs) != wanted:
                raise ValueError(f"relatedness.{field}: must hold each pair of {', '.join(sorted(tasks))} once")
