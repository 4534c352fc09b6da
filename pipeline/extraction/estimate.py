"""What an extraction would take, from a probe of a few videos; nothing is written."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from pipeline.extraction.config import ExtractConfig
from pipeline.extraction.fingerprint import fingerprint
from pipeline.extraction.plan import ExtractPlan, plan_extraction
from pipeline.extraction.portions import INTRODUCTION, Portion, PortionResult
from pipeline.manifests import SPLITS, Manifest, Video
from pipeline.prompts import PromptTables
from pipeline.shards.committed import committed
from pipeline.shards.filling import common_layout, fill_arrays
from pipeline.shards.records import Failure

PROBE_VIDEOS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractEstimate:
    """What is left to do, and what that would take."""

    num_videos: int
    """Videos asked for."""
    num_done: int
    """Of them, committed."""
    num_failed: int
    """Of them, recorded as failed and not to be tried again."""
    num_todo: dict[str, int]
    """Split -> videos that are left."""
    num_probed: int
    failures: tuple[Failure, ...]
    """Of the probe."""
    seconds: float | None
    """For what is left, once the models are loaded; None where no video was probed."""
    size_bytes: int | None
    """Of the shards of what is left; None where no probed video was usable."""


def estimate_extraction(
    config: ExtractConfig,
    manifest: Manifest,
    videos: Sequence[Video],
    *,
    user_prompts: PromptTables | None = None,
) -> ExtractEstimate:
    """Extract a few of the videos that are left, spread over the classes, and drop their rows.

    Args:
        config: settings; the probe runs in this process, whatever they say.
        manifest: the dataset's classes and prompts.
        videos: its videos, in any order.
        user_prompts: the user's prompts and the dataset's placeholders.

    Returns:
        The estimate.

    Raises:
        ConfigError: the folder holds shards of another fingerprint.
        BackendError: a backend is unknown or lacks its weights.
        ShardError: a committed shard is damaged.
    """
    from pipeline.extraction.worker import WorkerSettings, open_worker

    here = replace(
        config, workers=0, scheduler=None, tls_ca=None, tls_cert=None, tls_key=None, slurm=None
    )
    settings = WorkerSettings(config=here, manifest=manifest, prompts=user_prompts)
    with open_worker(settings, 0) as work:
        made_by = work(INTRODUCTION).made_by
        assert made_by is not None
        values = fingerprint(config, manifest, made_by.fingerprints, user_prompts)
        before = committed(config.out, values, sweep=False)
        plan = plan_extraction(config, videos, done=before.videos, failed=before.failures)
        on_gpu = made_by.device != "cpu"
        probe = _Probe(here, work, one_by_one=not on_gpu)
        probe.run(_chosen(plan))
    num_machines = _num_workers(config) if on_gpu or config.is_remote else 1
    num_todo = Counter(video.split for shard in plan.shards for video in shard.videos)
    seconds = probe.seconds_for(num_todo)
    return ExtractEstimate(
        num_videos=plan.num_videos,
        num_done=plan.num_done,
        num_failed=plan.num_failed,
        num_todo={split: num_todo[split] for split in SPLITS},
        num_probed=probe.num_videos,
        failures=probe.failures,
        seconds=None if seconds is None else seconds / num_machines,
        size_bytes=probe.bytes_for(plan.num_todo, values, manifest),
    )


def _chosen(plan: ExtractPlan) -> list[Video]:
    """Videos at equal distances, so of many classes; as many of train as there are among all."""
    todo = [video for shard in plan.shards for video in shard.videos]
    ordered = sorted(todo, key=lambda video: (video.split != "train", video.video_id))
    number = min(PROBE_VIDEOS, len(ordered))
    return [ordered[(2 * i + 1) * len(ordered) // (2 * number)] for i in range(number)]


def _num_workers(config: ExtractConfig) -> int:
    return config.slurm.workers if config.slurm else max(1, config.workers)


class _Probe:
    """A few videos, extracted and timed."""

    def __init__(
        self,
        config: ExtractConfig,
        work: Callable[[Portion], PortionResult],
        *,
        one_by_one: bool,
    ) -> None:
        self.num_videos = 0
        self._hands = config.where.hands
        # A batch on a GPU costs the same however few of its frames are meant.
        self._portion_videos = 1 if one_by_one else config.portion_videos
        self._work = work
        self._results: list[PortionResult] = []
        self._spent: Counter[str] = Counter()
        self._timed: Counter[str] = Counter()
        self._seconds = 0.0

    def run(self, videos: Sequence[Video]) -> None:
        """Take the videos through all stages; the first of them also starts what starts late."""
        self.num_videos = len(videos)
        for timed in (videos[:1], videos[1:]):
            if not timed:
                return
            begin = time.monotonic()
            results = self._run(timed)
            self._seconds = time.monotonic() - begin
            self._timed = Counter(video.split for video in timed)
            self._results += results
            self._spent = Counter()
            for result in results:
                self._spent.update(result.seconds)

    def _run(self, videos: Sequence[Video]) -> list[PortionResult]:
        size = self._portion_videos
        portions = [
            Portion(shard_number=0, videos=tuple(videos[i : i + size]))
            for i in range(0, len(videos), size)
        ]
        with ThreadPoolExecutor(self._hands) as hands:
            return list(hands.map(self._work, portions))

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Videos that could not be used."""
        return tuple(failure for result in self._results for failure in result.failures)

    def seconds_for(self, num_todo: Counter[str]) -> float | None:
        """Time for so many videos of each split; only train videos are segmented."""
        if not self.num_videos:
            return None
        of_train = self._spent["segment"] / max(self._spent.total(), 1e-9) * self._seconds
        per_video = (self._seconds - of_train) / self._timed.total()
        per_train_video = of_train / max(1, self._timed["train"])
        return per_video * num_todo.total() + per_train_video * num_todo["train"]

    def bytes_for(self, num_todo: int, values: dict[str, Any], manifest: Manifest) -> int | None:
        """Bytes of the arrays of so many videos."""
        rows = [row for result in self._results for row in result.rows]
        if not rows:
            return None
        rows.sort(key=lambda row: row.video.video_id)
        numbers = {name: number for number, name in enumerate(manifest.class_names)}
        arrays = fill_arrays(common_layout(rows, values), rows, numbers)
        return round(sum(array.nbytes for array in arrays.values()) / len(rows) * num_todo)
