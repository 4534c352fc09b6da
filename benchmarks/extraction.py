"""Extraction beside its parts alone: decoding, segmenting, encoding, writing.

    python -m benchmarks.extraction [--clips 200] [--encoder efficientnet-lite0]
                                    [--segmenter precomputed] [--rounds 3] [--device auto]

Prints Markdown. Every part works on the same clips with the hands, decoding processes and gates of
extraction, parts and whole by turns (A B A B ...), median of the rounds. Wall time says what a user
waits, processor time what the work costs: where they differ from round to round, other work took
the processors. ``whole / slowest part`` is the speed of the whole over that of the slowest part
alone; where all parts share the processors it cannot exceed that part's share of the processor
time, printed beside it. Clips are those of JHMDB-21 in $I2ST_REAL_DATA or ../shared/data.
"""

import argparse
import csv
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.datasets import Dataset, open_dataset
from pipeline.extract import extract
from pipeline.extraction.backends import load_backends
from pipeline.extraction.config import ExtractConfig
from pipeline.extraction.gates import one_torch_thread, open_gates
from pipeline.extraction.segmenting import Segmenting
from pipeline.extraction.storing import FeatureRows
from pipeline.extraction.viewed_clips import ViewedClip, Viewing, viewed_clips
from pipeline.extraction.worker import decode_children
from pipeline.shards.writer import ShardWriter

REPOSITORY = Path(__file__).resolve().parent.parent
PARTS = ("decode", "segment", "encode", "write")


@dataclass(frozen=True)
class Cost:
    """Seconds of wall time and of all processors, with those of child processes."""

    wall: float
    processors: float


def timed(work: Callable[[], Any]) -> tuple[Cost, Any]:
    """Do some work and say what it took."""
    before, begin = _processor_seconds(), time.perf_counter()
    result = work()
    return Cost(time.perf_counter() - begin, _processor_seconds() - before), result


def _processor_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def some_clips(number: int, folder: Path) -> tuple[Dataset, Path]:
    """Clips spread over JHMDB-21, and the folder of their masks."""
    data = Path(os.environ.get("I2ST_REAL_DATA", REPOSITORY.parent / "shared" / "data"))
    data = data / "jhmdb21"
    with open(data / "clips.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    table = folder / "clips.csv"
    with open(table, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "class", "split", "group"))
        for i in range(number):
            row = rows[i * len(rows) // number]
            path = f"{row['class']}/{row['clip']}.avi"
            writer.writerow((path, row["class"], row["split"], row["source_group"]))
    return open_dataset(table=table, videos=data / "videos"), data / "masks_deeplab"


class Parts:
    """The parts of an extraction, each to be run alone over all clips.

    Args:
        config: settings.
        source: the clips.
    """

    def __init__(self, config: ExtractConfig, source: Dataset) -> None:
        self._config, self._source = config, source
        backends = load_backends(config)
        assert backends.encoder is not None
        gates = open_gates(backends.made_by.device, config.processors_per_worker)
        self._rows = FeatureRows(backends.encoder, gates[0], config.batch_frames)
        self._segmenting = Segmenting(
            backends.segmenter,
            gates[1],
            manifest=source.manifest,
            prompts=None,
            prompt_mode=config.prompt_mode,
        )
        self._viewing = Viewing(
            image_size=backends.encoder.image_size,
            geometry=config.geometry,
            stored_views=(),
            keeps_frames=self._segmenting.wants,
        )
        size, videos = config.portion_videos, source.videos
        self._portions = [videos[i : i + size] for i in range(0, len(videos), size)]

    def run(self) -> dict[str, Cost]:
        """Run every part over what the one before it made."""
        costs = {}
        with decode_children(self._config) as children:
            list(children.read_many([self._config.videos / self._portions[0][0].path]))

            def decode(videos: Sequence[Any]) -> list[ViewedClip]:
                seen = viewed_clips(videos, self._config.videos, children, self._viewing)
                return [clip for _, clip in seen if isinstance(clip, ViewedClip)]

            def decode_all() -> list[Any]:
                clips = self._by_hands(decode, self._portions)
                children.close()  # the children's processor time counts once they have ended
                return clips

            costs["decode"], clips = timed(decode_all)
        costs["segment"], segmented = timed(lambda: self._by_hands(self._segmenting.masks, clips))
        costs["encode"], rows = timed(lambda: self._by_hands(self._rows.make, segmented))
        costs["write"], _ = timed(lambda: self._write([row for part in rows for _, row in part]))
        return costs

    def _by_hands(self, work: Callable[[Any], Any], portions: Iterable[Any]) -> list[Any]:
        with ThreadPoolExecutor(self._config.where.hands) as hands:
            return list(hands.map(work, portions))

    def _write(self, rows: Sequence[Any]) -> None:
        size = self._config.shard_videos
        with tempfile.TemporaryDirectory(dir=self._config.out.parent) as folder:
            writer = ShardWriter(Path(folder), {}, class_names=self._source.manifest.class_names)
            for number, first in enumerate(range(0, len(rows), size)):
                writer.write(number, rows[first : first + size], [])


def measure(config: ExtractConfig, source: Dataset, rounds: int) -> dict[str, list[Cost]]:
    """Costs of each part and of the whole, one per round."""
    costs: dict[str, list[Cost]] = {name: [] for name in (*PARTS, "whole")}
    with one_torch_thread():
        parts = Parts(config, source)
        for _ in range(rounds):
            for name, cost in parts.run().items():
                costs[name].append(cost)
            cost, _ = timed(lambda: extract(config, source.manifest, source.videos))
            costs["whole"].append(cost)
            for path in config.out.iterdir():
                path.unlink()
    return costs


def report(costs: dict[str, list[Cost]], num_clips: int) -> None:
    """Print medians, and the whole beside the slowest part."""
    wall = {name: statistics.median(c.wall for c in runs) for name, runs in costs.items()}
    spent = {name: statistics.median(c.processors for c in runs) for name, runs in costs.items()}
    print("| | clips/s | wall s | processor s |\n| --- | ---: | ---: | ---: |")
    for name in (*PARTS, "whole"):
        rate = num_clips / wall[name]
        print(f"| {name} | {rate:.1f} | {wall[name]:.2f} | {spent[name]:.2f} |")
    slowest = max(PARTS, key=lambda name: wall[name])
    share = spent[slowest] / sum(spent[name] for name in PARTS)
    ratios = [p.wall / w.wall for p, w in zip(costs[slowest], costs["whole"], strict=True)]
    print(
        f"\nwhole / slowest part ({slowest}): {statistics.median(ratios):.2f}, "
        f"{min(ratios):.2f} to {max(ratios):.2f}; that part's share of the processor time: "
        f"{share:.2f}; processor time of the parts / of the whole: "
        f"{sum(spent[name] for name in PARTS) / spent['whole']:.2f}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.extraction")
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--encoder", default="efficientnet-lite0")
    parser.add_argument("--segmenter", default="precomputed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=os.curdir)))
        source, masks = some_clips(options.clips, folder)
        config = ExtractConfig(
            dataset="jhmdb21",
            videos=source.root,
            out=folder / "out",
            encoder=options.encoder,
            segmenter=options.segmenter,
            masks=masks if options.segmenter == "precomputed" else None,
            device=options.device,
        )
        where = config.where
        print(
            f"{options.clips} clips, {config.frames} frames each; {options.encoder}, "
            f"{options.segmenter}; {config.processors_per_worker} processors, {where.hands} hands, "
            f"median of {options.rounds}\n"
        )
        report(measure(config, source, options.rounds), options.clips)


if __name__ == "__main__":
    main()
