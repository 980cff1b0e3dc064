from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.board.page import write_board
from harness.board.records import (
    Cost,
    Record,
    find_entry,
    hash_arrays,
    read_record,
    read_records,
    read_statistics,
    write_record,
)
from harness.errors import HarnessError


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def folder_of(builder: Any, record: Record) -> Path:
    return Path(builder.board / "records" / record.id)


def rewrite(path: Path, change: Any) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_the_hash_of_arrays_names_content_and_not_layout() -> None:
    array = np.arange(6, dtype="<i4").reshape(2, 3)
    same = hash_arrays({"a": array, "b": np.zeros(2)})
    assert hash_arrays({"b": np.zeros(2), "a": np.asfortranarray(array)}) == same
    assert hash_arrays({"a": array.astype(">i4"), "b": np.zeros(2)}) == same
    for other in (array.reshape(3, 2), array.astype("<i8"), array + 1):
        assert hash_arrays({"a": other, "b": np.zeros(2)}) != same
    assert hash_arrays({"c": array, "b": np.zeros(2)}) != same


def test_arrays_of_objects_are_refused() -> None:
    with pytest.raises(HarnessError, match="Python objects"):
        hash_arrays({"a": np.array([object()])})


def test_a_record_reads_back_as_it_was_written(builder: Any, right: Any) -> None:
    first = builder.add("a", {"one": right(2, 5), "two": right(1, 4)}, curves={"loss": [(0, 1.5)]})
    second = builder.add("b", {"one": right(3, 5)}, seed=7)
    assert read_records(builder.board) == [first, second]
    results = read_statistics(builder.board, first)
    assert {card: result.reduce()["top1"] for card, result in results.items()} == {"one": 0.4, "two": 0.25}


def test_one_record_is_read_without_a_look_at_the_others(builder: Any, right: Any) -> None:
    record = builder.add("a", {"one": right(2, 5)})
    other = builder.add("b", {"one": right(2, 5)})
    (folder_of(builder, other) / "record.json").write_text("not JSON")
    assert read_record(builder.board, record.id) == record
    assert read_record(builder.board, "a/0123456789ab-seed9") is None
    with pytest.raises(HarnessError, match="not valid JSON"):
        read_record(builder.board, other.id)


def test_a_record_from_before_costs_were_told_by_phase_is_still_valid(builder: Any, right: Any) -> None:
    record = builder.add("a", {"one": right(2, 5)}, cost=Cost(train_seconds=1.0, steps=3))

    def older(document: dict[str, Any]) -> None:
        for key in ("train_seconds_by_phase", "peak_gpu_memory_bytes", "energy_joules"):
            del document["cost"][key]
        del document["selected_step"]

    rewrite(folder_of(builder, record) / "record.json", older)
    assert read_record(builder.board, record.id) == record


def test_a_board_without_records_is_empty(tmp_path: Path) -> None:
    assert read_records(tmp_path / "nowhere") == []


def test_the_same_record_gives_the_same_bytes(builder: Any, right: Any, tmp_path: Path) -> None:
    record, statistics = builder.record("a", {"one": right(2, 5)})
    reordered = {"one": dict(reversed(statistics["one"].items()))}
    write_record(tmp_path / "x", record, statistics)
    write_record(tmp_path / "y", record, reordered)
    assert tree(tmp_path / "x") == tree(tmp_path / "y")


def test_statistics_that_the_record_does_not_name_are_refused(builder: Any, right: Any) -> None:
    record, _ = builder.record("a", {"one": right(2, 5)})
    _, other = builder.record("a", {"one": right(3, 5)})
    for statistics in (other, {}, {**other, "two": other["one"]}):
        with pytest.raises(HarnessError, match="statistics"):
            write_record(builder.board, record, statistics)
    assert read_records(builder.board) == []


def test_a_rerun_replaces_cost_and_other_numbers_need_an_explicit_word(builder: Any, right: Any) -> None:
    builder.add("a", {"one": right(2, 5)}, cost=Cost(train_seconds=1.0))
    builder.add("a", {"one": right(2, 5)}, cost=Cost(train_seconds=2.0))
    assert read_records(builder.board)[0].cost.train_seconds == 2.0
    with pytest.raises(HarnessError, match="another result of one"):
        builder.add("a", {"one": right(3, 5)})
    assert read_records(builder.board)[0].tasks["one"].value == 0.4
    builder.add("a", {"one": right(3, 5)}, replace=True)
    assert read_records(builder.board)[0].tasks["one"].value == 0.6


DAMAGE = {
    "not valid JSON": lambda path: path.write_text("{"),
    "expected a JSON object": lambda path: path.write_text("[]"),
    "no such file": lambda path: path.unlink(),
    "unknown key 'sede'; did you mean 'seed'": lambda path: rewrite(path, lambda d: d.update(sede=1)),
    "is newer than this harness reads": lambda path: rewrite(path, lambda d: d.update(schema_version=99)),
    "tasks.one.metrics.top1: input should be a valid number": lambda path: rewrite(
        path, lambda d: d["tasks"]["one"]["metrics"].update(top1="0.9")
    ),
    "main: 'best' is not among the metrics": lambda path: rewrite(
        path, lambda d: d["tasks"]["one"].update(main="best")
    ),
    "but it lies in": lambda path: rewrite(path, lambda d: d.update(seed=5)),
    "seed: input should be less than": lambda path: rewrite(path, lambda d: d.update(seed=2**63)),
    "is nested too deeply": lambda path: path.write_text('{"schema_version": 1, "x": ' + "[" * 300 + "]" * 300 + "}"),
    "is a link": lambda path: (path.rename(path.parent / "elsewhere.json"), path.symlink_to("/etc/hostname")),
    "a record's folder is called": lambda path: path.parent.rename(path.parent.with_name("wrong")),
    "only folders belong here": lambda path: (path.parent.parent / "stray.txt").write_text("x"),
}


@pytest.mark.parametrize("says", DAMAGE)
def test_a_damaged_record_is_refused_by_name_and_nothing_is_touched(builder: Any, right: Any, says: str) -> None:
    record = builder.add("a", {"one": right(2, 5)})
    DAMAGE[says](folder_of(builder, record) / "record.json")
    before = tree(builder.board)
    with pytest.raises(HarnessError) as caught:
        read_records(builder.board)
    assert says in str(caught.value)
    assert str(builder.board / "records" / "a") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert tree(builder.board) == before


def test_unfinished_writes_of_a_killed_process_are_not_read(builder: Any, right: Any) -> None:
    record = builder.add("a", {"one": right(2, 5)})
    (folder_of(builder, record).parent / ".tmp-0123").mkdir()
    assert read_records(builder.board) == [record]


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def npy(array: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asanyarray(array), **options)
    return buffer.getvalue()


def huge_header() -> bytes:
    """A header that claims 8 TB in front of eight bytes."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
    return buffer.getvalue() + bytes(8)


def with_header(text: str) -> bytes:
    """An .npz of one array whose header says this."""
    return archive(
        {"one/ids.npy": b"\x93NUMPY\x01\x00" + (len(text) + 1).to_bytes(2, "little") + text.encode() + b"\n"}
    )


def flipped(method: int) -> bytes:
    """An .npz packed by another method, with a damaged byte."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        file.writestr("one/ids.npy", npy(np.arange(9)))
    raw = bytearray(buffer.getvalue())
    raw[60] ^= 0xFF
    return bytes(raw)


STATISTICS = {
    "cannot be read|no such file": None,
    "damaged": b"not a zip file",
    "holds objects": archive({"one/ids.npy": npy(np.array([{}], dtype=object), allow_pickle=True)}),
    "cannot have 8 bytes": archive({"one/ids.npy": huge_header()}),
    "belongs to no task": archive({"../../evil.npy": npy([1])}),
    "are not those that the record names": archive({"one/ids.npy": npy([1])}),
    r"damaged \(\('EOF": with_header("{'descr': ("),
    r"damaged \(unhashable": with_header("{[]: 1}"),
    r"damaged \(tuple index": with_header("{'descr': (), 'fortran_order': False, 'shape': (0,)}"),
    r"damaged \(Corrupt input": flipped(zipfile.ZIP_LZMA),
    "are too many": archive({f"one/{n}.npy": b"" for n in range(1001)}),
}


@pytest.mark.parametrize("says", STATISTICS)
def test_statistics_by_a_stranger_are_refused_by_name_without_running_or_believing_them(
    builder: Any, right: Any, says: str
) -> None:
    record = builder.add("a", {"one": right(2, 5)})
    path = folder_of(builder, record) / "statistics.npz"
    content = STATISTICS[says]
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(HarnessError, match=says) as caught:
        read_statistics(builder.board, record)
    assert str(path) in str(caught.value)


def test_statistics_of_another_metric_version_are_refused(builder: Any, right: Any) -> None:
    record = builder.add("a", {"one": right(2, 5)}, protocol={"metric_version": 99})
    with pytest.raises(HarnessError, match="version 99, this harness has version 1"):
        read_statistics(builder.board, record)


def test_a_metric_that_is_not_the_tasks_is_not_believed(builder: Any, right: Any) -> None:
    record, statistics = builder.record("a", {"one": right(2, 5)})
    task = record.tasks["one"].model_copy(update={"task": "vqa"})
    write_record(builder.board, record.model_copy(update={"tasks": {"one": task}}), statistics)
    (read,) = read_records(builder.board)
    with pytest.raises(HarnessError, match="one: vqa is scored by vqa_v2, not by top1; submit the entry again"):
        read_statistics(builder.board, read)


def test_an_entry_is_found_with_all_its_seeds_by_name_or_by_name_and_fingerprint(builder: Any, right: Any) -> None:
    seeds = [builder.add("alpha", {"one": right(2, 5)}, seed=seed) for seed in (2, 0)]
    builder.add("beta", {"one": right(2, 5)}, fingerprint="0" * 12)
    builder.add("beta", {"one": right(2, 5)}, fingerprint="1" * 12)
    records = read_records(builder.board)
    assert find_entry(records, "alpha") == seeds[::-1]
    assert [record.fingerprint for record in find_entry(records, f"beta@{'1' * 12}")] == ["1" * 12]
    with pytest.raises(HarnessError, match="names 2 entries; write one of beta@000000000000, beta@111111111111"):
        find_entry(records, "beta")
    with pytest.raises(HarnessError, match="did you mean 'alpha'"):
        find_entry(records, "alpa")


WRITER = """
import sys, itertools
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import Builder, marks
builder = Builder(Path(sys.argv[2]))
mode, number = sys.argv[3], int(sys.argv[4])
if mode == "many":
    for seed in range(8):
        builder.add("shared", {"one": marks(2, 5)}, seed=seed)
        builder.add(f"own-{number}", {"one": marks(2, 5)}, seed=seed)
else:
    for n in itertools.count():
        builder.add("a", {"one": marks(n % 2, 500)}, replace=True)
"""


def writer(builder: Any, mode: str, number: int = 0) -> subprocess.Popen[bytes]:
    here = str(Path(__file__).parent)
    return subprocess.Popen([sys.executable, "-c", WRITER, here, str(builder.board), mode, str(number)])


def test_a_place_that_holds_no_board_is_told_in_one_sentence(builder: Any, right: Any) -> None:
    record, statistics = builder.record("a", {"one": right(2, 5)})
    builder.board.write_text("a file")
    with pytest.raises(HarnessError, match="cannot be written"):
        write_record(builder.board, record, statistics)
    with pytest.raises(HarnessError, match="records: cannot be read"):
        read_records(builder.board)
    builder.board.unlink()
    (builder.board / "README.md").mkdir(parents=True)
    with pytest.raises(HarnessError, match=r"README\.md: cannot be read"):
        write_board(builder.board)


def test_two_submitters_at_once_lose_nothing(builder: Any) -> None:
    writers = [writer(builder, "many", number) for number in range(2)]
    assert [process.wait(120) for process in writers] == [0, 0]
    records = read_records(builder.board)
    assert len(records) == 24
    for record in records:
        assert read_statistics(builder.board, record)["one"].reduce()["top1"] == 0.4
    assert not list(builder.board.rglob(".tmp-*"))


def test_a_submitter_killed_in_the_middle_leaves_the_old_record_or_the_new_never_half(builder: Any) -> None:
    for wait in (0.0, 0.011, 0.023):
        process = writer(builder, "replace")
        try:
            deadline = time.monotonic() + 200
            while not read_records(builder.board) and time.monotonic() < deadline:
                time.sleep(0.002)
            time.sleep(wait)
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        (record,) = read_records(builder.board)
        value = read_statistics(builder.board, record)["one"].reduce()["top1"]
        assert value == record.tasks["one"].value
        assert value in (0.0, 0.002)


def test_a_name_that_differs_from_another_in_case_only_is_not_stored(builder: Any, right: Any) -> None:
    builder.add("ok1", {"one": right(2, 5)})
    with pytest.raises(HarnessError, match="records: name: 'OK1' differs from 'ok1', which is there"):
        builder.add("OK1", {"one": right(2, 5)})
    assert [record.name for record in read_records(builder.board)] == ["ok1"]
    (builder.board / "records" / "OK1").mkdir()  # both are there, from a time when that was not looked at
    builder.add("OK1", {"one": right(2, 5)})
    assert [record.name for record in read_records(builder.board)] == ["OK1", "ok1"]
