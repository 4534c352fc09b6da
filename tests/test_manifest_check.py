import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.manifests import Manifest, known_manifests, load_manifest
from pipeline.manifests.check import check_videos, describe_manifest, manifest_summaries
from pipeline.manifests.lists import import_list
from pipeline.manifests.sources import manifest_from_table


def make_clip(root: Path, path: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"")


TOY = Manifest(
    name="toy",
    title="toy",
    classes={"train": ("jump", "run"), "val": ("sit",), "test": ("wave",)},
    num_videos={"train": 3, "val": 1, "test": 1},
    class_videos={"jump": 1, "run": 2, "sit": 1, "wave": 1},
)


def test_check_videos_names_what_is_missing_and_extra_per_class_and_split(tmp_path):
    for path in ("run/a.avi", "sit/a.avi", "sit/b.avi", "walk/a.avi"):
        make_clip(tmp_path, path)
    report = check_videos(TOY, tmp_path)
    counts = {
        c.class_name: (c.num_present, c.num_expected, c.num_missing, c.num_extra)
        for c in report.classes
    }
    assert counts == {
        "jump": (0, 1, 1, 0),
        "run": (1, 2, 1, 0),
        "sit": (2, 1, 0, 1),
        "wave": (0, 1, 1, 0),
    }
    assert [(s.split, s.num_classes, s.num_present, s.num_expected) for s in report.splits] == [
        ("train", 2, 1, 3),
        ("val", 1, 2, 1),
        ("test", 1, 0, 1),
    ]
    assert [s.missing_classes for s in report.splits] == [("jump",), (), ("wave",)]
    assert report.extra_folders == ("walk",)
    assert (report.complete, report.num_present) == (False, 3)


def test_a_dataset_is_complete_only_with_every_listed_video_and_every_split_full(tmp_path):
    by_split = replace(TOY, class_videos={})
    for path in ("jump/a.avi", "run/a.avi", "sit/a.avi", "wave/a.avi"):
        make_clip(tmp_path, path)
    assert not check_videos(by_split, tmp_path).complete  # 2 of 3 train videos
    make_clip(tmp_path, "run/b.avi")
    whole = check_videos(by_split, tmp_path)
    assert whole.complete
    assert not replace(whole, missing_videos=("run/c",)).complete


def test_check_videos_says_when_all_is_there(tmp_path):
    for path in ("jump/a.avi", "run/a.avi", "run/b.avi", "sit/a.avi", "wave/a.avi"):
        make_clip(tmp_path, path)
    report = check_videos(TOY, tmp_path)
    assert report.complete
    assert json.loads(json.dumps(report.to_dict()))["complete"] is True


def test_check_videos_counts_the_real_clips_of_hmdb51(real_data):
    report = check_videos(load_manifest("hmdb51"), real_data / "jhmdb21" / "videos")
    assert [(s.num_present, s.num_expected, len(s.missing_classes)) for s in report.splits] == [
        (432, 4280, 19),
        (96, 1194, 6),
        (60, 1292, 5),
    ]
    values = json.loads(json.dumps(report.to_dict()))
    assert (values["num_present"], values["complete"], values["extra_folders"]) == (588, False, [])
    golf = next(check for check in values["classes"] if check["class_name"] == "golf")
    assert (golf["num_present"], golf["num_missing"]) == (24, 81)


def test_check_videos_names_listed_ids_that_are_absent(split_lists, tmp_path):
    for split in ("train", "val", "test"):
        source = split_lists / "original" / f"ssv2_small_{split}.hyrsm.txt"
        import_list("ssv2-small", split, source, destination=tmp_path)
    make_clip(tmp_path, "51958.webm")
    report = check_videos(load_manifest("ssv2-small"), tmp_path)
    assert len(report.missing_videos) == 9_999
    assert "51958" not in report.missing_videos
    assert "88644" in report.missing_videos
    assert report.num_present == 1


def test_check_videos_looks_for_the_files_of_a_table(tmp_path):
    make_clip(tmp_path, "v/a.avi")
    table = tmp_path / "mine.csv"
    table.write_text("path,class,split\nv/a.avi,run,train\nv/b.avi,run,train\nv/c.avi,sit,test\n")
    manifest, videos = manifest_from_table(table)
    report = check_videos(manifest, tmp_path, videos)
    assert report.missing_videos == ("v/b", "v/c")
    assert [(c.class_name, c.num_present, c.num_expected) for c in report.classes] == [
        ("run", 1, 2),
        ("sit", 0, 1),
    ]
    assert not report.complete


def test_manifest_summaries_cover_every_dataset_and_edition():
    summaries = {summary["name"]: summary for summary in manifest_summaries()}
    assert sorted(summaries) == sorted(known_manifests())
    assert summaries["ssv2-full"]["num_videos"] == {"train": 67013, "val": 1926, "test": 2857}
    assert summaries["hmdb51"]["num_classes"] == {"train": 31, "val": 10, "test": 10}
    assert [name for name, s in summaries.items() if s["needs_import"]] == [
        "kinetics100",
        "kinetics100-hyrsm",
        "ssv2-full",
        "ssv2-small",
    ]


@pytest.mark.parametrize("name", ["hmdb51", "kinetics100-hyrsm", "ssv2-full"])
def test_describe_manifest_is_json_and_complete(name):
    manifest = load_manifest(name)
    values = json.loads(json.dumps(describe_manifest(manifest)))
    assert values["sha256"] == manifest.sha256
    assert sum(map(len, values["classes"].values())) == len(manifest.class_names)
    assert {split: list_["lines"] for split, list_ in values["lists"].items()} == (
        manifest.num_videos if manifest.edition else {}
    )
