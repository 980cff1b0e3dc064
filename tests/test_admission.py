"""Bundles by strangers: what travels, what is believed, and that what is refused changes nothing."""

from __future__ import annotations

import hashlib
import io
import json
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests_support import document

from harness import api
from harness.admission import admit
from harness.board import bundle as bundles
from harness.board.bundle import write_bundle
from harness.board.packing import hash_arrays
from harness.board.records import Record, Rerun, read_record, read_records, read_statistics, write_record
from harness.board.related import Relatedness
from harness.cards import load_card
from harness.data import open_split
from harness.errors import HarnessError
from harness.evaluation.classification import ClassificationResult
from harness.scoring import record_predictions
from harness.submission import Submission

CARD = "shapes-classification"
Members = dict[str, bytes]


def predictions(path: Path, wrong: int = 2) -> Path:
    """A file of class predictions of the tiny suite's test split, of which the first `wrong` are wrong."""
    adapter: Any = open_split(load_card(CARD), "test")
    labels = [(label + (n < wrong)) % len(adapter.classes) for n, label in enumerate(adapter.labels)]
    lines = [f"{name},{label}" for name, label in zip(adapter.ids, labels, strict=True)]
    path.write_text("\n".join(["id,label", *lines]) + "\n")
    return path


def scored(board: Path, folder: Path, name: str = "theirs", wrong: int = 2, seed: int = 0) -> Record:
    return record_predictions(CARD, predictions(folder / f"{name}-{wrong}.csv", wrong), name, seed, board)


def trained(board: Path, folder: Path, **changes: Any) -> Record:
    """A record as `harness submit` stores it, of predictions that were made here."""
    content = document(0) | {"name": "trained"}
    content["tasks"], content["model"]["heads"] = content["tasks"][:1], {}
    submission = Submission.model_validate(content)
    made = scored(folder / "scratch", folder)
    record = made.model_copy(
        update={
            "name": "trained",
            "fingerprint": submission.fingerprint(),
            "submission": submission.published(),
            "trust": "reported",
            **changes,
        }
    )
    statistics = read_statistics(folder / "scratch", made)
    write_record(board, record, {card: result.statistics for card, result in statistics.items()})
    return record


def packed(board: Path, path: Path, *more: Path) -> Path:
    return write_bundle(path, board, read_records(board), more)


def members(path: Path) -> Members:
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def repacked(path: Path, content: Members) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def changed(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The bundle with another record.json."""
    content = members(path)
    name = next(name for name in content if name.endswith("record.json"))
    record = json.loads(content[name])
    change(record)
    content[name] = json.dumps(record).encode()
    return repacked(path, content)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def theirs(tiny_suite: Path, tmp_path: Path) -> Path:
    """Somebody's board with one entry."""
    scored(tmp_path / "theirs", tmp_path)
    return tmp_path / "theirs"


def test_a_bundle_of_the_same_records_has_the_same_bytes(theirs: Path, tmp_path: Path) -> None:
    first, second = packed(theirs, tmp_path / "a.zip"), packed(theirs, tmp_path / "b.zip")
    assert first.read_bytes() == second.read_bytes()
    assert [name.rpartition("/")[2] for name in members(first)] == ["bundle.json", "record.json", "statistics.npz"]


def test_an_entry_arrives_as_it_was_and_is_rescored_only_if_its_predictions_came_along(
    theirs: Path, tmp_path: Path
) -> None:
    (sent,) = read_records(theirs)
    alone = admit(tmp_path / "alone", packed(theirs, tmp_path / "a.zip"))
    assert (alone.stored, alone.problems) == ([sent.id], [])
    (record,) = read_records(tmp_path / "alone")
    assert record.trust == "reported"  # although the record said rescored: that was somebody else's board
    assert record.deterministic() == sent.deterministic()
    assert read_statistics(tmp_path / "alone", record)[CARD].reduce()["top1"] == 0.75

    whole = packed(theirs, tmp_path / "b.zip", tmp_path / "theirs-2.csv")
    assert admit(tmp_path / "whole", whole).stored == [sent.id]
    assert read_records(tmp_path / "whole")[0].trust == "rescored"


def test_an_entry_that_is_there_stays_untouched_and_predictions_that_follow_raise_its_trust(
    theirs: Path, tmp_path: Path
) -> None:
    alone, whole = packed(theirs, tmp_path / "a.zip"), packed(theirs, tmp_path / "b.zip", tmp_path / "theirs-2.csv")
    board = tmp_path / "board"
    (identity,) = admit(board, alone).stored
    before = tree(board)
    assert admit(board, alone).unchanged == [identity]
    assert tree(board) == before
    assert admit(board, whole).raised == [identity]
    raised = tree(board)
    assert admit(board, alone).unchanged == [identity]  # the weaker word does not lower it again
    assert tree(board) == raised


def test_a_rerun_on_another_board_proves_nothing_on_this_one(theirs: Path, tmp_path: Path) -> None:
    (record,) = read_records(theirs)
    evidence = Rerun(identical=True, values={CARD: 1.0}, rule="bit-equal statistics", provenance=record.provenance)
    path = changed(
        packed(theirs, tmp_path / "a.zip"),
        lambda d: d.update(trust="rerun", rerun=evidence.model_dump(mode="json")),
    )
    assert admit(tmp_path / "board", path).problems == []
    (record,) = read_records(tmp_path / "board")
    assert (record.trust, record.rerun) == ("reported", None)


def test_the_same_id_with_other_numbers_is_refused_and_nothing_is_changed(theirs: Path, tmp_path: Path) -> None:
    board = tmp_path / "board"
    scored(board, tmp_path, wrong=5)
    before = tree(board)
    outcome = admit(board, packed(theirs, tmp_path / "a.zip"))
    assert len(outcome.problems) == 1
    assert f"is on this board with another result of {CARD}" in outcome.problems[0]
    assert tree(board) == before


def test_a_seed_of_an_entry_that_is_there_is_taken_in_only_if_the_maintainer_says_so(
    theirs: Path, tmp_path: Path
) -> None:
    board = tmp_path / "board"
    (identity,) = admit(board, packed(theirs, tmp_path / "a.zip")).stored
    before = tree(board)
    for seed in (1, 2):
        scored(theirs, tmp_path, seed=seed, wrong=8)
    more = packed(theirs, tmp_path / "b.zip")
    (problem,) = admit(board, more, other_name=True).problems
    assert f"{identity.partition('-seed')[0].replace('/', '@')}: is on this board, and would get seeds 1, 2" in problem
    assert "--more-seeds" in problem
    assert tree(board) == before
    outcome = admit(board, more, more_seeds=True)
    assert (len(outcome.stored), outcome.unchanged, outcome.problems) == (2, [identity], [])
    assert admit(board, more).unchanged == [identity, *outcome.stored]  # nothing new: nothing to ask


def test_a_submission_that_is_there_is_taken_in_under_another_name_only_if_the_maintainer_says_so(
    tiny_suite: Path, tmp_path: Path
) -> None:
    board = tmp_path / "board"
    first = trained(tmp_path / "first", tmp_path)
    admit(board, packed(tmp_path / "first", tmp_path / "a.zip"))
    before = tree(board)
    assert first.submission is not None
    copy = trained(tmp_path / "copy", tmp_path, name="aaa", submission=first.submission | {"name": "aaa"})
    other = packed(tmp_path / "copy", tmp_path / "b.zip")
    (problem,) = admit(board, other, more_seeds=True).problems
    assert f"{copy.entry}: is the submission of {first.entry}, which is on this board; with --other-name" in problem
    assert tree(board) == before
    assert admit(board, other, other_name=True).stored == [copy.id]
    assert admit(board, other).unchanged == [copy.id]


def test_one_bad_record_keeps_the_good_one_of_its_bundle_out(theirs: Path, tmp_path: Path) -> None:
    scored(theirs, tmp_path, name="a-good-one")
    path = packed(theirs, tmp_path / "a.zip")
    content = members(path)
    name = next(name for name in content if "theirs" in name and name.endswith("record.json"))
    record = json.loads(content[name])
    record["tasks"][CARD]["metrics"]["top1"] = 0.99
    outcome = admit(tmp_path / "board", repacked(path, content | {name: json.dumps(record).encode()}))
    assert "metrics.top1: is 0.99, the statistics give 0.75" in outcome.problems[0]
    assert outcome.stored == []
    assert read_records(tmp_path / "board") == []


RECORD_LIES = {
    "per_class": lambda d: d["tasks"][CARD]["per_class"].clear(),
    "images: is 7, the statistics hold 8": lambda d: d["tasks"][CARD].update(images=7),
    "are not those that the record names": lambda d: d["tasks"][CARD].update(statistics="0" * 64),
    "protocol.card_version: '99'": lambda d: d["tasks"][CARD]["protocol"].update(card_version="99"),
    "protocol.split: 'val'": lambda d: d["tasks"][CARD]["protocol"].update(split="val"),
    "protocol.images: are not the 8 images": lambda d: d["tasks"][CARD]["protocol"].update(images="0" * 64),
    "protocol.annotations: is not the ground truth": lambda d: d["tasks"][CARD]["protocol"].update(
        annotations="0" * 64
    ),
    "images: 8, the card's test split has 500": lambda d: d.update(rankable=True, unrankable_because=[]),
    "fingerprint": lambda d: d.update(fingerprint="0" * 12),
    "is newer than this harness reads": lambda d: d.update(schema_version=99),
    "unknown key 'sede'": lambda d: d.update(sede=1),
    "version 7, this harness has version": lambda d: d["tasks"][CARD]["protocol"].update(metric_version=7),
}


@pytest.mark.parametrize("says", RECORD_LIES)
def test_what_a_record_says_is_held_against_what_this_installation_knows(
    theirs: Path, tmp_path: Path, says: str
) -> None:
    outcome = admit(tmp_path / "board", changed(packed(theirs, tmp_path / "a.zip"), RECORD_LIES[says]))
    assert any(says in problem for problem in outcome.problems), outcome.problems
    assert all("\n" not in problem for problem in outcome.problems)
    assert not (tmp_path / "board").exists()


def test_a_card_that_a_record_names_is_never_opened_as_a_file(
    theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.yaml").write_text("!!python/object:os.system {}")

    def change(record: dict[str, Any]) -> None:
        record["tasks"] = {"evil.yaml": record["tasks"].pop(CARD)}
        record["tasks"]["evil.yaml"]["protocol"]["card"] = "evil.yaml"

    path = changed(packed(theirs, tmp_path / "a.zip"), change)
    content = members(path)
    name = next(name for name in content if name.endswith(".npz"))
    arrays = np.load(io.BytesIO(content[name]), allow_pickle=False)
    renamed = io.BytesIO()
    np.savez(renamed, **{key.replace(CARD, "evil.yaml"): arrays[key] for key in arrays.files})
    problems = admit(tmp_path / "board", repacked(path, content | {name: renamed.getvalue()})).problems
    assert any("tasks.evil.yaml: is no card of this board" in problem for problem in problems)


def test_predictions_that_give_other_statistics_are_refused(theirs: Path, tmp_path: Path) -> None:
    path = packed(theirs, tmp_path / "a.zip", tmp_path / "theirs-2.csv")
    content = members(path)
    name = next(name for name in content if name.endswith(".csv"))
    other = predictions(tmp_path / "other.csv", wrong=4)
    lying = repacked(path, content | {name: other.read_bytes()})
    assert "predictions: are not those that the record names" in admit(tmp_path / "board", lying).problems[0]
    digest = hashlib.sha256(other.read_bytes()).hexdigest()
    consistent = changed(lying, lambda d: d["tasks"][CARD].update(predictions=digest))
    assert "are not what its predictions give" in admit(tmp_path / "board", consistent).problems[0]
    assert read_records(tmp_path / "board") == []


def test_without_the_data_an_entry_is_reported_and_the_notes_say_what_was_not_compared(
    theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed(theirs, tmp_path / "a.zip", tmp_path / "theirs-2.csv")
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "empty"))
    outcome = admit(tmp_path / "board", path)
    assert outcome.problems == []
    assert "its data is not on this machine" in outcome.notes[0]
    assert "its predictions were not scored" in outcome.notes[0]
    assert read_records(tmp_path / "board")[0].trust == "reported"


def test_labels_that_are_not_those_of_the_data_are_refused_where_the_data_is(
    theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (record,) = read_records(theirs)
    arrays = dict(read_statistics(theirs, record)[CARD].statistics)
    arrays["label"], arrays["rank"] = arrays["predicted"], np.zeros_like(arrays["rank"])
    result = ClassificationResult.from_statistics(arrays)
    task = record.tasks[CARD].model_copy(
        update={
            "metrics": dict(result.reduce()),
            "per_class": dict(result.per_class()),
            "statistics": hash_arrays(result.statistics),
        }
    )
    write_record(tmp_path / "forged", record.model_copy(update={"tasks": {CARD: task}}), {CARD: result.statistics})
    path = packed(tmp_path / "forged", tmp_path / "a.zip")
    (problem,) = admit(tmp_path / "board", path).problems
    assert f"tasks.{CARD}: statistics: label: not those of the ground truth of {CARD} here" in problem
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "empty"))
    assert "ground truth were not compared" in admit(tmp_path / "board", path).notes[0]


def test_a_name_that_differs_from_a_stored_one_in_case_only_is_refused(theirs: Path, tmp_path: Path) -> None:
    scored(tmp_path / "board", tmp_path, name="Theirs")
    (problem,) = admit(tmp_path / "board", packed(theirs, tmp_path / "a.zip")).problems
    assert "'Theirs' is taken" in problem


SUBMISSION_LIES: dict[str, dict[str, Any]] = {
    "fingerprint: is 000000000000": {"fingerprint": "0" * 12},
    "name: 'other' is not the submission's": {"name": "other"},
    "baselines: are not": {"baselines": {CARD: "0" * 12}},
    "relatedness: is there exactly where": {"relatedness": Relatedness(images=24, features=[], outputs=[])},
}


@pytest.mark.parametrize("says", SUBMISSION_LIES)
def test_what_a_record_says_must_follow_from_its_submission(tiny_suite: Path, tmp_path: Path, says: str) -> None:
    trained(tmp_path / "good", tmp_path)
    assert admit(tmp_path / "board", packed(tmp_path / "good", tmp_path / "good.zip")).problems == []
    trained(tmp_path / "bad", tmp_path, **SUBMISSION_LIES[says])
    problems = admit(tmp_path / "board", packed(tmp_path / "bad", tmp_path / "bad.zip")).problems
    assert any(says in problem for problem in problems), problems


BACKBONE, TEACHER = "model.backbone.weights", "training.placeholders.distilled.teacher.weights"


def with_weights(key: str, text: str) -> Submission:
    """A submission that starts from local weights, or learns from a teacher that does."""
    content = document(4) | {"name": "trained"}
    content["tasks"], content["model"]["heads"] = content["tasks"][:1], {}
    if key == BACKBONE:
        content["model"]["backbone"]["weights"] = text
    else:
        content["training"]["placeholders"] = {"distilled": {"teacher": {"name": "test_vit", "weights": text}}}
    return Submission.model_validate(content)


@pytest.mark.parametrize("key", [BACKBONE, TEACHER])
def test_of_local_weights_a_record_says_the_digest_and_the_fingerprint_must_follow_from_it(
    tiny_suite: Path, tmp_path: Path, key: str
) -> None:
    file = tmp_path / "secret folder" / "own.pth"
    file.parent.mkdir()
    file.write_bytes(b"weights")
    submission = with_weights(key, str(file))
    fields: dict[str, Any] = {"submission": submission.published(), "fingerprint": submission.fingerprint()}
    file.unlink()  # who takes the entry in does not have it
    trained(tmp_path / "good", tmp_path, **fields)
    assert admit(tmp_path / "board", packed(tmp_path / "good", tmp_path / "good.zip")).problems == []
    trained(tmp_path / "bad", tmp_path, **fields | {"fingerprint": "0" * 12})
    (problem,) = admit(tmp_path / "other", packed(tmp_path / "bad", tmp_path / "bad.zip")).problems
    assert f"fingerprint: is 000000000000, its submission has {fields['fingerprint']}" in problem


@pytest.mark.parametrize("key", [BACKBONE, TEACHER])
@pytest.mark.parametrize("text", ["{file}", "own.pth", "own.pth sha256:0", "../own.pth sha256:" + "0" * 64])
def test_a_record_that_names_a_file_for_its_weights_is_refused_and_the_file_is_not_looked_at(
    tiny_suite: Path, tmp_path: Path, key: str, text: str
) -> None:
    file = tmp_path / "own.pth"
    file.write_bytes(b"weights")
    submission = with_weights(key, text.format(file=file))
    fields = {"submission": submission.resolved(), "fingerprint": with_weights(key, str(file)).fingerprint()}
    trained(tmp_path / "bad", tmp_path, **fields)
    (problem,) = admit(tmp_path / "board", packed(tmp_path / "bad", tmp_path / "bad.zip")).problems
    assert problem.endswith(f"submission: {key}: must read NAME sha256:DIGEST, as harness submit writes it")


def test_the_submission_beside_a_record_must_be_the_records(tiny_suite: Path, tmp_path: Path) -> None:
    trained(tmp_path / "good", tmp_path)
    path = packed(tmp_path / "good", tmp_path / "a.zip")
    content = members(path)
    name = next(name for name in content if name.endswith("submission.yaml"))
    assert b"name: trained" in content[name]
    for other in (content[name].replace(b"steps: 6", b"steps: 9"), b"a: &a [1]\nb: [*a, *a]\n"):
        (problem,) = admit(tmp_path / "board", repacked(path, content | {name: other})).problems
        assert "submission: is not what submission.yaml says" in problem


def special(name: str, **fields: Any) -> Callable[[Path, Members], None]:
    """A bundle with a further member whose zip fields are set."""

    def write(path: Path, content: Members) -> None:
        repacked(path, content)
        with zipfile.ZipFile(path, "a") as archive:
            info = zipfile.ZipInfo(name)
            data = fields.get("data", b"x")
            for key, value in fields.items():
                if key != "data":
                    setattr(info, key, value)
            archive.writestr(info, data)

    return write


def without(end: str) -> Callable[[Path, Members], None]:
    return lambda path, content: (repacked(path, {k: v for k, v in content.items() if not k.endswith(end)}), None)[1]


def with_manifest(**changes: Any) -> Callable[[Path, Members], None]:
    def write(path: Path, content: Members) -> None:
        manifest = json.loads(content["bundle.json"]) | changes
        repacked(path, content | {"bundle.json": json.dumps(manifest).encode()})

    return write


def with_both(path: Path, content: Members) -> None:
    """Predictions of which one file lies in another."""
    (folder,) = {name.rpartition("/")[0] for name in content if name.endswith("record.json")}
    repacked(path, content | {f"{folder}/predictions/{CARD}/{name}": b"x" for name in ("a", "a/b.png")})


ZIPS: list[tuple[str, Callable[[Path, Members], Any]]] = [
    ("is no bundle that can be read", lambda path, _: path.write_bytes(b"not a zip")),
    ("leads out of the bundle", special("records/../../../evil")),
    ("leads out of the bundle", special("/etc/evil")),
    ("leads out of the bundle", special("records\\..\\evil")),
    ("leads out of the bundle", special("records/theirs/")),
    ("control characters", special("records/\x1b[31mred")),
    ("link or another special file", special("link", external_attr=(stat.S_IFLNK | 0o777) << 16, data=b"/etc/passwd")),
    ("link or another special file", special("fifo", external_attr=stat.S_IFIFO << 16)),
    ("does not belong into a bundle", special("setup.py")),
    ("is there twice", special("BUNDLE.json")),
    ("no honest file", special("records/bomb", compress_type=zipfile.ZIP_DEFLATED, data=bytes(3_000_000))),
    ("packed by method 14", special("lzma", compress_type=zipfile.ZIP_LZMA)),
    ("bundle.json is missing", without("bundle.json")),
    ("statistics.npz is missing", without("statistics.npz")),
    ("bundle_version: 2 is newer", with_manifest(bundle_version=2)),
    ("bundle_version: must be a whole number", with_manifest(bundle_version=True)),
    ("is a file and a folder", with_both),
    ("records, a list of ids", with_manifest(records=[])),
    ("each once", with_manifest(records=["a/b", "a/b"])),
    ("does not belong into a bundle", with_manifest(records=["a/0123456789ab-seed0"])),
]


@pytest.mark.parametrize(("says", "make"), ZIPS)
def test_a_zip_that_no_harness_made_is_refused_in_one_sentence(
    theirs: Path, tmp_path: Path, says: str, make: Callable[[Path, Members], Any]
) -> None:
    path = packed(theirs, tmp_path / "a.zip")
    make(path, members(path))
    with pytest.raises(HarnessError) as caught:
        admit(tmp_path / "board", path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert not (tmp_path / "board").exists()


def test_a_bomb_is_told_by_what_it_would_unpack_to_and_not_unpacked(
    theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed(theirs, tmp_path / "a.zip")
    total = sum(map(len, members(path).values()))
    monkeypatch.setattr(bundles, "MAX_UNPACKED_BYTES", total - 1)
    with pytest.raises(HarnessError, match=f"unpacks to {total:,} bytes"):
        admit(tmp_path / "board", path)
    monkeypatch.undo()
    monkeypatch.setattr(bundles, "MAX_MEMBERS", 2)
    with pytest.raises(HarnessError, match="3 members are too many"):
        admit(tmp_path / "board", path)


def test_a_bundle_without_the_predictions_that_were_asked_for_is_not_written(theirs: Path, tmp_path: Path) -> None:
    other = predictions(tmp_path / "other.csv", wrong=7)
    with pytest.raises(HarnessError, match=f"predictions of {CARD} are not in"):
        packed(theirs, tmp_path / "a.zip", other)
    assert not (tmp_path / "a.zip").exists()


def test_entries_are_handed_over_through_the_command_line(command: Any, theirs: Path, tmp_path: Path) -> None:
    done = command("leaderboard", "bundle", "theirs", "-o", "t.zip", "--leaderboard", theirs)
    assert done.returncode == 0, done.stderr
    added = command("leaderboard", "add", "t.zip")
    assert added.returncode == 0, added.stderr
    (identity,) = (record.id for record in read_records(tmp_path / "leaderboard"))
    assert added.stdout == f"t.zip: stored: {identity}\n"
    assert (tmp_path / "leaderboard" / "board.csv").exists()
    before = tree(tmp_path / "leaderboard")
    special("records/\x1b[31mevil")(tmp_path / "bad.zip", members(tmp_path / "t.zip"))
    refused = command("leaderboard", "add", "bad.zip")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: bad.zip: ")
    assert "\x1b" not in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert tree(tmp_path / "leaderboard") == before
    scored(theirs, tmp_path, seed=1)
    api.bundle("theirs", tmp_path / "more.zip", theirs)
    refused = command("leaderboard", "add", "more.zip")
    assert (refused.returncode, tree(tmp_path / "leaderboard")) == (2, before)
    assert "would get seed 1; with --more-seeds" in refused.stderr
    assert command("leaderboard", "add", "more.zip", "--more-seeds").returncode == 0
    early = command("leaderboard", "--verify", "add", "t.zip")
    assert early.returncode == 2
    assert "does not go before" in early.stderr


def test_the_functions_do_what_the_verbs_do(theirs: Path, tmp_path: Path) -> None:
    (record,) = api.bundle("theirs", tmp_path / "a.zip", theirs)
    assert api.add_bundle(tmp_path / "a.zip", tmp_path / "board").stored == [record.id]
    assert read_record(tmp_path / "board", record.id) is not None
    assert (tmp_path / "board" / "index.html").exists()
