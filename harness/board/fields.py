"""What the fields of a record can hold: names, hashes, counts, numbers, and what a submission says."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Fingerprint = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
EntryName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
CardName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")]
KindName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
Count = Annotated[int, Field(ge=0, le=2**63 - 1)]  # JSON writers and readers agree on 64 bits only


class Document(BaseModel):
    """Base of a record's parts: unknown keys are errors, instances do not change, numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Undefined:
    """JSON has no NaN or infinity: an undefined number is None.

    Only numbers that come from Python need a look. Those of a file, hundreds in a record, are left to the reader of
    JSON, which refuses what is not finite.
    """

    @staticmethod
    def __get_pydantic_core_schema__(source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        plain = handler(source)
        return core_schema.json_or_python_schema(
            plain, core_schema.no_info_before_validator_function(_finite_or_none, plain)
        )


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _shallow(value: Any) -> Any:
    level: list[Any] = [value]
    for _ in range(30):
        level = [
            child for v in level if isinstance(v, (dict, list)) for child in (v.values() if isinstance(v, dict) else v)
        ]
        if not level:
            return value
    raise ValueError("is nested more than 30 levels deep")


Number = Annotated[float | None, Undefined]
Free = Annotated[dict[str, Any], BeforeValidator(_shallow)]
