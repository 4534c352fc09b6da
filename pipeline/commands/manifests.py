"""`i2st manifest`: what a dataset holds, and what is on disk."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.commands.console import (
    EXIT_SOME_SKIPPED,
    printable,
    say,
    show_json,
    show_result,
    show_table,
)
from pipeline.commands.options import DataRoot, DatasetName, Edition, Json, TableFile
from pipeline.errors import ConfigError


def manifest_list(as_json: Json = False) -> None:
    """Datasets that ship with i2st."""
    from pipeline.manifests.check import manifest_summaries

    summaries = manifest_summaries()
    if as_json:
        show_json(summaries)
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
        show_json(described)
        return
    classes = described.pop("classes")
    for key in ("num_classes", "num_videos"):
        counts = described[key] or {}
        described[key] = ", ".join(f"{split} {number}" for split, number in counts.items())
    shown = {k: v for k, v in described.items() if v != "" and not isinstance(v, dict | list)}
    show_result(shown, as_json=False)
    for split, names in classes.items():
        say(f"\n{split} ({len(names)}): {', '.join(names)}")
    for split, record in described["lists"].items():
        say(f"\n{split} list: {record['url']}\n  sha256 {record['sha256']}, {record['licence']}")


def manifest_check(
    folder: Annotated[Path, typer.Argument(help="Folder of the videos.")],
    dataset: DatasetName = None,
    table: TableFile = None,
    edition: Edition = None,
    as_json: Json = False,
) -> None:
    """What is there, absent and extra, per split and class. Exits with 0 or 3."""
    from pipeline.datasets import check_dataset

    report = check_dataset(folder, dataset=dataset, table=table, edition=edition)
    if as_json:
        show_json(report.to_dict())
    else:
        _show_check(report)
    if not report.complete:
        raise typer.Exit(EXIT_SOME_SKIPPED)


def _show_check(report: Any) -> None:
    rows = [(c.split, c.class_name, c.num_present, c.num_expected) for c in report.classes]
    show_table(rows, ("split", "class", "present", "expected"))
    for split in report.splits:
        absent = len(split.missing_classes)
        typer.echo(
            f"{split.split}: {split.num_present} of {split.num_expected or '?'} videos, "
            f"{split.num_classes - absent} of {split.num_classes} classes"
        )
    if absent_ids := report.missing_videos:
        some = printable(", ".join(absent_ids[:4])) + (", ..." if len(absent_ids) > 4 else "")
        say(f"absent, of the list: {len(absent_ids)} videos ({some})")
    for extra in report.extra_folders:
        typer.echo(f"extra folder: {printable(extra)}")
    typer.echo(f"{printable(report.root)}: {'complete' if report.complete else 'incomplete'}")


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
    """Read or download a published video list. Checks its sha256 and count, and normalises it."""
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
        show_json([one.to_dict() for one in done])
        return
    for one in done:
        say(f"{one.dataset} {one.edition} {one.split}: {one.num_videos} videos in {one.path}")
