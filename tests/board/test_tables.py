from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from harness.board import tables
from harness.board.compare import compare
from harness.board.evidence import Evidence
from harness.board.page import write_board
from harness.board.records import Protocol, Provenance, Record, TaskResult, hash_arrays, read_records, write_record
from harness.board.tables import board_document, entries_of, markdown, rank, rows
from harness.errors import HarnessError
from harness.evaluation import detection, segmentation
from harness.evaluation.metric import Result
from harness.terminal import print_board, print_comparison


def p_values(table: dict[tuple[int, int], float], asked: list[tuple[int, int]] | None = None) -> Callable[..., float]:
    def p_value(a: int, b: int) -> float:
        if asked is not None:
            asked.append((a, b))
        return table[a, b]

    return p_value


def test_entries_that_all_differ_are_ranked_by_value() -> None:
    p = p_values({(1, 2): 0.001, (1, 0): 0.001, (2, 0): 0.001})
    assert rank([0.1, 0.3, 0.2], p) == [(3, 0), (1, 1), (2, 2)]


def test_an_entry_that_cannot_be_told_from_its_groups_leader_shares_the_rank_and_ranks_count_entries() -> None:
    p = p_values({(0, 1): 0.4, (0, 2): 0.001, (2, 3): 0.9})
    assert rank([0.9, 0.8, 0.5, 0.4], p) == [(1, 0), (1, 0), (3, 2), (3, 2)]


def test_a_group_is_tied_to_its_leader_and_not_to_its_neighbour() -> None:
    p = p_values({(0, 1): 0.2, (0, 2): 0.001, (2, 3): 0.001})
    assert [place for place, _ in rank([0.9, 0.85, 0.8, 0.1], p)] == [1, 1, 3, 4]


def test_p_values_are_corrected_for_the_number_of_entries_tested_against_a_leader() -> None:
    # 0.03 alone would separate; Holm over three: 3 * 0.03 = 0.09 does not, and 3 * 0.01 = 0.03 does.
    p = p_values({(0, 1): 0.03, (0, 2): 0.01, (0, 3): 0.9, (2, 3): 0.9})
    assert [place for place, _ in rank([0.9, 0.8, 0.7, 0.6], p)] == [1, 1, 3, 3]


def test_holm_steps_down_where_bonferroni_would_not() -> None:
    # 0.02 times three is not below 0.05; stepped down behind two smaller ones it stays 0.02.
    p = p_values({(0, 1): 0.02, (0, 2): 0.001, (0, 3): 0.001, (1, 2): 0.001, (1, 3): 0.001, (2, 3): 0.001})
    assert [place for place, _ in rank([0.9, 0.8, 0.7, 0.6], p)] == [1, 2, 3, 4]


def test_clear_cases_need_one_test_each() -> None:
    asked: list[tuple[int, int]] = []
    table = {(a, b): 0.001 for a in range(9) for b in range(9)}
    rank([1 - n / 10 for n in range(9)], p_values(table, asked))
    assert len(asked) == 8


def test_no_entries_and_one_entry_are_ranked() -> None:
    assert rank([], p_values({})) == []
    assert rank([0.5], p_values({})) == [(1, 0)]


def test_seeds_of_an_entry_become_one_row_with_their_mean(builder: Any, right: Any) -> None:
    for seed, correct in enumerate((40, 44, 48)):
        builder.add("many", {"one": right(correct, 100)}, seed=seed)
    builder.add("single", {"one": right(90, 100)})
    document = board_document(builder.board)
    (table,) = document["tables"]
    assert [(row["entry"].split("@")[0], row["rank"]) for row in table["rows"]] == [("single", 1), ("many", 2)]
    entry = document["entries"][0]
    assert entry["seeds"] == [0, 1, 2]
    task = entry["tasks"]["one"]
    assert (task["value"], task["seeds"]) == (0.44, [0.40, 0.44, 0.48])
    assert task["spread"] == pytest.approx(0.04)
    assert task["low"] < 0.44 < task["high"]


def test_entries_that_the_images_cannot_tell_apart_share_a_rank(builder: Any) -> None:
    generator = np.random.default_rng(0)
    marks = generator.random(400) < 0.6
    builder.add("a", {"one": marks})
    builder.add("b", {"one": np.where(np.arange(400) < 3, ~marks, marks)})
    builder.add("c", {"one": marks & (generator.random(400) < 0.5)})
    (table,) = board_document(builder.board)["tables"]
    places = {row["entry"][0]: row["tasks"]["one"]["rank"] for row in table["rows"]}
    assert places == {"a": 1, "b": 1, "c": 3}


def test_the_overall_order_is_by_mean_rank(builder: Any, right: Any) -> None:
    builder.add("a", {"one": right(90, 100), "two": right(10, 100)})
    builder.add("b", {"one": right(50, 100), "two": right(50, 100)})
    builder.add("c", {"one": right(10, 100), "two": right(90, 100)})
    builder.add("d", {"one": right(100, 100), "two": right(0, 100)})
    (table,) = board_document(builder.board)["tables"]
    found = {row["entry"][0]: (row["rank"], row["mean_rank"]) for row in table["rows"]}
    assert found["c"] == (1, 2.5)
    assert [row["mean_rank"] for row in table["rows"]] == sorted(row["mean_rank"] for row in table["rows"])


def test_an_entry_stands_in_every_table_whose_tasks_it_has(builder: Any, right: Any) -> None:
    builder.add("both", {"one": right(50, 100), "two": right(50, 100)})
    builder.add("single", {"one": right(90, 100)})
    found = [
        ([task["card"] for task in table["tasks"]], [row["entry"].split("@")[0] for row in table["rows"]])
        for table in board_document(builder.board)["tables"]
    ]
    assert found == [(["one", "two"], ["both"]), (["one"], ["single", "both"])]


@pytest.mark.parametrize("field", ["card_version", "split", "annotations"])
def test_entries_under_different_protocols_never_share_a_table(builder: Any, right: Any, field: str) -> None:
    builder.add("old", {"one": right(50, 100)})
    builder.add("new", {"one": right(90, 100)}, protocol={field: "f" * 64})
    listed = [[row["entry"].split("@")[0] for row in t["rows"]] for t in board_document(builder.board)["tables"]]
    assert sorted(listed) == [["new"], ["old"]]


def test_an_unrankable_entry_is_kept_apart_with_its_reason(builder: Any, right: Any) -> None:
    builder.add("quick", {"one": right(99, 100)}, rankable=False, unrankable_because=["limited to 100 images"])
    builder.add("whole", {"one": right(50, 100)})
    document = board_document(builder.board)
    assert [row["entry"].split("@")[0] for table in document["tables"] for row in table["rows"]] == ["whole"]
    assert document["entries"][0]["not_ranked_because"] == ["limited to 100 images"]


def test_a_limited_seed_does_not_drag_the_other_seeds_of_its_entry_along(builder: Any, right: Any) -> None:
    builder.add("a", {"one": right(50, 100)}, seed=0)
    builder.add("a", {"one": right(99, 100)}, seed=1, rankable=False, unrankable_because=["limited"])
    entries = entries_of(read_records(builder.board))
    assert sorted((len(entry.records), bool(entry.problems)) for entry in entries) == [(1, False), (1, True)]
    assert len({entry.key for entry in entries}) == 2


def unranked(board: Path) -> dict[str, str]:
    return {e["name"]: "; ".join(e["not_ranked_because"]) for e in board_document(board)["entries"]}


def test_a_number_that_its_statistics_do_not_give_is_not_ranked(builder: Any, right: Any) -> None:
    builder.add("honest", {"one": right(50, 100)})
    record = builder.add("liar", {"one": right(50, 100)})
    path = builder.board / "records" / record.id / "record.json"
    document = json.loads(path.read_text())
    document["tasks"]["one"]["metrics"]["top1"] = 0.99
    path.write_text(json.dumps(document))
    assert unranked(builder.board) == {
        "honest": "", "liar": "one: not verifiable: the record says 99.00, its statistics give 50.00",
    }  # fmt: skip


def test_missing_or_exchanged_statistics_are_not_ranked_even_if_their_outcome_was_cached(
    builder: Any, right: Any
) -> None:
    for name in ("keeps", "loses", "swaps"):
        builder.add(name, {"one": right(50, 100)})
    assert set(unranked(builder.board).values()) == {""}
    paths = {r.name: builder.board / "records" / r.id / "statistics.npz" for r in read_records(builder.board)}
    paths["loses"].unlink()
    other = builder.add("other", {"one": right(80, 100)})
    shutil.copy(builder.board / "records" / other.id / "statistics.npz", paths["swaps"])
    problems = unranked(builder.board)
    assert (problems["keeps"], problems["other"]) == ("", "")
    assert "cannot be read" in problems["loses"]
    assert "not those that the record names" in problems["swaps"]
    assert str(builder.board) not in json.dumps(problems)


def handed_in(builder: Any, name: str, result: Result, task: Any, **changes: Any) -> None:
    """Statistics by a stranger, some arrays changed, with the numbers that they give."""
    changed = type(result).from_statistics(result.statistics | changes)
    record = Record(
        name=name,
        fingerprint=f"{sum(name.encode()):012x}",
        seed=0,
        provenance=Provenance(version="1"),
        tasks={
            "one": TaskResult(
                task=task,
                protocol=Protocol(
                    card="one",
                    card_version="1",
                    split="val",
                    images="0" * 64,
                    annotations="0" * 64,
                    metric=result.metric,
                    metric_version=result.version,
                ),
                main=result.main,
                metrics=changed.reduce(),
                per_class=changed.per_class(),
                images=len(changed.ids),
                statistics=hash_arrays(changed.statistics),
            )
        },
    )
    write_record(builder.board, record, {"one": changed.statistics})


def box_statistics(boxes: int) -> detection.DetectionResult:
    box = {"category_id": 1, "bbox": [5, 5, 20, 20]}
    truth = {
        "images": [{"id": n, "width": 50, "height": 50} for n in range(1, 7)],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": n, "image_id": n, "area": 400, "iscrowd": 0, **box} for n in range(1, 7)],
    }
    return detection.evaluate(truth, [{"image_id": n, "score": 0.5, **box} for n in range(1, boxes)])


def map_statistics(right: float) -> segmentation.SegmentationResult:
    rng = np.random.default_rng(0)
    truth = [rng.integers(7, 9, (8, 8)).astype(np.uint8) for _ in range(6)]
    return segmentation.evaluate(
        truth, [np.where(rng.random((8, 8)) < right, one, 11).astype(np.uint8) for one in truth]
    )


def test_statistics_of_other_classes_are_not_ranked_and_the_board_is_made_all_the_same(builder: Any) -> None:
    for name, boxes in (("honest", 6), ("too", 5)):
        handed_in(builder, name, box_statistics(boxes), "detection")
    handed_in(builder, "evil", box_statistics(5), "detection", category_names=np.array(["dog"]))
    assert unranked(builder.board) == {
        "evil": "one: not verifiable: its statistics are not of the classes that its protocol names", "honest": "",
        "too": "",
    }  # fmt: skip
    with pytest.raises(HarnessError, match="category_names differ between the results"):
        compare(builder.board, "honest", "evil")


def test_statistics_of_fewer_classes_are_not_ranked_and_the_board_is_made_all_the_same(builder: Any) -> None:
    for name, right in (("honest", 0.9), ("too", 0.8)):
        handed_in(builder, name, map_statistics(right), "segmentation")
    arrays = map_statistics(0.7).statistics
    fewer = {key: np.ascontiguousarray(arrays[key][..., :-1]) for key in ("classes", "tp", "fp", "fn")}
    fewer["instance_class"] = np.minimum(arrays["instance_class"], len(fewer["classes"]) - 1).astype(np.int32)
    handed_in(builder, "evil", map_statistics(0.7), "segmentation", **fewer)
    assert {name for name, problem in unranked(builder.board).items() if "not of the classes" in problem} == {"evil"}
    with pytest.raises(HarnessError, match="classes differ between the results"):
        compare(builder.board, "honest", "evil")


@pytest.mark.parametrize("letter", [0xD800, 0xDFFF, 0x110000, 0xFFFFFFFF])
def test_statistics_with_ids_that_are_no_text_are_refused(letter: int) -> None:
    arrays = map_statistics(0.9).statistics
    letters = arrays["ids"].view(np.uint32).copy()
    letters[-1] = letter
    with pytest.raises(HarnessError, match="ids: holds characters that there are not"):
        segmentation.SegmentationResult.from_statistics(arrays | {"ids": letters.view(arrays["ids"].dtype)})


@pytest.mark.parametrize(("name", "value"), [("tp", 2**62), ("tp", 2**31), ("instance_hit", np.inf)])
def test_counts_that_no_image_has_are_refused(name: str, value: float) -> None:
    person = np.full((8, 8), 24, np.uint8)
    arrays = segmentation.evaluate([person], [person], instances=[person.astype(np.int32) * 1000 + 1]).statistics
    arrays[name] = np.full_like(arrays[name], value)
    with pytest.raises(HarnessError, match=f"{name}: a count is negative, NaN or too large"):
        segmentation.SegmentationResult.from_statistics(arrays)


def test_many_entries_by_a_stranger_do_not_outvote_one_that_was_scored_here(builder: Any, right: Any) -> None:
    unproven = {"images": "0" * 64}
    builder.add("honest", {"one": right(60, 100)}, trust="rescored", protocol=unproven)
    for name in ("evil", "more", "most"):
        builder.add(name, {"one": right(50, 50)}, protocol=unproven)
    problems = unranked(builder.board)
    assert problems["honest"] == ""
    assert all("not of the images" in problems[name] for name in ("evil", "more", "most"))


def test_statistics_of_hand_picked_images_are_not_ranked_under_the_protocol_of_all(builder: Any, right: Any) -> None:
    whole = builder.add("whole", {"one": right(50, 100)})
    builder.add("picked", {"one": right(50, 50)}, protocol={"images": whole.tasks["one"].protocol.images})
    problems = unranked(builder.board)
    assert problems["whole"] == ""
    assert "not of the images that its protocol names" in problems["picked"]


def test_the_document_is_the_same_with_and_without_a_cache_and_with_a_broken_one(
    builder: Any, right: Any, tmp_path: Path
) -> None:
    for n, name in enumerate(("a", "b", "c")):
        builder.add(name, {"one": right(50 + 5 * n, 100)}, seed=n)
    first = board_document(builder.board)
    assert board_document(builder.board) == first
    cache = builder.board / ".cache" / "resampling.json"
    assert cache.exists()
    for content in (b"", b"[]", b'{"x": 1}'):
        cache.write_bytes(content)
        assert board_document(builder.board) == first
    shutil.copytree(builder.board / "records", tmp_path / "elsewhere" / "records")
    assert board_document(tmp_path / "elsewhere") == first
    assert board_document(tmp_path / "elsewhere", Evidence(tmp_path / "elsewhere", cached=False)) == first


def test_the_cache_is_used_and_forgets_what_is_no_longer_asked_for(
    builder: Any, right: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder.add("a", {"one": right(50, 100)})
    record = builder.add("b", {"one": right(60, 100)})
    before = board_document(builder.board)
    cache = builder.board / ".cache" / "resampling.json"
    size = len(json.loads(cache.read_text()))
    edited = json.loads(cache.read_text())
    for outcome in edited.values():
        outcome["low" if "value" in outcome else "p_value"] = 0.0
    cache.write_text(json.dumps(edited))
    assert board_document(builder.board) != before
    shutil.rmtree(builder.board / "records" / record.name)
    board_document(builder.board)
    assert len(json.loads(cache.read_text())) < size


def test_two_names_with_one_fingerprint_each_are_shown_by_name_and_twins_with_their_fingerprint(
    builder: Any, right: Any
) -> None:
    builder.add("lone", {"one": right(50, 100)})
    builder.add("twin", {"one": right(90, 100)}, fingerprint="0" * 12)
    builder.add("twin", {"one": right(10, 100)}, fingerprint="1" * 12)
    ((heading, header, body),) = rows(board_document(builder.board))
    assert (heading, header[:3]) == ("one", ["rank", "entry", "one"])
    assert [line[1] for line in body] == [f"twin@{'0' * 12}", "lone", f"twin@{'1' * 12}"]
    assert body[0][2].startswith("90.00 [")


def test_markdown_has_a_row_for_each_entry_whatever_reasons_say(builder: Any, right: Any) -> None:
    builder.add("a_b__c", {"one": right(50, 100)})
    reason = "a | b <script>alert(1)</script>\n| x | [y](javascript:z) |"
    builder.add("bad", {"one": right(50, 100)}, rankable=False, unrankable_because=[reason])
    text = markdown(board_document(builder.board))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 6
    assert lines[2].startswith(r"| 1 | a\_b\_\_c | 50.00 [")
    assert "<script" not in text
    assert "](" not in text.replace(r"\](", "")
    assert lines[5].count("|") - lines[5].count(r"\|") == 3


def test_an_empty_board_says_how_to_begin(tmp_path: Path) -> None:
    document = board_document(tmp_path)
    assert (document["entries"], document["tables"], document["pairs"]) == ([], [], [])
    assert "harness submit" in markdown(document)


def test_pairs_are_made_of_the_first_entries_only(builder: Any, right: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "PAIRED_ENTRIES", 3)
    for n in range(5):
        builder.add(f"e{n}", {"one": right(10 + 15 * n, 100)})
    pairs = board_document(builder.board)["pairs"]
    assert sorted({pair["a"][:2] for pair in pairs} | {pair["b"][:2] for pair in pairs}) == ["e2", "e3", "e4"]
    assert len(pairs) == 3
    best = next(pair for pair in pairs if {pair["a"][:2], pair["b"][:2]} == {"e4", "e2"})
    assert best["difference"] == pytest.approx(0.30)


@pytest.mark.parametrize(("draws", "seed", "says"), [(3, 0, "draws"), (10**9, 0, "draws"), (1000, -1, "seed")])
def test_draws_and_seed_out_of_range_are_refused(tmp_path: Path, draws: int, seed: int, says: str) -> None:
    with pytest.raises(HarnessError, match=f"^{says}"):
        Evidence(tmp_path, draws, seed)


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_shows_every_name_and_number_whole(builder: Any, right: Any, width: int) -> None:
    names = [f"a-study-with-a-long-name-{arm}" for arm in ("plain", "tokens")]
    cards = ["shapes-classification", "shapes-detection", "shapes-segmentation", "shapes-vqa"]
    for name in names:
        builder.add(name, {card: right(50, 100) for card in cards})
    write_board(builder.board)
    console = Console(file=io.StringIO(), width=width)
    print_board(builder.board, console)
    print_comparison(compare(builder.board, *names), console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in shown
    rows = [line.split("│")[2].strip() for line in shown.splitlines() if line.startswith("│")]
    assert all(name in "".join(rows) for name in names)
