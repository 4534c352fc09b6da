"""What safety and size cost an extraction: whole shards, nothing to do, ten times the clips.

    python -m benchmarks.extraction_costs [--videos 10000] [--few 96] [--rounds 5]

Prints Markdown. Whole `i2st extract` processes on hard links to clips of JHMDB-21 ($I2ST_REAL_DATA
or ../shared/data), EfficientNet-Lite0 without masks:

- safety: seconds that images in memory, checksums, fsync and renames add to plain writes through
  h5py, over the seconds of the whole extraction of the same clips;
- a run with nothing to do, over a dataset of which all but a few rows are made up;
- peak memory of one process at ten times the clips.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import h5py

from pipeline.manifests import Video
from pipeline.shards.committed import finish
from pipeline.shards.index import ShardIndex
from pipeline.shards.reader import ShardReader
from pipeline.shards.writer import ShardWriter, VideoFeatures

REPOSITORY = Path(__file__).resolve().parent.parent
NUM_CLASSES = 10
NUM_REAL = 16
"""Clips that are extracted before the rest is made up."""
SHARD_VIDEOS = 16
"""Small, so that the smaller of two runs fills the pipeline too."""


class Run(NamedTuple):
    """One process of `i2st extract`."""

    report: dict
    wall_seconds: float
    processor_seconds: float
    peak_mb: float


def extract(table: Path, out: Path, *flags: str) -> Run:
    """Run the command to its end."""
    command = [sys.executable, "-c", "import cli; cli.main()", "extract", "--json"]
    command += ["--table", str(table), "--videos", str(table.parent), "--out", str(out)]
    command += ["--encoder", "efficientnet-lite0", "--segmenter", "none", "--device", "cpu", *flags]
    begin = time.perf_counter()
    with open(out.with_suffix(".json"), "w+") as answer:
        process = subprocess.Popen(command, stdout=answer, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        answer.seek(0)
        assert process.returncode == 0, f"{command} ended with {process.returncode}"
        report = json.load(answer)
    wall = time.perf_counter() - begin
    return Run(report, wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def clips(number: int, folder: Path) -> Path:
    """Link clips into a folder under new names, and list them in a table."""
    data = Path(os.environ.get("I2ST_REAL_DATA", REPOSITORY.parent / "shared" / "data"))
    sources = sorted((data / "jhmdb21" / "videos").glob("*/*.avi"))[:64]
    folder.mkdir()
    copies = []
    for source in sources:
        copies.append(folder / f"source-{len(copies)}.avi")
        copies[-1].write_bytes(source.read_bytes())
    for name in range(NUM_CLASSES):
        (folder / f"c{name}").mkdir()
    table = folder / "table.csv"
    with open(table, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "class", "split"))
        for i in range(number):
            path = f"c{i % NUM_CLASSES}/{i:05d}.avi"
            os.link(copies[i % len(copies)], folder / path)
            writer.writerow((path, f"c{i % NUM_CLASSES}", "train"))
    return table


def rows_of(folder: Path) -> list[VideoFeatures]:
    """Rows of a dataset as the writer takes them."""
    reader = ShardReader(folder)
    every = range(reader.num_videos)
    tokens, embeddings = reader.tokens(every), reader.frame_embedding(every)
    return [
        VideoFeatures(
            video=Video(video_id=one.video_id, path="", class_name=one.class_name, split=one.split),
            tokens=tokens[i],
            frame_embedding=embeddings[i],
            masks=None,
            frame_indices=reader.frame_indices([i])[0],
            num_frames_decoded=one.num_frames_decoded,
            num_frames_expected=one.num_frames_expected,
            num_damaged_packets=one.num_damaged_packets,
        )
        for i, one in enumerate(reader.index.videos)
    ]


def safety(few: int, rounds: int, folder: Path) -> None:
    """Measure what whole shards cost beside plain files."""
    whole = extract(clips(few, folder / "safe"), folder / "safe-out")
    rows = rows_of(folder / "safe-out")
    index = ShardIndex.load(folder / "safe-out")
    (folder / "plain").mkdir()
    writer = ShardWriter(folder / "plain", index.fingerprint, class_names=index.class_names)
    seconds: dict[str, list[float]] = {"safe": [], "plain": []}
    for number in range(rounds):
        begin = time.perf_counter()
        writer.write(number, rows, [])
        middle = time.perf_counter()
        with h5py.File(folder / "plain" / f"plain-{number}.h5", "w") as file:
            for row in rows:
                group = file.create_group(row.video.video_id)
                group["tokens"], group["frame_embedding"] = row.tokens, row.frame_embedding
        seconds["safe"].append(middle - begin)
        seconds["plain"].append(time.perf_counter() - middle)
    safe, plain = (statistics.median(seconds[name]) for name in ("safe", "plain"))
    print(
        f"safety: {few} clips in {whole.wall_seconds:.1f} s; their shards {safe:.2f} s, plain "
        f"h5py {plain:.2f} s; {100 * (safe - plain) / whole.wall_seconds:.1f} % of the extraction"
    )


def nothing_to_do(number: int, rounds: int, folder: Path) -> None:
    """Measure a run over a finished dataset."""
    table, out = clips(number, folder / "many"), folder / "many-out"
    flags = ("--grid", "1")
    extract(table, out, *flags, "--limit", str(NUM_REAL))
    index = ShardIndex.load(out)
    done, pattern = {video.video_id for video in index.videos}, rows_of(out)[0]
    with open(table, newline="", encoding="utf-8") as file:
        videos = [
            Video(
                video_id=Path(row["path"]).with_suffix("").as_posix(),
                path=row["path"],
                class_name=row["class"],
                split=row["split"],
            )
            for row in csv.DictReader(file)
        ]
    left = [video for video in videos if video.video_id not in done]
    writer = ShardWriter(out, index.fingerprint, class_names=index.class_names)
    for first in range(0, len(left), 64):
        rows = [
            VideoFeatures(**{**_fields(pattern), "video": video})
            for video in left[first : first + 64]
        ]
        writer.write(len(index.shards) + first // 64, rows, [])
    dataset = {"name": index.dataset_name, "classes": index.classes}
    finish(out, dataset, index.fingerprint)
    runs = [extract(table, out, *flags) for _ in range(rounds)]
    assert all((run.report["videos"], run.report["new"]) == (number, 0) for run in runs)
    wall, spent = (
        [getattr(run, name) for run in runs] for name in ("wall_seconds", "processor_seconds")
    )
    print(
        f"nothing to do: {number} videos, {statistics.median(wall):.2f} s "
        f"({min(wall):.2f} to {max(wall):.2f}), processor {statistics.median(spent):.2f} s, "
        f"{runs[0].peak_mb:.0f} MB"
    )


def _fields(row: VideoFeatures) -> dict:
    return {name: getattr(row, name) for name in VideoFeatures.__dataclass_fields__}


def memory(few: int, folder: Path) -> None:
    """Measure peak memory at ten times the clips."""
    shards = ("--shard-videos", str(SHARD_VIDEOS))
    runs = [
        extract(clips(number, folder / f"in{number}"), folder / f"out{number}", *shards)
        for number in (few, 10 * few)
    ]
    less, more = (run.peak_mb for run in runs)
    print(f"memory: {few} clips {less:.0f} MB, {10 * few} clips {more:.0f} MB: {more / less:.3f}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.extraction_costs")
    parser.add_argument("--videos", type=int, default=10_000)
    parser.add_argument("--few", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=os.curdir) as name:
        folder = Path(name).resolve()
        nothing_to_do(options.videos, options.rounds, folder)
        safety(options.few, options.rounds, folder)
        memory(options.few, folder)


if __name__ == "__main__":
    main()
