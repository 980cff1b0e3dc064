"""That a check goes on where it was and reads only what changed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cards import DatasetCard
from harness.data.checking import Report, check
from harness.data.checking.files import Job, read_facts
from harness.data.checking.journal import Journal
from harness.errors import HarnessError


def reads(report: Report) -> int:
    return sum(split.read for card in report.cards for split in card.splits.values())


def journal_of(cache: Path) -> Path:
    (path,) = (cache / "checks").iterdir()
    return path


def test_a_repeated_check_reads_only_files_that_changed_and_reports_the_same(
    class_folders: DatasetCard, root: Path, photo: Callable[..., Path]
) -> None:
    (root / "train/ant/0.jpg").write_bytes(b"broken")
    first = check([class_folders], workers=0)
    again = check([class_folders], workers=0)
    assert (reads(first), reads(again)) == (6, 0)
    assert again.findings == first.findings != ()
    photo(root / "train/ant/0.jpg", 0)
    mended = check([class_folders], workers=0)
    assert (reads(mended), mended.findings) == (1, ())
    assert reads(check([class_folders], workers=0, fresh=True)) == 6


def test_what_the_card_says_is_judged_anew_without_reading(cityscapes: DatasetCard) -> None:
    assert check([cityscapes], workers=0).clean
    fewer = cityscapes.model_copy(update={"classes": cityscapes.classes[:2]})
    report = check([fewer], workers=0)
    assert reads(report) == 0
    assert {finding.code for finding in report.findings} == {"mask-unknown-id"}


def test_torn_and_foreign_lines_do_no_harm(class_folders: DatasetCard, cache: Path) -> None:
    check([class_folders], workers=0)
    path = journal_of(cache)
    whole = path.read_bytes()
    path.write_bytes(b'{"old": 1}\n7\n' + whole[: whole.rindex(b"sha") if b"sha" in whole[-40:] else len(whole) - 20])
    report = check([class_folders], workers=0)
    assert (reads(report), report.findings) == (1, ())
    assert reads(check([class_folders], workers=0)) == 0


def test_two_writers_do_not_mix_lines(root: Path, photo: Callable[..., Path]) -> None:
    jobs = [Job(photo(root / f"{n}.jpg", n), "image") for n in range(40)]
    facts = [read_facts(job) for job in jobs]
    with Journal(root) as one, Journal(root) as other:
        for number in range(0, 40, 2):
            one.append([(jobs[number], facts[number])])
            other.append([(jobs[number + 1], facts[number + 1])])
    with Journal(root) as journal:
        assert [journal.look_up(job) for job in jobs] == facts


def test_a_killed_check_goes_on_where_it_was(
    class_folders: DatasetCard, root: Path, cache: Path, tmp_path: Path, photo: Callable[..., Path]
) -> None:
    for number in range(1500):
        photo(root / f"train/bee/more{number}.jpg", 1000 + number, width=200, height=200)
    card = tmp_path / "tiny.yaml"
    card.write_text(class_folders.model_dump_json())  # JSON is YAML
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", "data", "check", str(card), "--workers", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"HARNESS_CACHE": str(cache)},
        start_new_session=True,
    )
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        if any(path.stat().st_size > 20_000 for path in (cache / "checks").glob("*")):
            break
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    known = {json.loads(line)["path"] for line in journal_of(cache).read_bytes().splitlines() if line.endswith(b"}")}
    assert 0 < len(known) < 1506
    report = check([class_folders], workers=0)
    assert reads(report) == 1506 - len(known)
    assert [finding.code for finding in report.findings] == ["count-differs"]
    assert report.findings == check([class_folders], workers=0, fresh=True).findings


def test_a_cache_that_is_a_file_is_one_sentence(class_folders: DatasetCard, cache: Path) -> None:
    cache.write_text("")
    with pytest.raises(HarnessError, match="HARNESS_CACHE"):
        check([class_folders], workers=0)
