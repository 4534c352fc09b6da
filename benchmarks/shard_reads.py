"""Random reads of features: i2st's mapped shards beside other ways to keep them in HDF5.

    python -m benchmarks.shard_reads [--videos 320] [--draw 40] [--repeats 30] [--folder DIR]

Prints Markdown. Every way returns the same bytes, which is checked first. The ceiling is the
kernel's own copy: read(2) of the same bytes at their places in the same files. "Cold" drops the
files from the page cache before each draw (posix_fadvise), which a virtual machine's host may
ignore. Times on shared machines are noisy: quote the ratios.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.manifests import Video
from pipeline.shards.committed import finish
from pipeline.shards.mapping import forget_checked
from pipeline.shards.reader import ShardReader
from pipeline.shards.verify import verify
from pipeline.shards.writer import ShardWriter, VideoFeatures

SHAPE = (8, 49, 768)
"""F, L, C of a ViT-B/16 on a 7 x 7 grid with 8 stored frames."""
SHARD_VIDEOS = 64

Way = Callable[[NDArray[np.int64]], NDArray[np.float16]]


def main() -> None:
    """Build the files, check that all ways agree, time them and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=320)
    parser.add_argument(
        "--draw", type=int, default=40, help="videos per draw, 5-way 3-shot 5-query"
    )
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to measure")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=flags.folder) as name:
        folder = Path(name)
        seconds = write_all(folder, flags.videos)
        ways = open_all(folder, flags.videos)
        draws = [
            np.random.default_rng(i).choice(flags.videos, flags.draw, replace=False)
            for i in range(flags.repeats)
        ]
        expected = np.stack([video_tokens(number) for number in draws[0]])
        for way in ways.values():
            np.testing.assert_array_equal(way(draws[0]), expected)
        warm, cold = timings(ways, draws), timings(ways, draws, cold=folder)
        print_table({way: (warm[way], cold[way]) for way in ways}, flags.draw)
        print_costs(folder, seconds, flags.videos)


def video_tokens(number: int) -> NDArray[np.float16]:
    """Return the features of one video."""
    rng = np.random.default_rng(number)
    return rng.standard_normal(SHAPE, np.float32).astype(np.float16)


def write_all(folder: Path, num_videos: int) -> float:
    """Write the same features as shards, as one chunked file and as a group per video.

    Args:
        folder: receives them.
        num_videos: how many.

    Returns:
        Seconds that the shards took, features not counted.
    """
    (folder / "shards").mkdir()
    writer = ShardWriter(folder / "shards", {}, class_names=["c"])
    seconds = 0.0
    with (
        h5py.File(folder / "groups.h5", "w") as groups,
        h5py.File(folder / "chunked.h5", "w") as chunked,
    ):
        tokens = chunked.create_dataset("tokens", (num_videos, *SHAPE), "<f2", chunks=(1, *SHAPE))
        for first in range(0, num_videos, SHARD_VIDEOS):
            numbers = range(first, min(num_videos, first + SHARD_VIDEOS))
            rows = [features(number) for number in numbers]
            begin = time.perf_counter()
            writer.write(first // SHARD_VIDEOS, rows, [])
            seconds += time.perf_counter() - begin
            for number, row in zip(numbers, rows, strict=True):
                groups.create_dataset(f"{row.video.video_id}/tokens", data=row.tokens)
                tokens[number] = row.tokens
    finish(folder / "shards", {"name": "random", "classes": {"train": ["c"]}}, {})
    for path in folder.rglob("*.h5"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
    return seconds


def features(number: int) -> VideoFeatures:
    """Return one video as the writer takes it."""
    name = f"v{number:06d}"
    return VideoFeatures(
        video=Video(video_id=name, path=name, class_name="c", split="train"),
        tokens=video_tokens(number),
        frame_embedding=np.zeros((SHAPE[0], 512), np.float16),
        masks=None,
        frame_indices=np.arange(SHAPE[0], dtype=np.int32),
        num_frames_decoded=8,
        num_frames_expected=8,
        num_damaged_packets=0,
    )


@cache
def mapped_reader(shards: Path) -> ShardReader:
    """Return the one reader that is measured."""
    return ShardReader(shards)


def open_all(folder: Path, num_videos: int) -> dict[str, Way]:
    """Return the ways to read, with their files open and checked.

    Args:
        folder: as written by ``write_all``.
        num_videos: how many it holds.

    Returns:
        Name -> function from rows (B,) to tokens (B, F, L, C).
    """
    reader = mapped_reader(folder / "shards")
    time.sleep(2.1)  # younger files are hashed at every use
    reader.tokens(range(num_videos))
    files = [h5py.File(path, "r") for path in sorted((folder / "shards").glob("*.h5"))]
    groups, chunked = h5py.File(folder / "groups.h5", "r"), h5py.File(folder / "chunked.h5", "r")
    places = [(files[n // SHARD_VIDEOS]["tokens"], n % SHARD_VIDEOS) for n in range(num_videos)]

    def one_by_one(place: Callable[[int], tuple[h5py.Dataset, Any]]) -> Way:
        def read(rows: NDArray[np.int64]) -> NDArray[np.float16]:
            out = np.empty((len(rows), *SHAPE), np.float16)
            for position, row in enumerate(rows.tolist()):
                dataset, selection = place(row)
                dataset.read_direct(out, selection, np.s_[position])
            return out

        return read

    def sorted_list(rows: NDArray[np.int64]) -> NDArray[np.float16]:
        order = np.argsort(rows)
        out = np.empty((len(rows), *SHAPE), np.float16)
        out[order] = chunked["tokens"][rows[order]]
        return out

    return {
        "mapped shards (i2st)": reader.tokens,
        "read(2) of the same bytes": raw_reads(places, keep=False),
        "read(2) into memory kept from before": raw_reads(places, keep=True),
        "same shards through h5py": one_by_one(lambda row: places[row]),
        "one group per video, h5py": one_by_one(lambda row: (groups[f"v{row:06d}/tokens"], ())),
        "chunk per video, h5py": one_by_one(lambda row: (chunked["tokens"], row)),
        "chunk per video, h5py list of rows": sorted_list,
    }


def raw_reads(places: list[tuple[h5py.Dataset, int]], *, keep: bool) -> Way:
    """Return a reader that asks the kernel for each video's bytes.

    Args:
        places: dataset and row of each video.
        keep: use the memory of the draw before; else each draw gets memory of its own, as every
            other way does, and the kernel has to clear it.
    """
    descriptors = {
        name: os.open(name, os.O_RDONLY) for name in {place.file.filename for place, _ in places}
    }
    size = 2 * int(np.prod(SHAPE))
    spots = [
        (descriptors[place.file.filename], place.id.get_offset() + row * size)
        for place, row in places
    ]
    kept: dict[int, NDArray[np.float16]] = {}

    def read(rows: NDArray[np.int64]) -> NDArray[np.float16]:
        if keep and len(rows) not in kept:
            kept[len(rows)] = np.zeros((len(rows), *SHAPE), np.float16)
        out = kept[len(rows)] if keep else np.empty((len(rows), *SHAPE), np.float16)
        for position, row in enumerate(rows.tolist()):
            descriptor, offset = spots[row]
            assert os.preadv(descriptor, [out[position]], offset) == size
        return out

    return read


def timings(
    ways: dict[str, Way], draws: list[NDArray[np.int64]], cold: Path | None = None
) -> dict[str, float]:
    """Time every way on every draw, in turn, so that a busy moment meets them all.

    The ways read different draws in one turn, since the second reader of a row would find it in the
    processor's cache; and in another order in each turn, since each pays for the memory that the
    one before it gave back.

    Args:
        ways: name -> function that reads.
        draws: rows to read.
        cold: folder whose files leave the page cache before each read; None leaves them there.

    Returns:
        Name -> median seconds of a draw.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(len(draws)):
        for place, name in enumerate(np.random.default_rng(turn).permutation(list(ways)).tolist()):
            rows = draws[(turn + place) % len(draws)]
            if cold:
                mapped_reader(cold / "shards").close()  # a mapped page cannot leave the cache
                drop_from_cache(cold)
            begin = time.perf_counter()
            ways[name](rows)
            seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in seconds.items()}


def drop_from_cache(folder: Path) -> None:
    """Ask the kernel to forget the files' pages."""
    for path in folder.rglob("*.h5"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def print_table(timed: dict[str, tuple[float, float]], draw: int) -> None:
    """Print one row per way, with its ratio to the first."""
    megabytes = draw * int(np.prod(SHAPE)) * 2 / 1e6
    best_warm, best_cold = next(iter(timed.values()))
    print(f"{draw} random videos of {SHAPE} float16, {megabytes:.1f} MB per draw, medians\n")
    print("| layout and reader | warm ms | MB/s | times i2st | cold ms | MB/s | times i2st |")
    print("|---|---|---|---|---|---|---|")
    for way, (warm, cold) in timed.items():
        print(
            f"| {way} | {warm * 1e3:.1f} | {megabytes / warm:,.0f} | {warm / best_warm:.1f} "
            f"| {cold * 1e3:.1f} | {megabytes / cold:,.0f} | {cold / best_cold:.1f} |"
        )


def print_costs(folder: Path, write_seconds: float, num_videos: int) -> None:
    """Print what safety costs: the atomic write, the first use and a full verification."""
    shards = folder / "shards"
    megabytes = sum(path.stat().st_size for path in shards.glob("*.h5")) / 1e6
    forget_checked()
    begin = time.perf_counter()
    ShardReader(shards).tokens(range(0, num_videos, SHARD_VIDEOS))
    first = time.perf_counter() - begin
    begin = time.perf_counter()
    ShardReader(shards).tokens(range(0, num_videos, SHARD_VIDEOS))
    second = time.perf_counter() - begin
    begin = time.perf_counter()
    assert verify(shards) == []
    whole = time.perf_counter() - begin
    print(f"\n{megabytes:,.0f} MB in {len(list(shards.glob('*.h5')))} shards\n")
    print("| step | seconds | MB/s |\n|---|---|---|")
    steps = {
        "write: image, checksums, fsync, rename": write_seconds,
        "first use in a process: sha256 and structure": first,
        "later use: index and maps": second,
        "verify: every shard and row": whole,
    }
    for step, seconds in steps.items():
        print(f"| {step} | {seconds:.3f} | {megabytes / seconds:,.0f} |")


if __name__ == "__main__":
    main()
