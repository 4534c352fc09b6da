import csv
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ManifestError
from pipeline.manifests import Manifest, find_videos, known_manifests, load_manifest, read_manifest
from pipeline.manifests.paths import check_relative
from pipeline.manifests.text import read_yaml


def make_clip(root: Path, path: str) -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"not decoded here")
    return file


def manifest(**changes: object) -> Manifest:
    classes = {"train": ("ride_bike", "HandstandPushups"), "val": ("run",), "test": ("sit",)}
    return Manifest(**{"name": "toy", "title": "toy", "classes": classes, **changes})  # type: ignore[arg-type]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


MINIMAL = "name: toy\nclasses:\n  train: {run: [shoe]}\n  test: {sit: }\n"


def test_find_videos_reads_files_and_frame_folders_sorted_by_id(tmp_path):
    make_clip(tmp_path, "sit/b.MP4")
    make_clip(tmp_path, "run/a.avi")
    make_clip(tmp_path, "run/frames/0001.jpg")
    make_clip(tmp_path, "run/notes.txt")
    make_clip(tmp_path, "run/empty/readme.txt")
    make_clip(tmp_path, "run/.hidden.avi")
    make_clip(tmp_path, "unknown/c.avi")
    videos = find_videos(manifest(), tmp_path)
    assert [(v.video_id, v.path, v.class_name, v.split) for v in videos] == [
        ("run/a", "run/a.avi", "run", "val"),
        ("run/frames", "run/frames", "run", "val"),
        ("sit/b", "sit/b.MP4", "sit", "test"),
    ]


@pytest.mark.parametrize("folder", ["ride_bike", "Ride Bike", "RideBike", "ride-bike", "cycling"])
def test_find_videos_forgives_the_spelling_of_class_folders(tmp_path, folder):
    make_clip(tmp_path, f"{folder}/a.avi")
    (video,) = find_videos(manifest(aliases={"cycling": "ride_bike"}), tmp_path)
    assert (video.video_id, video.class_name) == ("ride_bike/a", "ride_bike")
    assert video.path == f"{folder}/a.avi"


def test_find_videos_tells_classes_of_one_spelling_apart_by_exact_names(tmp_path):
    twins = manifest(classes={"train": ("run_1",), "val": (), "test": ("run1",)})
    make_clip(tmp_path, "run1/a.avi")
    make_clip(tmp_path, "run_1/a.avi")
    make_clip(tmp_path, "Run 1/b.avi")
    assert [v.video_id for v in find_videos(twins, tmp_path)] == ["run1/a", "run_1/a"]


def test_find_videos_looks_into_the_folders_that_archives_put_in_between(tmp_path):
    make_clip(tmp_path, "UCF-101/run/a.avi")
    make_clip(tmp_path, "masks/run/a/0001.png")
    (video,) = find_videos(manifest(subfolders=("UCF-101",)), tmp_path)
    assert (video.video_id, video.path) == ("run/a", "UCF-101/run/a.avi")


def test_find_videos_refuses_two_files_of_one_clip(tmp_path):
    make_clip(tmp_path, "run/a.avi")
    make_clip(tmp_path, "Run/a.mp4")
    with pytest.raises(ManifestError, match=r"are one clip, 'run/a'; one file per clip"):
        find_videos(manifest(), tmp_path)


def test_find_videos_says_what_is_needed_when_the_root_is_absent(tmp_path):
    with pytest.raises(ManifestError, match=r"nowhere' is absent; <class>/<clip>"):
        find_videos(manifest(), tmp_path / "nowhere")


def test_find_videos_follows_links_that_stay_below_the_root(tmp_path):
    make_clip(tmp_path, "real/run/a.avi")
    (tmp_path / "root" / "store").mkdir(parents=True)
    make_clip(tmp_path, "root/store/b.avi")
    (tmp_path / "root" / "sit").mkdir()
    (tmp_path / "root" / "sit" / "b.avi").symlink_to(tmp_path / "root" / "store" / "b.avi")
    (tmp_path / "link").symlink_to(tmp_path / "root")
    assert [v.video_id for v in find_videos(manifest(), tmp_path / "link")] == ["sit/b"]


@pytest.mark.parametrize("where", ["file", "class folder", "frames folder", "frame", "dangling"])
def test_find_videos_refuses_links_that_leave_the_root(tmp_path, where):
    outside = make_clip(tmp_path, "outside/x.avi")
    make_clip(tmp_path, "outside/0001.png")
    root = tmp_path / "root"
    make_clip(root, "run/good/0001.png")
    link = {
        "file": root / "run" / "x.avi",
        "class folder": root / "sit",
        "frames folder": root / "run" / "x",
        "frame": root / "run" / "good" / "0002.png",
        "dangling": root / "run" / "y.avi",
    }[where]
    target = {"file": outside, "frame": outside.with_name("0001.png")}.get(where, outside.parent)
    link.symlink_to(tmp_path / "gone.avi" if where == "dangling" else target)
    what = "folder" if "folder" in where else "file"
    needed = rf"leads out of .*; only files below that folder are read; copy the {what} there$"
    with pytest.raises(ManifestError, match=needed):
        find_videos(manifest(), root)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("name", ["run/a.avi", "run/frames/0001.png"])
def test_find_videos_refuses_pipes_without_blocking(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(ManifestError, match="is a pipe, a socket or a device"):
        find_videos(manifest(), tmp_path)


def test_find_videos_escapes_names_that_would_write_on_the_terminal(tmp_path):
    make_clip(tmp_path, "run/\x1b[31mred\nline.avi")
    with pytest.raises(ManifestError, match=r"clip name '\\x1b\[31mred\\nline' is empty, padded"):
        find_videos(manifest(), tmp_path)


def test_find_videos_scans_twenty_thousand_files_in_seconds(tmp_path):
    for name in ("run", "sit"):
        (tmp_path / name).mkdir()
        for number in range(10_000):
            (tmp_path / name / f"{number:05}.avi").touch()
    started = time.process_time()
    videos = find_videos(manifest(), tmp_path)
    assert len(videos) == 20_000
    assert time.process_time() - started < 3.0


def test_groups_of_hmdb51_are_the_source_videos(real_data):
    root = real_data / "jhmdb21"
    with open(root / "clips.csv", newline="") as file:
        expected = {f"{row['class']}/{row['clip']}": row for row in csv.DictReader(file)}
    videos = find_videos(load_manifest("hmdb51"), root / "videos")
    assert {v.video_id: v.group for v in videos} == {
        key: row["source_group"] for key, row in expected.items()
    }
    assert {v.video_id: v.split for v in videos} == {k: r["split"] for k, r in expected.items()}
    assert find_videos(load_manifest("jhmdb21"), root)[0].path.startswith("videos/brush_hair/")


@pytest.mark.parametrize("dataset", ["hmdb51", "ucf101"])
def test_group_patterns_match_every_published_clip(split_lists, dataset):
    shipped = load_manifest(dataset)
    for split in ("train", "val", "test"):
        for line in (split_lists / f"{dataset}_{split}.tsv").read_text().splitlines():
            class_name, clip = line.split("\t")
            assert shipped.split_of(class_name) == split
            assert shipped.group_of(clip, class_name), clip


@pytest.mark.parametrize(
    ("dataset", "class_name", "clip", "group"),
    [
        ("hmdb51", "climb_stairs", "A_climb_B_climb_stairs_l_cm_np1_ba_med_1", "A_climb_B"),
        ("hmdb51", "run", "not a name of theirs", ""),
        ("ucf101", "HandstandPushups", "v_HandStandPushups_g07_c02", "HandStandPushups_g07"),
        ("kinetics100", "busking", "-kYzxMKp514_000086_000096", "-kYzxMKp514"),
        ("kinetics100", "busking", "-kYzxMKp514", "-kYzxMKp514"),
        ("ssv2-full", "Holding something", "78687", ""),
    ],
)
def test_group_of_reads_the_source_off_a_clip(dataset, class_name, clip, group):
    assert load_manifest(dataset).group_of(clip, class_name) == group


def test_load_manifest_names_the_known_ones_and_a_close_one():
    with pytest.raises(ManifestError, match=r"'hmdb52' \(did you mean 'hmdb51'\?\); known: demo, "):
        load_manifest("hmdb52")
    with pytest.raises(ManifestError, match="unknown dataset '../hmdb51'"):
        load_manifest("../hmdb51")
    for name in known_manifests():
        assert load_manifest(name).name == name


def test_load_manifest_takes_an_edition_by_name_or_argument():
    by_name = load_manifest("kinetics100-hyrsm")
    assert load_manifest("kinetics100", edition="hyrsm") == by_name
    assert (by_name.edition, by_name.folder) == ("hyrsm", "kinetics100")
    assert load_manifest("kinetics100", edition="cmn") == load_manifest("kinetics100")
    with pytest.raises(ManifestError, match="unknown dataset 'kinetics100-cnm'"):
        load_manifest("kinetics100", edition="cnm")


def test_sha256_depends_on_what_decides_the_data_alone():
    base = manifest()
    assert manifest(licence="other", aliases={"x": "run"}).sha256 == base.sha256
    moved = {"train": ("ride_bike",), "val": ("run",), "test": ("HandstandPushups", "sit")}
    others = [manifest(name="b"), manifest(classes=moved), manifest(videos_sha256="0" * 64)]
    editions = [load_manifest("kinetics100"), load_manifest("kinetics100-hyrsm")]
    hashes = {m.sha256 for m in (base, *others, *editions)}
    assert len(hashes) == 6


def test_manifest_lists_classes_in_order_of_splits():
    assert manifest().class_names == ("ride_bike", "HandstandPushups", "run", "sit")
    with pytest.raises(KeyError):
        manifest().split_of("fly")


def test_read_manifest_takes_a_minimal_file(tmp_path):
    read = read_manifest(write(tmp_path / "toy.yaml", MINIMAL))
    assert read.classes == {"train": ("run",), "val": (), "test": ("sit",)}
    assert read.prompts["run"].objects == ("shoe",)
    assert "sit" not in read.prompts


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (MINIMAL + "title: [a]\n", "title is list; text is needed"),
        (MINIMAL + "licens: MIT\n", r"unknown key 'licens' \(did you mean 'licence'\?\)"),
        (MINIMAL + "name: again\n", r"line 5 repeats or nests the key 'name'"),
        (MINIMAL + "aliases: {jog: ran}\n", r"unknown class 'ran' \(did you mean 'run'\?\)"),
        (MINIMAL + "num_videos: {train: .nan}\n", "num_videos is nan; a count is needed"),
        (MINIMAL + "num_videos: {train: true}\n", "num_videos is True; a count is needed"),
        (MINIMAL + "actor: [a, b, c, d]\n", "actor has 4 nouns; at most 3"),
        (MINIMAL + "group_pattern: 5\n", "group_pattern is int; text is needed"),
        ("name: toy\nclasses: {train: {run: }, test: {run: }}\n", "'run' is in train and test"),
        ("name: toy\nclasses: {train: {on: }}\n", "has the key True; text is needed; quote it"),
        ("name: toy\nclasses: {train: {../x: }}\n", r"class name '../x' is a path"),
        ("name: ../x\nclasses: {train: {run: }}\n", r"name '../x' is a path"),
        ("name: toy\nclasses: {trian: {run: }}\n", r"'trian' \(did you mean 'train'\?\)"),
        ("name: toy\nclasses: {}\n", "names no class"),
        ("name: toy\n", "lacks name or classes"),
        ("- a\n", "is list; a mapping is needed"),
        ("name: &a toy\nclasses: {train: {run: }}\n", "line 1 uses an anchor"),
        ("name: !!python/name:os.system x\n", "is not plain YAML at line 1"),
        ("name: 'x\n", "is not plain YAML at line 2"),
        ("name: toy\nclasses: {train: {a: {label: 1}}}\n", "labels of train are not 0 to 0"),
        ("[" * 500_000, "nests deeper than 12"),
        ("name: toy\nx: " + "9" * 5000 + "\n", "a number that is no number|unknown key"),
    ],
)
def test_read_manifest_gives_one_line_for_each_fault(tmp_path, change, message):
    path = write(tmp_path / "toy.yaml", change)
    started = time.process_time()
    with pytest.raises(ManifestError, match=message) as fault:
        read_manifest(path)
    assert "\n" not in str(fault.value)
    assert len(str(fault.value)) < 700
    assert time.process_time() - started < 1.0


def test_read_yaml_refuses_what_is_no_small_text_file(tmp_path):
    (tmp_path / "big.yaml").write_bytes(b"#" * 1_000_001)
    with pytest.raises(ManifestError, match="1000001 bytes; at most 1000000"):
        read_yaml(tmp_path / "big.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(ManifestError, match="is not UTF-8 at byte 9"):
        read_yaml(tmp_path / "latin.yaml")
    with pytest.raises(ManifestError, match="is absent; a file was needed"):
        read_yaml(tmp_path / "absent.yaml")
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ManifestError, match="is not a regular file"):
        read_yaml(tmp_path / "pipe.yaml")


def accepted(text: str) -> bool:
    try:
        return check_relative(text, what="path") == text
    except ManifestError:
        return False


@given(st.text(st.sampled_from("ab./\\~$: \0\n"), max_size=12).filter(accepted))
def test_check_relative_passes_only_what_realpath_keeps_below_the_root(text):
    assert os.path.realpath(f"/root/{text}") == f"/root/{text}"
    assert text.isprintable()
    assert text[0] not in "~$/"
