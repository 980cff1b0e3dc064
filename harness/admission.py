"""Taking somebody else's entry onto a board: everything is checked before anything is stored.

What a record says is held against what can be computed here: its fingerprint against its submission, its numbers
against its statistics, its protocol against the cards and the data of this installation, and, where the bundle brings
predictions, its statistics against the ground truth. Nothing in a bundle is run, and nothing is unpickled.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from harness.analysis.subsets import listed
from harness.board.bundle import MAX_STATISTICS_BYTES, SUBMISSION, Bundle, Packed, open_bundle, submission_yaml
from harness.board.packing import hash_arrays, predictions_hash
from harness.board.page import wrong_numbers
from harness.board.records import (
    RECORD,
    STATISTICS,
    TRUST,
    Record,
    TaskResult,
    differing,
    parse_record,
    parse_statistics,
    read_records,
    write_records,
)
from harness.cards import DatasetCard, card_paths, load_card
from harness.data import open_split
from harness.data.samples import Adapter
from harness.documents import parse
from harness.errors import HarnessError, suggestion
from harness.evaluation.metric import Result
from harness.ground_truth import check_card, check_truth
from harness.models.weight_files import published_digest
from harness.scoring import fingerprint_of_predictions, score
from harness.single_task import fingerprints
from harness.submission import Submission


@dataclass
class Admission:
    """What became of a bundle.

    Attributes:
        problems: One sentence for each reason why it was refused; empty if it was not.
        notes: What could not be checked, and what a reader should know.
        stored: Ids of records that are new on the board.
        raised: Ids of records whose numbers were there and that are trusted more now.
        unchanged: Ids of records that were there, with the same content.
    """

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)
    raised: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)


def admit(board: Path, path: Path, more_seeds: bool = False, other_name: bool = False) -> Admission:
    """Check a bundle and store its records, all or none.

    Args:
        board: The board's folder.
        path: The bundle.
        more_seeds: Whether it may add seeds to entries that are on the board.
        other_name: Whether it may bring submissions that are on the board under another name.

    Returns:
        What was found out. Where it lists problems, the board is as it was.

    Raises:
        HarnessError: The file is no bundle (see `open_bundle`), or the board itself cannot be read.
    """
    stored = {record.id: record for record in read_records(board)}
    outcome = Admission()
    items: list[tuple[Record, dict[str, Result]]] = []
    with open_bundle(path) as bundle:
        for packed in bundle.records:
            try:
                items.append(_checked(bundle, packed, outcome))
            except HarnessError as error:
                outcome.problems.append(str(error))
    records = [record for record, _ in items]
    outcome.problems += _name_problems(path, records, stored)
    outcome.problems += _claims(path, records, stored, more_seeds, other_name)
    others = {record.name: record.entry for record in stored.values()}
    for entry, name in {record.entry: record.name for record in records}.items():
        if others.get(name, entry) != entry:
            outcome.notes.append(f"{entry}: the board has another entry of this name, {others[name]}")
    wanted = []
    for record, results in items:
        known = stored.get(record.id)
        if known is None:
            outcome.stored.append(record.id)
            wanted.append((record, results))
        elif other := differing(known, record):
            outcome.problems.append(
                f"{path}: {record.id}: is on this board with another {other}; if both are right, submit under another "
                "name, else ask the maintainer to replace it"
            )
        elif TRUST.index(record.trust) > TRUST.index(known.trust):
            outcome.raised.append(record.id)
            wanted.append((known.model_copy(update={"trust": record.trust}), results))
        else:
            outcome.unchanged.append(record.id)
    if outcome.problems:
        return Admission(problems=outcome.problems, notes=outcome.notes)
    write_records(board, [(r, {card: one.statistics for card, one in results.items()}) for r, results in wanted])
    return outcome


def _checked(bundle: Bundle, packed: Packed, outcome: Admission) -> tuple[Record, dict[str, Result]]:
    """A record as it may be stored, and its statistics; what is wrong with it goes into the outcome."""
    place = bundle.place(packed, RECORD)
    record = parse_record(bundle.read(packed, RECORD) or b"", place)
    if record.id != packed.id:
        raise HarnessError(f"{place}: name, fingerprint and seed say {record.id!r}; make the bundle again")
    statistics = bundle.read(packed, STATISTICS) or b""
    results = parse_statistics(statistics, record, bundle.place(packed, STATISTICS), MAX_STATISTICS_BYTES)
    problems = [f"{place}: {text}" for text in _submission_problems(bundle, packed, record)]
    for card, task in record.tasks.items():
        problems += [f"{place}: tasks.{card}.{text}" for text in wrong_numbers(task, results[card])]
    rescored = set()
    for name, task in record.tasks.items():
        try:
            known = _card(name, task)
            check_card(known, results[name])
            adapter = _on_hand(known, record, task, results[name])
            if adapter is None:
                outcome.notes.append(
                    f"{record.id}: {name}: its data is not on this machine, so image list and ground truth were not "
                    "compared" + (", and its predictions were not scored" if name in packed.predictions else "")
                )
            elif name in packed.predictions:
                _rescore(bundle, packed, name, task, adapter)
                rescored.add(name)
            else:
                check_truth(adapter, results[name])
        except HarnessError as error:
            problems.append(f"{place}: tasks.{name}: {error}")
    unknown = packed.predictions.keys() - record.tasks.keys()
    problems += [f"{bundle.place(packed, 'predictions')}: {card}: is no task of the record" for card in sorted(unknown)]
    outcome.problems += problems
    trust = "rescored" if rescored == record.tasks.keys() else "reported"
    if rescored and trust == "reported":
        outcome.notes.append(f"{record.id}: only {', '.join(sorted(rescored))} could be scored here: stays reported")
    return record.model_copy(update={"trust": trust, "rerun": None}), results


def _submission_problems(bundle: Bundle, packed: Packed, record: Record) -> list[str]:
    """What of the record does not follow from its submission."""
    beside = bundle.read(packed, SUBMISSION)
    if record.submission is None:
        (card, *more) = record.tasks
        if record.relatedness is not None or record.subsets:
            return ["relatedness and subsets: are of trained networks, and there is no submission"]
        problems = [] if beside is None else [f"submission: is missing, but {SUBMISSION} is there"]
        if more:
            problems.append("tasks: predictions without a submission are of one task each; bundle them one by one")
        elif record.fingerprint != fingerprint_of_predictions(card, record.name):
            problems.append(f"fingerprint: {record.fingerprint} is not that of predictions for {card}")
        return problems
    if beside != submission_yaml(record.submission):
        return [f"submission: is not what {SUBMISSION} says; make the bundle again"]
    unknown = sorted(record.tasks.keys() - card_paths().keys())
    if unknown:  # said of the task itself; without its card there is no fingerprint
        return []
    problems = []
    try:
        submission = parse(Submission, record.submission, "submission")
        if {task.dataset for task in submission.tasks} != record.tasks.keys():
            return ["tasks: are others than those of the submission"]
        if submission.name != record.name:
            problems.append(f"name: {record.name!r} is not the submission's, {submission.name!r}")
        if submission.evaluation.limit is not None and record.rankable:
            problems.append("rankable: a run with evaluation.limit is not ranked")
        unnamed = [key for key, text in submission.local_weights().items() if published_digest(text) is None]
        if unnamed:  # never a file of this machine that the record names
            problems += [
                f"submission: {key}: must read NAME sha256:DIGEST, as harness submit writes it" for key in unnamed
            ]
        elif submission.fingerprint() != record.fingerprint:
            problems.append(
                f"fingerprint: is {record.fingerprint}, its submission has {submission.fingerprint()} under the cards "
                "of this installation; submit with the cards of this board, or upgrade"
            )
        elif record.baselines != fingerprints(submission):
            problems.append("baselines: are not the fingerprints of its single-task baselines")
        elif record.subsets and record.subsets != listed(submission):  # older records have none
            problems.append("subsets: are not the fingerprints of its recipe on subsets of the tasks")
        asked = submission.evaluation.relatedness
        if (asked is None) != (record.relatedness is None):
            problems.append("relatedness: is there exactly where the submission's evaluation.relatedness asks for it")
        elif asked is not None and record.relatedness is not None and record.relatedness.images > asked:
            problems.append(f"relatedness.images: {record.relatedness.images}, the submission asks for {asked}")
    except HarnessError as error:
        problems.append(str(error))
    return problems


def _card(name: str, task: TaskResult) -> DatasetCard:
    """The card of this installation, if the record's protocol is its."""
    known = card_paths()
    if name not in known:  # never a file that the record names
        raise HarnessError(f"is no card of this board{suggestion(name, known, 'harness ls datasets')}")
    card = load_card(name)
    protocol = task.protocol
    for what, said, here in (
        ("task", task.task, card.task),
        ("protocol.card_version", protocol.card_version, card.version),
        ("protocol.split", protocol.split, card.evaluation_split),
    ):
        if said != here:
            raise HarnessError(f"{what}: {said!r}, the card of this installation has {here!r}; score with that card")
    return card


def _on_hand(card: DatasetCard, record: Record, task: TaskResult, result: Result) -> Adapter | None:
    """The split that was scored, compared with the protocol; None where its data is not on this machine."""
    size = card.splits[card.evaluation_split].size
    if record.rankable and card.task != "vqa" and size is not None and task.images != size:
        raise HarnessError(f"images: {task.images:,}, the card's {card.evaluation_split} split has {size:,}")
    try:
        adapter = open_split(card, card.evaluation_split, None if record.rankable else task.images)
    except HarnessError:
        return None
    if adapter.image_list_hash() != task.protocol.images or set(result.ids.tolist()) != set(adapter.ids):
        raise HarnessError(f"protocol.images: are not the {len(adapter):,} images of {card.name} here")
    if adapter.annotation_hash() != task.protocol.annotations:
        raise HarnessError(f"protocol.annotations: is not the ground truth of {card.name} here")
    return adapter


def _rescore(bundle: Bundle, packed: Packed, name: str, task: TaskResult, adapter: Adapter) -> None:
    """Score the predictions that came along; they must give the record's statistics."""
    with tempfile.TemporaryDirectory() as folder:
        path = bundle.extract(packed, name, Path(folder))
        if predictions_hash(path) != task.predictions:
            raise HarnessError("predictions: are not those that the record names")
        try:
            result = score(adapter, path)
        except HarnessError as error:
            raise HarnessError(f"predictions: {str(error).replace(folder, 'predictions')}") from None
    if hash_arrays(result.statistics) != task.statistics:
        raise HarnessError("statistics: are not what its predictions give when they are scored here")


def _name_problems(path: Path, records: list[Record], stored: dict[str, Record]) -> list[str]:
    """Names that differ from others in upper and lower case only: one folder on some systems, one name to readers."""
    taken: dict[str, str] = {record.name.casefold(): record.name for record in stored.values()}
    problems = []
    for record in records:
        other = taken.setdefault(record.name.casefold(), record.name)
        if other != record.name:
            problems.append(f"{path}: {record.id}: name: {other!r} is taken, and differs in upper and lower case only")
    return problems


def _claims(
    path: Path, records: list[Record], stored: dict[str, Record], more_seeds: bool, other_name: bool
) -> list[str]:
    """What a bundle would change about entries that are there, unless the maintainer says that it may.

    Anybody can copy a published submission. Its seeds would move the mean of somebody else's entry and lower its trust;
    under another name it could stand for somebody else's baseline.
    """
    new: dict[str, list[Record]] = {}
    for record in records:
        if record.id not in stored:
            new.setdefault(record.entry, []).append(record)
    entries = {record.entry for record in stored.values()}
    names = {record.fingerprint: record.entry for record in reversed(stored.values())}
    problems = []
    for entry, wanted in new.items():
        other = names.get(wanted[0].fingerprint)
        if entry in entries and not more_seeds:
            seeds = ", ".join(str(record.seed) for record in wanted)
            problems.append(
                f"{path}: {entry}: is on this board, and would get seed{'s'[: len(wanted) > 1]} {seeds}; with "
                "--more-seeds the maintainer takes that in, if it comes from who handed the entry in"
            )
        elif other is not None and entry not in entries and not other_name:
            problems.append(
                f"{path}: {entry}: is the submission of {other}, which is on this board; with --other-name the "
                "maintainer takes it in beside that"
            )
    return problems
