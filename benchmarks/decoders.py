"""Exactness and CPU cost of the decoders, side by side in one run.

    python -m benchmarks.decoders [--rounds 5] [--clips 40]

Prints Markdown. A frame is wrong where it is not, to the eye, the frame of that number in a full
sequential decode by PyAV: where more than 2.5 of 255 levels lie between the two on average. An
error that FFmpeg makes in every reader would not show; the tests compare with the scenes that were
encoded. Cost is process CPU time on one thread for 8 frames of each video, decoders by turns (A B
A B ...), median of the rounds; quote the ratios, since other work on the machine moves both alike.
Real videos are read from $I2ST_REAL_DATA or ../shared/data where that is there.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.clips import frame_chooser
from pipeline.decoding import Decoder, get_decoder
from pipeline.decoding.children import DecodeChildren
from pipeline.decoding.comparison import MEAN_TOLERANCE
from pipeline.errors import BackendError, VideoError
from tests.make_videos import FORMS, decode_all, scene, write_video

REPOSITORY = Path(__file__).resolve().parent.parent
NUM_FRAMES = 8
COUNTS = (1, 3, 8, 16)
SPARSE = ("h264_mp4", "h264_flv", "mpeg4_avi", "mpeg4_b_frames_avi", "vp8_webm", "vp9_webm")


@dataclass(frozen=True)
class VideoSet:
    """Videos whose figures share a row."""

    name: str
    paths: list[Path]


def synthetic_sets(folder: Path) -> Iterator[VideoSet]:
    """One video per codec and container, 150 frames of 352x288, and common ones with few keyframes.

    With a keyframe every 12 frames a reader that seeks saves work; files found in the wild have
    one in 100 to 300.
    """
    pictures = scene(150, 288, 352)
    sparse = [replace(form, gop=250) for form in FORMS if form.name in SPARSE]
    for form in (*FORMS, *sparse):
        path = write_video(folder / f"{form.name}-{form.gop}{form.suffix}", pictures, form)
        yield VideoSet(f"{form.name}, keyframe every {form.gop}", [path])


def real_sets(num_clips: int) -> Iterator[VideoSet]:
    """Clips spread over JHMDB-21, where it is there."""
    data = Path(os.environ.get("I2ST_REAL_DATA", REPOSITORY.parent / "shared" / "data"))
    paths = sorted((data / "jhmdb21" / "videos").glob("*/*.avi"))
    if paths:
        chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, num_clips, dtype=int)]
        yield VideoSet(f"JHMDB-21, {len(chosen)} real clips", chosen)


def wrong_frames(decoder: Decoder, path: Path, reference: NDArray[np.uint8]) -> tuple[int, int]:
    """Number of wrong frames and of frames asked for."""
    num_wrong = 0
    for count in COUNTS:
        try:
            clip = decoder.read(path, frame_chooser("segment_centres", count))
        except VideoError:
            num_wrong += count
            continue
        wanted = frame_chooser("segment_centres", count)(len(reference))
        for frame, index in zip(clip.frames, wanted, strict=True):
            if frame.shape != reference[index].shape:
                num_wrong += 1
                continue
            difference = np.abs(frame.astype(np.int16) - reference[index]).mean()
            num_wrong += bool(difference > MEAN_TOLERANCE)
    return num_wrong, sum(COUNTS)


def cpu_milliseconds(
    decoders: Sequence[Decoder], paths: Sequence[Path], rounds: int
) -> list[float | None]:
    """Median CPU time per video and decoder, by turns; None where a decoder refuses one."""
    choose = frame_chooser("segment_centres", NUM_FRAMES)
    times: list[list[float]] = [[] for _ in decoders]
    for _ in range(rounds + 1):
        for decoder, taken in zip(decoders, times, strict=True):
            start = time.process_time()
            try:
                for path in paths:
                    decoder.read(path, choose)
            except VideoError:
                continue
            taken.append((time.process_time() - start) / len(paths) * 1000)
    # The first round warms caches.
    return [statistics.median(taken[1:]) if len(taken) > 1 else None for taken in times]


def report(sets: Iterable[VideoSet], decoders: Sequence[Decoder], rounds: int) -> None:
    """Print one row per set, as it is measured."""
    names = [decoder.name for decoder in decoders]
    heads = [f"{name}, wrong" for name in names] + [f"{name}, CPU ms" for name in names]
    ratios = [f"{names[0]} / {name}" for name in names[1:]]
    print("| videos | " + " | ".join(heads + ratios) + " |")
    print("| --- |" + " ---: |" * (len(heads) + len(ratios)))
    for videos in sets:
        wrong = [[0, 0] for _ in decoders]
        for path in videos.paths:
            reference = decode_all(path)
            for sums, decoder in zip(wrong, decoders, strict=True):
                sums[:] = np.add(sums, wrong_frames(decoder, path, reference)).tolist()
        costs = cpu_milliseconds(decoders, videos.paths, rounds)
        cells = [videos.name, *(f"{bad} of {asked}" for bad, asked in wrong)]
        cells += ["refused" if cost is None else f"{cost:.1f}" for cost in costs]
        cells += [f"{costs[0] / cost:.2f}" if cost and costs[0] else "" for cost in costs[1:]]
        print("| " + " | ".join(cells) + " |", flush=True)


def report_children(paths: Sequence[Path], rounds: int) -> None:
    """Print what it costs to decode in children, by wall time, beside decoding in this process."""
    if not paths:
        return
    numbers = (0, 1, 2)
    times: dict[int, list[float]] = {number: [] for number in numbers}
    for _ in range(rounds):
        for number in numbers:
            with DecodeChildren(number) as children:
                for _ in children.read_many(paths[: 2 * max(number, 1)]):
                    continue  # children start with their first video
                times[number].append(_wall_milliseconds(children, paths))
    print(f"\nWall ms per clip, {len(paths)} clips, median of {rounds}, children started before:\n")
    print("| in this process | 1 child | 2 children |\n| ---: | ---: | ---: |")
    print("| " + " | ".join(f"{statistics.median(times[n]):.1f}" for n in numbers) + " |")


def _wall_milliseconds(children: DecodeChildren, paths: Sequence[Path]) -> float:
    start = time.perf_counter()
    for _ in children.read_many(paths):
        continue
    return (time.perf_counter() - start) / len(paths) * 1000


def installed_decoders() -> list[Decoder]:
    """The default decoder and those to compare it with."""
    decoders = [get_decoder("pyav")]
    try:
        decoders.append(get_decoder("decord"))
    except BackendError as error:
        print(f"{error}\n")
    return decoders


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decoders")
    parser.add_argument("--rounds", type=int, default=5, help="timings per decoder and row")
    parser.add_argument("--clips", type=int, default=40, help="real clips to read")
    options = parser.parse_args(arguments)
    decoders = installed_decoders()
    print("; ".join(decoder.version() for decoder in decoders) + "\n")
    real = list(real_sets(options.clips))
    with tempfile.TemporaryDirectory() as folder:
        report(chain(synthetic_sets(Path(folder)), real), decoders, options.rounds)
    report_children(real[0].paths if real else [], options.rounds)


if __name__ == "__main__":
    main()
