"""Videos -> committed shards: plan, extract, commit; a run that was cut short goes on where it was.

Portions of a few videos go to the hands of workers; their rows come back, and each shard is written
here once it is complete. A video that cannot be used costs itself and is recorded with its reason;
the dataset's digest does not depend on workers, hands, shard size or order. Torch is imported with
the first model: a run that finds nothing to do needs neither.
"""

import time
from collections.abc import Callable, Iterable, Sequence

from pipeline.decoding import DECODERS
from pipeline.decoding.comparison import compare_decoders
from pipeline.errors import BackendError, ResourceError
from pipeline.extraction.config import ExtractConfig
from pipeline.extraction.plan import spread_over_classes
from pipeline.extraction.report import ExtractProgress, ExtractReport
from pipeline.extraction.run import ExtractionRun
from pipeline.manifests import Manifest, Video
from pipeline.prompts import PromptTables
from pipeline.scheduling.interruption import StopRequest

OnProgress = Callable[[ExtractProgress], None]


def extract(
    config: ExtractConfig,
    manifest: Manifest,
    videos: Sequence[Video],
    *,
    user_prompts: PromptTables | None = None,
    on_progress: OnProgress | None = None,
    on_note: Callable[[str], None] | None = None,
) -> ExtractReport:
    """Extract every video that is not yet committed under the same fingerprint.

    SIGTERM or SIGINT finishes the shards in hand (`StopRequest` says for how long) and is reported;
    a second one raises SystemExit at once. Neither leaves a half-written file.

    Args:
        config: settings.
        manifest: the dataset's classes and prompts.
        videos: its videos, in any order.
        user_prompts: the user's prompts and the dataset's placeholders, see `load_prompt_tables`.
        on_progress: called after every portion of videos.
        on_note: called with what was found out before the first one, in a sentence.

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
            if config.check_decoder:
                agreement = check_decoders(config, videos)
                (on_note or (lambda sentence: None))(agreement)
            with ExtractionRun(config, manifest, videos, user_prompts, stop) as run:
                run.work(on_progress or (lambda progress: None))
                return run.report(time.monotonic() - begin)
    except MemoryError as error:
        raise ResourceError(
            f"memory ran out ({error}); lower batch_frames={config.batch_frames}, "
            f"shard_videos={config.shard_videos} or workers={config.workers} and run the same "
            "command again, finished shards are kept"
        ) from error


def check_decoders(config: ExtractConfig, videos: Iterable[Video]) -> str:
    """Compare the chosen decoder with the other one on `check_decoder` train videos.

    Args:
        config: settings.
        videos: of the dataset; train videos are taken in turn from every class.

    Returns:
        What agrees, in a sentence.

    Raises:
        BackendError: a frame differs.
    """
    train = sorted((v for v in videos if v.split == "train"), key=lambda video: video.video_id)
    chosen = spread_over_classes(train)[: config.check_decoder]
    if not chosen:
        return "no train video to compare decoders on"
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
    return f"decoders {config.decoder} and {other} give the same frames of {len(chosen)} videos"
