"""Run what is left, then print the tables; see the package."""

import argparse
import os
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path

from benchmarks import jhmdb21
from benchmarks.jhmdb21.data import extract_shards, outer_splits, read_classes
from benchmarks.jhmdb21.jobs import Job, outer_jobs
from benchmarks.jhmdb21.running import run_job
from benchmarks.jhmdb21.tables import Tables, missing_lines, write_docs
from benchmarks.jhmdb21.variants import VARIANTS
from pipeline.errors import I2STError

REPOSITORY = Path(__file__).resolve().parents[2]


def main() -> None:
    """Extract, run, print."""
    asked = _arguments()
    keys = asked.only.split(",")
    unknown = sorted(set(keys) - set(VARIANTS))
    if unknown:
        raise SystemExit(f"unknown variant {unknown[0]!r}; known: {', '.join(VARIANTS)}")
    wanted = asked.splits.split(",")
    every = outer_splits(read_classes(asked.data))
    splits = [s for s in every if s.name in wanted or (s.name != "fixed" and "folds" in wanted)]
    jobs = outer_jobs(keys, splits, asked.seeds, asked.out)
    if not asked.dry_run:
        for name in dict.fromkeys(job.variant.shards for job in jobs):
            of_shards = [job for job in jobs if job.variant.shards == name]
            if not all(job.done for job in of_shards):
                try:
                    digest = extract_shards(name, asked.data, asked.out)
                except I2STError as error:
                    print(f"failed: shards {name}: {error}", flush=True)
                    continue
                print(f"shards {name} {digest}", flush=True)
                run_all(of_shards, asked.jobs)
    text = Tables(keys, splits, asked.seeds, asked.out).markdown()
    (asked.out / "tables.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    print("\n".join(["", *missing_lines(jobs)]))
    if asked.docs:
        write_docs(text)


def run_all(jobs: Sequence[Job], processes: int) -> None:
    """Run what is not done in the given order, each job after those that it needs."""
    todo = [job for job in _with_needs(jobs) if not job.done]
    count, failed = len(todo), set()
    running: dict[Future[str], Job] = {}
    start = time.monotonic()
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        while todo or running:
            for job in [j for j in todo if all(n.done for n in j.needs)]:
                if len(running) < processes:
                    todo.remove(job)
                    running[pool.submit(run_job, job)] = job
            if not running:
                break  # what is left needs a job that failed
            for finished in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(finished)
                error = finished.exception()
                if error is not None:
                    failed.add(f"{job.key} {job.split.name} {job.seed}: {error}")
                    traceback.print_exception(error)
                said = finished.result() if error is None else f"{job.name} FAILED"
                at = f"{count - len(todo) - len(running)}/{count} {time.monotonic() - start:.0f} s"
                print(f"{at} {said}", flush=True)
    for line in sorted(failed):
        print(f"failed: {line}")


def _with_needs(jobs: Sequence[Job]) -> list[Job]:
    """Put before each job what it needs, once."""
    found: dict[tuple[str, str, int], Job] = {}
    for job in jobs:
        for one in (*job.needs, job):
            found.setdefault((one.key, one.split.name, one.seed), one)
    return list(found.values())


def _arguments() -> argparse.Namespace:
    data = Path(os.environ.get("I2ST_REAL_DATA", REPOSITORY.parent / "shared" / "data"))
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.jhmdb21",
        description=jhmdb21.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, default=data / "jhmdb21")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-jhmdb21"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--only", default=",".join(VARIANTS), help="rows")
    parser.add_argument("--splits", default="fixed,folds", help="fixed, folds or fold0 to fold5")
    parser.add_argument("--dry-run", action="store_true", help="run nothing, say what is missing")
    parser.add_argument("--docs", action="store_true", help="write the tables into the docs")
    return parser.parse_args()


if __name__ == "__main__":
    main()
