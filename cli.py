"""The command line of i2st: flags, printing and exit status; nothing else does these three things.

Heavy packages are imported inside commands, so that `i2st --help` stays instant. Results go to
stdout; progress, notes and errors to stderr.
"""

import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import data_manifests
from pipeline.errors import BackendError, ConfigError, I2STError

EXIT_SOME_SKIPPED = 3
EXIT_REFUSED = 4
EXIT_SIGNAL = 128
"""Plus the signal's number, as shells do."""
SECONDS_PER_LINE = 10
"""Where stderr is no terminal, progress is one line per so many seconds."""

HELP = """
Few-shot action recognition: cache frame features and action masks once, recognise new actions
from one to five clips.

The whole story, once the videos are in data/hmdb51/<class>/<clip>:

\b
    i2st extract --dataset hmdb51
    i2st train --episodes 10000
    i2st evaluate --way 5 --shot 3

No videos at hand? `i2st demo` makes some and does all three, without a network connection.

Exit codes: 0 complete, 2 usage, 3 complete but some videos skipped, 4 data refused, 5 disk or
memory, 130 and 143 stopped by a signal.
"""

_debug = False


class FaultPrinter(TyperGroup):
    """Prints a fault that the user can mend as one line and exits with its code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; with --debug faults keep their traceback."""
        try:
            return super().invoke(ctx)
        except I2STError as fault:
            if _debug:
                raise
            note(f"error: {printable(' '.join(str(fault).split()))}")
            raise typer.Exit(fault.exit_code) from None
        except KeyboardInterrupt:
            note(
                "interrupted; finished work is kept: `i2st extract` goes on when it is run again, "
                "`i2st train` with --resume"
            )
            raise typer.Exit(EXIT_SIGNAL + 2) from None


app = typer.Typer(
    cls=FaultPrinter,
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
manifest_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(manifest_app, name="manifest", help="What a dataset holds, and what is on disk.")
prompts_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(prompts_app, name="prompts", help="What the segmenter is asked to find.")
masks_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(masks_app, name="masks", help="How good a segmenter's masks are.")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
DatasetName = Annotated[
    str | None, typer.Option("--dataset", help="A shipped dataset; see `i2st manifest list`.")
]
Edition = Annotated[
    str | None, typer.Option(help="Which published list chooses the videos (kinetics100).")
]
VideosFolder = Annotated[
    Path | None,
    typer.Option("--videos", help="Folder with one folder of clips per class; or the dataset's."),
]
TableFile = Annotated[
    Path | None, typer.Option("--table", help="CSV or JSONL with path, class, split[, group].")
]
DataRoot = Annotated[Path, typer.Option(help="Folder that holds the datasets.")]
SplitFile = Annotated[
    Path | None, typer.Option(help="YAML with train, val and test classes, for --videos.")
]
SplitSeed = Annotated[int, typer.Option(help="Draws the class splits of --videos.")]
PromptMode = Annotated[str, typer.Option(help="nouns, raw_label or actor_only.")]
PromptFile = Annotated[Path | None, typer.Option("--prompts", help="YAML of your own prompts.")]
SegmenterName = Annotated[str, typer.Option(help="A segmenter, as for `i2st extract`.")]
SamWeights = Annotated[str | None, typer.Option("--sam", help="SAM of sam_clip, as for extract.")]
ClipWeights = Annotated[
    str | None, typer.Option("--clip", help="CLIP of sam_clip, as for extract.")
]
Shards = Annotated[
    Path | None, typer.Option(help="Folder of shards.  [default: the newest in shards/]")
]
Seed = Annotated[int, typer.Option(min=0, help="Decides every draw.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Threads = Annotated[
    int, typer.Option(min=1, help="CPU threads; with more than 1 the last bits may vary.")
]


def main() -> None:
    """Entry point of the console script."""
    app(prog_name="i2st")


def note(sentence: str) -> None:
    """Print a sentence that is no result."""
    typer.echo(sentence, err=True)


def printable(text: str) -> str:
    """Escape what a file name could do to a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def show_settings(settings: Mapping[str, Any]) -> None:
    """Print every setting of a run, defaults included."""
    import textwrap

    words = [f"{name}={value}" for name, value in settings.items() if value is not None]
    note(textwrap.fill("settings: " + " ".join(words), 100, subsequent_indent="  "))


def show_result(values: Mapping[str, Any], as_json: bool) -> None:
    """Print a flat result: one JSON object, or a line per value."""
    if as_json:
        typer.echo(json.dumps(values))
        return
    width = max(map(len, values)) + 2
    for name, value in values.items():
        typer.echo(f"{name:{width}}{'-' if value is None else printable(str(value))}")


def show_table(rows: Sequence[Sequence[Any]], titles: Sequence[str]) -> None:
    """Print rows in aligned columns; numbers to the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False)
    for column, title in enumerate(titles):
        numeric = rows and all(isinstance(row[column], int | float) for row in rows)
        table.add_column(title, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*("-" if value is None else printable(str(value)) for value in row))
    # Into a file or a pipe every row stays on one line.
    width = None if sys.stdout.isatty() else 200
    Console(highlight=False, width=width).print(table)


def failure_line(failure: Any) -> str:
    """Say why a video was skipped."""
    video_id, message = printable(failure.video_id), printable(failure.message)
    return f"skipped {video_id}: {failure.reason}: {message}"


Show = Callable[[int, int, str], None]
"""Steps done, steps in all, and a few words."""


@contextmanager
def progress(what: str) -> Iterator[Show]:
    """Show progress on stderr: a bar on a terminal, elsewhere a line per SECONDS_PER_LINE."""
    if not sys.stderr.isatty():
        yield _lines(what)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[words]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None, words="")
        yield lambda done, total, words: bar.update(task, completed=done, total=total, words=words)


def _lines(what: str) -> Show:
    last = time.monotonic()

    def show(done: int, total: int, words: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= SECONDS_PER_LINE or done == total:
            last = now
            note(f"{what} {done}/{total}" + (f": {words}" if words else ""))

    return show


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"i2st {data_manifests.__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Take the flags that stand before a command."""
    global _debug
    _debug = debug or bool(os.environ.get("I2ST_DEBUG"))


@app.command()
def extract(
    dataset: DatasetName = None,
    videos: VideosFolder = None,
    table: TableFile = None,
    data_root: DataRoot = Path("data"),
    edition: Edition = None,
    split_file: SplitFile = None,
    split_seed: SplitSeed = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the shards.  [default: shards/NAME]")
    ] = None,
    store: Annotated[
        str, typer.Option(help="features, or frames: pictures for training an encoder.")
    ] = "features",
    frame_side: Annotated[
        int, typer.Option(help="Longest short side of a stored frame, for --store frames.")
    ] = 256,
    encoder: Annotated[
        str, typer.Option(help="open_clip:MODEL/TAG, timm:NAME or efficientnet-lite0.")
    ] = "open_clip:ViT-B-16-quickgelu/openai",
    weights: Annotated[Path | None, typer.Option(help="Weight file of the encoder.")] = None,
    grid: Annotated[
        int | None, typer.Option(help="Cells per side of the token grid.  [default: encoder's]")
    ] = None,
    geometry: Annotated[str, typer.Option(help="center_crop or full_frame.")] = "center_crop",
    view_words: Annotated[
        str | None,
        typer.Option("--views", help="Views stored for training: some of flip,shift,scale."),
    ] = None,
    segmenter: Annotated[
        str,
        typer.Option(
            help="sam_clip, sam3, grounding_dino_sam, precomputed, center_prior or none, some "
            "with :MODEL."
        ),
    ] = "sam_clip",
    sam: Annotated[
        str | None, typer.Option(help="SAM of sam_clip: vit_b, vit_l, vit_h or a file.")
    ] = None,
    clip: Annotated[
        str | None, typer.Option(help="CLIP of sam_clip: MODEL/TAG of open_clip.")
    ] = None,
    segmenter_option: Annotated[
        list[str] | None,
        typer.Option(help="Any other setting of the segmenter: name=value; repeat."),
    ] = None,
    masks: Annotated[Path | None, typer.Option(help="Mask files, for precomputed.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="YAML of your own prompts.")] = None,
    prompt_mode: PromptMode = "nouns",
    frames: Annotated[int, typer.Option(help="Frames stored per video.")] = 8,
    frame_rule: Annotated[
        str, typer.Option(help="segment_centres or uniform_endpoints.")
    ] = "segment_centres",
    decoder: Annotated[str, typer.Option(help="pyav or decord.")] = "pyav",
    check_decoder: Annotated[
        int, typer.Option(help="Compare this many videos with the other decoder first.")
    ] = 0,
    min_decoded_ratio: Annotated[
        float, typer.Option(help="Refuse a file of which less decodes.")
    ] = 0.95,
    decode_timeout: Annotated[float, typer.Option(help="Seconds per video.")] = 60.0,
    workers: Annotated[
        int,
        typer.Option(help="Processes, one per GPU; with --slurm jobs. 0 works in this process."),
    ] = 0,
    hands: Annotated[
        int | None,
        typer.Option(help="Portions a worker has in hand.  [default: its processors, and 1]"),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(help="Work on this dask scheduler: tls://HOST:PORT, or tcp://127.0.0.1:PORT."),
    ] = None,
    tls_ca: Annotated[Path | None, typer.Option(help="For tls://: the authority's file.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="For tls://: the certificate.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="For tls://: its key.")] = None,
    use_slurm: Annotated[
        bool, typer.Option("--slurm", help="Work in SLURM jobs, as many as --workers.")
    ] = False,
    slurm_partition: Annotated[str | None, typer.Option(help="Of the jobs.")] = None,
    slurm_account: Annotated[str | None, typer.Option(help="Of the jobs.")] = None,
    slurm_cores: Annotated[int, typer.Option(help="Processors of a job.")] = 4,
    slurm_gpus: Annotated[int, typer.Option(help="GPUs of a job.")] = 0,
    slurm_memory: Annotated[str, typer.Option(help="Memory of a job.")] = "16GiB",
    slurm_walltime: Annotated[str, typer.Option(help="Longest time of a job.")] = "24:00:00",
    slurm_interface: Annotated[
        str | None, typer.Option(help="Network interface that reaches the nodes, e.g. ib0.")
    ] = None,
    slurm_option: Annotated[
        list[str] | None, typer.Option(help="Further directive, e.g. --constraint=a100; repeat.")
    ] = None,
    batch_frames: Annotated[int, typer.Option(help="Frames per encoder call.")] = 64,
    shard_videos: Annotated[int, typer.Option(help="Videos per shard.")] = 64,
    limit: Annotated[
        int | None, typer.Option(help="At most this many videos, in turn from every class.")
    ] = None,
    retry_failed: Annotated[bool, typer.Option(help="Try failed videos again.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how much is left, from a probe; write nothing.")
    ] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Stage one: decode, encode and segment videos once, into shards. Run again, it goes on."""
    from pipeline.datasets import open_dataset
    from pipeline.extract import extract as run
    from pipeline.extraction.config import ExtractConfig
    from pipeline.prompt_tables import load_prompt_tables
    from pipeline.scheduling import SlurmSettings

    if not use_slurm:
        _refuse_given(
            {
                "--slurm-partition": slurm_partition,
                "--slurm-account": slurm_account,
                "--slurm-interface": slurm_interface,
                "--slurm-option": slurm_option,
                "--slurm-gpus": slurm_gpus,
            }
        )
    source = open_dataset(
        dataset=dataset,
        edition=edition,
        videos=videos,
        table=table,
        data_root=data_root,
        split_file=split_file,
        split_seed=split_seed,
    )
    name = source.manifest.name
    slurm = SlurmSettings(
        workers=max(1, workers),
        cores=slurm_cores,
        memory=slurm_memory,
        walltime=slurm_walltime,
        gpus=slurm_gpus,
        partition=slurm_partition,
        account=slurm_account,
        options=tuple(slurm_option or ()),
        interface=slurm_interface,
    )
    config = ExtractConfig(
        dataset=name,
        videos=source.root,
        out=out or Path("shards") / name,
        store=store,
        frame_side=frame_side,
        encoder=encoder,
        weights=weights,
        grid=grid,
        geometry=geometry,
        views=tuple(word.strip() for word in view_words.split(",")) if view_words else (),
        segmenter=segmenter,
        segmenter_options=_segmenter_options(sam, clip, segmenter_option),
        masks=masks,
        prompt_mode=prompt_mode,
        frames=frames,
        frame_rule=frame_rule,
        decoder=decoder,
        check_decoder=check_decoder,
        min_decoded_ratio=min_decoded_ratio,
        decode_timeout_seconds=decode_timeout,
        workers=0 if use_slurm else workers,
        hands=hands,
        scheduler=scheduler,
        tls_ca=tls_ca,
        tls_cert=tls_cert,
        tls_key=tls_key,
        slurm=slurm if use_slurm else None,
        batch_frames=batch_frames,
        shard_videos=shard_videos,
        limit=limit,
        retry_failed=retry_failed,
        device=device,
    )
    drawn = dataset is None and table is None and split_file is None
    beside = {
        "edition": source.manifest.edition or None,
        "prompts": prompts,
        "split_file": split_file,
        "split_seed": split_seed if drawn else None,
    }
    used = {field: value for field, value in asdict(config).items() if value not in ({}, ())}
    show_settings({**used, **beside})
    _note_missing(source)
    ids = [video.video_id for video in source.videos]
    user_prompts = load_prompt_tables(source.manifest, source.root, user=prompts, video_ids=ids)
    if dry_run:
        _show_estimate(config, source, user_prompts, as_json)
        return
    with progress("videos") as show:
        report = run(
            config,
            source.manifest,
            source.videos,
            user_prompts=user_prompts,
            on_progress=lambda p: show(
                p.num_done + p.num_failed,
                p.num_total,
                _words_of(p),
            ),
        )
    for failure in report.failures:
        note(failure_line(failure))
    if report.failures:
        note("mend what was skipped, then run the same command with --retry-failed")
    if report.num_without_masks:
        note(
            f"{report.num_without_masks} of {report.num_segmented} train videos of this run have "
            "no mask and so no mask supervision"
        )
        if report.num_without_masks == report.num_segmented:
            note(
                "not one has: check the segmenter, or the names of the mask files, before training"
            )
    values = {
        "out": str(config.out),
        "videos": report.num_done,
        "new": report.num_new,
        "failures": len(report.failures),
        "digest": report.digest,
        "seconds": round(report.seconds, 1),
    }
    show_result(values, as_json)
    if report.signal_number and report.digest is None:
        note("stopped by a signal; finished shards are kept, the same command goes on from there")
        raise typer.Exit(EXIT_SIGNAL + report.signal_number)
    if report.failures:
        raise typer.Exit(EXIT_SOME_SKIPPED)


def _refuse_given(of_jobs: Mapping[str, Any]) -> None:
    """Refuse flags of SLURM jobs where none is asked for."""
    for flag, value in of_jobs.items():
        if value:
            raise ConfigError(
                f"{flag} without --slurm would work on this machine; needed: both or neither; add "
                f"--slurm, or drop {flag}"
            )


def _segmenter_options(
    sam: str | None, clip: str | None, settings: Sequence[str] | None
) -> dict[str, Any]:
    """Options of the segmenter; values are JSON where they can be, else words."""
    options: dict[str, Any] = {}
    for setting in settings or ():
        name, equals, value = setting.partition("=")
        if not name or not equals:
            raise ConfigError(
                f"--segmenter-option {setting!r} is no setting; name=value was needed; pass e.g. "
                "--segmenter-option proposals=grid"
            )
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    named = {"sam": sam, "clip": clip}
    return {**options, **{name: value for name, value in named.items() if value is not None}}


def _words_of(state: Any) -> str:
    """Speed of an extraction and that of each stage alone, in videos per second; time left."""
    if not state.num_new:
        return ""
    left = _duration(state.seconds_left)
    stages = ", ".join(
        f"{stage} {rate:.3g}" + (" (busiest)" if stage == state.busiest_stage else "")
        for stage, rate in state.stage_rates.items()
    )
    speed = f"{state.videos_per_second:.3g}/s"
    return f"{speed}, {left} left, {state.num_failed} failed; alone: {stages}"


def _duration(seconds: float) -> str:
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def _show_estimate(config: Any, source: Any, user_prompts: Any, as_json: bool) -> None:
    """Print what an extraction would take."""
    from pipeline.extraction.estimate import estimate_extraction

    estimate = estimate_extraction(
        config, source.manifest, source.videos, user_prompts=user_prompts
    )
    for failure in estimate.failures:
        note(failure_line(failure))
    hours = None if estimate.seconds is None else round(estimate.seconds / 3600, 4)
    values = {
        "out": str(config.out),
        "videos": estimate.num_videos,
        "done": estimate.num_done,
        "failed": estimate.num_failed,
        **{f"to_do_{split}": number for split, number in estimate.num_todo.items()},
        "probed": estimate.num_probed,
        "hours": hours,
        "bytes": estimate.size_bytes,
    }
    show_result(values, as_json)


def _note_missing(source: Any) -> None:
    missing = source.missing_classes
    if missing:
        total = len(source.manifest.class_names)
        some = ", ".join(missing[:4]) + (", ..." if len(missing) > 4 else "")
        note(
            f"{len(missing)} of {total} classes have no video in {source.root} ({some}); going on "
            f"with {len(source.videos)} videos of the others; `i2st manifest check "
            f"{shlex.quote(str(source.root))} --dataset {source.manifest.name}` shows more"
        )


@app.command()
def train(
    ctx: typer.Context,
    shards: Shards = None,
    run: Annotated[
        Path | None, typer.Option(help="Folder of the run.  [default: runs/DATE-DATASET]")
    ] = None,
    episodes: Annotated[int, typer.Option(help="Training episodes in all.")] = 10_000,
    way: Annotated[int, typer.Option(help="Classes per episode.")] = 5,
    shot: Annotated[int, typer.Option(help="Support clips per class.")] = 1,
    queries: Annotated[int, typer.Option(help="Query clips per class.")] = 2,
    seed: Seed = 0,
    frames: Annotated[
        int | None, typer.Option(help="Frames of a clip.  [default: all stored]")
    ] = None,
    preset: Annotated[str, typer.Option(help="i2st, linear, pool_linear or specified.")] = "i2st",
    masks: Annotated[
        str, typer.Option(help="Mask supervision: true, shuffled (control) or off.")
    ] = "true",
    select: Annotated[
        str, typer.Option(help="val keeps the weights best on val episodes; last the last.")
    ] = "val",
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other setting: name=value; repeat.  See docs/method.md."),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with a run that was cut short.")] = False,
    threads: Threads = 1,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Stage two: train I2ST by episodes from shards; a killed run resumes to the same weights."""
    from i2st_model.features import FeatureStore
    from i2st_model.runs import (
        discard_unused,
        find_newest_shards,
        find_newest_unfinished,
        new_run_folder,
        unfinished_runs,
    )
    from i2st_model.settings import change_config, recorded_run
    from i2st_model.training.config import TrainConfig
    from i2st_model.training.run import train as fit

    flags = {
        "episodes": episodes,
        "way": way,
        "shot": shot,
        "queries": queries,
        "seed": seed,
        "frames": frames,
        "preset": preset,
        "masks": masks,
        "select": select,
        "device": device,
    }
    if resume:
        run = run or find_newest_unfinished(Path("runs"))
        recorded = recorded_run(run)
        shards = shards or recorded.shards
        config = change_config(recorded.train, _typed(ctx, flags), setting or [])
    else:
        config = change_config(TrainConfig(), flags, setting or [])
        for old in unfinished_runs(Path("runs")) if run is None else ():
            note(f"unfinished: {old}; `i2st train --run {old} --resume` would go on with it")
    folder = shards or find_newest_shards(Path("shards"))
    _use_threads(threads)
    store = FeatureStore(_open_shards(folder), num_frames=config.frames)
    _note_shards(folder, store.index)
    run = run or new_run_folder(Path("runs"), store.index.dataset_name, today=date.today())
    note(f"run: {run}")
    show_settings({**asdict(config), "threads": threads})
    with progress("steps") as show:

        def tell(p: Any) -> None:
            for sentence in p.notes:
                note(sentence)
            show(p.step, p.num_steps, _train_line(p))

        try:
            report = fit(config, store, run, resume=resume, on_progress=tell)
        finally:
            discard_unused(run)
    values = {
        "run": str(report.run_folder),
        "checkpoint": str(report.checkpoint),
        "steps": report.num_steps,
        "selected": report.selected,
        "step": report.step,
        "val_accuracy": None if report.val_accuracy is None else round(report.val_accuracy, 2),
        "train_classes": len(report.train_classes),
        "seconds": round(report.seconds, 1),
    }
    show_result(values, as_json)


def _typed(ctx: typer.Context, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the flags that stand on the command line."""
    return {
        name: value
        for name, value in flags.items()
        if (source := ctx.get_parameter_source(name)) and source.name == "COMMANDLINE"
    }


def _train_line(p: Any) -> str:
    parts = [f"{p.episodes} episodes"]
    parts += [] if p.loss is None else [f"loss {p.loss:.3f}", f"accuracy {p.accuracy:.1f}"]
    parts += [] if p.val_accuracy is None else [f"val {p.val_accuracy:.1f}"]
    return ", ".join(parts)


def _use_threads(count: int) -> None:
    import torch

    # Threads that wait for each other on shared cores measured many times slower than one.
    torch.set_num_threads(count)


def _note_shards(folder: Path, index: Any) -> None:
    present = index.classes_present
    sizes = "/".join(str(len(names)) for names in present.values())
    note(f"shards: {folder}: {len(index.videos)} videos of {sizes} {'/'.join(present)} classes")


def _open_shards(folder: Path) -> Any:
    from pipeline.shards.reader import ShardReader

    return ShardReader(folder)


@app.command()
def evaluate(
    shards: Annotated[
        Path | None, typer.Option(help="Folder of shards.  [default: those of the run]")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Folder of a run.  [default: the newest in runs/]")
    ] = None,
    method: Annotated[str, typer.Option(help="i2st, protonet, otam or bi_mhm.")] = "i2st",
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    way: Annotated[int, typer.Option(help="Classes per episode.")] = 5,
    shot: Annotated[int, typer.Option(help="Support clips per class.")] = 1,
    queries: Annotated[int, typer.Option(help="Query clips per class.")] = 1,
    episodes: Annotated[int, typer.Option(help="Episodes.")] = 10_000,
    seed: Seed = 0,
    frames: Annotated[
        int | None, typer.Option(help="Frames of a clip.  [default: the run's, or all stored]")
    ] = None,
    disjoint_groups: Annotated[
        bool, typer.Option(help="Support and query from different source videos.")
    ] = False,
    drop_small_classes: Annotated[
        bool, typer.Option(help="Leave out classes with too few videos.")
    ] = False,
    per_class: Annotated[bool, typer.Option(help="Print the accuracy of each class.")] = True,
    threads: Threads = 1,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Accuracy on unseen classes: mean over episodes with its 95 % half-width."""
    from i2st_model.evaluation import EvaluateConfig
    from i2st_model.evaluation import evaluate as measure
    from i2st_model.features import FeatureStore
    from i2st_model.load_method import TRAINED, load_method
    from i2st_model.runs import find_newest_run, find_newest_shards
    from i2st_model.settings import recorded_run

    config = EvaluateConfig(
        split=split,
        way=way,
        shot=shot,
        queries=queries,
        episodes=episodes,
        seed=seed,
        disjoint_groups=disjoint_groups,
        drop_small_classes=drop_small_classes,
        device=device,
    )
    if method == TRAINED:
        run = run or find_newest_run(Path("runs"))
        recorded = recorded_run(run)
        shards, frames = shards or recorded.shards, frames or recorded.train.frames
        note(f"run: {run}")
    elif shards is None and any(Path("runs").glob("*/checkpoint.safetensors")):
        # The same shards as the trained network's, so that methods are compared on the same clips.
        shards = recorded_run(find_newest_run(Path("runs"))).shards
    folder = shards or find_newest_shards(Path("shards"))
    show_settings({"method": method, **asdict(config), "frames": frames, "threads": threads})
    _use_threads(threads)
    store = FeatureStore(_open_shards(folder), num_frames=frames)
    _note_shards(folder, store.index)
    ready, checkpoint = load_method(method, store, shards=folder, run=run, device=device)
    with progress("episodes") as show:
        found = measure(
            ready,
            store,
            config,
            checkpoint=checkpoint,
            on_progress=lambda p: show(p.episodes, p.num_episodes, ""),
        )
    if as_json:
        typer.echo(json.dumps(found.to_json()))
        return
    if per_class:
        show_table([(n, f"{a:.1f}") for n, a in found.per_class.items()], ("class", "accuracy"))
    typer.echo(
        f"{found.method} on {found.dataset} {split} ({len(found.per_class)} classes, "
        f"{found.num_videos} videos), {way}-way {shot}-shot, {episodes} episodes: "
        f"{found.accuracy.mean:.2f} +/- {found.accuracy.half_width:.2f} %"
    )


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for all that the demo makes.")] = Path("demo"),
    tiny: Annotated[
        bool, typer.Option("--smallest", help="A few videos and steps, only to see that it runs.")
    ] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """The whole story on synthetic videos made on the spot: no data, no network connection."""
    from i2st_model.demonstration import DemoConfig, run_demo, smallest

    _use_threads(1)
    config = DemoConfig(out=out, seed=seed)
    config = smallest(config) if tiny else config
    note(
        "synthetic videos: these accuracies show that everything works, nothing about real actions"
    )
    with progress("demo") as show:
        report = run_demo(config, on_progress=lambda p: show(p.done, p.total, p.stage))
    if as_json:
        typer.echo(json.dumps(report.to_json()))
        return
    shots = config.shots
    accuracies = {(e.method, e.config.shot): e.accuracy for e in report.evaluations}
    rows = [
        (
            name,
            *(
                f"{accuracies[name, shot].mean:.1f} +/- {accuracies[name, shot].half_width:.1f}"
                for shot in shots
            ),
        )
        for name in dict.fromkeys(e.method for e in report.evaluations)
    ]
    show_table(rows, ("5-way accuracy, %", *(f"{shot}-shot" for shot in shots)))
    typer.echo(
        f"unseen classes of synthetic videos, {config.episodes} episodes, 95 % intervals; half of\n"
        "the classes are another one backwards, so a mean over frames cannot tell them apart;\n"
        "the settings of i2st were chosen with these classes in view"
    )
    typer.echo(
        f"videos  {report.table}\nshards  {report.shards}\nrun     {report.training.run_folder}"
    )
    typer.echo(f"next    cd {out} && i2st evaluate --way 5 --shot 3")


@app.command()
def info(
    path: Annotated[Path, typer.Argument(help="Folder of shards.")],
    as_json: Json = False,
) -> None:
    """What a folder of shards holds: videos, failures, digest, fingerprint."""
    from pipeline.shards.index import ShardIndex

    index = ShardIndex.load(path)
    has_features = index.stores == "features"
    values = {
        "dataset": index.dataset_name,
        "stores": index.stores,
        "format_version": index.format_version,
        "digest": index.digest,
        "videos": len(index.videos),
        "failures": [failure._asdict() for failure in index.failures],
        "classes": {split: len(names) for split, names in index.classes.items()},
        "classes_present": {split: len(names) for split, names in index.classes_present.items()},
        "frames": index.num_frames,
        "tokens": [index.num_tokens, index.token_dim] if has_features else None,
        "embedding": index.embedding_dim if has_features else None,
        "views": list(index.view_names),
        "masks": index.has_masks,
        "shards": len(index.shards),
        "size_bytes": sum(shard.size_bytes for shard in index.shards),
        "fingerprint": index.fingerprint,
    }
    if as_json:
        typer.echo(json.dumps(values))
        return
    present = index.classes_present
    values["failures"] = len(index.failures)
    values["classes"] = ", ".join(
        f"{split} {len(present[split])} of {len(names)}" for split, names in index.classes.items()
    )
    values["views"] = ", ".join(index.view_names) or None
    of_features = () if has_features else ("tokens", "embedding", "views")
    for key in ("classes_present", "fingerprint", *of_features):
        del values[key]
    show_result(values, as_json=False)
    typer.echo(f"fingerprint {json.dumps(index.fingerprint, indent=2)}")
    for failure in index.failures:
        typer.echo(failure_line(failure))


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(help="Folder of shards.")],
    as_json: Json = False,
) -> None:
    """Read everything again and compare it with its checksums; exits with 0 or 4."""
    from pipeline.shards.verify import verify as check

    problems = check(path)
    if as_json:
        typer.echo(json.dumps({"path": str(path), "problems": problems}))
    else:
        for problem in problems:
            typer.echo(problem)
        typer.echo(
            f"{path}: {f'problems: {len(problems)}' if problems else 'every checksum holds'}"
        )
    if problems:
        raise typer.Exit(EXIT_REFUSED)


@prompts_app.command("show")
def prompts_show(
    dataset: Annotated[
        str | None, typer.Argument(help="A shipped dataset; none for --videos or --table.")
    ] = None,
    videos: VideosFolder = None,
    table: TableFile = None,
    data_root: DataRoot = Path("data"),
    edition: Edition = None,
    prompts: PromptFile = None,
    prompt_mode: PromptMode = "nouns",
    video: Annotated[
        list[str] | None, typer.Option(help="A video's id, for its own prompts; repeat.")
    ] = None,
    as_json: Json = False,
) -> None:
    """What the segmenter is asked to find for each class or video, and which source says so."""
    from pipeline.datasets import open_dataset
    from pipeline.manifests import find_videos, load_manifest
    from pipeline.prompt_tables import load_prompt_tables, named_video
    from pipeline.prompts import class_prompt_sets, prompts_for

    if dataset is not None and table is None:
        manifest = load_manifest(dataset, edition=edition)
        root = videos or data_root / manifest.folder
        known = find_videos(manifest, root) if prompts and root.is_dir() else []
    elif dataset is None and videos is None and table is None:
        raise ConfigError(
            "no dataset named; pass one (`i2st manifest list` shows them), --videos DIR with one "
            "folder per class, or --table FILE"
        )
    else:
        source = open_dataset(dataset=dataset, edition=edition, videos=videos, table=table)
        manifest, root, known = source.manifest, source.root, list(source.videos)
    known += [named_video(manifest, root, one) for one in video or ()]
    ids = [one.video_id for one in known]
    tables = load_prompt_tables(manifest, root, user=prompts, video_ids=ids)
    if video:
        chosen = known[-len(video) :]
        sets = [
            replace(prompts_for(manifest, v, user_table=tables, mode=prompt_mode), key=v.video_id)
            for v in chosen
        ]
    else:
        sets = class_prompt_sets(manifest, user_table=tables, mode=prompt_mode)
        if any(one.objects is None for one in manifest.prompts.values()):
            note(f"objects of {manifest.name} differ from video to video; --video ID shows one's")
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in sets]))
        return
    rows = [(s.key, ", ".join(s.actor[:1]), ", ".join(s.objects), s.source) for s in sets]
    show_table(rows, ("video" if video else "class", "actor", "objects", "source"))


@app.command()
def show(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(help="A video, a folder of its frames, or of shards.")],
    masks: Annotated[bool, typer.Option("--masks/--no-masks", help="Paint the masks.")] = True,
    out: Annotated[
        Path | None, typer.Option(help="Picture to write.  [default: masks-NAME.png]")
    ] = None,
    class_name: Annotated[
        str | None, typer.Option("--class", help="What a video shows.  [default: its folder]")
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="Object to look for in a video; up to 3, repeat.")
    ] = None,
    actor: Annotated[
        str | None, typer.Option(help="Who acts in a video.  [default: person]")
    ] = None,
    prompt_mode: PromptMode = "nouns",
    segmenter: SegmenterName = "sam_clip",
    mask_files: Annotated[
        Path | None, typer.Option(help="Mask files of a video, for precomputed.")
    ] = None,
    sam: SamWeights = None,
    clip: ClipWeights = None,
    frames: Annotated[int, typer.Option(help="Frames of a video.")] = 8,
    device: Device = "auto",
    video: Annotated[
        list[str] | None, typer.Option(help="Id of a video of shards; repeat.")
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, help="Videos of shards, in turn from every class.")
    ] = 6,
    dataset: DatasetName = None,
    videos: VideosFolder = None,
    table: TableFile = None,
    data_root: DataRoot = Path("data"),
    edition: Edition = None,
    prompts: PromptFile = None,
    as_json: Json = False,
) -> None:
    """A picture of a video's frames, or of some of the shards', with masks, prompts and scores."""
    from pipeline.shards.records import Failure
    from pipeline.showing.contact_sheet import contact_sheet, save_sheet

    if not path.exists():
        raise ConfigError(
            f"{printable(str(path))} does not exist; a video, a folder of its frames or a folder "
            "of shards was needed; correct the path"
        )
    of_videos = "class_name prompt actor prompt_mode segmenter mask_files sam clip frames device"
    of_shards = "video limit videos table data_root prompts"
    is_shards = any(path.glob("shard-*")) or (path / "index.json").is_file()
    _refuse_flags(
        ctx, (of_videos if is_shards else of_shards).split(), "shards" if is_shards else "a video"
    )
    if is_shards:
        title, subtitle, found = _shard_clips(ctx.params)
    else:
        title, subtitle, found = _video_clips(ctx.params)
    clips = [one for one in found if not isinstance(one, Failure)]
    failures = [one for one in found if isinstance(one, Failure)]
    for failure in failures:
        note(failure_line(failure))
    if not clips:
        raise ConfigError(f"{path}: 0 clips to show; at least 1 was needed; see the lines above")
    target = out or Path(f"masks-{path.resolve().stem}.png")
    if not masks:
        clips = [replace(one, masks=None) for one in clips]
    subtitle += "; below each frame its number, and the score of each mask" if masks else ""
    save_sheet(contact_sheet(clips, title=title, subtitle=subtitle), target)
    if as_json:
        told = [one.to_json() for one in clips]
        typer.echo(json.dumps({"out": str(target), "clips": told}))
    else:
        typer.echo(str(target))
    if failures:
        raise typer.Exit(EXIT_SOME_SKIPPED)


def _refuse_flags(ctx: typer.Context, names: Sequence[str], what: str) -> None:
    for parameter in ctx.command.params:
        source = ctx.get_parameter_source(parameter.name or "")
        if parameter.name in names and source and source.name == "COMMANDLINE":
            raise ConfigError(
                f"{parameter.opts[0]} beside {what}, for which it says nothing; needed: flags of "
                "one kind; drop it"
            )


def _video_clips(flags: Mapping[str, Any]) -> tuple[str, str, list[Any]]:
    """Title, subtitle and the one clip of a contact sheet of a video."""
    from pipeline.devices import resolve_device
    from pipeline.manifests import Manifest, load_manifest
    from pipeline.manifests.schema import nouns
    from pipeline.manifests.types import ClassPrompts
    from pipeline.segmenters import get_segmenter
    from pipeline.showing.clips import clip_of_video

    path = flags["path"]
    class_name = flags["class_name"] or path.resolve().parent.name
    if flags["dataset"] is None:
        manifest = Manifest(name="", title="", classes={"train": (class_name,)})
    else:
        manifest = load_manifest(flags["dataset"], edition=flags["edition"])
    options = {name: flags[name] for name in ("sam", "clip") if flags[name] is not None}
    name = flags["segmenter"] if flags["masks"] else "none"
    device = resolve_device(flags["device"])
    try:
        segmenter = get_segmenter(name, device=device, masks=flags["mask_files"], **options)
    except BackendError as error:
        # Elsewhere --masks names the folder of mask files; here it asks for masks on the picture.
        hint = str(error).replace("--masks DIR", "--mask-files DIR")
        raise BackendError(hint.replace("--segmenter none", "--no-masks")) from error
    shown = clip_of_video(
        path,
        manifest,
        class_name,
        segmenter,
        prompts=ClassPrompts(
            actor=None if flags["actor"] is None else nouns([flags["actor"]], "--actor"),
            objects=nouns(flags["prompt"], "--prompt") if flags["prompt"] else None,
        ),
        prompt_mode=flags["prompt_mode"],
        num_frames=flags["frames"],
    )
    return printable(path.name), f"segmenter: {name}", [shown]


def _shard_clips(flags: Mapping[str, Any]) -> tuple[str, str, list[Any]]:
    """Title, subtitle, and the clips and failures of a contact sheet of shards."""
    from pipeline.datasets import open_dataset
    from pipeline.manifests import Manifest, known_manifests, load_manifest
    from pipeline.prompt_tables import load_prompt_tables
    from pipeline.showing.shards import choose_rows, clips_of_shards, prompts_differ

    reader = _open_shards(flags["path"])
    index = reader.index
    given = {name: flags[name] for name in ("dataset", "edition", "videos", "table", "data_root")}
    if given["dataset"] is None and given["table"] is None:
        given["dataset"] = index.dataset_name if index.dataset_name in known_manifests() else None
    source = None if index.stores == "frames" else open_dataset(**given)
    if given["dataset"] is None:
        classes = {split: tuple(names) for split, names in index.classes.items()}
        manifest = Manifest(name=index.dataset_name, title="", classes=classes)
        root = flags["videos"]
    else:
        manifest = load_manifest(given["dataset"], edition=flags["edition"])
        root = flags["videos"] or flags["data_root"] / manifest.folder
    tables = load_prompt_tables(manifest, root, user=flags["prompts"], video_ids=reader.video_ids)
    if reader.has_masks and prompts_differ(index, manifest, tables):
        note(
            "the masks of these shards were made with other prompts than those shown; pass the "
            "same --prompts as to extract"
        )
    rows = choose_rows(reader, flags["video"] or (), limit=flags["limit"])
    clips = list(clips_of_shards(reader, rows, manifest, source, prompts=tables))
    made_by = (index.fingerprint.get("segmenter") or {"name": "none"})["name"]
    subtitle = f"segmenter: {made_by}, {len(rows)} of {reader.num_videos} videos"
    return printable(index.dataset_name), subtitle, clips


@manifest_app.command("list")
def manifest_list(as_json: Json = False) -> None:
    """Datasets that ship with i2st."""
    from pipeline.manifests.check import manifest_summaries

    summaries = manifest_summaries()
    if as_json:
        typer.echo(json.dumps(summaries))
        return
    rows = [
        (
            one["name"],
            "/".join(map(str, one["num_classes"].values())),
            "/".join(map(str, (one["num_videos"] or {}).values())) or "-",
            one["edition"] or "-",
            one["title"],
        )
        for one in summaries
    ]
    show_table(rows, ("name", "classes", "videos", "edition", "title"))


@manifest_app.command("show")
def manifest_show(
    name: Annotated[str, typer.Argument(help="A shipped dataset.")],
    edition: Edition = None,
    as_json: Json = False,
) -> None:
    """Classes, splits, layout on disk, licence and sources of a dataset."""
    from pipeline.manifests import load_manifest
    from pipeline.manifests.check import describe_manifest

    described = describe_manifest(load_manifest(name, edition=edition))
    if as_json:
        typer.echo(json.dumps(described))
        return
    classes = described.pop("classes")
    for key in ("num_classes", "num_videos"):
        counts = described[key] or {}
        described[key] = ", ".join(f"{split} {number}" for split, number in counts.items())
    shown = {k: v for k, v in described.items() if v != "" and not isinstance(v, dict | list)}
    show_result(shown, as_json=False)
    for split, names in classes.items():
        typer.echo(f"\n{split} ({len(names)}): {', '.join(names)}")
    for split, record in described["lists"].items():
        typer.echo(
            f"\n{split} list: {record['url']}\n  sha256 {record['sha256']}, {record['licence']}"
        )


@manifest_app.command("check")
def manifest_check(
    folder: Annotated[Path, typer.Argument(help="Folder of the videos.")],
    dataset: DatasetName = None,
    table: TableFile = None,
    edition: Edition = None,
    as_json: Json = False,
) -> None:
    """What is there, missing and extra, per split and class, before any hour is spent."""
    from pipeline.datasets import check_dataset

    report = check_dataset(folder, dataset=dataset, table=table, edition=edition)
    if as_json:
        typer.echo(json.dumps(report.to_dict()))
        return
    rows = [(c.split, c.class_name, c.num_present, c.num_expected) for c in report.classes]
    show_table(rows, ("split", "class", "present", "expected"))
    for split in report.splits:
        missing = len(split.missing_classes)
        typer.echo(
            f"{split.split}: {split.num_present} of {split.num_expected or '?'} videos, "
            f"{split.num_classes - missing} of {split.num_classes} classes"
        )
    if missing_ids := report.missing_videos:
        some = printable(", ".join(missing_ids[:4])) + (", ..." if len(missing_ids) > 4 else "")
        typer.echo(f"missing of the list: {len(missing_ids)} videos ({some})")
    for extra in report.extra_folders:
        typer.echo(f"extra folder: {printable(extra)}")
    typer.echo(f"{report.root}: {'complete' if report.complete else 'incomplete'}")


@manifest_app.command("import")
def manifest_import(
    dataset: Annotated[str, typer.Argument(help="A dataset whose lists choose its videos.")],
    source: Annotated[
        Path | None, typer.Option("--from", help="Published list.  [default: download it]")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="train, val or test.  [default: all, by download]")
    ] = None,
    edition: Edition = None,
    videos: Annotated[
        Path | None, typer.Option(help="Folder of the videos.  [default: that in --data-root]")
    ] = None,
    data_root: DataRoot = Path("data"),
    as_json: Json = False,
) -> None:
    """Read or download a published video list, check its sha256 and count, and normalise it."""
    from pipeline.manifests import SPLITS, load_manifest
    from pipeline.manifests.lists import import_list

    if source is not None and split is None:
        raise ConfigError(
            f"--from {source} is one list; its split was needed; add --split train, val or test"
        )
    destination = videos or data_root / load_manifest(dataset, edition=edition).folder
    done = [
        import_list(dataset, one, source, edition, destination=destination)
        for one in ([split] if split else SPLITS)
    ]
    if as_json:
        typer.echo(json.dumps([one.to_dict() for one in done]))
        return
    for one in done:
        typer.echo(
            f"{one.dataset} {one.edition} {one.split}: {one.num_videos} videos in {one.path}"
        )


@masks_app.command("score")
def masks_score(
    truth: Annotated[Path, typer.Option(help="Folder of true person masks, as `precomputed`.")],
    dataset: DatasetName = None,
    videos: VideosFolder = None,
    table: TableFile = None,
    data_root: DataRoot = Path("data"),
    edition: Edition = None,
    segmenter: SegmenterName = "sam_clip",
    masks: Annotated[Path | None, typer.Option(help="Mask files, for precomputed.")] = None,
    sam: SamWeights = None,
    clip: ClipWeights = None,
    prompts: PromptFile = None,
    prompt_mode: PromptMode = "nouns",
    frames: Annotated[int, typer.Option(help="Frames per video.")] = 8,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most this many videos, in turn from every class.")
    ] = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="Also class by class.")] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """A segmenter's actor masks against true person masks of train videos, beside controls."""
    from pipeline.datasets import open_dataset
    from pipeline.devices import resolve_device
    from pipeline.prompt_tables import load_prompt_tables
    from pipeline.prompted_clips import prompted_clips
    from pipeline.scoring.score_rows import ALL_CLASSES
    from pipeline.scoring.segmenter_scores import open_truth, score_segmenter, videos_with_truth
    from pipeline.segmenters import get_segmenter

    source = open_dataset(
        dataset=dataset, edition=edition, videos=videos, table=table, data_root=data_root
    )
    truth_masks = open_truth(truth)
    chosen = videos_with_truth(source.videos, truth_masks, limit=limit)
    options = {name: value for name, value in (("sam", sam), ("clip", clip)) if value is not None}
    scored = get_segmenter(segmenter, device=resolve_device(device), masks=masks, **options)
    if scored is None:
        raise ConfigError(
            "--segmenter none makes no masks; one that does was needed; pass e.g. center_prior"
        )
    ids = [video.video_id for video in source.videos]
    clips = prompted_clips(
        source.manifest,
        chosen,
        source.root,
        num_frames=frames,
        prompts=load_prompt_tables(source.manifest, source.root, user=prompts, video_ids=ids),
        prompt_mode=prompt_mode,
    )
    with progress("videos") as show:
        found = score_segmenter(
            scored, truth_masks, clips, on_progress=lambda done: show(done, len(chosen), "")
        )
    for failure in found.failures:
        note(failure_line(failure))
    if as_json:
        typer.echo(json.dumps(found.to_json()))
    else:
        rows = [row for row in found.rows if per_class or row.class_name == ALL_CLASSES]
        measures = list(rows[0].scores)
        show_table(
            [
                (
                    row.masks,
                    row.class_name or "all",
                    row.num_frames,
                    *(f"{row.scores[name]:.3f}" for name in measures),
                    None if row.iou_half_width is None else f"{row.iou_half_width:.3f}",
                )
                for row in rows
            ],
            ("masks", "class", "frames", *measures, "iou +/-"),
        )
        typer.echo(
            f"means over frames with a true mask, of {found.num_videos} train videos; "
            "+/- is the 95 % half-width over source videos"
        )
    if found.failures:
        raise typer.Exit(EXIT_SOME_SKIPPED)
