"""What commands that evaluate methods begin with: which runs, which shards, and weights loaded."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from i2st_model.commands.opening import open_features
from pipeline.commands.console import note

RUNS, SHARDS = Path("runs"), Path("shards")


def open_methods(
    names: Sequence[str] | None,
    runs: Sequence[Path],
    *,
    shards: Path | None,
    frames: int | None,
    device: str,
    on_settings: Callable[[Mapping[str, Any]], None],
) -> list[Any]:
    """Choose methods, their runs and the shards, and load all.

    Args:
        names: methods asked for; None where none was.
        runs: folders of runs asked for.
        shards: folder of shards; by default those of the first run, or the newest.
        frames: of a clip; by default the run's.
        device: auto, cpu or cuda.
        on_settings: called with what was chosen, once the shards are open.

    Returns:
        ReadyMethods, in the order asked for; they share a store unless they trained encoders.

    Raises:
        BackendError: no method has a name that was asked for.
        ConfigError: a run or the shards are absent, or do not go together.
        CheckpointError: a checkpoint is damaged.
        ShardError: the shards are damaged.
    """
    from i2st_model.end_to_end.frame_store import MOST_FRAMES
    from i2st_model.evaluating.method_runs import run_labels
    from i2st_model.evaluating.method_table import ReadyMethod
    from i2st_model.evaluating.run_choice import choose_method_runs
    from i2st_model.load_method import load_method
    from pipeline.devices import resolve_device

    resolve_device(device)  # refused before anything is said
    chosen = choose_method_runs(names, runs, root=RUNS, shards=shards)
    of_runs = list(dict.fromkeys(one.run for one in chosen if one.run is not None))
    for run in of_runs:
        note(f"run: {run}")
    folder, own_frames = _shards_and_frames(of_runs, shards, frames)
    methods = ",".join(dict.fromkeys(one.method for one in chosen))
    stores = _Stores(folder, own_frames, device, of_runs[0] if of_runs else None)
    on_settings({"method": methods, "frames": own_frames})
    if stores.encoder_run and any(one.run is None for one in chosen):
        note(
            f"methods without a run see the frames by the encoder of {stores.encoder_run}; to "
            f"centre one, it first encodes up to {MOST_FRAMES:,} frames of train videos"
        )
    ready = []
    for one, label in zip(chosen, run_labels(chosen), strict=True):
        store = stores.seen_by(one.run)
        method, checkpoint = load_method(
            one.method, store, shards=folder, run=one.run, device=device
        )
        if checkpoint is not None:
            _note_other_shards(one.run, checkpoint.info, store.index)
        ready.append(
            ReadyMethod(asked=one, label=label, method=method, checkpoint=checkpoint, store=store)
        )
    return ready


class _Stores:
    """Stores of one folder: one for all, but one per run where runs trained encoders."""

    def __init__(
        self, folder: Path, frames: int | None, device: str, first_run: Path | None
    ) -> None:
        self._open = lambda run: open_features(folder, frames, run=run, device=device)
        self._first_run, self._shared = first_run, self._open(first_run)

    def seen_by(self, run: Path | None) -> Any:
        """Return the store as the encoder of a run sees it."""
        another = run not in (None, self._first_run)
        return self._open(run) if self.encoder_run and another else self._shared

    @property
    def encoder_run(self) -> Path | None:
        """The run whose encoder sees frames for methods without a run; None for features."""
        from i2st_model.end_to_end.encoded_frames import EncodedFrames

        return self._first_run if isinstance(self._shared.reader, EncodedFrames) else None


def _note_other_shards(run: Path | None, trained: Any, here: Any) -> None:
    """Say where a run was trained on other shards: another dataset, or the same extracted anew."""
    if trained.digest != here.digest:
        note(
            f"{run} was trained on {trained.dataset}, digest {trained.digest[:12]}; these shards "
            f"are of {here.dataset_name}, digest {here.digest[:12]}"
        )


def _shards_and_frames(
    runs: Sequence[Path], shards: Path | None, frames: int | None
) -> tuple[Path, int | None]:
    from i2st_model.runs import find_newest_run, find_newest_shards
    from i2st_model.settings import recorded_run

    if runs:
        recorded = recorded_run(runs[0])
        shards = shards or recorded.shards
        frames = recorded.train.frames if frames is None else frames
    elif shards is None and any(RUNS.glob("*/checkpoint.safetensors")):
        # The same shards as the trained network's, so that methods are compared on the same clips.
        shards = recorded_run(find_newest_run(RUNS)).shards
    return shards or find_newest_shards(SHARDS), frames
