"""Markdown tables of what is there, and what is missing."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.jhmdb21.data import Split
from benchmarks.jhmdb21.intervals import LEGEND, Pair, difference
from benchmarks.jhmdb21.jobs import SHOTS, Job, outer_jobs
from benchmarks.jhmdb21.variants import COMPARISONS, REFERENCES, VARIANTS
from i2st_model.records.results import Result, load_results

DOCS = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- jhmdb21: begin -->", "<!-- jhmdb21: end -->"


class Tables:
    """Reads the results of some variants on some splits."""

    def __init__(self, keys: Sequence[str], splits: Sequence[Split], seeds: int, out: Path) -> None:
        self.keys, self.splits, self.seeds, self.out = keys, splits, seeds, out

    def markdown(self) -> str:
        """All tables: the fixed split, then the folds."""
        groups = {
            "Fixed split (12 train, 5 test classes)": [s for s in self.splits if s.name == "fixed"],
            "Class cross-validation (folds of 11 train, 5 test classes)": [
                s for s in self.splits if s.name != "fixed"
            ],
        }
        parts = [
            part
            for title, group in groups.items()
            if group
            for part in (f"**{title}**", self.accuracies(group), self.differences(group))
        ]
        return "\n\n".join([LEGEND, *parts])

    def accuracies(self, group: Sequence[Split]) -> str:
        """Accuracy by shot, lead over the references, spread over seeds, results of how many."""
        leads = [f"over {other}" for other in REFERENCES]
        head = ["", *_shots(), *leads, "seed s.d., 1-shot", "results"]
        rows = []
        for key in self.keys:
            jobs = self._jobs(key, group)
            there = [s for s in group if any(job.split == s and job.done for job in jobs)]
            if not there:
                continue  # `missing_lines` tells
            means = [self._mean(key, there, place) for place in range(len(SHOTS))]
            over = [self._lead(key, other, there) for other in REFERENCES]
            done = f"{sum(job.done for job in jobs)}/{len(jobs)}"
            rows.append([VARIANTS[key].title, *means, *over, self._spread(key, there), done])
        return _table(head, rows)

    def differences(self, group: Sequence[Split]) -> str:
        """The comparisons, with their intervals."""
        rows = [
            [what, *self._differences(first, second, group)]
            for what, (first, second) in COMPARISONS.items()
            if first in self.keys
        ]
        there = [row for row in rows if set(row[1:]) != {"-"}]
        return _table(["paired difference", *_shots()], there)

    def _lead(self, key: str, other: str, there: Sequence[Split]) -> str:
        """Points over a reference by shot, on the splits that are there."""
        if key == other:
            return "-"
        every = range(len(SHOTS))
        found = [self._average(key, there, k) - self._average(other, there, k) for k in every]
        if np.isnan(found).any():
            return "-"
        return " / ".join(f"{points:+.1f}" for points in found)

    def _differences(self, key: str, other: str, group: Sequence[Split]) -> list[str]:
        found = []
        for place in range(len(SHOTS)):
            orders: dict[int, list[Pair]] = {}
            for split in group:
                first, second = (self._results(k, split, place) for k in (key, other))
                if first and second:
                    orders.setdefault(split.order, []).append((first, second))
            count = sum(map(len, orders.values()))
            partly = "" if count == len(group) else f" on {count} of {len(group)}"
            found.append(f"{difference(list(orders.values()))}{partly}" if orders else "-")
        return found

    def _jobs(self, key: str, group: Sequence[Split]) -> list[Job]:
        return outer_jobs([key], group, self.seeds, self.out)

    def _results(self, key: str, split: Split, place: int) -> list[Result]:
        return [_load(job.result)[place] for job in self._jobs(key, [split]) if job.done]

    def _mean(self, key: str, there: Sequence[Split], place: int) -> str:
        return f"{self._average(key, there, place):.1f}"

    def _average(self, key: str, there: Sequence[Split], place: int) -> float:
        """Percent; mean over seeds, then over splits; nan where there is none."""
        each = [
            [result.per_episode.mean() for result in self._results(key, split, place)] or [np.nan]
            for split in there
        ]
        return 100 * float(np.mean([np.mean(one) for one in each]))

    def _spread(self, key: str, there: Sequence[Split]) -> str:
        """Standard deviation of a split's accuracy over seeds, root mean square over splits."""
        by_split = [
            [100 * result.per_episode.mean() for result in self._results(key, split, 0)]
            for split in there
        ]
        squares = [np.var(one, ddof=1) for one in by_split if len(one) > 1]
        return f"{np.sqrt(np.mean(squares)):.2f}" if squares else "-"


def write_docs(text: str) -> None:
    """Replace what stands between the marks in docs/benchmarks.md."""
    docs = DOCS.read_text(encoding="utf-8")
    before, _, rest = docs.partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCS.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def missing_lines(jobs: Sequence[Job]) -> list[str]:
    """What is not done, by row, with the processor seconds of what is."""
    keys = list(dict.fromkeys(job.key for job in jobs))
    lines = [f"{sum(not job.done for job in jobs)} of {len(jobs)} results are missing"]
    for key in keys:
        own = [job for job in jobs if job.key == key]
        every = [*own, *(need for job in own for need in job.needs)]
        left = [job for job in every if not job.done]
        if left:
            each = _seconds([job for job in every if job.done])
            lines.append(f"missing: {key} {len(left)} of {len(every)} jobs, {each} s of training")
    return lines


@cache
def _load(path: Path) -> tuple[Result, ...]:
    return load_results(path)


def _seconds(done: Sequence[Job]) -> str:
    each = [json.loads(job.notes.read_text())["train_seconds"] for job in done]
    known = [seconds for seconds in each if seconds]
    return f"{np.median(known):.0f}" if known else "-"


def _shots() -> list[str]:
    return [f"{shot}-shot" for shot in SHOTS]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
