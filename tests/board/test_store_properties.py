"""Whatever is stored and handed over in whatever order, the store keeps its promises."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from conftest import Builder, marks
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from harness.board.bundle import open_bundle, write_bundle
from harness.board.page import wrong_numbers
from harness.board.records import (
    TRUST,
    Record,
    Rerun,
    parse_record,
    parse_statistics,
    read_records,
    read_statistics,
    write_record,
    write_records,
)
from harness.errors import HarnessError

NAMES, SEEDS, CORRECT = st.sampled_from(["a", "b"]), st.integers(0, 1), st.integers(0, 4)


class Store(RuleBasedStateMachine):
    """A board beside a dictionary that says what it must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.builder = Builder(Path(self.folder.name) / "board")
        self.numbers: dict[str, float] = {}
        self.trust: dict[str, str] = {}

    def teardown(self) -> None:
        self.folder.cleanup()

    def made(self, name: str, seed: int, correct: int, trust: str) -> tuple[Record, dict[str, Any]]:
        record, statistics = self.builder.record(name, {"one": marks(correct, 4)}, seed)
        evidence = Rerun(identical=True, values={}, rule="", provenance=record.provenance) if trust == "rerun" else None
        return record.model_copy(update={"trust": trust, "rerun": evidence}), statistics

    @rule(name=NAMES, seed=SEEDS, correct=CORRECT, trust=st.sampled_from(TRUST), replace=st.booleans())
    def store(self, name: str, seed: int, correct: int, trust: str, replace: bool) -> None:
        record, statistics = self.made(name, seed, correct, trust)
        known = self.numbers.get(record.id)
        other = known is not None and known != correct / 4
        if other and not replace:
            with pytest.raises(HarnessError, match="exists with another result"):
                write_record(self.builder.board, record, statistics)
            return
        write_record(self.builder.board, record, statistics, replace)
        before = "reported" if known is None or other else self.trust[record.id]
        self.numbers[record.id] = correct / 4
        self.trust[record.id] = max(before, trust, key=TRUST.index)  # type: ignore[arg-type]

    @rule(correct=CORRECT)
    def store_two_of_which_one_may_be_refused(self, correct: int) -> None:
        items = [self.made(name, 0, correct, "reported") for name in ("a", "b")]
        conflict = any(self.numbers.get(record.id, correct / 4) != correct / 4 for record, _ in items)
        if conflict:
            with pytest.raises(HarnessError):
                write_records(self.builder.board, items)
            return
        write_records(self.builder.board, items)
        for record, _ in items:
            self.numbers[record.id] = correct / 4
            self.trust.setdefault(record.id, "reported")

    @rule()
    def hand_over(self) -> None:
        records = read_records(self.builder.board)
        if not records:
            return
        path = write_bundle(Path(self.folder.name) / "a.zip", self.builder.board, records)
        with open_bundle(path) as bundle:
            arrived = [parse_record(bundle.read(packed, "record.json") or b"", "") for packed in bundle.records]
            assert sorted(arrived, key=lambda record: record.id) == records
            for packed, record in zip(bundle.records, arrived, strict=True):
                results = parse_statistics(bundle.read(packed, "statistics.npz") or b"", record, "")
                assert results["one"].reduce()["top1"] == self.numbers[record.id]

    @invariant()
    def the_store_holds_what_was_stored_last_and_its_numbers_follow_from_its_statistics(self) -> None:
        records = read_records(self.builder.board)
        assert {record.id: record.tasks["one"].value for record in records} == self.numbers
        assert {record.id: record.trust for record in records} == self.trust
        for record in records:
            assert wrong_numbers(record.tasks["one"], read_statistics(self.builder.board, record)["one"]) == []
        assert not list(self.builder.board.rglob(".tmp-*"))


TestStore = Store.TestCase
TestStore.settings = settings(max_examples=12, stateful_step_count=8, deadline=None)
