"""The board as one document: entries, what they reached, and who can be told apart from whom."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from harness.board.entries import Column, Entry, entries_of, protocol_hash
from harness.board.evidence import LEVEL, Estimate, Evidence
from harness.board.interaction import between_tasks, by_fingerprint
from harness.board.matrices import markdown as matrices_of
from harness.board.matrices import sentences as about_tasks
from harness.board.records import TRUST, Record, read_records
from harness.board.relative import against_single_tasks, of_seeds, single_task_entries
from harness.board.robustness import task_document
from harness.board.text import duration, percent, quantity, safe_markdown, safe_terminal
from harness.errors import HarnessError
from harness.evaluation.resampling import holm

DOCUMENT_VERSION = 1
SIGNIFICANCE = 1 - LEVEL
FAMILY = 10  # how many entries after a leader are tested against it as one family
PAIRED_ENTRIES = 20  # entries of a table that are compared each with each
TOLD_ENTRIES = 20  # entries whose tasks are held against each other in Markdown


def board_document(
    board: Path, evidence: Evidence | None = None, records: Sequence[Record] | None = None
) -> dict[str, Any]:
    """Everything that the board shows, from its records alone. The format is described in ``docs/board.md``.

    Args:
        board: The board's folder.
        evidence: How to resample; 1,000 draws, seed 0 and the board's cache unless given.
        records: The board's records, if they have been read already.

    Returns:
        A document of plain JSON values.

    Raises:
        HarnessError: A record cannot be read.
    """
    evidence = evidence or Evidence(board)
    entries = entries_of(read_records(board) if records is None else records)
    estimates: dict[str, dict[str, Estimate]] = {entry.key: {} for entry in entries}
    problems = {entry.key: list(entry.problems) for entry in entries}
    for entry in entries:
        if not problems[entry.key]:
            estimates[entry.key], problems[entry.key] = _estimates(entry, evidence)
    for key, problem in _strange_images([entry for entry in entries if not problems[entry.key]], estimates):
        problems[key].append(problem)
    ranked = [entry for entry in entries if not problems[entry.key]]
    singles, index = single_task_entries(ranked), by_fingerprint(ranked)
    documents = [
        _entry_document(entry, estimates[entry.key], problems[entry.key])
        | against_single_tasks(entry, None if problems[entry.key] else singles, evidence)
        | between_tasks(entry, None if problems[entry.key] else index, evidence)
        for entry in entries
    ]
    tables = [_table(columns, members, evidence) for columns, members in _tables(ranked)]
    keys = {entry.key: entry for entry in ranked}
    document = {
        "schema_version": DOCUMENT_VERSION,
        "resampling": {"draws": evidence.draws, "seed": evidence.seed, "level": LEVEL, "family": FAMILY},
        "entries": documents,
        "tables": tables,
        "pairs": _pairs(tables, keys, evidence),
    }
    evidence.save()
    rounded: dict[str, Any] = _rounded(document)
    return rounded


def rank(
    values: Sequence[float], p_value: Callable[[int, int], float], family: int = FAMILY, level: float = SIGNIFICANCE
) -> list[tuple[int, int]]:
    """Ranks with tie groups: an entry that cannot be told apart from its group's leader shares the leader's rank.

    The best entry leads the first group. Going down, the first entry that differs from the leader (paired test, Holm
    corrected over the `family` entries that follow the leader or the last family) leads the next group. Ranks count
    entries: 1, 1, 3.

    Args:
        values: Headline numbers, higher is better.
        p_value: Uncorrected p-value of two indices into `values`.
        family: How many entries are tested as one family.
        level: Corrected p-values below it tell entries apart.

    Returns:
        For each value its rank and the index of its group's leader.
    """
    order = sorted(range(len(values)), key=lambda i: (-values[i], i))
    ranks = [(0, 0)] * len(values)
    start = 0
    while start < len(order):
        leader, end = order[start], start + 1
        while end < len(order):
            block = order[end : end + family]
            tied = _tied(leader, block, p_value, level)
            end += tied
            if tied < len(block):
                break
        for index in order[start:end]:
            ranks[index] = (start + 1, leader)
        start = end
    return ranks


def _tied(leader: int, block: Sequence[int], p_value: Callable[[int, int], float], level: float) -> int:
    """How many entries at the block's beginning cannot be told apart from the leader.

    Holm's corrected p lies between p and p times the family's size, so most decisions need one test only.
    """
    corrected: list[float] = []
    for position, index in enumerate(block):
        p = p_value(leader, index)
        if p >= level:
            continue
        if p * len(block) >= level:
            corrected = corrected or holm([p_value(leader, other) for other in block])
            if corrected[position] >= level:
                continue
        return position
    return len(block)


def _estimates(entry: Entry, evidence: Evidence) -> tuple[dict[str, Estimate], list[str]]:
    """Intervals of an entry's numbers, and why they cannot be believed, if so."""
    estimates: dict[str, Estimate] = {}
    problems = []
    for card in entry.records[0].tasks:
        try:
            estimates[card] = evidence.estimate(entry.records, card)
        except HarnessError as error:
            problems.append(f"{card}: not verifiable: {_relative(str(error), evidence.board)}")
            continue
        if any(record.tasks[card].images != estimates[card].images for record in entry.records):
            problems.append(f"{card}: not verifiable: its statistics are of {estimates[card].images} images")
        if abs(estimates[card].value - entry.value(card)) > 1e-9:
            problems.append(
                f"{card}: not verifiable: the record says {percent(entry.value(card))}, "
                f"its statistics give {percent(estimates[card].value)}"
            )
    return estimates, problems


def _strange_images(entries: Sequence[Entry], estimates: Mapping[str, Mapping[str, Estimate]]) -> list[tuple[str, str]]:
    """Entries whose statistics are of other images, or classes, than those of the entries that name the same protocol.

    A protocol names its images by a hash over ids in the data set's own order, which the statistics do not keep. Ids in
    one of the two usual orders prove themselves; where none does, those of the most trusted entries stand, then those
    that most entries have: a stranger can hand in many entries, but not make others score them again.
    """
    groups: dict[Column, dict[tuple[str, str], list[Entry]]] = defaultdict(lambda: defaultdict(list))
    for entry in entries:
        for card, column in entry.columns.items():
            groups[column][estimates[entry.key][card].ids].append(entry)
    found = []
    for (card, _), images in groups.items():

        def credit(
            ids: tuple[str, str], images: Mapping[tuple[str, str], list[Entry]] = images, card: str = card
        ) -> tuple[bool, int, int, tuple[str, str]]:
            first = images[ids][0]
            proven = first.records[0].tasks[card].protocol.images in estimates[first.key][card].image_lists
            trust = max(TRUST.index(record.trust) for entry in images[ids] for record in entry.records)
            return proven, trust, len(images[ids]), ids

        *others, best = sorted(images, key=credit)
        for ids in others:
            what = "images" if ids[0] != best[0] else "classes"
            text = f"{card}: not verifiable: its statistics are not of the {what} that its protocol names"
            found += [(entry.key, text) for entry in images[ids]]
    return found


def _rounded(value: Any) -> Any:
    """Numbers to 12 decimals: the last bits of a sum differ from machine to machine, the board should not."""
    if isinstance(value, float):
        return round(value, 12) + 0.0
    # Most values of a document are texts and numbers, and a call for each of them would take several times as long.
    if isinstance(value, dict):
        return {key: child if type(child) in _EXACT else _rounded(child) for key, child in value.items()}
    return (
        [child if type(child) in _EXACT else _rounded(child) for child in value] if isinstance(value, list) else value
    )


_EXACT = frozenset({str, int, bool, type(None)})


def _relative(message: str, board: Path) -> str:
    """A message without the board's own place, so that the board is the same wherever it lies."""
    return message.replace(f"{board}/", "")


def _tables(entries: Sequence[Entry]) -> list[tuple[tuple[Column, ...], list[Entry]]]:
    """One table for each set of tasks that an entry has, with all entries that have these tasks; largest first.

    A task on which entries of different sets meet has a table of its own, too.
    """
    sets = {tuple(sorted(entry.columns.values())) for entry in entries}
    for column in {column for columns in sets for column in columns}:
        own = [set(columns) for columns in sets if column in columns]
        if not any(all(one <= other for other in own) for one in own):  # no table has all entries with this task
            sets.add((column,))
    tables = [(columns, [e for e in entries if set(columns) <= set(e.columns.values())]) for columns in sets]
    return sorted(tables, key=lambda table: (-len(table[0]), -len(table[1]), table[0]))


def _table(columns: Sequence[Column], members: Sequence[Entry], evidence: Evidence) -> dict[str, Any]:
    cells: list[dict[str, Any]] = [{} for _ in members]
    for card, _ in columns:

        def p_value(a: int, b: int, card: str = card) -> float:
            return evidence.paired(members[a].records, members[b].records, card).p_value

        for cell, (place, leader) in zip(cells, rank([e.value(card) for e in members], p_value), strict=True):
            cell[card] = {"rank": place, "tied_with": members[leader].key}
    mean_ranks = [fmean(task["rank"] for task in cell.values()) for cell in cells]
    ascending = sorted(mean_ranks)
    quality = [fmean(member.value(card) for card, _ in columns) for member in members]
    order = sorted(range(len(members)), key=lambda i: (mean_ranks[i], -quality[i], members[i].key))
    rows = [
        {
            "entry": members[i].key,
            "rank": 1 + bisect_left(ascending, mean_ranks[i]),
            "mean_rank": mean_ranks[i],
            "mean_value": quality[i],
            "tasks": cells[i],
        }
        for i in order
    ]
    first = members[0].records[0].tasks
    tasks = [
        {
            "card": card,
            "task": first[card].task,
            "main": first[card].main,
            "images": first[card].images,
            "protocol": first[card].protocol.model_dump(),
            "protocol_hash": digest,
        }
        for card, digest in sorted(columns, key=lambda column: (first[column[0]].task, column[0]))
    ]
    return {"tasks": tasks, "rows": rows}


def _entry_document(entry: Entry, estimates: Mapping[str, Estimate], problems: Sequence[str]) -> dict[str, Any]:
    records = entry.records
    tasks = {}
    for card, first in records[0].tasks.items():
        results = [record.tasks[card] for record in records]
        seeds = [result.value for result in results]
        known = [value for value in seeds if value is not None]
        estimate = estimates.get(card)
        tasks[card] = {
            "task": first.task,
            "main": first.main,
            "images": first.images,
            "protocol": first.protocol.model_dump(),
            "protocol_hash": protocol_hash(first.protocol),
            "value": _mean(seeds),
            "low": estimate.low if estimate else None,
            "high": estimate.high if estimate else None,
            "method": estimate.method if estimate else None,
            "seeds": seeds,
            "spread": stdev(known) if len(known) == len(seeds) > 1 else None,
            "metrics": {key: _mean([result.metrics.get(key) for result in results]) for key in first.metrics},
            "per_class": {key: _mean([result.per_class.get(key) for result in results]) for key in first.per_class},
        } | task_document(records, card)
    return {
        "entry": entry.key,
        "name": records[0].name,
        "fingerprint": records[0].fingerprint,
        "seeds": [record.seed for record in records],
        "records": [record.id for record in records],
        "trust": entry.trust,
        "not_ranked_because": list(problems),
        "warnings": sorted({warning for record in records for warning in record.warnings}),
        "cost": {key: _mean([getattr(record.cost, key) for record in records]) for key in SCALAR_COSTS}
        | {"parameters_by_part": records[0].cost.parameters_by_part, "macs": records[0].cost.macs}
        | {"train_seconds_by_phase": _mean_phases(records)},
        "tasks": tasks,
    }


SCALAR_COSTS = (
    "parameters", "steps", "train_seconds", "evaluation_seconds", "images_per_second", "peak_memory_bytes",
    "peak_gpu_memory_bytes", "energy_joules",
)  # fmt: skip


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean over seeds; undefined as soon as one seed's number is."""
    if len(values) == 1:  # most entries have one seed
        return None if values[0] is None else float(values[0])
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def _mean_phases(records: Sequence[Record]) -> dict[str, float | None]:
    costs = [record.cost.train_seconds_by_phase for record in records]
    return {phase: _mean([cost.get(phase) for cost in costs]) for phase in costs[0]}


def _pairs(tables: Sequence[dict[str, Any]], entries: Mapping[str, Entry], evidence: Evidence) -> list[dict[str, Any]]:
    """Paired differences of the first entries of each table, each with each, on every task of the table."""
    pairs: dict[tuple[str, str, str], dict[str, Any]] = {}
    for table in tables:
        for a, b in combinations([row["entry"] for row in table["rows"][:PAIRED_ENTRIES]], 2):
            for task in table["tasks"]:
                if (b, a, task["card"]) not in pairs:
                    outcome = evidence.paired(entries[a].records, entries[b].records, task["card"])
                    pairs[a, b, task["card"]] = {
                        "a": a,
                        "b": b,
                        "card": task["card"],
                        **outcome.model_dump(exclude={"image_spread"}),
                    }
    return list(pairs.values())


def rows(document: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """The board's tables for a terminal.

    Args:
        document: From `board_document`.

    Returns:
        For each table its title, its column headers and its rows of cells, all plain text without control sequences.
        Entries that are not ranked come last, in a table of their own.
    """
    entries, shown = {entry["entry"]: entry for entry in document["entries"]}, labels(document)
    found = []
    for table in document["tables"]:
        cards = [task["card"] for task in table["tasks"]]
        relative = [_relative_cell(entries[row["entry"]], cards) for row in table["rows"]]
        shows = any(relative)
        header = ["rank", "entry", *cards, *(["Δm"] if shows else []), "mean rank", "seeds", "parameters", "training"]
        header.append("trust")
        body = []
        for row, change in zip(table["rows"], relative, strict=True):
            entry = entries[row["entry"]]
            cells = [_cell(entry["tasks"][card], row["tasks"][card]["rank"]) for card in cards]
            cells += [change] if shows else []
            cost = entry["cost"]
            body.append(
                [str(row["rank"]), shown[row["entry"]], *cells, f"{row['mean_rank']:.2f}",
                 str(len(entry["seeds"])), quantity(cost["parameters"]), duration(cost["train_seconds"]),
                 entry["trust"]]
            )  # fmt: skip
        found.append((title(table), header, [[safe_terminal(cell) for cell in line] for line in body]))
    unranked = [
        [safe_terminal(entry["entry"]), safe_terminal("; ".join(entry["not_ranked_because"]))]
        for entry in document["entries"]
        if entry["not_ranked_because"]
    ]
    if unranked:
        found.append(("Not ranked", ["entry", "because"], unranked))
    return found


def title(table: Mapping[str, Any]) -> str:
    """A table's heading: its cards."""
    return " + ".join(task["card"] for task in table["tasks"])


def labels(document: Mapping[str, Any]) -> dict[str, str]:
    """For each entry's key its name, with the fingerprint only where several entries have the name."""
    count = Counter(entry["name"] for entry in document["entries"])
    return {e["entry"]: e["name"] if count[e["name"]] == 1 else e["entry"] for e in document["entries"]}


def _cell(task: Mapping[str, Any], place: int) -> str:
    return f"{percent(task['value'])} [{percent(task['low'])}, {percent(task['high'])}] #{place}"


def _relative_cell(entry: Mapping[str, Any], cards: Sequence[str]) -> str:
    """Δm with its interval, in the table that has all of its tasks; empty elsewhere and where there is none."""
    change = entry["delta_m"]
    if change is None or set(entry["baselines"]) != set(cards):
        return ""
    fewer = of_seeds(change, entry["seeds"])
    return f"{change['value']:+.2f} [{change['low']:+.2f}, {change['high']:+.2f}]" + (f" ({fewer})" if fewer else "")


def markdown(document: Mapping[str, Any]) -> str:
    """The board's tables as Markdown; whatever names say, they are shown as plain text."""
    lines = [
        "# Leaderboard",
        "",
        "Generated from `records/` by `harness leaderboard`; do not edit. Details, learning curves and pairwise "
        "comparisons are in `index.html`, all numbers in `board.json`.",
        "",
        "Numbers are percent with 95% bootstrap intervals over images (and seeds, where there are several). `#` is the "
        "rank on the task: entries share a rank if a paired test cannot tell them apart from the best of their group.",
        "Δm is the mean relative change in percent against single-task baselines of the same backbone and recipe.",
    ]
    for heading, header, body in rows(document):
        lines += _markdown_table("##", heading, header, body)
    lines += _between_tasks(document)
    if not document["entries"]:
        lines += ["", "No records yet: `harness submit FILE` or `harness score CARD PREDICTIONS` makes the first."]
    return "\n".join(lines) + "\n"


def _markdown_table(level: str, heading: str, header: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    lines = ["", f"{level} {safe_markdown(heading)}", ""]
    lines.append("| " + " | ".join(safe_markdown(cell) for cell in header) + " |")
    lines.append("|" + " --- |" * len(header))
    return lines + ["| " + " | ".join(safe_markdown(cell) for cell in line) + " |" for line in body]


def _between_tasks(document: Mapping[str, Any]) -> list[str]:
    """What is known of the tasks of the first entries that say something of them."""
    shown = labels(document)
    told = [entry for entry in document["entries"] if "interaction" in entry or "relations" in entry]
    lines = ["", "## Between tasks", ""] if told else []
    if told:
        lines.append(
            "Differences in percentage points, 95% intervals in brackets: of transfer and leave-one-out over images and"
            " seeds, of all else over seeds. What each number is: `docs/analysis.md`."
        )
    for entry in told[:TOLD_ENTRIES]:
        for heading, header, body in matrices_of(entry, shown[entry["entry"]]):
            lines += _markdown_table("###", heading, header, body)
        said = [f"- {safe_markdown(sentence)}" for sentence in about_tasks(entry)]
        lines += ["", f"### {safe_markdown(shown[entry['entry']])}", "", *said] if said else []
    if len(told) > TOLD_ENTRIES:
        lines += ["", f"The first {TOLD_ENTRIES} of {len(told):,} entries; all are in `board.json`."]
    return lines
