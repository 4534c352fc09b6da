"""Reading shards: the right rows in the right order, and nothing from a file that is not ours."""

import contextlib
import errno
import mmap
import os
import pickle
import random
import struct
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_cases import (
    CLASS_NAMES,
    FINGERPRINT,
    all_features,
    end_of,
    extract,
    failure,
    features,
    record_of,
    reseal,
    start,
    write_index,
)

from pipeline.errors import ResourceError, ShardError
from pipeline.manifests import Video
from pipeline.segmenters import Masks
from pipeline.shards import gathering, mapping
from pipeline.shards.committed import finish
from pipeline.shards.index import ShardIndex
from pipeline.shards.reader import ShardReader
from pipeline.shards.verify import verify
from pipeline.shards.writer import ShardWriter, VideoFeatures

ROWS = sorted(all_features(12), key=lambda row: row.video.video_id)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """12 videos in 3 shards, of all splits."""
    path = tmp_path_factory.mktemp("shards")
    extract(path, ROWS)
    return path


@pytest.fixture
def fresh(tmp_path):
    """One shard that a test may damage."""
    extract(tmp_path, [features(number) for number in range(4)])
    return tmp_path


# Rows


def test_reader_describes_every_video_in_the_order_of_ids(folder):
    shards = ShardReader(folder)
    assert shards.num_videos == 12
    assert shards.video_ids == tuple(row.video.video_id for row in ROWS)
    assert shards.class_names == CLASS_NAMES
    assert [shards.class_names[i] for i in shards.class_index] == [
        row.video.class_name for row in ROWS
    ]
    assert shards.split.tolist() == [row.video.split for row in ROWS]
    assert shards.groups.tolist() == [row.video.group or row.video.video_id for row in ROWS]
    assert shards.has_masks


@pytest.mark.parametrize(
    "rows", [[0], [11, 0, 5], [3, 3, 3], list(range(12)), list(range(12))[::-1], []]
)
def test_reader_returns_rows_in_the_order_asked(folder, rows):
    shards = ShardReader(folder)
    tokens, embedding = shards.tokens(rows), shards.frame_embedding(np.array(rows, np.int32))
    indices = shards.frame_indices(rows)
    assert tokens.shape == (len(rows), 2, 4, 6)
    assert (tokens.dtype, embedding.dtype, indices.dtype) == (np.float16, np.float16, np.int32)
    for position, row in enumerate(rows):
        np.testing.assert_array_equal(tokens[position], ROWS[row].tokens)
        np.testing.assert_array_equal(embedding[position], ROWS[row].frame_embedding)
        np.testing.assert_array_equal(indices[position], ROWS[row].frame_indices)


@pytest.mark.parametrize("max_open", [1, 2])
def test_reader_holds_few_shards_open_and_still_returns_all_rows(folder, monkeypatch, max_open):
    monkeypatch.setattr(gathering, "_MAX_OPEN", max_open)
    shards = ShardReader(folder)
    for rows in ([11, 0, 5, 1, 10], list(range(12))):
        expected = [ROWS[row].tokens for row in rows]
        np.testing.assert_array_equal(shards.tokens(rows), expected)
        assert len(shards._gatherer._open) <= max_open


def test_reader_returns_arrays_of_its_own(folder):
    shards = ShardReader(folder)
    shards.tokens([4])[:] = 0
    np.testing.assert_array_equal(shards.tokens([4])[0], ROWS[4].tokens)


@pytest.mark.parametrize(
    ("rows", "error", "match"),
    [
        ([12], IndexError, "12 to 12, the dataset has rows 0 to 11"),
        ([-1], IndexError, "-1 to -1"),
        ([0.5], ValueError, "integers, got float64"),
        ([[0]], ValueError, r"got int64 \(1, 1\)"),
        ([True], ValueError, "got bool"),
    ],
)
def test_reader_refuses_rows_that_are_not_rows(folder, rows, error, match):
    with pytest.raises(error, match=match):
        ShardReader(folder).tokens(rows)


def test_reader_can_be_pickled_and_forked(folder):
    shards = ShardReader(folder)
    shards.tokens([0, 11])
    copy = pickle.loads(pickle.dumps(shards))
    assert not copy._gatherer._open
    np.testing.assert_array_equal(copy.tokens([7]), [ROWS[7].tokens])

    def work():
        np.testing.assert_array_equal(shards.tokens([6, 0]), [ROWS[6].tokens, ROWS[0].tokens])

    assert end_of(start(work)) == 0


def test_reader_serves_many_threads(folder):
    shards, wrong = ShardReader(folder), []

    def work(seed):
        chance = random.Random(seed)
        for _ in range(50):
            rows = [chance.randrange(12) for _ in range(4)]
            if not np.array_equal(shards.tokens(rows), [ROWS[row].tokens for row in rows]):
                wrong.append(rows)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_reader_of_a_dataset_without_videos_says_so(tmp_path):
    ShardWriter(tmp_path, {}, class_names=[]).write(0, [], [failure("climb/a")])
    finish(tmp_path, {"name": "none", "classes": {"train": []}}, {})
    with pytest.raises(ShardError, match=r"holds no video \(1 failed\)"):
        ShardReader(tmp_path)


# Masks


def test_reader_returns_masks_of_train_rows(folder):
    train = [i for i, row in enumerate(ROWS) if row.video.split == "train"][::-1]
    masks = ShardReader(folder).masks(train)
    for position, row in enumerate(train):
        np.testing.assert_array_equal(masks.bits[position], ROWS[row].masks.bits)
        np.testing.assert_array_equal(masks.found[position], ROWS[row].masks.found)
        np.testing.assert_array_equal(masks.score[position], ROWS[row].masks.score)
    assert (masks.found.dtype, masks.score.dtype) == (np.bool_, np.float16)


@pytest.mark.parametrize("split", ["val", "test"])
def test_reader_refuses_masks_of_another_split(folder, split):
    row = next(i for i, row in enumerate(ROWS) if row.video.split == split)
    with pytest.raises(ShardError, match=f"of split {split}; masks depend on the label"):
        ShardReader(folder).masks([0, row])


def test_reader_without_masks_says_how_to_get_them(tmp_path):
    extract(tmp_path, all_features(4, with_masks=False))
    shards = ShardReader(tmp_path)
    assert not shards.has_masks
    with pytest.raises(
        ShardError, match="has no masks .*`--segmenter precomputed --mask-files DIR`"
    ):
        shards.masks([0])


def test_reader_finds_masks_when_some_shards_hold_no_train_video(tmp_path):
    rows = [features(1), features(2, class_name="run"), features(3, class_name="wave")]
    extract(tmp_path, rows, shard_videos=1)
    assert [shard.num_slots for shard in ShardIndex.load(tmp_path).shards] == [4, 0, 4]
    masks = ShardReader(tmp_path).masks([2, 0])
    np.testing.assert_array_equal(masks.bits, [rows[2].masks.bits, rows[0].masks.bits])


def test_finish_refuses_train_shards_with_and_without_masks(tmp_path):
    rows = [features(1), features(2, with_masks=False)]
    with pytest.raises(ShardError, match=r"\[0, 4\] mask slots; one number was needed"):
        extract(tmp_path, rows, shard_videos=1)


# Property

PRINTABLE = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20)


@st.composite
def datasets(draw):
    """Videos with any id, group and values, and one shape."""
    frames, tokens, dim, embedding, slots = (draw(st.integers(1, 5)) for _ in range(5))
    with_masks = draw(st.booleans())
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows = []
    for video_id in draw(st.lists(PRINTABLE, min_size=1, max_size=6, unique=True)):
        class_name = draw(st.sampled_from(CLASS_NAMES))
        video = replace(features(0, class_name=class_name).video, video_id=video_id)
        rows.append(_random_features(video, rng, (frames, tokens, dim, embedding, slots)))
        if video.split != "train" or not with_masks:
            rows[-1] = replace(rows[-1], masks=None)
    return rows


def _random_features(video: Video, rng: np.random.Generator, sizes: tuple[int, ...]):
    frames, tokens, dim, embedding, slots = sizes

    def bits(*shape: int) -> np.ndarray:
        # Any bit pattern is a value, NaN and infinities included.
        return rng.integers(0, 1 << 16, shape, dtype=np.uint16).view(np.float16)

    return VideoFeatures(
        video=video,
        tokens=bits(frames, tokens, dim),
        frame_embedding=bits(frames, embedding),
        masks=Masks(
            bits=rng.integers(0, 256, (frames, slots, 2048), dtype=np.uint8),
            found=rng.random((frames, slots)) > 0.5,
            score=bits(frames, slots),
        ),
        frame_indices=rng.integers(0, 2**31, frames, dtype=np.int32),
        num_frames_decoded=int(rng.integers(0, 2**31)),
        num_frames_expected=int(rng.integers(0, 2**31)),
        num_damaged_packets=int(rng.integers(0, 2**31)),
    )


@settings(max_examples=25)
@given(datasets(), st.integers(1, 4))
def test_reader_returns_what_was_written_for_any_dataset(rows, shard_videos):
    with tempfile.TemporaryDirectory() as name:
        extract(Path(name), rows, shard_videos=shard_videos)
        shards = ShardReader(Path(name))
        rows = sorted(rows, key=lambda row: row.video.video_id)
        assert list(shards.video_ids) == [row.video.video_id for row in rows]
        everything = range(len(rows))
        expected = np.stack([row.tokens for row in rows])
        assert shards.tokens(everything).tobytes() == expected.tobytes()
        expected = np.stack([row.frame_embedding for row in rows])
        assert shards.frame_embedding(everything).tobytes() == expected.tobytes()
        train = [i for i, row in enumerate(rows) if row.masks is not None]
        for i, mask_row in zip(train, train and shards.masks(train).bits, strict=True):
            np.testing.assert_array_equal(mask_row, rows[i].masks.bits)


# Damage


def test_any_flipped_bit_of_a_shard_is_noticed(fresh):
    path = fresh / "shard-00000.h5"
    data, chance = path.read_bytes(), random.Random(0)
    for _ in range(100):
        changed = bytearray(data)
        changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(ShardError, match="sha256 .* was committed; delete it and run"):
            ShardReader(fresh).tokens([0])


def test_a_shard_cut_anywhere_is_noticed(fresh):
    path = fresh / "shard-00000.h5"
    data = path.read_bytes()
    for size in range(0, len(data), 4096):
        path.write_bytes(data[:size])
        with pytest.raises(ShardError, match=f"has {size} bytes; {len(data)} were committed"):
            ShardReader(fresh).tokens([0])


@pytest.mark.parametrize("only_present", [getattr(os, "RWF_NOWAIT", None), None])
def test_rows_read_by_the_kernel_equal_those_of_the_map(folder, monkeypatch, only_present):
    monkeypatch.setattr(mapping, "_ONLY_PRESENT", only_present)
    by_kernel, from_map = [], []
    for large, found in ((1, by_kernel), (1 << 40, from_map)):
        monkeypatch.setattr(mapping, "_LARGE_BYTES", large)
        reader = ShardReader(folder)
        found += [reader.tokens([7, 0, 7, 11]), reader.frame_indices([3]), reader.tokens([])]
    for one, other in zip(by_kernel, from_map, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(by_kernel[0][3], ROWS[11].tokens)


def _failing(number: int) -> Callable[..., int]:
    def fail(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(
    ("owner", "name", "number", "match"),
    [
        (os, "open", errno.EMFILE, "Too many open files.; fewer open files were needed"),
        (os, "dup", errno.EMFILE, "Too many open files"),
        (mmap, "mmap", errno.EMFILE, "Too many open files"),
        (mapping, "sha256_of", errno.EIO, "Input/output error.; a healthy disk was needed"),
        (os, "preadv", errno.EIO, "Input/output error"),
    ],
)
def test_failing_reads_blame_the_machine_and_not_the_shard(
    folder, monkeypatch, owner, name, number, match
):
    monkeypatch.setattr(mapping, "_LARGE_BYTES", 1)
    mapping.forget_checked()
    reader = ShardReader(folder)
    monkeypatch.setattr(owner, name, _failing(number))
    with pytest.raises(ResourceError, match=rf"reading .*shard-00000.h5 failed .{match}"):
        reader.tokens([0])
    monkeypatch.undo()
    np.testing.assert_array_equal(reader.tokens([0])[0], ROWS[0].tokens)


def test_half_a_row_in_memory_is_read_again_as_a_whole(folder, monkeypatch):
    whole, flags_seen = os.preadv, []

    def preadv(descriptor, buffers, offset, flags=0):
        flags_seen.append(flags)
        if not flags:
            return whole(descriptor, buffers, offset)
        return whole(descriptor, [buffers[0].cast("B")[:8]], offset)

    monkeypatch.setattr(mapping, "_LARGE_BYTES", 1)
    monkeypatch.setattr(mapping, "_ONLY_PRESENT", 8)
    monkeypatch.setattr(os, "preadv", preadv)
    np.testing.assert_array_equal(ShardReader(folder).tokens([7]), [ROWS[7].tokens])
    assert flags_seen == [8, 0]


def test_large_rows_of_a_shard_cut_after_it_was_opened_are_refused(fresh, monkeypatch):
    monkeypatch.setattr(mapping, "_LARGE_BYTES", 1)
    reader = ShardReader(fresh)
    reader.frame_indices([0])
    os.truncate(fresh / "shard-00000.h5", 100)
    with pytest.raises(ShardError, match="cut short while it was read; 100 bytes are left"):
        reader.tokens([0])


def test_change_after_a_good_read_is_noticed_by_the_next_reader(fresh, monkeypatch):
    monkeypatch.setattr(mapping, "_SETTLED_SECONDS", -1.0)
    ShardReader(fresh).tokens([0])
    path = fresh / "shard-00000.h5"
    changed = bytearray(path.read_bytes())
    changed[-1] ^= 1
    time.sleep(0.02)  # the file's clock ticks every 4 ms or so
    path.write_bytes(changed)
    with pytest.raises(ShardError, match="was committed"):
        ShardReader(fresh).tokens([0])


def test_settled_shard_is_hashed_once_per_process(fresh, monkeypatch):
    hashed = []
    honest = mapping.sha256_of
    monkeypatch.setattr(mapping, "_SETTLED_SECONDS", -1.0)
    monkeypatch.setattr(mapping, "sha256_of", lambda fd: hashed.append(fd) or honest(fd))
    for _ in range(3):
        ShardReader(fresh).tokens([0])
    assert len(hashed) == 1


def test_reader_without_verification_checks_size_and_structure_alone(fresh):
    path = fresh / "shard-00000.h5"
    changed = bytearray(path.read_bytes())
    changed[-1] ^= 1
    path.write_bytes(changed)
    assert ShardReader(fresh, verify=False).tokens([0]).shape == (1, 2, 4, 6)
    path.write_bytes(changed[:-1])
    with pytest.raises(ShardError, match="were committed"):
        ShardReader(fresh, verify=False).tokens([0])


def test_shard_that_is_absent_or_of_another_run_is_refused(fresh, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    extract(other, [features(number) for number in range(10, 14)])
    path = fresh / "shard-00000.h5"
    path.write_bytes((other / "shard-00000.h5").read_bytes())
    with pytest.raises(ShardError, match="shard-00000.h5 has sha256"):
        ShardReader(fresh).tokens([0])
    path.unlink()
    with pytest.raises(ShardError, match="cannot read .*shard-00000.h5 .No such file"):
        ShardReader(fresh).tokens([0])


def test_shard_that_is_a_link_or_a_pipe_is_refused_without_blocking(fresh):
    path = fresh / "shard-00000.h5"
    path.rename(fresh / "moved.h5")
    path.symlink_to(fresh / "moved.h5")
    with pytest.raises(ShardError, match="a regular file was needed"):
        ShardReader(fresh).tokens([0])
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ShardError, match="not a regular file"):
        ShardReader(fresh).tokens([0])


# Compatibility


def test_dataset_written_by_format_version_1_reads_as_it_did(repository):
    """A change that breaks this needs a new format version, and a way to read this one."""
    golden = repository / "tests" / "golden" / "shards_v1"
    assert verify(golden) == []
    shards = ShardReader(golden)
    assert shards.index.format_version == 1
    assert shards.index.digest.startswith("c450d92882b59cab30363143ead7c009")
    assert shards.index.fingerprint == FINGERPRINT
    assert shards.index.failures == (failure("climb/torn"),)
    assert shards.video_ids == ("climb/clip 001", "run/clip 002")
    assert shards.split.tolist() == ["train", "test"]
    tokens = shards.tokens([0, 1])[:, 0, 0, :3].tolist()
    assert tokens == [
        [0.0207977294921875, 0.407958984375, 1.4208984375],
        [0.268798828125, -0.1259765625, 1.013671875],
    ]
    assert shards.frame_embedding([1, 0])[:, 1, 4].tolist() == [-1.26171875, 1.076171875]
    assert shards.frame_indices([0, 1]).tolist() == [[1, 8], [2, 9]]
    masks = shards.masks([0])
    assert masks.bits[0, 1, 3, :4].tolist() == [97, 240, 10, 73]
    assert masks.found[0].tolist() == [[True, False, True, False], [True, True, False, True]]


def test_todays_writer_gives_the_content_of_format_version_1(repository, tmp_path):
    golden = ShardReader(repository / "tests" / "golden" / "shards_v1")
    rows = [features(1), features(2, class_name="run")]
    for i, row in enumerate(rows):
        masks = golden.masks([i]) if row.masks else None
        rows[i] = replace(
            row,
            tokens=golden.tokens([i])[0],
            frame_embedding=golden.frame_embedding([i])[0],
            masks=masks and Masks(bits=masks.bits[0], found=masks.found[0], score=masks.score[0]),
        )
    assert extract(tmp_path, rows).digest == golden.index.digest


# Files made to harm: the index agrees with them, so that structure alone must refuse


def _external(file: h5py.File, folder: Path) -> None:
    # A pipe without a writer: a reader that opened it would hang until the test's time is up.
    os.mkfifo(folder / "secret")
    shape = _drop(file, "tokens")
    size = int(np.prod(shape)) * 2
    file.create_dataset("tokens", shape, np.float16, external=[(str(folder / "secret"), 0, size)])


def _drop(file: h5py.File, name: str) -> tuple[int, ...]:
    shape: tuple[int, ...] = file[name].shape
    del file[name]
    return shape


def _replace(name: str, **options: object) -> Callable[[h5py.File, Path], None]:
    def change(file: h5py.File, folder: Path) -> None:
        data = file[name][:]
        del file[name]
        file.create_dataset(name, data=data, **options)

    return change


def _soft_link(file: h5py.File, folder: Path) -> None:
    _drop(file, "tokens")
    file["tokens"] = h5py.SoftLink("/frame_embedding")


def _external_link(file: h5py.File, folder: Path) -> None:
    _drop(file, "tokens")
    with h5py.File(folder / "other.h5", "w") as other:
        other["tokens"] = np.zeros((4, 2, 4, 6), np.float16)
    file["tokens"] = h5py.ExternalLink(str(folder / "other.h5"), "tokens")


def _virtual(file: h5py.File, folder: Path) -> None:
    shape = _drop(file, "tokens")
    with h5py.File(folder / "other.h5", "w") as other:
        other["tokens"] = np.zeros(shape, np.float16)
    layout = h5py.VirtualLayout(shape, np.float16)
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "tokens", shape)
    file.create_virtual_dataset("tokens", layout)


def _objects(file: h5py.File, folder: Path) -> None:
    shape = _drop(file, "video_id")
    file.create_dataset("video_id", shape, h5py.string_dtype())


def _references(file: h5py.File, folder: Path) -> None:
    shape = _drop(file, "class_index")
    file.create_dataset("class_index", shape, h5py.ref_dtype)


def _huge(file: h5py.File, folder: Path) -> None:
    shape = _drop(file, "tokens")
    file.create_dataset("tokens", (shape[0], 2, 4, 10**10), np.float16)


def _unwritten(file: h5py.File, folder: Path) -> None:
    shape = _drop(file, "tokens")
    file.create_dataset("tokens", shape, np.float16)


def _group(file: h5py.File, folder: Path) -> None:
    _drop(file, "tokens")
    file.create_group("tokens")


def _many(file: h5py.File, folder: Path) -> None:
    for number in range(1_000):
        file.create_group(f"g{number}")


def _cycle(file: h5py.File, folder: Path) -> None:
    file["again"] = file["/"]


def _renamed(file: h5py.File, folder: Path) -> None:
    file.move("tokens", "Tokens")


def _overlapping(distance: int) -> Callable[[h5py.File, Path], None]:
    """Let the 80 bytes of the embeddings begin so far from where the masks begin."""

    def change(file: h5py.File, folder: Path) -> None:
        path = Path(file.filename)
        old, masks = (file[name].id.get_offset() for name in ("frame_embedding", "mask_bits"))
        file.close()
        data, place = path.read_bytes(), struct.pack("<Q", old)
        assert data.count(place) == 1
        path.write_bytes(data.replace(place, struct.pack("<Q", masks + distance)))

    return change


def _second_name(file: h5py.File, folder: Path) -> None:
    _drop(file, "num_frames_expected")
    file["num_frames_expected"] = file["num_frames_decoded"]


def _attribute(file: h5py.File, folder: Path) -> None:
    file["tokens"].attrs["note"] = "x" * 100


def _root_attribute(file: h5py.File, folder: Path) -> None:
    file.attrs["note"] = "x"


def _version(file: h5py.File, folder: Path) -> None:
    file.attrs.modify("format_version", 2)


def _text_version(file: h5py.File, folder: Path) -> None:
    file.attrs["format_version"] = "1"


def _committed_type(file: h5py.File, folder: Path) -> None:
    _drop(file, "tokens")
    file["tokens"] = np.dtype(np.float16)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (_external, "tokens is chunked, virtual, compact or in another file"),
        (_soft_link, "tokens is a link"),
        (_external_link, "tokens is a link"),
        (_virtual, "tokens is chunked, virtual"),
        (_objects, "video_id is not"),
        (_references, "class_index is not"),
        (_replace("tokens", chunks=True), "tokens is chunked"),
        (_replace("tokens", compression="gzip"), "tokens is chunked"),
        (_replace("tokens", dtype=">f2"), "tokens is not float16"),
        (_replace("tokens", dtype="<f4"), "tokens is not float16"),
        (_replace("tokens", maxshape=(None, 2, 4, 6)), "tokens is chunked"),
        (_huge, r"tokens has shape \(4, 2, 4, 10000000000\), \(4, 2, 4, 6\) expected"),
        (_unwritten, "tokens lies outside the file"),
        (_overlapping(0), "datasets overlap"),
        (_overlapping(64), "datasets overlap"),
        (_overlapping(-64), "datasets overlap"),
        (_group, "not a shard"),
        (_many, "1012 objects, 12 expected"),
        (_cycle, "13 objects, 12 expected"),
        (_renamed, "no tokens"),
        (_second_name, "a second name"),
        (_attribute, "filters, attributes"),
        (_root_attribute, "unknown attributes"),
        (_version, "shard format version 2, this i2st reads 1"),
        (_text_version, "format_version is no number"),
        (_committed_type, "not a shard"),
    ],
)
def test_structure_other_than_plain_arrays_is_refused_before_any_read(fresh, change, match):
    with h5py.File(fresh / "shard-00000.h5", "r+") as file:
        change(file, fresh)
    reseal(fresh)
    begin = time.process_time()
    with pytest.raises(ShardError, match=match):
        ShardReader(fresh).tokens([0])
    assert time.process_time() - begin < 1.0


def test_user_block_is_refused(fresh):
    path = fresh / "shard-00000.h5"
    path.write_bytes(b"#!/bin/sh\n".ljust(512, b"\n") + path.read_bytes())
    reseal(fresh)
    with pytest.raises(ShardError, match="user block of 512 bytes"):
        ShardReader(fresh).tokens([0])


def test_index_that_claims_huge_masks_is_refused_before_they_are_allocated(fresh):
    index = ShardIndex.load(fresh)
    shards = (index.shards[0]._replace(num_slots=10**12),)
    write_index(fresh, replace(index, shards=shards))
    with pytest.raises(ShardError, match="mask_bits has shape"):
        ShardReader(fresh).masks([0])


@pytest.mark.parametrize("data", [b"not hdf5 at all", b"\x89HDF\r\n\x1a\n" + b"\0" * 500])
def test_file_that_is_not_hdf5_is_refused(fresh, data):
    (fresh / "shard-00000.h5").write_bytes(data)
    reseal(fresh)
    with pytest.raises(ShardError, match="is not a shard as i2st writes it"):
        ShardReader(fresh).tokens([0])


def test_forged_mutants_are_refused_or_read_without_a_crash_or_hang(fresh):
    """The metadata of a resealed shard is damaged at random, in a child that may die."""
    path = fresh / "shard-00000.h5"
    data, size = path.read_bytes(), record_of(fresh).size_bytes
    chance = random.Random(1)

    def work():
        for _ in range(60):
            changed = bytearray(data)
            for _ in range(chance.randrange(1, 4)):
                changed[chance.randrange(min(2048, size))] = chance.randrange(256)
            path.write_bytes(changed)
            reseal(fresh)
            with contextlib.suppress(ShardError):
                assert ShardReader(fresh).tokens([0]).shape == (1, 2, 4, 6)

    assert end_of(start(work)) == 0
    assert ShardIndex.load(fresh).fingerprint == FINGERPRINT
