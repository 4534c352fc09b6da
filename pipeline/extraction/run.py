"""ExtractionRun: one run over a locked folder, from what is committed to what is committed then."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from types import TracebackType

from pipeline.errors import BackendError, ConfigError
from pipeline.extraction.assembler import ShardAssembler
from pipeline.extraction.config import ExtractConfig
from pipeline.extraction.fingerprint import fingerprint
from pipeline.extraction.made_by import MadeBy
from pipeline.extraction.plan import plan_extraction
from pipeline.extraction.portions import (
    INTRODUCTION,
    Portion,
    PortionResult,
    give_up_portion,
    portions_of,
    split_portion,
)
from pipeline.extraction.remembered import Memory
from pipeline.extraction.report import ExtractProgress, ExtractReport
from pipeline.manifests import Manifest, Video
from pipeline.prompts import PromptTables
from pipeline.scheduling import run_tasks
from pipeline.scheduling.interruption import StopRequest
from pipeline.shards.committed import committed, finish
from pipeline.shards.fingerprint import differences
from pipeline.shards.lock import FolderLock
from pipeline.shards.writer import ShardWriter


class ExtractionRun:
    """Context manager around one run.

    Workers alone know what their models are. So each is first asked for that, and the plan is made
    when the first has answered; rows of one whose models are others are refused.

    Args:
        config: settings.
        manifest: the dataset's classes and prompts.
        videos: its videos, in any order.
        prompts: the user's prompts and the dataset's placeholders.
        stop: looked at before every shard.
    """

    def __init__(
        self,
        config: ExtractConfig,
        manifest: Manifest,
        videos: Sequence[Video],
        prompts: PromptTables | None,
        stop: StopRequest,
    ) -> None:
        self._config = config
        self._manifest = manifest
        self._videos = videos
        self._prompts = prompts
        self._stop = stop
        self._left = ExitStack()
        self._memory = Memory(config)
        self._made_by: MadeBy | None = None
        self._is_confirmed = False
        self._num_new = self._num_new_failed = 0
        self._stage_seconds: dict[str, float] = defaultdict(float)
        self._begin = time.monotonic()
        self._on_progress: Callable[[ExtractProgress], None] = lambda progress: None

    def __enter__(self) -> "ExtractionRun":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._left.__exit__(kind, error, trace)

    def work(self, on_progress: Callable[[ExtractProgress], None]) -> None:
        """Extract what is left."""
        self._on_progress = on_progress
        known = self._memory.recall()
        if known is not None:
            self._plan_with(known)
            if not self._plan.num_todo:
                return
        for result in self._results():
            self._take(result)
        if self._made_by is None:
            raise SystemExit(128 + (self._stop.signal_number or 0))
        self._assembler.finish()

    def report(self, seconds: float) -> ExtractReport:
        """Commit the index, unless the run was stopped before its end, and report."""
        written = self._assembler
        failures = [*self._kept_failures, *written.failures]
        index = None
        if written.num_written + len(written.failures) == self._plan.num_todo:
            classes = {split: list(names) for split, names in self._manifest.classes.items()}
            dataset = {"name": self._config.dataset, "classes": classes}
            index = finish(self._config.out, dataset, self._fingerprint)
        assert index or self._stop.signal_number, "a result was lost"
        return ExtractReport(
            num_videos=self._plan.num_videos,
            num_done=self._plan.num_done + written.num_written,
            num_new=written.num_written,
            num_segmented=written.num_segmented,
            num_without_masks=written.num_without_masks,
            failures=tuple(sorted(failures)),
            digest=index.digest if index else None,
            signal_number=self._stop.signal_number,
            seconds=seconds,
        )

    def _results(self) -> Iterator[PortionResult]:
        # Here and not above, as it imports torch.
        from pipeline.extraction.worker import WorkerSettings, open_worker

        config = self._config
        if config.is_remote:
            # Workers may have been started in another folder.
            config = replace(
                config,
                videos=config.videos.absolute(),
                masks=config.masks.absolute() if config.masks else None,
            )
        settings = WorkerSettings(config=config, manifest=self._manifest, prompts=self._prompts)
        return run_tasks(
            self._portions(),
            partial(open_worker, settings),
            where=self._config.where,
            stop=self._stop,
            split=split_portion,
            give_up=give_up_portion,
        )

    def _portions(self) -> Iterator[Portion]:
        """Introductions until one is answered, then the plan's shards; none is begun in a stop."""
        while not self._is_confirmed:
            yield INTRODUCTION
        for shard in self._plan.shards:
            if self._stop.signal_number is not None:
                return
            self._assembler.begin(shard.number)
            yield from portions_of(shard, self._config.portion_videos)

    def _take(self, result: PortionResult) -> None:
        if result.made_by is not None:
            self._check_models(result.made_by)
        if not result.num_videos:
            return
        if self._config.is_remote:
            self._check_sight(result)
        self._assembler.add(result)
        self._num_new += result.num_videos
        self._num_new_failed += len(result.failures)
        for stage, seconds in result.seconds.items():
            self._stage_seconds[stage] += seconds
        self._show()

    def _check_sight(self, result: PortionResult) -> None:
        """Refuse workers that do not see the videos that this machine sees."""
        missing = {one.video_id for one in result.failures if one.reason == "missing"}
        for video in self._videos if missing else ():
            path = self._config.videos.absolute() / video.path
            if video.video_id in missing and path.exists():
                raise BackendError(
                    f"a worker does not find {path}, which is here; the videos under the same path "
                    "on every machine were needed; mount them there, or pass their folder by "
                    "--videos"
                )

    def _check_models(self, made_by: MadeBy) -> None:
        """Plan with what the first worker is, and refuse others that are not the same."""
        known = self._made_by
        is_same = known is not None and known.fingerprints == made_by.fingerprints
        if not self._is_confirmed:
            if not is_same:
                self._plan_with(made_by)
            self._memory.remember(made_by)
            self._is_confirmed = True
        elif known is not None and not is_same:
            differing = differences(known.fingerprints, made_by.fingerprints)
            raise ConfigError(
                f"workers differ in {', '.join(differing)}; the same models on the same kind of "
                "device were needed everywhere; pass --device, or give all workers one installation"
            )

    def _plan_with(self, made_by: MadeBy) -> None:
        """Lock the folder, see what it holds under these models, and plan the rest."""
        config = self._config
        if self._made_by is None:
            self._left.enter_context(FolderLock(config.out))
        self._made_by = made_by
        self._fingerprint = fingerprint(config, self._manifest, made_by.fingerprints, self._prompts)
        before = committed(config.out, self._fingerprint)
        self._plan = plan_extraction(
            config,
            self._videos,
            done=before.videos,
            failed=before.failures,
            used_numbers=before.used_numbers,
        )
        again = {video.video_id for shard in self._plan.shards for video in shard.videos}
        self._kept_failures = [f for f in before.failures.values() if f.video_id not in again]
        writer = ShardWriter(config.out, self._fingerprint, class_names=self._manifest.class_names)
        self._assembler = self._left.enter_context(ShardAssembler(writer, self._plan.shards))
        self._stop.finish_first(lambda: self._assembler.num_videos_open > 0)
        self._begin = time.monotonic()
        self._show()

    def _show(self) -> None:
        plan, write_seconds = self._plan, self._assembler.write_seconds
        self._on_progress(
            ExtractProgress(
                num_total=plan.num_videos,
                num_done=plan.num_done + self._num_new - self._num_new_failed,
                num_failed=plan.num_failed + self._num_new_failed,
                num_new=self._num_new,
                seconds=time.monotonic() - self._begin,
                stage_seconds={**self._stage_seconds, "write": write_seconds},
            )
        )
