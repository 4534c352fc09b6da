import json
import re
import subprocess
import sys
import time

import pytest

import data_manifests
from pipeline.manifests import Video, known_manifests, load_manifest, spelling
from pipeline.prompts import prompts_for

SIZES = {
    "hmdb51": ((31, 10, 10), (4280, 1194, 1292)),
    "ucf101": ((70, 10, 21), (9154, 1421, 2745)),
    "kinetics100": ((64, 12, 24), (6400, 1200, 2400)),
    "kinetics100-hyrsm": ((64, 12, 24), (6400, 1200, 2400)),
    "ssv2-small": ((64, 12, 24), (6400, 1200, 2400)),
    "ssv2-full": ((64, 12, 24), (67013, 1926, 2857)),
    "jhmdb21": ((12, 4, 5), None),
}
SPLITS = ("train", "val", "test")


@pytest.mark.parametrize("name", SIZES)
def test_manifest_has_the_published_sizes(name):
    manifest = load_manifest(name)
    num_classes, num_videos = SIZES[name]
    assert tuple(len(manifest.classes[split]) for split in SPLITS) == num_classes
    if num_videos is None:
        assert manifest.num_videos is None
        return
    assert tuple(manifest.num_videos[split] for split in SPLITS) == num_videos
    for split, count in zip(SPLITS, num_videos, strict=True):
        assert sum(manifest.class_videos[c] for c in manifest.classes[split]) == count
        if manifest.edition:
            assert manifest.sources[split].lines == count


def test_every_shipped_manifest_is_tested():
    assert {*known_manifests()} == {*SIZES, "demo"}


@pytest.mark.parametrize("name", [*SIZES, "demo"])
def test_manifest_is_sorted_disjoint_and_told_apart_by_folder(name):
    manifest = load_manifest(name)
    names = manifest.class_names
    assert all(list(c) == sorted(c) for c in manifest.classes.values())
    assert len({spelling(c) for c in names}) == len(names) > 2
    assert all(c.isascii() and c.isprintable() and "/" not in c for c in names)


def test_splits_of_the_same_videos_share_their_folder():
    assert load_manifest("ssv2-small").folder == load_manifest("ssv2-full").folder == "ssv2"
    assert load_manifest("kinetics100-hyrsm").folder == load_manifest("kinetics100").folder
    assert load_manifest("ucf101").folder == "ucf101"


@pytest.mark.parametrize("name", ["hmdb51", "ucf101", "kinetics100", "ssv2-small", "ssv2-full"])
def test_classes_are_those_of_the_published_split(split_lists, name):
    published = json.loads((split_lists / "classes.json").read_text())[name.replace("-", "_")]
    manifest = load_manifest(name)
    assert {s: list(names) for s, names in manifest.classes.items()} == published


@pytest.mark.parametrize("name", ["hmdb51", "ucf101", "kinetics100", "ssv2-small", "ssv2-full"])
def test_videos_per_class_are_those_of_the_published_lists(split_lists, name):
    counts: dict[str, int] = {}
    for split in SPLITS:
        text = (split_lists / f"{name.replace('-', '_')}_{split}.tsv").read_text()
        for line in text.splitlines():
            class_name = line.split("\t")[0]
            counts[class_name] = counts.get(class_name, 0) + 1
    assert load_manifest(name).class_videos == counts


def test_labels_of_ssv2_full_are_those_of_the_published_table(split_lists):
    table = json.loads((split_lists / "ssv2_full_index_to_name.json").read_text())
    labels = load_manifest("ssv2-full").labels
    for split in SPLITS:
        assert list(labels[split]) == [table[split][str(i)] for i in range(len(table[split]))]


def test_jhmdb21_keeps_split_and_prompts_of_hmdb51():
    small, whole = load_manifest("jhmdb21"), load_manifest("hmdb51")
    for name in small.class_names:
        assert small.split_of(name) == whole.split_of(name)
        assert small.prompts[name] == whole.prompts[name]
    assert small.truth_masks.startswith("masks/<class>/<clip>.npz")


@pytest.mark.parametrize("name", ["hmdb51", "jhmdb21", "ucf101", "kinetics100"])
def test_every_class_has_curated_prompts(name):
    manifest = load_manifest(name)
    for class_name in manifest.class_names:
        clip = Video(video_id="x", path="x", class_name=class_name, split="train")
        prompts = prompts_for(manifest, clip)
        assert prompts.source == "table"
        assert len(prompts.objects) <= 3
        assert prompts.actor
        assert all(re.fullmatch(r"[a-z][a-z -]{1,30}", noun) for noun in prompts.objects)
        assert len(set(prompts.objects)) == len(prompts.objects)


@pytest.mark.parametrize("name", ["ssv2-small", "ssv2-full"])
def test_camera_classes_of_something_something_have_no_actor(name):
    manifest = load_manifest(name)
    camera = re.compile("Approaching .* camera|Moving away .* camera|Turning the camera .*")
    for class_name in manifest.class_names:
        clip = Video(video_id="x", path="x", class_name=class_name, split="train")
        expected = () if camera.fullmatch(class_name) else ("hand",)
        assert prompts_for(manifest, clip).actor == expected


@pytest.mark.parametrize("name", data_manifests.names())
def test_manifest_file_opens_with_its_source_and_licence(name):
    lines = data_manifests.path_of(name).read_text(encoding="ascii").splitlines()
    comment = " ".join(line for line in lines if line.startswith("# ")).lower()
    assert lines[0].startswith("# ")
    assert "licence" in comment or "license" in comment
    assert not any(re.search(r"[A-Za-z0-9_-]{11}_\d{6}_\d{6}", line) for line in lines)


def test_manifests_load_fast_and_without_heavy_packages():
    started = time.process_time()
    for name in known_manifests():
        load_manifest(name)
    assert time.process_time() - started < 1.0
    code = (
        "import sys, pipeline.manifests as m, pipeline.prompts; m.load_manifest('hmdb51');"
        "print([n for n in ('torch', 'h5py', 'numpy', 'av') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
