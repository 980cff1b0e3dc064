"""Records of older schemas, brought to the current one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from harness.errors import HarnessError

SCHEMA_VERSION = 1
Migration = Callable[[dict[str, Any]], dict[str, Any]]
MIGRATIONS: dict[int, Migration] = {}  # version → the step that brings a document of it to the next version


def migrate(
    document: Mapping[str, Any],
    source: str = "record",
    steps: Mapping[int, Migration] = MIGRATIONS,
    target: int = SCHEMA_VERSION,
) -> dict[str, Any]:
    """Bring a record of an older schema to the current one, step by step.

    Args:
        document: The parsed ``record.json``.
        source: The file's name, for errors.
        steps: For each older version the step to the next.
        target: The version to reach.

    Returns:
        A document of version `target`.

    Raises:
        HarnessError: The version is missing, unknown or newer than this harness.
    """
    version = document.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool):
        raise HarnessError(f"{source}: schema_version: must be a whole number, got {version!r}")
    if version > target:
        raise HarnessError(
            f"{source}: schema_version: {version} is newer than this harness reads ({target}); "
            "upgrade with pip install --upgrade placeholder-harness"
        )
    migrated = dict(document)
    for step in range(version, target):
        if step not in steps:
            raise HarnessError(f"{source}: schema_version: {version} is not a version that was ever written")
        migrated = {**steps[step](migrated), "schema_version": step + 1}
    return migrated
