"""What `i2st extract` says: while it works, at its end, and of a run that is only estimated."""

import shlex
from collections.abc import Sequence
from typing import Any

import typer

from pipeline.commands.console import (
    EXIT_SIGNAL,
    EXIT_SOME_SKIPPED,
    failure_line,
    note,
    show_result,
)
from pipeline.commands.progress import progress


def run_extraction(config: Any, source: Any, user_prompts: Any, as_json: bool) -> None:
    """Extract, say what came of it, and exit with what that means."""
    from pipeline.extract import extract

    with progress("videos") as show:
        report = extract(
            config,
            source.manifest,
            source.videos,
            user_prompts=user_prompts,
            on_progress=lambda p: show(
                p.num_done + p.num_failed, p.num_total, _words_of(p), seconds_left=p.seconds_left
            ),
            on_note=note,
        )
    _note_faults(report)
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


def _note_faults(report: Any) -> None:
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


def _words_of(state: Any) -> str:
    """Speed of an extraction, and how fast each stage would be alone."""
    if not state.num_new:
        return ""
    stages = ", ".join(
        f"{stage} {rate:.3g}/s" + (" (busiest)" if stage == state.busiest_stage else "")
        for stage, rate in state.stage_rates.items()
    )
    speed = f"{state.videos_per_second:.3g} videos/s"
    return f"{speed}, {state.num_failed} failed; each stage alone: {stages}"


def show_estimate(config: Any, source: Any, user_prompts: Any, as_json: bool) -> None:
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


def note_drawn(source: Any, split_seed: int) -> None:
    """Say which classes a draw put into which split, and where test classes are too few."""
    classes = source.manifest.classes
    sizes = " / ".join(f"{split} {len(names)}" for split, names in classes.items())
    listed = "; ".join(f"{split}: {_some(names)}" for split, names in classes.items())
    note(f"classes drawn with --split-seed {split_seed}: {sizes} ({listed})")
    if len(classes["test"]) < 2:
        note(
            "1 test class; episodes need 2 and more, as many as --way; add classes, or choose the "
            "splits with --split-file, before evaluation"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def note_missing(source: Any) -> None:
    """Say which classes have no video on disk."""
    missing = source.missing_classes
    if missing:
        total = len(source.manifest.class_names)
        note(
            f"{len(missing)} of {total} classes have no video in {source.root} ({_some(missing)}); "
            f"going on with {len(source.videos)} videos of the others; `i2st manifest check "
            f"{shlex.quote(str(source.root))} --dataset {source.manifest.name}` shows more"
        )
