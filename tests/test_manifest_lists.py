import hashlib
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import ManifestError
from pipeline.manifests import find_videos, load_manifest
from pipeline.manifests.lists import import_list, list_path, normalise_list, read_imported

SPLITS = ("train", "val", "test")
FORMS = {
    "kinetics100": "kinetics100_{}.xian21.txt",
    "kinetics100-hyrsm": "kinetics100_{}.hyrsm.txt",
    "ssv2-small": "ssv2_small_{}.hyrsm.txt",
    "ssv2-full": "ssv2_full_{}.hyrsm.txt",
}
HYRSM_REPLACED = {"train": 179, "val": 41, "test": 57}


def published(split_lists: Path, name: str, split: str) -> Path:
    return split_lists / "original" / FORMS[name].format(split)


def table(split_lists: Path, name: str, split: str) -> list[list[str]]:
    base = name.removesuffix("-hyrsm").replace("-", "_")
    text = (split_lists / f"{base}_{split}.tsv").read_text()
    return [line.split("\t") for line in text.splitlines()]


def test_every_published_list_has_a_test(split_lists):
    files = {form.format(split) for form in FORMS.values() for split in SPLITS}
    assert {path.name for path in (split_lists / "original").iterdir()} == files


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", ["kinetics100", "ssv2-small", "ssv2-full"])
def test_import_list_writes_the_normalised_table(split_lists, tmp_path, name, split):
    imported = import_list(name, split, published(split_lists, name, split), destination=tmp_path)
    written = [line.split("\t") for line in imported.path.read_text().splitlines()]
    assert written == table(split_lists, name, split)
    assert imported.num_videos == load_manifest(name).num_videos[split] == len(written)
    assert imported.path == tmp_path / "lists" / f"{name}-{split}.tsv"
    assert imported.to_dict()["path"] == str(imported.path)
    assert sorted(path.name for path in imported.path.parent.iterdir()) == [imported.path.name]


@pytest.mark.parametrize("split", SPLITS)
def test_import_list_reads_the_other_edition_of_kinetics100(split_lists, tmp_path, split):
    source = published(split_lists, "kinetics100-hyrsm", split)
    imported = import_list("kinetics100", split, source, "hyrsm", destination=tmp_path)
    rows = [line.split("\t") for line in imported.path.read_text().splitlines()]
    cmn = {video_id[:11]: name for name, video_id in table(split_lists, "kinetics100", split)}
    new = [row for row in rows if row[1][:11] not in cmn]
    assert len(rows) == load_manifest("kinetics100").num_videos[split]
    assert len(new) == HYRSM_REPLACED[split]
    assert all(cmn[video_id[:11]] == name for name, video_id in rows if video_id[:11] in cmn)
    assert {len(video_id) for _, video_id in rows} == {11, 25}


def test_import_list_refuses_another_list_and_keeps_nothing(split_lists, tmp_path):
    source = published(split_lists, "ssv2-small", "test")
    with pytest.raises(ManifestError, match="2400 lines and sha256 .* 1200 lines .* by hand"):
        import_list("ssv2-small", "val", source, destination=tmp_path)
    changed = tmp_path / "list.txt"
    changed.write_bytes(source.read_bytes()[:-1] + b"9\n")
    with pytest.raises(ManifestError, match="download https://raw.githubusercontent.com/alibaba"):
        import_list("ssv2-small", "test", changed, destination=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["list.txt"]


def test_import_list_says_where_there_is_nothing_to_import(tmp_path):
    with pytest.raises(ManifestError, match="hmdb51 takes all videos of its classes"):
        import_list("hmdb51", "train", None, destination=tmp_path)
    with pytest.raises(ManifestError, match="no split 'dev'; known: train, val, test"):
        import_list("ssv2-full", "dev", None, destination=tmp_path)
    with pytest.raises(ManifestError, match="is absent; a file was needed"):
        import_list("ssv2-full", "val", tmp_path / "absent", destination=tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ManifestError, match="is not a regular file"):
        import_list("ssv2-full", "val", tmp_path / "pipe", destination=tmp_path)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    folder = tmp_path / "served"
    folder.mkdir()

    def handler(*arguments: object) -> _Quiet:
        return _Quiet(*arguments, directory=str(folder))  # type: ignore[arg-type]

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", folder
        running.shutdown()


def serve(folder: Path, source: Path | str) -> Path:
    record = load_manifest("ssv2-small").sources["val"]
    file = folder / record.repository / record.commit / record.path
    file.parent.mkdir(parents=True)
    file.write_bytes(Path(source).read_bytes())
    return file


def test_import_list_downloads_what_was_recorded(split_lists, tmp_path, server):
    base_url, folder = server
    serve(folder, published(split_lists, "ssv2-small", "val"))
    imported = import_list("ssv2-small", "val", None, destination=tmp_path, base_url=base_url)
    rows = [line.split("\t") for line in imported.path.read_text().splitlines()]
    assert rows == table(split_lists, "ssv2-small", "val")
    assert imported.source.startswith(base_url)


def test_import_list_refuses_a_download_that_differs(split_lists, tmp_path, server):
    base_url, folder = server
    serve(folder, published(split_lists, "ssv2-small", "val")).write_text("val0/1\n")
    with pytest.raises(ManifestError, match="has 1 lines and sha256"):
        import_list("ssv2-small", "val", None, destination=tmp_path, base_url=base_url)
    assert not (tmp_path / "lists").exists()


def test_import_list_tells_to_download_by_hand_when_it_cannot(tmp_path, server, monkeypatch):
    base_url, folder = server
    by_hand = (
        "download it by hand and run `i2st manifest import ssv2-small --split val --from FILE "
        f"--videos {tmp_path}`"
    )
    with pytest.raises(ManifestError, match=rf"cannot be fetched \(.*\); {by_hand}") as fault:
        import_list("ssv2-small", "val", None, destination=tmp_path, base_url=base_url)
    assert "\n" not in str(fault.value)
    with pytest.raises(ManifestError, match=by_hand):
        import_list("ssv2-small", "val", None, destination=tmp_path, base_url="http://127.0.0.1:1")
    monkeypatch.setattr("pipeline.manifests.fetch.MAX_LIST_BYTES", 10)
    serve(folder, __file__)
    with pytest.raises(ManifestError, match=f"is larger than 10 bytes; {by_hand}"):
        import_list("ssv2-small", "val", None, destination=tmp_path, base_url=base_url)


def test_hints_of_import_are_commands_that_work(split_lists, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    import cli

    monkeypatch.chdir(tmp_path)
    with pytest.raises(ManifestError) as absent:
        find_videos(load_manifest("ssv2-small"), tmp_path)
    assert f"`i2st manifest import ssv2-small --videos {tmp_path}`" in str(absent.value)
    with pytest.raises(ManifestError) as refused:
        import_list("ssv2-small", "val", Path(__file__), destination=tmp_path)
    command = str(refused.value).split("`")[1].split()[1:]
    list_file = str(published(split_lists, "ssv2-small", "val"))
    command[command.index("FILE")] = list_file
    result = CliRunner().invoke(cli.app, command)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "lists" / "ssv2-small-val.tsv").is_file()


def test_recorded_sha256_are_those_of_the_published_files(split_lists):
    for name in FORMS:
        for split, record in load_manifest(name).sources.items():
            content = published(split_lists, name, split).read_bytes()
            assert hashlib.sha256(content).hexdigest() == record.sha256


@pytest.mark.parametrize(
    ("line", "row"),
    [
        ("train17/123", ("Approaching something with your camera", "123")),
        ("Moving part of something/9", ("Moving part of something", "9")),
        ("train0//a/b/moving_part_of_something/9.webm", ("Moving part of something", "9")),
    ],
)
def test_normalise_list_reads_each_form(line, row):
    assert normalise_list([line], "train", load_manifest("ssv2-small")) == [row]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["train64/1"], "line 1 of the list, 'train64/1', names no train class of ssv2-small"),
        (["flying/1"], "names no train class"),
        (["train0/1", "train1/1"], "line 2 of the list repeats video '1'"),
        (["Moving part of something/../../x"], "video id in line 1 '../../x' is a path"),
        (["Moving part of something/.."], "video id in line 1 '..' is a path"),
        (["Moving part of something/"], "video id in line 1 '' is empty"),
    ],
)
def test_normalise_list_refuses_lines_that_fit_no_form(lines, message):
    with pytest.raises(ManifestError, match=message):
        normalise_list(lines, "train", load_manifest("ssv2-small"))


def import_all(split_lists: Path, name: str, root: Path) -> None:
    for split in SPLITS:
        import_list(name, split, published(split_lists, name, split), destination=root)


def test_find_videos_asks_for_the_import_and_the_hint_names_the_dataset(tmp_path):
    hint = f"run `i2st manifest import kinetics100-hyrsm --videos {tmp_path}`"
    with pytest.raises(ManifestError, match=rf"kinetics100-hyrsm-train.tsv is absent; .*; {hint}"):
        find_videos(load_manifest("kinetics100-hyrsm"), tmp_path)


def test_read_imported_refuses_a_list_that_was_changed(split_lists, tmp_path):
    import_all(split_lists, "ssv2-small", tmp_path)
    manifest = load_manifest("ssv2-small")
    assert len(read_imported(manifest, tmp_path)) == 10_000
    path = list_path(manifest, "test", tmp_path)
    path.write_text(path.read_text().replace("88644", "88645"))
    with pytest.raises(ManifestError, match=r"ssv2-small-test.tsv was changed since its import"):
        read_imported(manifest, tmp_path)


def test_find_videos_takes_listed_ids_from_a_flat_folder(split_lists, tmp_path):
    import_all(split_lists, "ssv2-small", tmp_path)
    for name in ("88644.webm", "51958.webm", "1.webm"):
        (tmp_path / "20bn-something-something-v2").mkdir(exist_ok=True)
        (tmp_path / "20bn-something-something-v2" / name).touch()
    videos = find_videos(load_manifest("ssv2-small"), tmp_path)
    assert [(v.video_id, v.split, v.class_name) for v in videos] == [
        ("51958", "train", "Pouring something into something"),
        ("88644", "test", "Twisting (wringing) something wet until water comes out"),
    ]
    assert videos[0].path == "20bn-something-something-v2/51958.webm"


@pytest.mark.parametrize("name", ["kinetics100", "kinetics100-hyrsm"])
@pytest.mark.parametrize("stem", ["-514AQUrSow", "-514AQUrSow_000058_000068"])
def test_find_videos_takes_kinetics_by_youtube_id(split_lists, tmp_path, name, stem):
    import_all(split_lists, name, tmp_path)
    folder = tmp_path / "val_256" / "baking_cookies"
    folder.mkdir(parents=True)
    (folder / f"{stem}.mp4").touch()
    (folder / "AAAAAAAAAAA_000001_000011.mp4").touch()
    (video,) = find_videos(load_manifest(name), tmp_path)
    listed = "-514AQUrSow" if name.endswith("hyrsm") else "-514AQUrSow_000058_000068"
    assert (video.video_id, video.class_name, video.split) == (listed, "baking cookies", "val")
    assert (video.path, video.group) == (f"val_256/baking_cookies/{stem}.mp4", "-514AQUrSow")
