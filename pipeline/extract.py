"""Videos -> committed shards: plan, extract, commit; a run that was cut short goes on where it was.

A chunk of videos is one task and becomes one shard. A video that cannot be used costs itself and is
recorded with its reason; the dataset's digest does not depend on workers, shard size or order.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from pipeline.decoding import DECODERS
from pipeline.decoding.comparison import compare_decoders
from pipeline.errors import BackendError, ResourceError
from pipeline.extraction.backends import Backends, fingerprint, load_backends
from pipeline.extraction.interruption import StopRequest
from pipeline.extraction.plan import (
    ChunkTask,
    ExtractConfig,
    plan_extraction,
    spread_over_classes,
)
from pipeline.extraction.report import ExtractProgress, ExtractReport
from pipeline.extraction.work import ChunkResult, ChunkSettings, open_chunk_worker
from pipeline.manifests import Manifest, Video
from pipeline.prompts import PromptTables
from pipeline.scheduling import Where, run_tasks
from pipeline.shards.committed import committed, finish
from pipeline.shards.lock import FolderLock

OnProgress = Callable[[ExtractProgress], None]


def extract(
    config: ExtractConfig,
    manifest: Manifest,
    videos: Sequence[Video],
    *,
    user_prompts: PromptTables | None = None,
    on_progress: OnProgress | None = None,
) -> ExtractReport:
    """Extract every video that is not yet committed under the same fingerprint.

    SIGTERM or SIGINT finishes the shard in hand (`StopRequest` says for how long) and is reported;
    a second one raises SystemExit at once. Neither leaves a half-written file.

    Args:
        config: settings.
        manifest: the dataset's classes and prompts.
        videos: its videos, in any order.
        user_prompts: the user's prompts and the dataset's placeholders, see `load_prompt_tables`.
        on_progress: called after every video in process, after every shard with workers.

    Returns:
        The report; the caller decides what a failure or a signal means for the exit code.

    Raises:
        ConfigError: the folder is in use, or holds shards of another fingerprint.
        BackendError: a backend is unknown or lacks its weights, or the decoders differ.
        ShardError: a committed shard is damaged.
        ResourceError: disk or memory ran out.
    """
    begin = time.monotonic()
    try:
        with StopRequest() as stop:
            backends = load_backends(config)
            check_decoders(config, videos)
            settings = ChunkSettings(
                config=config,
                manifest=manifest,
                fingerprint=fingerprint(config, manifest, backends, user_prompts),
                prompts=user_prompts,
            )
            with FolderLock(config.out):
                run = _Run(settings, videos, on_progress)
                run.work(None if config.workers else backends, stop)
                return run.report(stop, time.monotonic() - begin)
    except MemoryError as error:
        raise ResourceError(
            f"memory ran out ({error}); lower shard_videos={config.shard_videos} or "
            f"workers={config.workers} and run the same command again, finished shards are kept"
        ) from error


class _Run:
    """One run over a locked folder: its plan, and what has come of it so far."""

    def __init__(
        self, settings: ChunkSettings, videos: Sequence[Video], on_progress: OnProgress | None
    ) -> None:
        config = settings.config
        self.settings = settings
        self._on_progress = on_progress or (lambda progress: None)
        before = committed(config.out, settings.fingerprint)
        self.plan = plan_extraction(
            config,
            videos,
            done=before.videos,
            failed=before.failures,
            used_numbers=before.used_numbers,
        )
        tried_again = {video.video_id for task in self.plan.tasks for video in task.videos}
        self._failures = [f for f in before.failures.values() if f.video_id not in tried_again]
        self._num_new = self._num_new_failed = self._num_written = self._num_without_masks = 0
        self._begin = time.monotonic()

    def work(self, backends: Backends | None, stop: StopRequest) -> None:
        """Run the plan's chunks; with ``backends`` in this process, else in worker processes."""
        self._show()
        open_worker = partial(open_chunk_worker, self.settings)
        if backends is not None:
            open_worker = partial(open_worker, backends=backends, on_video=self._count)
        results = run_tasks(
            self.plan.tasks,
            open_worker,
            where=Where(workers=self.settings.config.workers, hands=1),
            stop=stop,
            split=lambda task: [task],
            give_up=_give_up,
        )
        for result in results:
            self._take(result, counted=backends is not None)

    def report(self, stop: StopRequest, seconds: float) -> ExtractReport:
        """Commit the index, unless the run was stopped before its end, and report."""
        index = None
        if self._num_new == self.plan.num_todo:
            manifest = self.settings.manifest
            classes = {split: list(names) for split, names in manifest.classes.items()}
            index = finish(
                self.settings.config.out,
                {"name": self.settings.config.dataset, "classes": classes},
                self.settings.fingerprint,
            )
        return ExtractReport(
            num_videos=self.plan.num_videos,
            num_done=self.plan.num_done + self._num_written,
            num_new=self._num_written,
            num_without_masks=self._num_without_masks,
            failures=tuple(sorted(self._failures)),
            digest=index.digest if index else None,
            signal_number=stop.signal_number,
            seconds=seconds,
        )

    def _take(self, result: ChunkResult, *, counted: bool) -> None:
        self._failures += result.failures
        self._num_written += result.num_written
        self._num_without_masks += result.num_without_masks
        if not counted:
            self._num_new += result.num_written + len(result.failures)
            self._num_new_failed += len(result.failures)
            self._show()

    def _count(self, failed: bool) -> None:
        self._num_new += 1
        self._num_new_failed += failed
        self._show()

    def _show(self) -> None:
        plan = self.plan
        self._on_progress(
            ExtractProgress(
                num_total=plan.num_videos,
                num_done=plan.num_done + self._num_new - self._num_new_failed,
                num_failed=plan.num_failed + self._num_new_failed,
                num_new=self._num_new,
                seconds=time.monotonic() - self._begin,
            )
        )


def _give_up(task: ChunkTask) -> ChunkResult:
    raise ResourceError(
        f"shard {task.number} killed every worker that it was given, most likely for memory; its "
        f"{len(task.videos)} videos were to fit; free memory and run again"
    )


def check_decoders(config: ExtractConfig, videos: Iterable[Video]) -> None:
    """Compare the chosen decoder with the other one on `check_decoder` train videos.

    Args:
        config: settings.
        videos: of the dataset; train videos are taken in turn from every class.

    Raises:
        BackendError: a frame differs.
    """
    train = sorted((v for v in videos if v.split == "train"), key=lambda video: video.video_id)
    chosen = spread_over_classes(train)[: config.check_decoder]
    if not chosen:
        return
    other = next(name for name in DECODERS if name != config.decoder)
    differing = compare_decoders(
        [config.videos / video.path for video in chosen],
        config.frame_rule,
        config.frames,
        (config.decoder, other),
        timeout_seconds=config.decode_timeout_seconds,
    )
    if differing:
        raise BackendError(
            f"decoders {config.decoder} and {other} differ on {len(differing)} of {len(chosen)} "
            f"videos (first: {differing[0].path}, {differing[0].detail}); needed: the same frames; "
            "pass `--decoder pyav`, which was exact on all that was measured, and no "
            "`--check-decoder`"
        )
