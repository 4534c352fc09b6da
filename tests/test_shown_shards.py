from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from shard_cases import (
    CLASS_NAMES,
    DATASET,
    FINGERPRINT,
    FRAMES,
    SPLIT_OF,
    all_features,
    extract,
    features,
    frames_row,
)

from pipeline.datasets import open_dataset
from pipeline.errors import ConfigError
from pipeline.manifests import Manifest
from pipeline.manifests.types import ClassPrompts
from pipeline.prompts import PromptTables, class_prompt_sets, prompts_sha256
from pipeline.shards.reader import ShardReader
from pipeline.showing.shards import choose_rows, clips_of_shards, prompts_differ

MANIFEST = Manifest(
    name="toy",
    title="toy",
    classes={split: tuple(names) for split, names in DATASET["classes"].items()},
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Frames of 12 videos, three of each class."""
    folder = tmp_path_factory.mktemp("frames")
    rows = [frames_row(number, class_name=CLASS_NAMES[number % 4]) for number in range(12)]
    extract(folder, rows, fingerprint=FRAMES)
    return ShardReader(folder)


def test_a_frame_store_shows_its_own_frames_and_masks_without_the_videos(store):
    rows = range(store.num_videos)
    shown = list(clips_of_shards(store, rows, MANIFEST, None))
    assert [clip.video_id for clip in shown] == list(store.video_ids)
    for row, clip in zip(rows, shown, strict=True):
        np.testing.assert_array_equal(clip.frames, store.images([row])[0])
        np.testing.assert_array_equal(clip.frame_indices, store.frame_indices([row])[0])
        assert (clip.masks is None) == (SPLIT_OF[clip.class_name] != "train")
        if clip.masks is not None:
            np.testing.assert_array_equal(clip.masks.bits, store.masks([row]).bits[0])
            np.testing.assert_array_equal(clip.masks.found, store.masks([row]).found[0])


def test_a_damaged_video_is_shown_if_its_frames_were_stored(tmp_path):
    videos = tmp_path / "videos"
    for folder in (videos / "climb" / "clip 001", *(videos / n / "x" for n in CLASS_NAMES[1:])):
        folder.mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (8, 8), (60 * number,) * 3).save(folder / f"{number}.png")
    for number in (1, 3):  # those that a clip of 2 frames asks for first
        (videos / "climb" / "clip 001" / f"{number}.png").write_bytes(b"")
    rows = [replace(features(1), frame_indices=np.array([0, 1], np.int32))]
    settings = {**FINGERPRINT, "frames": {"count": 2, "rule": "segment_centres"}}
    extract(tmp_path / "shards", rows, fingerprint=settings)
    source = open_dataset(videos=videos)
    (shown,) = clips_of_shards(ShardReader(tmp_path / "shards"), [0], MANIFEST, source)
    assert shown.frames[:, 0, 0, 0].tolist() == [0, 120]


def test_clips_are_shown_with_the_prompts_of_their_class(store):
    tables = PromptTables(user={"wave": ClassPrompts(objects=("flag", "pole"))})
    rows = choose_rows(store, ["wave/clip 001"], limit=1)
    (clip,) = clips_of_shards(store, rows, MANIFEST, None, prompts=tables)
    assert [(noun.slot, noun.text) for noun in clip.nouns] == [
        (0, "person"),
        (1, "flag"),
        (2, "pole"),
    ]
    assert clip.prompt_source == "yaml"


def test_rows_are_chosen_by_id_or_in_turn_from_the_classes_with_masks(store, tmp_path):
    def ids(rows, reader=store):
        return [reader.video_ids[row] for row in rows]

    assert ids(choose_rows(store, ["run/clip 003", "climb/clip 000"], limit=1)) == [
        "run/clip 003",
        "climb/clip 000",
    ]
    assert [one.split("/")[0] for one in ids(choose_rows(store, [], limit=4))] == [
        "climb",
        "wave",
    ] * 2
    assert len(choose_rows(store, [], limit=99)) == 6
    with pytest.raises(ConfigError, match=r"holds no video 'run/x'; needed: one of its 12 ids"):
        choose_rows(store, ["run/x"], limit=1)
    extract(tmp_path, all_features(4, with_masks=False))
    plain = ShardReader(tmp_path)
    assert sorted(ids(choose_rows(plain, [], limit=9), plain)) == sorted(plain.video_ids)


def test_prompts_differ_where_a_train_class_is_asked_for_something_else(tmp_path):
    train = [one for one in class_prompt_sets(MANIFEST) if SPLIT_OF[one.key] == "train"]
    made_with = {"mode": "nouns", "classes_sha256": prompts_sha256(train)}
    index = extract(tmp_path, all_features(4), fingerprint={**FINGERPRINT, "prompts": made_with})
    assert not prompts_differ(index, MANIFEST, None)
    for name, differ in (("wave", True), ("sit", False)):
        tables = PromptTables(user={name: ClassPrompts(objects=("flag",))})
        assert prompts_differ(index, MANIFEST, tables) is differ
