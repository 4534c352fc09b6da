import json
import os
from pathlib import Path

import pytest

from pipeline.errors import ManifestError
from pipeline.manifests import find_videos
from pipeline.manifests.sources import manifest_from_folder, manifest_from_table


def make_clip(root: Path, path: str) -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"not decoded here")
    return file


@pytest.fixture
def ten_classes(tmp_path: Path) -> Path:
    root = tmp_path / "my videos"
    for number in range(10):
        make_clip(root, f"class {number}/clip.mp4")
    (root / "empty").mkdir()
    return root


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_manifest_from_folder_splits_classes_by_the_ratios(ten_classes):
    manifest = manifest_from_folder(ten_classes)
    assert {s: len(names) for s, names in manifest.classes.items()} == {
        "train": 6,
        "val": 2,
        "test": 2,
    }
    assert sorted(manifest.class_names) == [f"class {number}" for number in range(10)]
    assert manifest.name == "my videos"
    assert len(find_videos(manifest, ten_classes)) == 10


def test_manifest_from_folder_draws_by_the_seed_alone(ten_classes):
    draws = [manifest_from_folder(ten_classes, seed=seed).classes["test"] for seed in range(8)]
    assert manifest_from_folder(ten_classes, seed=3).classes["test"] == draws[3]
    assert len(set(draws)) > 3


def test_manifest_from_folder_keeps_its_draw_over_versions(ten_classes):
    # Written down once: a later version that draws otherwise would silently change results.
    assert manifest_from_folder(ten_classes).classes["test"] == ("class 0", "class 6")


@pytest.mark.parametrize("count", [3, 4, 5, 7])
def test_manifest_from_folder_gives_each_split_a_class(tmp_path, count):
    for number in range(count):
        make_clip(tmp_path, f"c{number}/clip.mp4")
    classes = manifest_from_folder(tmp_path, ratios=(0.1, 0.45, 0.45)).classes
    assert all(classes.values())
    assert sum(map(len, classes.values())) == count


def test_manifest_from_folder_refuses_too_few_classes(tmp_path):
    make_clip(tmp_path, "a/clip.mp4")
    make_clip(tmp_path, "b/clip.mp4")
    with pytest.raises(ManifestError, match="holds clips of 2 classes; train, val and test need"):
        manifest_from_folder(tmp_path)


def test_manifest_from_folder_refuses_ratios_that_are_none(ten_classes):
    with pytest.raises(ValueError, match="three positive numbers"):
        manifest_from_folder(ten_classes, ratios=(1.0, 0.0, 0.0))


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_manifest_from_folder_takes_a_given_split(ten_classes, tmp_path, suffix):
    given = {"train": ["class 3", "class 1"], "val": [], "test": ["class 2"]}
    path = write(tmp_path / f"split.{suffix}", json.dumps(given))
    classes = manifest_from_folder(ten_classes, split_file=path).classes
    assert classes == {"train": ("class 1", "class 3"), "val": (), "test": ("class 2",)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'train: ["class 11"]',
            r"names class 'class 11', no folder .*\(did you mean 'class 1'\?\)",
        ),
        ('train: ["class 1"]\ntest: ["class 1"]', "class 'class 1' is in train and test"),
        ("training: []", "is no mapping of train, val and test"),
        ("[]", "is no mapping of train, val and test"),
        ("train: [1]", "train is no list of class names"),
    ],
)
def test_manifest_from_folder_refuses_split_files_that_do_not_fit(
    ten_classes, tmp_path, text, message
):
    with pytest.raises(ManifestError, match=message):
        manifest_from_folder(ten_classes, split_file=write(tmp_path / "split.yaml", text))


CSV = "path,class,split,group,id,fps\nv/b.avi,run,train,film 1,,30\nv/a,sit,test,,two,25\n"


def test_manifest_from_table_reads_csv_with_optional_columns(tmp_path):
    make_clip(tmp_path, "v/b.avi")
    manifest, videos = manifest_from_table(write(tmp_path / "mine.csv", CSV))
    assert [(v.video_id, v.path, v.class_name, v.split, v.group) for v in videos] == [
        ("two", "v/a", "sit", "test", ""),
        ("v/b", "v/b.avi", "run", "train", "film 1"),
    ]
    assert manifest.name == "mine"
    assert manifest.classes == {"train": ("run",), "val": (), "test": ("sit",)}
    assert manifest.num_videos == {"train": 1, "val": 0, "test": 1}


def test_manifest_from_table_reads_the_same_from_csv_tsv_and_json_lines(tmp_path):
    rows = [
        {"path": "v/b.avi", "class": "run", "split": "train", "group": "film 1"},
        {"path": "v/a", "class": "sit", "split": "test", "id": "two", "fps": 25},
    ]
    lines = "\n\n".join(json.dumps(row) for row in rows)
    files = [
        write(tmp_path / "mine.csv", "\ufeff" + CSV),
        write(tmp_path / "mine.tsv", CSV.replace(",", "\t")),
        write(tmp_path / "mine.jsonl", lines),
    ]
    read = [manifest_from_table(file) for file in files]
    assert read[0][1] == read[1][1] == read[2][1]
    assert len({manifest.sha256 for manifest, _ in read}) == 1


def test_manifest_from_table_hashes_the_choice_of_videos(tmp_path):
    one, _ = manifest_from_table(write(tmp_path / "mine.csv", CSV))
    (header, *rows) = CSV.splitlines()
    same, _ = manifest_from_table(write(tmp_path / "mine.csv", "\n".join([header, *rows[::-1]])))
    other, _ = manifest_from_table(write(tmp_path / "mine.csv", CSV.replace("film 1", "film 2")))
    assert one.sha256 == same.sha256 != other.sha256


@pytest.mark.parametrize(
    "path",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "a/../../x",
        "..\\..\\x",
        "C:\\x",
        "C:x",
        "file:///etc/passwd",
        "a\x00b",
        "x" * 5000,
        "~/x",
        "$HOME/x",
        "./x",
        "a//b",
        "a/\x1b[31mb",
        " padded",
    ],
)
@pytest.mark.parametrize("column", ["path", "id"])
def test_manifest_from_table_refuses_paths_that_leave_the_folder(tmp_path, path, column):
    row = {"path": "ok.avi", "class": "run", "split": "train", column: path}
    table = write(tmp_path / "mine.jsonl", json.dumps(row))
    with pytest.raises(ManifestError, match=rf"line 1: {column} .*; (only|names|at most)") as fault:
        manifest_from_table(table)
    assert str(fault.value).isprintable()
    assert len(str(fault.value)) < 500


@pytest.mark.parametrize("name", ["../../evil", "a/b", "..", "a\nb", "x" * 256])
def test_manifest_from_table_refuses_class_names_that_are_paths(tmp_path, name):
    row = {"path": "ok.avi", "class": name, "split": "train"}
    with pytest.raises(ManifestError, match="line 1: class "):
        manifest_from_table(write(tmp_path / "mine.jsonl", json.dumps(row)))


@pytest.mark.timeout(10)
@pytest.mark.parametrize("kind", ["file link", "folder link", "pipe", "environ"])
def test_manifest_from_table_refuses_links_and_pipes(tmp_path, kind):
    root = tmp_path / "root"
    (root / "v").mkdir(parents=True)
    make_clip(tmp_path, "outside/x.avi")
    if kind == "file link":
        (root / "v" / "x.avi").symlink_to(tmp_path / "outside" / "x.avi")
    elif kind == "environ":
        (root / "v" / "x.avi").symlink_to("/proc/self/environ")
    elif kind == "pipe":
        os.mkfifo(root / "v" / "x.avi")
    else:
        (root / "v").rmdir()
        (root / "v").symlink_to(tmp_path / "outside")
    table = write(root / "mine.csv", "path,class,split\nv/x.avi,run,train\n")
    with pytest.raises(ManifestError, match="leads out of|is a pipe"):
        manifest_from_table(table)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "path,clas,split\n", r"has no column 'class' \(did you mean 'clas'\?\)"),
        ("a.csv", "path,class,split,grup\nx,run,train,1\n", r"no column 'group' .*'grup'"),
        ("a.csv", "path,class,split\nx,run,validation\n", "line 2: split 'validation'"),
        ("a.csv", "path,class,split\nx,run\n", "line 2: split is ''; text is needed"),
        ("a.csv", "path,class,split\nx,run,fast,train\n", "line 2 has more values"),
        ("a.csv", 'path,class,split\n"x,run,train\n', "is no CSV"),
        ("a.csv", "path,class,split\nx," + "y" * 200_000 + ",train\n", "is no CSV"),
        ("a.csv", "path,class,split\nx,run,train\ny,run,test\n", "class 'run' in test, an earlier"),
        ("a.csv", "path,class,split\nx.avi,run,train\nx.mp4,run,train\n", "repeats video 'x'"),
        ("a.csv", "path,class,split,id\nx,run,train,1\nx,run,train,2\n", "repeats video '2'"),
        ("a.csv", "path,class,split\n", "lists no video"),
        ("a.csv", "", "has no column 'path'"),
        ("a.jsonl", "{", "line 1 is not plain JSON"),
        ("a.jsonl", "[" * 200_000, "line 1 is not plain JSON"),
        ("a.jsonl", "[1]", "line 1 is no JSON object"),
        ("a.jsonl", '{"path": "x", "path": "y"}', "a key occurs twice"),
        ("a.jsonl", '{"path": NaN}', "NaN is not JSON"),
        ("a.jsonl", '{"path": 1, "class": "a", "split": "test"}', "line 1: path is 1; text"),
    ],
)
def test_manifest_from_table_gives_one_line_for_each_fault(tmp_path, name, text, message):
    with pytest.raises(ManifestError, match=message) as fault:
        manifest_from_table(write(tmp_path / name, text))
    assert "\n" not in str(fault.value)
    assert len(str(fault.value)) < 600


def test_manifest_from_table_reads_the_table_of_real_clips(real_data):
    folder = real_data / "jhmdb21"
    # clips.csv has `clip` and `source_group` in place of our columns: a near miss is named.
    with pytest.raises(ManifestError, match="has no column 'path'"):
        manifest_from_table(folder / "clips.csv")
