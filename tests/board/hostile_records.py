"""Texts that would take a page over if it were careless, and records that say them wherever they can."""

from __future__ import annotations

from typing import Any

from harness.board.records import Cost, Provenance, write_record

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "</pre></details><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "' autofocus onfocus='alert(1)",
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "]]><svg/onload=alert(1)>",
    "\u202e\x1b[31mreversed\x00",
    "\u2028alert(1)",
]


def add_hostile(builder: Any, right: Any, name: str, text: str, right_ones: int) -> None:
    record, statistics = builder.record(
        name,
        {"one": right(right_ones, 30)},
        submission={"model": {"backbone": {"name": text}}, text: text, "list": [text]},
        curves={text: [(0, 1.0), (5, 0.5)], f"affinity/{text}|one": [(0, 1.0)], f"cosine/one|{text}": [(0, 1.0)]},
        warnings=[text],
        cost=Cost(train_seconds=float(right_ones), parameters_by_part={text: 1}, macs={text: 1}, parameters=right_ones),
        provenance=Provenance(
            version=text, commit=text, platform=text, hardware=text, command=text, packages={text: text}
        ),
        protocol={"card_version": text, "split": text},
    )
    task = record.tasks["one"]
    changed = task.model_copy(
        update={
            "metrics": {**task.metrics, text: 0.5},
            "per_class": {**task.per_class, text: 0.5},
            "preprocessing": {text: [{text: text}]},
        }
    )
    write_record(builder.board, record.model_copy(update={"tasks": {"one": changed}}), statistics)
