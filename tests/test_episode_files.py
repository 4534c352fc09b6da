"""Episode files: one set of bytes everywhere, replayed exactly, checked, and safe to read."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
from synthetic_shards import make_shards

from i2st_model.drawing.class_videos import group_videos
from i2st_model.episodes import EpisodeSampler
from i2st_model.evaluating.config import EvaluateConfig
from i2st_model.evaluating.episode_draws import draw_episodes
from i2st_model.features import FeatureStore
from i2st_model.leaks import Seen
from i2st_model.records import array_files
from i2st_model.records.array_files import dump_arrays
from i2st_model.records.episode_checks import differences, rows_of
from i2st_model.records.episode_files import load_episodes, save_episodes
from i2st_model.records.episode_sets import EpisodeSet
from pipeline.errors import ConfigError, I2STError, RecordError
from pipeline.shards.reader import ShardReader

FEW = EvaluateConfig(episodes=40, shot=2, queries=3, seed=5)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return FeatureStore(make_shards(tmp_path_factory.mktemp("shards") / "toy", group_size=2))


@pytest.fixture
def kept(store, tmp_path):
    path = tmp_path / "episodes.safetensors"
    save_episodes(path, draw_episodes(store, FEW))
    return path


def large_set(shot=5):
    """10,000 5-way episodes over 1,292 videos with ids as long as HMDB51's."""
    index = np.arange(1292) % 10
    videos = group_videos(index, [""] * 1292, range(10), [f"class {n}" for n in range(10)])
    drawn = EpisodeSampler(videos, way=5, shot=shot, queries=1).batch(0, 10_000)
    return EpisodeSet(
        dataset="large",
        digest="0" * 64,
        split="test",
        seed=0,
        disjoint_groups=False,
        dropped_classes=(),
        class_names=tuple(f"class {n}" for n in range(10)),
        video_ids=tuple(
            f"class/a_name_of_some_sixty_letters_{'x' * 24}_{n:04d}" for n in range(1292)
        ),
        video_class=index,
        support=drawn.support,
        query=drawn.query,
    )


# --- what is kept ---


@pytest.mark.parametrize("disjoint", [False, True])
def test_drawn_set_holds_the_samplers_episodes(store, disjoint):
    reader = store.reader
    found = draw_episodes(store, replace(FEW, disjoint_groups=disjoint))
    videos = group_videos(reader.class_index, reader.groups, range(11, 16), reader.class_names)
    sampler = EpisodeSampler(videos, way=5, shot=2, queries=3, seed=5, disjoint_groups=disjoint)
    ids = np.array(found.video_ids)
    for number in range(40):
        episode = sampler.episode(number)
        for mine, theirs in ((found.support, episode.support), (found.query, episode.query)):
            assert ids[mine[number]].tolist() == np.array(reader.video_ids)[theirs].tolist()
        names = [found.class_names[place] for place in found.classes[number]]
        assert names == [reader.class_names[one] for one in episode.classes]
    assert (found.way, found.shot, found.queries, found.num_episodes) == (5, 2, 3, 40)
    assert found.batch(7, 3).number == 7
    np.testing.assert_array_equal(found.batch(7, 3).query, found.query[7:10])


def test_episode_file_gives_back_every_part(store, kept):
    drawn, read = draw_episodes(store, FEW), load_episodes(kept)
    for name in drawn.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(read, name), getattr(drawn, name))
    assert read.same_episodes(drawn)
    assert [store.reader.video_ids[row] for row in rows_of(read, store)] == list(read.video_ids)
    assert differences(read, store) == []


def test_ten_thousand_episodes_take_less_than_two_megabytes(tmp_path):
    save_episodes(tmp_path / "f", large_set())
    assert (tmp_path / "f").stat().st_size < 800_000
    assert load_episodes(tmp_path / "f").same_episodes(large_set())


def test_sha256_of_an_episode_file_is_frozen(tmp_path):
    # The bytes shall not depend on machine, library version or time.
    found = save_episodes(tmp_path / "f", large_set(shot=1))
    assert found == hashlib.sha256((tmp_path / "f").read_bytes()).hexdigest()
    assert found == "788b357c7070c239f86334b0bae30b63436a422c4e53dea61091397ac91467e9"


def test_safetensors_reads_an_episode_file(kept):
    arrays = safetensors.numpy.load_file(kept)
    assert {name: array.dtype for name, array in arrays.items()} == {
        "query": np.uint8,
        "support": np.uint8,
        "video_class": np.uint8,
    }
    assert arrays["support"].shape == (40, 5, 2)


def test_same_episodes_goes_by_ids(store):
    drawn = draw_episodes(store, FEW)
    more = replace(
        drawn,
        video_ids=("a first video", *drawn.video_ids),
        video_class=np.concatenate([[0], drawn.video_class]),
        support=drawn.support + 1,
        query=drawn.query + 1,
    )
    assert drawn.same_episodes(more)
    assert more.same_episodes(drawn)
    assert not drawn.same_episodes(draw_episodes(store, replace(FEW, seed=6)))
    assert not drawn.same_episodes(replace(drawn, query=drawn.query[..., ::-1]))
    assert not drawn.same_episodes(replace(drawn, support=drawn.support[..., ::-1]))
    assert not drawn.same_episodes(draw_episodes(store, replace(FEW, episodes=39)))


def test_seen_classes_and_videos_are_left_out_before_anything_is_drawn(store):
    seen = Seen(classes=("test 1",), videos=("test 0/00", "test 4/07"))
    found = draw_episodes(store, replace(FEW, way=4, episodes=200), seen)
    assert found.class_names == ("test 0", "test 2", "test 3", "test 4")
    assert not {"test 0/00", "test 4/07", "test 1/00"} & set(found.video_ids)
    assert len(found.video_ids) == 30
    with pytest.raises(ConfigError, match="without what training saw has 4 classes, way=5 needs 5"):
        draw_episodes(store, FEW, seen)
    all_seen = Seen(classes=tuple(store.classes_of("test")))
    with pytest.raises(ConfigError, match="saw has 0 classes, way=5 needs 5; choose another split"):
        draw_episodes(store, FEW, all_seen)


# --- against other shards ---


def test_differences_name_what_differs(store, kept, tmp_path):
    episodes = load_episodes(kept)
    other = ShardReader(store.reader.folder)
    other.class_index = other.class_index.copy()
    other.class_index[other.video_ids.index("test 0/00")] = 12
    assert differences(episodes, FeatureStore(other)) == [
        "1 of 40 videos ('test 0/00') are of another class here"
    ]
    fewer = FeatureStore(make_shards(tmp_path / "fewer", name="less", classes=(6, 5, 4)))
    found = differences(episodes, fewer)
    assert found[0] == "dataset 'toy' there and 'less' here"
    assert found[1].startswith(
        "8 of 40 videos ('test 4/00', 'test 4/01', 'test 4/02', ...) are abs"
    )
    assert found[2] == "1 of 5 classes ('test 4') are not in split 'test' here"
    assert found[3].startswith(f"digest {episodes.digest[:12]} there and ")
    with pytest.raises(ConfigError, match="lacks 8 of 40 videos"):
        rows_of(episodes, fewer)


def test_differences_find_sources_that_a_promise_keeps_apart(store):
    promised = replace(draw_episodes(store, FEW), disjoint_groups=True)
    (found,) = differences(promised, store)
    assert "episodes ('" in found
    assert found.endswith("share a source here")
    assert differences(draw_episodes(store, replace(FEW, disjoint_groups=True)), store) == []


# --- hostile files ---


def test_every_flipped_byte_and_every_cut_is_refused(kept):
    good = kept.read_bytes()
    rng = np.random.default_rng(0)
    for place in (*range(32), *rng.integers(0, len(good), size=300).tolist()):
        bad = bytearray(good)
        bad[place] ^= 1 << int(rng.integers(8))
        kept.write_bytes(bad)
        with pytest.raises(RecordError, match="cannot be used.*restore it, or make it again"):
            load_episodes(kept)
    for length in (0, 1, 7, 8, 9, 100, len(good) - 1):
        kept.write_bytes(good[:length])
        with pytest.raises(RecordError):
            load_episodes(kept)
    kept.write_bytes(good + b"\0")
    with pytest.raises(RecordError):
        load_episodes(kept)


HOSTILE_HEADERS = [
    b"[" * 100_000,
    b"null",
    b"[]",
    b"{}",
    b'{"__metadata__":{"i2st":"[]"}}',
    b'{"__metadata__":{"i2st":{}}}',
    b'{"__metadata__":{"i2st":"{}"},"a":1}',
    b'{"__metadata__":{"i2st":"{}"},"a":{"data_offsets":[0,' + b"9" * 5000 + b'],"dtype":"U8"}}',
    b'{"__metadata__":{"i2st":"{\\"values\\":{}}"},'
    b'"a":{"data_offsets":[0,0],"dtype":"U8","shape":[0,1000000000000000000000]}}',
    b'{"__metadata__":{"i2st":"{\\"values\\":{}}"},'
    b'"a":{"data_offsets":[0,8],"dtype":"F64","shape":[1]}}',
    b'{"__metadata__":{"i2st":"{\\"values\\":{}}"},'
    b'"a":{"data_offsets":[0,-1],"dtype":"U8","shape":[1]}}',
    b'{"__metadata__":{"i2st":"{\\"values\\":NaN}"}}',
]


@pytest.mark.parametrize("header", HOSTILE_HEADERS, ids=range(len(HOSTILE_HEADERS)))
def test_hostile_headers_are_refused_in_one_line(tmp_path, header):
    path = tmp_path / "f"
    for length in (len(header), 2**63, 0):
        path.write_bytes(length.to_bytes(8, "little") + header + b"\0" * 16)
        with pytest.raises(RecordError, match="cannot be used") as refused:
            load_episodes(path)
        assert len(str(refused.value)) < 400


def sealed(tmp_path, values, arrays):
    """A file with a true seal, as an attacker can make it."""
    path = tmp_path / "f"
    path.write_bytes(dump_arrays(arrays, values))
    return path


def parts(store):
    """Values and arrays of a good file."""
    data = (lambda path: (save_episodes(path, draw_episodes(store, FEW)), path.read_bytes())[1])(
        store.reader.folder / "episodes.tmp"
    )
    length = int.from_bytes(data[:8], "little")
    values = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["i2st"])["values"]
    return values, {name: array.copy() for name, array in safetensors.numpy.load(data).items()}


def change(arrays, name, place, value):
    arrays[name][place] = value


def repeat_class(values, arrays):
    """Let two rows of episode 3 be other clips of one class."""
    own = np.flatnonzero(arrays["video_class"] == arrays["video_class"][arrays["query"][3, 0, 0]])
    used = {*arrays["support"][3, 0].tolist(), *arrays["query"][3, 0].tolist()}
    arrays["support"], arrays["query"] = arrays["support"][..., :1], arrays["query"][..., :1]
    free = [video for video in own.tolist() if video not in used]
    arrays["support"][3, 1], arrays["query"][3, 1] = free[:1], free[1:2]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda v, a: v.update(format="i2st-checkpoint"), "format 'i2st-checkpoint' version 1"),
        (lambda v, a: v.update(format_version=2), "version 2, not i2st-episodes 1"),
        (lambda v, a: v.update(seed=-1), "its seed is -1"),
        (lambda v, a: v.update(seed=True), "its seed is True"),
        (lambda v, a: v.update(split=None), "its split is None"),
        (lambda v, a: v.update(video_ids="abc"), "its video_ids is 'abc'"),
        (lambda v, a: v.update(disjoint_groups=1), "its disjoint_groups is 1"),
        (lambda v, a: v.pop("dataset"), "its dataset is None"),
        (lambda v, a: a.pop("query"), "its query is absent"),
        (lambda v, a: v["video_ids"].reverse(), "its video ids are not sorted"),
        (lambda v, a: v["class_names"].append("test 0"), "a class is named twice"),
        (lambda v, a: v["video_ids"].pop(), "39 videos have classes of shape"),
        (lambda v, a: change(a, "support", (3, 0, 0), 40), "a video number lies outside 0 .. 39"),
        (lambda v, a: change(a, "video_class", 0, 5), "a class number lies outside 0 .. 4"),
        (lambda v, a: change(a, "support", (3, 0, 0), a["query"][3, 1, 0]), "episode 3 mixes"),
        (lambda v, a: change(a, "support", (3, 0, 0), a["query"][3, 0, 0]), "3 holds a clip twice"),
        (lambda v, a: change(a, "support", 7, a["support"][7, [1, 1, 2, 3, 4]]), "episode 7"),
        (repeat_class, "episode 3 holds a class twice"),
        (lambda v, a: v["video_ids"].insert(1, v["video_ids"].pop(0)), "ids are not sorted"),
        (lambda v, a: v["video_ids"].__setitem__(1, v["video_ids"][0]), "or one occurs twice"),
        (lambda v, a: a.update({n: a[n][:1] for n in ("support", "query")}), "it holds 1 episode"),
        (lambda v, a: a.update(query=a["query"][:, :4]), "do not belong together"),
        (lambda v, a: a.update(query=a["query"][..., :0]), "hold no episode"),
    ],
)
def test_files_that_contradict_themselves_are_refused_though_sealed(
    store, tmp_path, spoil, message
):
    values, arrays = parts(store)
    load_episodes(sealed(tmp_path, values, arrays))  # whole as it is
    spoil(values, arrays)
    with pytest.raises(RecordError, match=message):
        load_episodes(sealed(tmp_path, values, arrays))


def test_files_that_are_too_large_are_not_even_read(kept, monkeypatch):
    monkeypatch.setattr(array_files, "MAX_BYTES", kept.stat().st_size)
    load_episodes(kept)
    monkeypatch.setattr(array_files, "MAX_BYTES", kept.stat().st_size - 1)
    with pytest.raises(RecordError, match=r"it has \d+ bytes, at most \d+ are read"):
        load_episodes(kept)


def test_fuzzed_files_are_read_or_refused_and_nothing_else(kept):
    good = bytearray(kept.read_bytes())
    rng = np.random.default_rng(1)
    for _ in range(500):
        bad = bytearray(good)
        for _ in range(int(rng.integers(1, 6))):
            start = int(rng.integers(len(bad)))
            kind = int(rng.integers(3))
            if kind == 0:
                bad[start : start + int(rng.integers(1, 40))] = rng.bytes(int(rng.integers(40)))
            elif kind == 1:
                del bad[start : start + int(rng.integers(1, 200))]
            else:
                bad[start:start] = bad[: int(rng.integers(1, 60))]
        kept.write_bytes(bad)
        if bad != good:
            with pytest.raises(I2STError) as refused:
                load_episodes(kept)
            assert refused.value.exit_code == 4


def test_absent_files_and_folders_are_named(tmp_path):
    for path, what in ((tmp_path / "gone", "absent"), (tmp_path, "no file")):
        with pytest.raises(ConfigError, match=f"is {what}; a file written by i2st was needed"):
            load_episodes(path)


def test_a_place_that_cannot_be_written_is_named(store, tmp_path):
    with pytest.raises(ConfigError, match="cannot write .*absent/f .*pass another path"):
        save_episodes(tmp_path / "absent" / "f", draw_episodes(store, FEW))


@pytest.mark.parametrize("dtype", [np.int64, np.float32, bool])
def test_arrays_of_other_types_are_a_callers_bug(dtype):
    with pytest.raises(ValueError, match="has type"):
        dump_arrays({"a": np.zeros(2, dtype)}, {})
