"""Extraction by the workers of dask schedulers that run already: the same shards as in process."""

from contextlib import ExitStack
from functools import partial
from pathlib import Path

import extraction_fakes as fakes
import pytest
import test_scheduling_clusters as clusters

from pipeline.errors import BackendError, ConfigError
from pipeline.extract import extract
from pipeline.extraction.made_by import MadeBy
from pipeline.extraction.portions import PortionResult
from pipeline.extraction.remembered import Memory
from pipeline.extraction.run import ExtractionRun
from pipeline.scheduling.interruption import StopRequest
from pipeline.shards.index import ShardIndex
from pipeline.shards.records import Failure

pytestmark = pytest.mark.usefixtures("fake_backends")

TESTS = Path(__file__).parent


def test_extract_by_two_schedulers_in_turn_gives_the_same_shards(tmp_path, monkeypatch):
    path = (TESTS.parent, TESTS, tmp_path / "site")
    monkeypatch.setattr(clusters, "dask_process", partial(clusters.dask_process, path=path))
    manifest, videos = fakes.make_dataset(tmp_path / "videos")
    here = fakes.config(tmp_path / "videos", tmp_path / "here", shard_videos=5)
    expected = extract(here, manifest, videos)
    num_new = []
    with ExitStack() as stack:
        addresses = [
            stack.enter_context(clusters.scheduler(tmp_path / host, host, workers=2))
            for host in ("127.0.0.1", "127.0.0.2")
        ]
        for address, part in zip(addresses, (videos[:10], videos), strict=True):
            config = fakes.config(
                tmp_path / "videos", tmp_path / "out", shard_videos=5, scheduler=address
            )
            report = extract(config, manifest, part)
            num_new.append(report.num_new)
    assert num_new == [10, 10]
    assert report.digest == expected.digest
    shards = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.h5")}
    assert shards == {p.name: p.read_bytes() for p in (tmp_path / "here").glob("*.h5")}


def test_extract_refuses_workers_that_do_not_find_the_videos(tmp_path):
    manifest, videos = fakes.make_dataset(tmp_path / "videos")
    config = fakes.config(tmp_path / "videos", tmp_path / "out", scheduler="tcp://127.0.0.1:9")
    run = ExtractionRun(config, manifest, videos, None, StopRequest())

    def failed(video, reason):
        failure = Failure(video.video_id, video.split, video.class_name, reason, "...")
        return PortionResult(shard_number=0, failures=(failure,))

    run._check_sight(failed(videos[0], "undecodable"))
    path = tmp_path / "videos" / videos[0].path
    with pytest.raises(BackendError, match=f"a worker does not find {path}, which is here"):
        run._check_sight(failed(videos[0], "missing"))
    path.unlink()
    run._check_sight(failed(videos[0], "missing"))


def test_extract_believes_its_worker_more_than_the_note_of_the_last_run(tmp_path, monkeypatch):
    manifest, videos = fakes.make_dataset(tmp_path / "videos")
    expected = extract(fakes.config(tmp_path / "videos", tmp_path / "here"), manifest, videos)
    noted = MadeBy(fingerprints={"decoder": {"name": "old"}, "encoder": {}, "segmenter": None})
    monkeypatch.setattr(Memory, "recall", lambda self: noted)
    report = extract(fakes.config(tmp_path / "videos", tmp_path / "out"), manifest, videos)
    assert (report.num_new, report.digest) == (20, expected.digest)
    found, right = (ShardIndex.load(tmp_path / name).fingerprint for name in ("out", "here"))
    assert found == right


def test_extract_refuses_rows_of_a_worker_whose_models_are_others(tmp_path, monkeypatch):
    manifest, videos = fakes.make_dataset(tmp_path / "videos")
    answers = [
        MadeBy(fingerprints={"decoder": {}, "encoder": {"precision": kind}, "segmenter": None})
        for kind in ("float32", "bfloat16 autocast")
    ]
    results = [PortionResult(shard_number=-1, made_by=made_by) for made_by in answers]
    monkeypatch.setattr(ExtractionRun, "_results", lambda self: iter(results))
    with pytest.raises(ConfigError, match=r"workers differ in encoder\.precision 'float32' there"):
        extract(fakes.config(tmp_path / "videos", tmp_path / "out"), manifest, videos)
