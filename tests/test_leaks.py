"""Training and evaluation share no class and no video, across datasets too."""

import hashlib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from synthetic_shards import make_shards

from i2st_model.copied_videos import copies_of_trained, feature_hashes
from i2st_model.drawing.class_videos import group_videos
from i2st_model.evaluating.config import EvaluateConfig
from i2st_model.evaluating.method_table import seen_by_any
from i2st_model.features import FeatureStore
from i2st_model.leaks import (
    Seen,
    find_seen,
    require_unseen,
    seen_by_run,
    video_hashes,
    without_seen,
)
from pipeline.errors import ConfigError
from pipeline.manifests import load_manifest
from pipeline.shards.records import VideoRow

# Of the 568 test videos of SSv2-Small that are train videos of SSv2-Full, and test videos of
# SSv2-Small that are not.
SHARED = ["88644", "45665", "73439", "204222", "57010", "108281", "65556", "8722"]
APART = ["192706", "1", "99999999"]


def classes_of(dataset, split):
    return list(load_manifest(dataset).classes[split])


@pytest.mark.parametrize(
    ("trained", "tested", "shared"),
    [("ssv2-full", "ssv2-small", 7), ("ssv2-small", "ssv2-full", 9)],
)
def test_published_splits_of_ssv2_overlap_in_as_many_classes_as_was_counted(
    trained, tested, shared
):
    names = classes_of(tested, "test")
    seen = find_seen(classes_of(trained, "train"), np.array([], np.int64), names, [])
    assert len(seen.classes) == shared
    assert ("Twisting something" in seen.classes) == (shared == 7)


@pytest.mark.parametrize("dataset", ["hmdb51", "ucf101", "kinetics100", "ssv2-full", "ssv2-small"])
def test_no_shipped_dataset_leaks_into_its_own_test_split(dataset):
    train, test = classes_of(dataset, "train"), classes_of(dataset, "test")
    assert not find_seen(train, np.array([], np.int64), test, [])


def test_numbered_videos_of_ssv2_are_found_across_its_editions():
    hashes = video_hashes([*SHARED, "200000", "200001"])
    seen = find_seen([], hashes, [], [*APART, *SHARED])
    assert seen == Seen(videos=tuple(SHARED))


def test_clips_are_found_under_another_class_folder_and_spelling():
    # JHMDB-21's clips are HMDB51's, and the two name some classes otherwise.
    hashes = video_hashes(["golf/20060723_golf_f_cm_np1_fr_med_1", "run/a_long_name_of_another"])
    ids = ["Golf_swing/20060723_Golf_f_cm_np1_fr_med_1", "golf/20060723_golf_f_cm_np1_fr_med_2"]
    assert find_seen([], hashes, [], ids).videos == (ids[0],)


@pytest.mark.parametrize("name", ["{:02d}", "video_{:04d}", "clip_number_{:06d}"])
def test_clips_that_are_numbered_class_by_class_count_with_their_class(name):
    train = [f"{word}/{name.format(n)}" for word in ("run", "jump") for n in range(50)]
    test = [f"swim/{name.format(n)}" for n in range(50)]
    assert not find_seen(["run", "jump"], video_hashes(train), ["swim"], test)
    assert find_seen([], video_hashes(train), [], test + train[:2]).videos == tuple(train[:2])


@pytest.mark.parametrize("clip", ["clip1", "20080321", "0000000012"])
def test_short_names_and_plain_numbers_count_with_their_class(clip):
    hashes = video_hashes([f"run/{clip}", *(f"run/a_name_that_tells_{n}" for n in range(20))])
    assert not find_seen([], hashes, [], [f"swim/{clip}"])
    assert find_seen([], hashes, [], [f"Run/{clip}"])


def test_hashes_are_frozen():
    # Checkpoints keep them, so they shall never change: BLAKE2b of the letters, as int64.
    assert video_hashes(["88644", "Ride_Bike/v_RideBike_g01_c01"]).tolist() == [
        6611442693613040918,
        -184478803246568071,
    ]


def test_a_run_without_hashes_is_checked_for_classes_alone(tmp_path):
    info = SimpleNamespace(train_classes=["ride_bike", "wave"], train_video_hashes=[])
    assert seen_by_run(info, ["RideBike", "jump"], ["1"]) == Seen(classes=("RideBike",))
    info.train_video_hashes = video_hashes(["1"]).tolist()
    assert seen_by_run(info, ["jump"], ["1", "2"]) == Seen(videos=("1",))


def test_refusal_counts_classes_and_videos_and_names_the_first(tmp_path):
    ids = [*SHARED, *(f"{n}" for n in range(300_000, 302_392))]
    episodes = SimpleNamespace(class_names=("RideBike", "jump"), video_ids=ids)

    def trained(classes, videos):
        hashes = video_hashes(videos).tolist()
        info = SimpleNamespace(train_classes=classes, train_video_hashes=hashes)
        return SimpleNamespace(path=tmp_path / "checkpoint.safetensors", info=info)

    message = (
        r"1 of 2 evaluated classes were trained on by .*: 'RideBike', and 8 of 2400 evaluated "
        r"videos \('88644' and 7 more\); few-shot .* with --drop-seen"
    )
    with pytest.raises(ConfigError, match=message):
        require_unseen(trained(["ride_bike"], SHARED), episodes)
    with pytest.raises(
        ConfigError, match="8 of 2400 evaluated videos were trained on by .*'88644'"
    ):
        require_unseen(trained(["run"], SHARED), episodes)
    require_unseen(trained(["run"], ["1"]), episodes)


def test_what_was_seen_is_left_out_with_its_groups():
    videos = group_videos(np.array([0, 0, 0, 1, 1]), ["a", "b", "a", "c", "c"], [0, 1], ["x", "y"])
    ids = ["v0", "v1", "v2", "v3", "v4"]
    (left,) = without_seen(videos, Seen(classes=("y",), videos=("v0",)), ids)
    assert (left.name, left.rows, left.group_sizes.total()) == ("x", [1, 2], 2)
    assert left.groups == videos[0].groups[1:]
    assert without_seen(videos, Seen(), ids) == videos


def test_two_runs_join_what_they_saw():
    joined = Seen(classes=("a", "b")) | Seen(classes=("b", "c"), videos=("v",))
    assert joined == Seen(classes=("a", "b", "c"), videos=("v",))
    assert not Seen()


def trained_on(classes, *, dataset="toy", videos=(), index=None):
    """A checkpoint; of a run that kept what the videos of an index hold, where one is given."""
    seen = [] if index is None else [one for one in index.videos if one.class_name in classes]
    info = SimpleNamespace(
        dataset=dataset,
        train_classes=classes,
        train_video_hashes=video_hashes(videos).tolist(),
        train_feature_hashes=feature_hashes(seen),
    )
    return SimpleNamespace(info=info)


def test_what_any_method_of_a_table_saw_is_joined(tmp_path):
    copies = {"test 2/03": "train 1/00"}
    store = FeatureStore(make_shards(tmp_path / "toy", copies=copies))
    ready = [
        SimpleNamespace(store=store, checkpoint=checkpoint)
        for checkpoint in (
            trained_on(["test 1"]),
            None,
            trained_on(["test 3"], videos=["test 0/01"]),
            trained_on(["train 1"]),
        )
    ]
    found = seen_by_any(ready, EvaluateConfig())
    assert found == Seen(classes=("test 1", "test 3"), videos=("test 0/01", "test 2/03"))


TWINS = {"val 1/00": "train 1/02", "test 2/03": "train 1/00", "test 2/04": "train 3/00"}
TEST_2 = [f"test 2/{number:02d}" for number in range(8)]


def without_checksums_of_features(index):
    return replace(index, videos=tuple(v._replace(features_sha256="") for v in index.videos))


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("views", [(), ("flip",)])
def test_copies_of_trained_classes_are_found_whatever_masks_and_views_they_have(
    tmp_path, masks, views
):
    index = make_shards(tmp_path / "toy", masks=masks, views=views, copies=TWINS).index

    def found(*words, **values):
        return copies_of_trained(trained_on(*words, **values).info, index, TEST_2)

    assert found(["train 1", "train 2"]) == {"test 2/03": "train 1/00"}
    assert found(["train 1", "train 2"], dataset="other") == {}
    assert found(["train 1", "test 2"]) == {}  # refused as a class
    assert found(["train 0", "train 2"], index=index) == {}


def test_copies_are_found_in_another_dataset_by_what_the_run_kept(tmp_path):
    trained = make_shards(tmp_path / "toy").index
    other = make_shards(tmp_path / "other", name="other", copies=TWINS).index
    info = trained_on(["train 1", "train 2"], index=trained).info
    assert copies_of_trained(info, other, TEST_2) == {"test 2/03": None}
    seen_by_another_encoder = make_shards(tmp_path / "far", name="far", copies=TWINS, seed=1)
    assert copies_of_trained(info, seen_by_another_encoder.index, TEST_2) == {}
    assert copies_of_trained(info, without_checksums_of_features(other), TEST_2) == {}
    assert feature_hashes(without_checksums_of_features(trained).videos) == []


@pytest.mark.parametrize(("masks", "found"), [(False, {"test 2/03": "train 1/00"}), (True, {})])
def test_older_shards_are_compared_by_their_whole_rows(tmp_path, masks, found):
    index = without_checksums_of_features(
        make_shards(tmp_path / "toy", masks=masks, copies=TWINS).index
    )
    info = trained_on(["train 1", "train 2"], index=index).info
    assert info.train_feature_hashes == []
    assert copies_of_trained(info, index, TEST_2) == found


@pytest.mark.parametrize("older", ["train", "test"])
def test_shards_that_were_added_to_are_compared_by_what_both_videos_have(tmp_path, older):
    index = make_shards(tmp_path / "toy", masks=False, copies=TWINS).index
    videos = [v._replace(features_sha256="") if v.split == older else v for v in index.videos]
    mixed = replace(index, videos=tuple(videos))
    info = trained_on(["train 1", "train 2"]).info
    assert copies_of_trained(info, mixed, TEST_2) == {"test 2/03": "train 1/00"}


def test_hashes_of_features_are_frozen():
    rows = [VideoRow("a", "c", "train", "", 0, 0, 1, 1, 0, "", sums) for sums in ("ab" * 32, "")]
    expected = hashlib.blake2b(b"ab" * 32, digest_size=8).digest()
    assert feature_hashes(rows) == [int.from_bytes(expected, "little", signed=True)]
