"""Extraction: what is planned, what lands in the shards, and that nothing but content decides."""

import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import extraction_fakes as fakes
import numpy as np
import pytest
import torch
from extraction_fake_decoder import pictures

from pipeline.commands.extraction_report import _words_of
from pipeline.decoding.comparison import Difference
from pipeline.errors import BackendError, ConfigError, ResourceError
from pipeline.extract import check_decoders, extract
from pipeline.extraction.config import ExtractConfig
from pipeline.extraction.plan import plan_extraction, spread_over_classes
from pipeline.extraction.report import ExtractProgress
from pipeline.manifests import Video
from pipeline.shards.index import ShardIndex
from pipeline.shards.reader import ShardReader
from pipeline.views import square_view

pytestmark = pytest.mark.usefixtures("fake_backends")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "videos"


@pytest.fixture
def dataset(root):
    return fakes.make_dataset(root)


@pytest.fixture(scope="session")
def plain_digest(tmp_path_factory):
    """Digest of the undisturbed dataset, extracted by itself in one process."""
    folder = tmp_path_factory.mktemp("plain")
    fakes.add_entry_points(folder / "site")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder / "site")
        manifest, videos = fakes.make_dataset(folder / "videos")
        config = fakes.config(folder / "videos", folder / "out", shard_videos=64)
        return extract(config, manifest, videos).digest


def decoded(root):
    log = root / "decoded.log"
    return log.read_text().split() if log.exists() else []


def some_videos(per_class):
    return [
        Video(
            video_id=f"{name}/{n:02d}",
            path=f"{name}/{n:02d}.avi",
            class_name=name,
            split="train",
            group=f"{name}-{n // 2}",
        )
        for name, count in per_class.items()
        for n in range(count)
    ]


def ids(videos):
    return [video.video_id for video in videos]


def plan(videos, root="r", **changes):
    known = {k: changes.pop(k) for k in ("done", "failed", "used_numbers") if k in changes}
    return plan_extraction(fakes.config(root, root, **changes), videos, **known)


def test_plan_divides_sorted_videos_into_shards():
    videos = some_videos({"b": 3, "a": 2})
    random.shuffle(videos)
    shards = plan(videos, shard_videos=2).shards
    assert [ids(one.videos) for one in shards] == [["a/00", "a/01"], ["b/00", "b/01"], ["b/02"]]
    assert [one.number for one in shards] == [0, 1, 2]


def test_plan_remakes_a_missing_shard_under_its_own_number():
    done = {"a/00", "a/01", "a/04"}
    shards = plan(some_videos({"a": 5}), shard_videos=2, done=done, used_numbers={0, 2}).shards
    assert [(one.number, ids(one.videos)) for one in shards] == [(1, ["a/02", "a/03"])]


def test_plan_tries_failed_videos_again_only_when_asked():
    videos = some_videos({"a": 4})
    known = {"done": {"a/00"}, "failed": {"a/01"}, "used_numbers": {0}}
    left, again = plan(videos, **known), plan(videos, **known, retry_failed=True)
    assert (left.num_done, left.num_failed, left.num_todo) == (1, 1, 2)
    assert (again.num_done, again.num_failed, again.num_todo) == (1, 0, 3)


def test_plan_limit_takes_turns_over_classes_and_their_groups():
    videos = some_videos({"a": 5, "b": 5, "c": 1})
    chosen = ids(plan(videos, limit=6, shard_videos=64).shards[0].videos)
    assert chosen == ["a/00", "a/02", "a/04", "b/00", "b/02", "c/00"]
    assert ids(spread_over_classes(videos)[:4]) == ["a/00", "b/00", "c/00", "a/02"]


def test_plan_limit_counts_what_is_done():
    videos = some_videos({"a": 5, "b": 5})
    assert plan(videos, limit=2, done={"a/00", "b/00"}).num_todo == 0


def test_plan_refuses_two_videos_of_one_id_and_no_video():
    one = some_videos({"a": 1})
    with pytest.raises(ConfigError, match=r"'a/00' belongs to 'a/00.avi' and 'else.avi'"):
        plan([*one, replace(one[0], path="else.avi")])
    with pytest.raises(ConfigError, match="0 videos to extract"):
        plan([])


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("frames", 0, "frames=0 .* at least 1"),
        ("workers", -1, "workers=-1 .* at least 0"),
        ("limit", 0, "limit=0 .* at least 1"),
        ("min_decoded_ratio", 1.5, r"min_decoded_ratio=1.5 .* 0\.\.1"),
        ("decode_timeout_seconds", 0.0, "decode_timeout_seconds=0.0"),
    ],
)
def test_config_refuses_what_cannot_be(setting, value, message):
    with pytest.raises(ConfigError, match=message):
        ExtractConfig(**{"dataset": "d", "videos": "v", "out": "o", setting: value})


@pytest.mark.parametrize("geometry", ["center_crop", "full_frame"])
def test_extract_stores_the_features_of_the_frames_at_segment_centres(
    root, tmp_path, dataset, geometry
):
    manifest, videos = dataset
    report = extract(fakes.config(root, tmp_path / "out", geometry=geometry), manifest, videos)
    assert (report.num_videos, report.num_done, report.num_new) == (20, 20, 20)
    assert report.failures == ()
    reader = ShardReader(tmp_path / "out")
    assert list(reader.video_ids) == sorted(ids(videos))
    frames = pictures({"seed": 4003, "frames": 12, "does": ""})[[1, 4, 7, 10]]
    views = square_view(frames, image_size=fakes.SIDE, geometry=geometry)
    expected = np.stack([fakes.quarter_means(view) for view in views]).astype(np.float16)
    row = list(reader.video_ids).index("jump/03")
    np.testing.assert_array_equal(reader.tokens([row])[0], expected)
    index = ShardIndex.load(tmp_path / "out")
    assert index.digest == report.digest
    assert index.classes == {split: list(names) for split, names in fakes.CLASSES.items()}


def test_extract_pads_every_call_to_one_batch_shape(root, tmp_path, dataset, monkeypatch):
    shapes = []
    monkeypatch.setattr(fakes.FakeEncoder, "encode", spy_on(fakes.FakeEncoder.encode, shapes))
    manifest, videos = dataset
    extract(fakes.config(root, tmp_path / "out", batch_frames=12), manifest, videos)
    # Shards of 7, 7 and 6 videos of 4 frames, 3 videos to a batch of 12.
    assert shapes == [12] * (3 + 3 + 2)


def spy_on(encode, shapes):
    def spy(self, views):
        shapes.append(len(views))
        return encode(self, views)

    return spy


@pytest.mark.parametrize(
    "changes",
    [
        {"shard_videos": 1},
        {"shard_videos": 7},
        {"shard_videos": 64},
        {"batch_frames": 5},
        {"decode_children": 2},
        {"hands": 1},
        {"hands": 4, "batch_frames": 4},
        {"workers": 1},
        {"workers": 2, "shard_videos": 2, "hands": 2},
        {"workers": 4, "batch_frames": 8},
    ],
    ids=str,
)
def test_extract_gives_one_digest_whatever_the_layout(
    root, tmp_path, dataset, plain_digest, changes
):
    manifest, videos = dataset
    random.shuffle(videos)
    report = extract(fakes.config(root, tmp_path / "out", **changes), manifest, videos)
    assert report.digest == plain_digest
    assert Counter(decoded(root)) == Counter(ids(videos))


def test_extract_halves_the_batch_when_gpu_memory_runs_out(root, tmp_path, dataset, plain_digest):
    manifest, videos = dataset
    report = extract(fakes.config(root, tmp_path / "out", encoder="fake:3"), manifest, videos)
    assert report.digest == plain_digest
    with pytest.raises(ResourceError, match="ran out of GPU memory on 1 frame"):
        extract(fakes.config(root, tmp_path / "none", encoder="fake:-1"), manifest, videos)


def test_extract_decodes_nothing_when_all_is_done(root, tmp_path, dataset):
    manifest, videos = dataset
    config = fakes.config(root, tmp_path / "out")
    first = extract(config, manifest, videos)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    (root / "decoded.log").unlink()
    second = extract(config, manifest, videos)
    assert decoded(root) == []
    assert (second.num_done, second.num_new, second.digest) == (20, 0, first.digest)
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert {**after, ".lock": 0} == {**before, ".lock": 0}


def test_extract_goes_on_from_a_limited_run(root, tmp_path, dataset, plain_digest):
    manifest, videos = dataset
    few = extract(fakes.config(root, tmp_path / "out", limit=4), manifest, videos)
    assert (few.num_videos, few.num_done) == (4, 4)
    rows = ShardIndex.load(tmp_path / "out").videos
    assert sorted(row.class_name for row in rows) == ["clap", "jump", "run", "wave"]
    rest = extract(fakes.config(root, tmp_path / "out"), manifest, videos)
    assert (rest.num_done, rest.num_new, rest.digest) == (20, 16, plain_digest)
    assert Counter(decoded(root)) == Counter(ids(videos))


def test_extract_refuses_shards_of_another_fingerprint(root, tmp_path, dataset, monkeypatch):
    manifest, videos = dataset
    extract(fakes.config(root, tmp_path / "out", limit=4), manifest, videos)
    with pytest.raises(ConfigError, match=r"frames\.count 4 there and 8 here"):
        extract(fakes.config(root, tmp_path / "out", frames=8), manifest, videos)
    monkeypatch.setenv("I2ST_FAKE_VERSION", "fake 2.0")
    with pytest.raises(ConfigError, match=r"decoder\.version 'fake 1.0' there and 'fake 2.0' here"):
        extract(fakes.config(root, tmp_path / "out"), manifest, videos)
    other = replace(manifest, name="others")
    monkeypatch.setenv("I2ST_FAKE_VERSION", "fake 1.0")
    with pytest.raises(ConfigError, match=r"manifest 'fakes' there and 'others' here; the"):
        extract(fakes.config(root, tmp_path / "out"), other, videos)


def test_extract_segments_train_videos_only(root, tmp_path, dataset):
    manifest, videos = dataset
    spied = tmp_path / "spied"
    config = fakes.config(root, tmp_path / "out", segmenter=f"spy:{spied}", batch_frames=24)
    report = extract(config, manifest, videos)
    lines = [line.split() for line in spied.read_text().splitlines()]
    train = {video.video_id for video in videos if video.split == "train"} - {"clap/03"}
    assert {split for split, *_ in lines} == {"train"}
    assert {video_id for _, video_id, _ in lines} == train
    assert {actor for *_, actor in lines} == {"person"}
    assert [(f.video_id, f.reason) for f in report.failures] == [("clap/03", "masks")]
    reader = ShardReader(tmp_path / "out")
    row = list(reader.video_ids).index("jump/02")
    assert reader.masks([row]).bits[0, :, 0, 0].tolist() == [1, 4, 7, 10]


@pytest.mark.parametrize("workers", [0, 1])
def test_extract_reports_progress_after_every_portion(root, tmp_path, dataset, workers):
    manifest, videos = dataset
    seen = []
    config = fakes.config(root, tmp_path / "out", workers=workers, batch_frames=12)
    extract(config, manifest, videos, on_progress=seen.append)
    # Portions of 3, 3 and 1 of the 7 videos of a shard, in the order in which they come back.
    steps = [after.num_done - before.num_done for before, after in pairwise(seen)]
    assert sorted(steps) == sorted([3, 3, 1, 3, 3, 1, 3, 3])
    assert [seen[0].num_done, seen[-1].num_done] == [0, 20]
    assert {progress.num_total for progress in seen} == {20}
    assert (seen[0].videos_per_second, seen[0].seconds_left, seen[0].busiest_stage) == (
        0,
        None,
        None,
    )
    assert seen[-1].videos_per_second == pytest.approx(20 / seen[-1].seconds)
    assert seen[-1].seconds_left == 0


def test_progress_says_which_stage_sets_the_speed():
    progress = ExtractProgress(
        num_total=100,
        num_done=40,
        num_failed=10,
        num_new=20,
        seconds=10.0,
        stage_seconds={"decode": 6.0, "encode": 24.0, "write": 1.0},
    )
    # Hands spent 30 s in all, a fifth of it on decoding: alone, that is five times as fast.
    assert progress.stage_rates == pytest.approx({"decode": 10.0, "encode": 2.5, "write": 20.0})
    assert progress.busiest_stage == "encode"
    assert progress.seconds_left == 25.0
    assert _words_of(progress) == (
        "2 videos/s, 10 failed; each stage alone: decode 10/s, encode 2.5/s (busiest), write 20/s"
    )
    unused = replace(progress, stage_seconds={**progress.stage_seconds, "segment": 1e-4})
    assert "segment" not in unused.stage_rates
    slow_disk = replace(progress, stage_seconds={**progress.stage_seconds, "write": 9.0})
    assert slow_disk.busiest_stage == "write"


def test_check_decoders_names_how_many_videos_differ(root, tmp_path, dataset, monkeypatch):
    asked = []

    def compare(paths, rule, num_frames, names, **settings):
        asked.append((list(paths), rule, num_frames, names))
        return [
            Difference(path=path, num_frames=4, num_differing=1, detail="pictures differ")
            for path in paths[:2]
        ]

    monkeypatch.setattr("pipeline.extract.compare_decoders", compare)
    _, videos = dataset
    config = fakes.config(root, tmp_path / "out", decoder="decord", check_decoder=3)
    with pytest.raises(BackendError, match=r"decord and pyav differ on 2 of 3 videos .*clap/00"):
        check_decoders(config, videos)
    expected = [root / f"{name}.json" for name in ("clap/00", "jump/00", "clap/02")]
    assert asked == [(expected, "segment_centres", 4, ("decord", "pyav"))]
    held_out = [video for video in videos if video.split != "train"]
    assert check_decoders(config, held_out) == "no train video to compare decoders on"
    assert len(asked) == 1


def test_extract_notes_what_the_decoders_agree_on_only_where_it_was_asked(
    root, tmp_path, dataset, monkeypatch
):
    monkeypatch.setattr("pipeline.extract.compare_decoders", lambda *given, **settings: [])
    said = []
    for check in (3, 0):
        config = fakes.config(root, tmp_path / "out", check_decoder=check)
        extract(config, *dataset, on_note=said.append)
    assert said == ["decoders fake and pyav give the same frames of 3 videos"]


def test_extract_encodes_on_one_thread_and_gives_the_others_back(
    root, tmp_path, dataset, monkeypatch
):
    seen = []

    def encode(self, views):
        seen.append(torch.get_num_threads())
        return real_encode(self, views)

    real_encode = fakes.FakeEncoder.encode
    monkeypatch.setattr(fakes.FakeEncoder, "encode", encode)
    manifest, videos = dataset
    torch.set_num_threads(2)
    try:
        extract(fakes.config(root, tmp_path / "out"), manifest, videos)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert set(seen) == {1}
