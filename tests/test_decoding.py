import http.server
import os
import struct
import sys
import threading
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from make_videos import (
    FORMS,
    change_packets,
    decode_all,
    form,
    scene,
    set_display_matrix,
    write_video,
)

from pipeline.decoding import containers, decoder_names, get_decoder, read_clip, survey
from pipeline.decoding.comparison import compare_decoders, mean_differences
from pipeline.decoding.truncation import is_cut_short
from pipeline.errors import BackendError, ConfigError, VideoError

NUM_FRAMES = 50

needs_decord = pytest.mark.skipif(
    "decord" not in sys.modules and not __import__("importlib.util").util.find_spec("decord"),
    reason="decord has no wheel for this platform",
)


@pytest.fixture(scope="module")
def pictures():
    return scene(NUM_FRAMES)


@pytest.fixture(scope="module")
def videos(tmp_path_factory, pictures):
    folder = tmp_path_factory.mktemp("videos")
    return {f.name: write_video(folder / (f.name + f.suffix), pictures, f) for f in FORMS}


def refused(path: Path, reason: str, **settings: object) -> str:
    """Message with which a video is refused for ``reason``."""
    with pytest.raises(VideoError) as caught:
        read_clip(path, **settings)
    assert caught.value.reason == reason
    message = str(caught.value)
    assert "\n" not in message
    return message


# Exactness


@pytest.mark.parametrize("name", [f.name for f in FORMS])
def test_pyav_gives_the_frames_of_a_full_decode(videos, name):
    reference = decode_all(videos[name])
    assert len(reference) == NUM_FRAMES
    for rule, count in (("segment_centres", 1), ("segment_centres", 8), ("uniform_endpoints", 50)):
        clip = read_clip(videos[name], "pyav", rule, count)
        np.testing.assert_array_equal(clip.frames, reference[clip.frame_indices])
        assert clip.num_frames_decoded == clip.num_frames_expected == NUM_FRAMES
        assert clip.num_damaged_packets == 0


@pytest.mark.parametrize("name", [f.name for f in FORMS])
def test_frames_are_those_that_were_encoded(videos, pictures, name):
    # Beside the full decode, which shares FFmpeg's errors: the scene itself. A neighbouring frame
    # is more than 15 levels away, loss of the codec less than 12.
    clip = read_clip(videos[name], count=8)
    for frame, index in zip(clip.frames, clip.frame_indices, strict=True):
        distances = np.abs(pictures.astype(np.int16) - frame).mean((1, 2, 3))
        assert distances.argmin() == index


@needs_decord
@pytest.mark.parametrize("name", [f.name for f in FORMS if f.decord_is_exact])
def test_decord_gives_the_frames_of_a_full_decode_where_it_is_exact(videos, name):
    reference = decode_all(videos[name])
    clip = read_clip(videos[name], "decord", count=8)
    # Its FFmpeg is years older and rounds colours otherwise: up to 2 levels on average, where a
    # neighbouring frame is more than 15 away.
    differences = np.abs(clip.frames.astype(np.int16) - reference[clip.frame_indices])
    assert differences.mean((1, 2, 3)).max() < 3
    assert clip.num_frames_decoded == clip.num_frames_expected == NUM_FRAMES


@needs_decord
def test_comparison_detects_the_wrong_frames_of_decord_on_xvid_with_b_frames(videos):
    exact, wrong = videos["mpeg4_avi"], videos["mpeg4_b_frames_avi"]
    (difference,) = compare_decoders([exact, wrong], "segment_centres", 8)
    assert difference.path == wrong
    assert difference.num_frames == 8
    assert 1 <= difference.num_differing <= 8
    reference = decode_all(wrong)
    clip = read_clip(wrong, "decord", count=8)
    distances = np.abs(clip.frames.astype(np.int16) - reference[clip.frame_indices])
    assert difference.num_differing == (distances.mean((1, 2, 3)) > 15).sum()


@needs_decord
def test_comparison_counts_every_frame_when_one_decoder_refuses_the_video(videos, monkeypatch):
    path = videos["h264_mpegts"]
    (difference,) = compare_decoders([path], "segment_centres", 8, num_children=0)
    assert difference.num_differing == difference.num_frames == 8


def test_comparison_finds_no_difference_when_both_refuse_the_video(tmp_path):
    path = tmp_path / "text.avi"
    path.write_text("no video")
    assert compare_decoders([path], "segment_centres", 8, ("pyav", "pyav"), num_children=0) == []


@needs_decord
def test_both_decoders_give_the_same_frames_of_real_videos(real_data):
    paths = sorted((real_data / "jhmdb21" / "videos").glob("*/*.avi"))[::15]
    assert len(paths) >= 20
    for path in paths:
        one, other = (read_clip(path, name) for name in ("pyav", "decord"))
        np.testing.assert_array_equal(one.frame_indices, other.frame_indices)
        # 0 where it was measured; 2 levels leave room for another processor's colour conversion.
        assert np.abs(one.frames.astype(np.int16) - other.frames).max() <= 2
        assert one.num_frames_decoded == other.num_frames_decoded == one.num_frames_expected


def test_packets_are_read_again_when_they_are_too_many_to_keep(videos, monkeypatch):
    for name in ("h264_mp4", "mpeg4_b_frames_avi", "h264_mpegts"):
        kept = read_clip(videos[name])
        monkeypatch.setattr(survey, "_KEPT_PACKETS", 3)
        reread = read_clip(videos[name])
        monkeypatch.undo()
        np.testing.assert_array_equal(reread.frames, kept.frames)


def test_the_forms_contain_what_their_names_say(videos):
    def packets(name):
        with av.open(str(videos[name])) as container:
            return [(p.pts, p.is_keyframe) for p in container.demux(video=0) if p.size]

    last_key, leading = None, 0
    for time, is_key in packets("h264_open_gop"):
        last_key = time if is_key else last_key
        leading += time < last_key
    assert leading > 0
    for name in ("hevc_mp4", "h264_mov", "mpeg4_b_frames_mp4"):
        times = [time for time, _ in packets(name)]
        assert times != sorted(times)
    with av.open(str(videos["mpeg4_b_frames_avi"])) as container:
        types = [int(frame.pict_type) for frame in container.decode(video=0)]
    assert types.count(3) > NUM_FRAMES // 3  # AV_PICTURE_TYPE_B


# Odd videos


@pytest.mark.parametrize(
    "matrix",
    [(0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0), (-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0)],
    ids=["90", "180", "270", "mirrored", "upside_down", "transposed"],
)
def test_pictures_are_turned_as_the_display_matrix_asks(tmp_path, matrix):
    path = write_video(tmp_path / "turned.mp4", scene(6, 32, 48), form("h264_mp4"))
    coded = decode_all(path)[3]
    a, b, c, d = matrix
    shown = {}
    for y in range(32):
        for x in range(48):
            shown[b * x + d * y, a * x + c * y] = coded[y, x]
    top, left = min(y for y, _ in shown), min(x for _, x in shown)
    clip = read_clip(set_display_matrix(path, matrix), count=6)
    assert clip.frames[3].size == coded.size
    for (y, x), pixel in shown.items():
        assert (clip.frames[3][y - top, x - left] == pixel).all()


@needs_decord
def test_decord_turns_pictures_the_same_way(tmp_path):
    path = write_video(tmp_path / "turned.mp4", scene(6, 32, 48), form("h264_mp4"))
    set_display_matrix(path, (0, 1, -1, 0))
    one, other = (read_clip(path, name, count=6) for name in ("pyav", "decord"))
    assert one.frames.shape == other.frames.shape == (6, 48, 32, 3)
    assert mean_differences(one, other).max() < 3


def test_variable_frame_rate_keeps_the_order_of_presentation(tmp_path, pictures):
    times = [0, 1, 2, 7, 8, 30, 31, 33, 100, 101]
    path = write_video(tmp_path / "vfr.mp4", pictures[:10], form("h264_mp4"), times=times)
    clip = read_clip(path, count=10)
    np.testing.assert_array_equal(clip.frames, decode_all(path))
    assert clip.frame_indices.tolist() == list(range(10))


def test_frames_before_time_zero_are_not_shown_when_an_edit_list_hides_them(tmp_path, pictures):
    path = write_video(tmp_path / "x.mp4", pictures, form("h264_mp4"), times=range(-5, 45))
    with av.open(str(path)) as container:
        assert min(p.pts for p in container.demux(video=0) if p.size) < 0
    clip = read_clip(path, count=45)
    reference = decode_all(path)
    np.testing.assert_array_equal(clip.frames, reference)
    assert clip.num_frames_decoded == clip.num_frames_expected == len(reference) == 45


@pytest.mark.parametrize("name", ["h264_mp4", "mpeg4_avi", "vp9_webm", "mpeg2_ps"])
def test_a_single_frame_is_repeated(tmp_path, pictures, name):
    path = write_video(tmp_path / ("x" + form(name).suffix), pictures[:1], form(name))
    clip = read_clip(path, count=4)
    assert clip.frame_indices.tolist() == [0, 0, 0, 0]
    np.testing.assert_array_equal(clip.frames, np.repeat(decode_all(path), 4, axis=0))


@pytest.mark.parametrize(
    ("size", "pix_fmt"),
    [((31, 45), "yuv444p"), ((48, 64), "yuv420p10le"), ((2, 2), "yuv420p"), ((600, 16), "yuv420p")],
)
def test_odd_sizes_and_depths_are_read_at_their_own_size(tmp_path, size, pix_fmt):
    h264 = replace(form("h264_mp4"), pix_fmt=pix_fmt)
    path = write_video(tmp_path / "odd.mp4", scene(5, *size), h264)
    clip = read_clip(path, count=5)
    assert clip.frames.shape == (5, *size, 3)
    np.testing.assert_array_equal(clip.frames, decode_all(path))


def test_cover_art_is_not_the_video(tmp_path, pictures):
    stream_module = pytest.importorskip("av.stream")
    if not hasattr(stream_module.Stream, "disposition"):
        pytest.skip("this PyAV tells no dispositions")
    if int(av.__version__.split(".")[0]) < 18:
        pytest.skip("this PyAV cannot write cover art")
    path = tmp_path / "cover.mp4"
    write_with_cover(path, pictures[:10], stream_module.Disposition.attached_pic)
    clip = read_clip(path, count=10)
    assert clip.frames.shape == (10, 96, 128, 3)


def write_with_cover(path: Path, pictures: np.ndarray, attached: object) -> None:
    with av.open(str(path), "w") as container:
        cover, video = container.add_stream("mjpeg", rate=25), container.add_stream("libx264", 25)
        cover.width = cover.height = 64
        cover.pix_fmt, cover.disposition = "yuvj420p", attached
        video.height, video.width = pictures.shape[1:3]
        video.pix_fmt = "yuv420p"
        red = np.full((64, 64, 3), (255, 0, 0), np.uint8)
        container.mux(cover.encode(av.VideoFrame.from_ndarray(red, format="rgb24")))
        container.mux(cover.encode())
        for picture in pictures:
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode())


def test_later_pictures_are_scaled_when_the_size_changes_midway(tmp_path):
    first, second = scene(6, 64, 80), scene(6, 32, 40)
    mjpeg = replace(form("mjpeg_avi"), suffix=".mjpeg")
    parts = [write_video(tmp_path / f"{len(p[0])}.mjpeg", p, mjpeg) for p in (first, second)]
    path = tmp_path / "both.mjpeg"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    clip = read_clip(path, count=12)
    assert clip.frames.shape == (12, 64, 80, 3)
    # Half the pixels: what is compared is the picture, not its sharpness.
    assert np.abs(clip.frames[11, ::2, ::2].astype(int) - second[5]).mean() < 20


def test_metadata_that_is_not_utf8_is_ignored(tmp_path, pictures):
    path = tmp_path / "x.mp4"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "TITLE-TO-BREAK"
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 96, 128, "yuv420p"
        for picture in pictures[:3]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    data = path.read_bytes()
    assert b"TITLE-TO-BREAK" in data
    path.write_bytes(data.replace(b"TITLE-TO-BREAK", b"\xff\xfe\x80-TO-BREAK\xff"))
    assert read_clip(path).num_frames_decoded == 3


def test_a_name_that_looks_like_an_address_is_a_file(tmp_path, videos, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "concat:a|b 'c' \u00e4.mp4"
    os.link(videos["h264_mp4"], name)
    assert read_clip(Path(name)).num_frames_decoded == NUM_FRAMES


def test_packets_that_show_nothing_are_no_frames(tmp_path, videos):
    # VP8 clears a bit of the first byte in frames that are only referred to (RFC 6386, 9.1).
    hide = {10, 30}
    path = change_packets(
        videos["vp8_webm"],
        tmp_path / "hidden.webm",
        lambda place, data: bytes([data[0] & ~0x10]) + data[1:] if place in hide else data,
    )
    clip = read_clip(path, count=48)
    assert clip.num_frames_decoded == clip.num_frames_expected == NUM_FRAMES - 2
    np.testing.assert_array_equal(clip.frames, decode_all(path))


# Damaged and broken files


def test_damaged_packets_are_counted_and_frames_chosen_among_those_that_decode(tmp_path, videos):
    def spoil(place, data):
        return b"\x00" * len(data) if place % 10 == 5 else data

    path = change_packets(videos["mpeg4_avi"], tmp_path / "damaged.avi", spoil)
    clip = read_clip(path, count=8, min_decoded_ratio=0.5)
    assert clip.num_damaged_packets == 5
    assert clip.num_frames_expected == NUM_FRAMES
    assert clip.num_frames_decoded == NUM_FRAMES - 5
    assert clip.frame_indices.max() < NUM_FRAMES - 5
    message = refused(path, "short", min_decoded_ratio=0.95)
    assert "decodes 45 of 50 frames; at least 0.95" in message


@pytest.mark.parametrize(("name", "num_kept"), [("h264_mp4", 20), ("hevc_mkv", 0)])
def test_a_damaged_picture_ends_the_short_cut_of_leaving_pictures_out(
    tmp_path, videos, name, num_kept
):
    source = videos[name]

    def spoil(place, data):
        # Four in a row hold at least one that others refer to.
        return data[:num_kept] + bytes(len(data) - num_kept) if 18 <= place <= 21 else data

    path = change_packets(source, tmp_path / ("damaged" + source.suffix), spoil)
    clip = read_clip(path, count=8, min_decoded_ratio=0.0)
    assert clip.num_damaged_packets >= 1
    assert clip.num_frames_expected == NUM_FRAMES
    assert NUM_FRAMES // 2 < clip.num_frames_decoded <= NUM_FRAMES


CUT_FORMS = ("mpeg4_avi", "mjpeg_avi", "vp9_webm", "hevc_mkv")


@pytest.mark.parametrize("decoder", ["pyav", pytest.param("decord", marks=needs_decord)])
@pytest.mark.parametrize("name", ["mpeg4_avi", "vp9_webm"])
def test_a_file_cut_in_half_is_short_whichever_decoder_reads_it(tmp_path, videos, name, decoder):
    path = cut(videos[name], tmp_path, 0.5)
    message = refused(path, "short", decoder_name=decoder)
    assert f"of {NUM_FRAMES} frames; at least 0.95" in message
    assert "lower `--min-decoded-ratio`" in message
    clip = read_clip(path, decoder, min_decoded_ratio=0.3)
    assert clip.num_frames_expected == NUM_FRAMES
    assert NUM_FRAMES * 0.3 < clip.num_frames_decoded < NUM_FRAMES * 0.7


def test_an_mp4_cut_behind_its_index_is_short(tmp_path, pictures):
    path = tmp_path / "x.mp4"
    write_video(path, pictures, form("h264_mp4"), muxer_options={"movflags": "faststart"})
    assert not is_cut_short(path)
    refused(cut(path, tmp_path, 0.5), "short")


@pytest.mark.parametrize("name", CUT_FORMS)
def test_is_cut_short_tells_whole_files_from_cut_ones(tmp_path, videos, name):
    assert not is_cut_short(videos[name])
    assert is_cut_short(cut(videos[name], tmp_path, 0.7))


def test_an_avi_that_lacks_its_index_alone_is_whole(tmp_path, videos):
    data = videos["mpeg4_avi"].read_bytes()
    path = tmp_path / "no-index.avi"
    path.write_bytes(data[: data.rindex(b"idx1") + 4])
    assert not is_cut_short(path)
    assert read_clip(path).num_frames_decoded == NUM_FRAMES


def test_a_header_that_claims_too_many_frames_changes_nothing(tmp_path, videos):
    data = bytearray(videos["mpeg4_avi"].read_bytes())
    struct.pack_into("<I", data, data.index(b"avih") + 8 + 16, 431)
    struct.pack_into("<I", data, data.index(b"strh") + 8 + 32, 431)
    path = tmp_path / "lie.avi"
    path.write_bytes(data)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 431
    lie, truth = read_clip(path), read_clip(videos["mpeg4_avi"])
    assert lie.num_frames_decoded == lie.num_frames_expected == NUM_FRAMES
    np.testing.assert_array_equal(lie.frames, truth.frames)


def test_real_videos_whose_headers_claim_more_are_accepted(real_data):
    paths = sorted((real_data / "jhmdb21" / "videos").glob("*/*.avi"))[::60]
    for path in paths:
        with av.open(str(path)) as container:
            claimed = container.streams.video[0].frames
        clip = read_clip(path)
        assert clip.num_frames_decoded == clip.num_frames_expected == len(decode_all(path))
        assert claimed > clip.num_frames_decoded


def cut(source: Path, folder: Path, fraction: float) -> Path:
    data = source.read_bytes()
    path = folder / ("cut-" + source.name)
    path.write_bytes(data[: int(len(data) * fraction)])
    return path


@pytest.mark.parametrize(
    "content", [b"", b"just text\n" * 50, b"\x00" * 5000, b"RIFF\x10\x00\x00\x00AVI LIST", b"\x1aE"]
)
def test_a_file_that_is_no_video_is_undecodable(tmp_path, content):
    path = tmp_path / "x.mp4"
    path.write_bytes(content)
    assert str(path) in refused(path, "undecodable")


def test_an_mp4_whose_index_was_cut_off_is_undecodable(tmp_path, videos):
    path = cut(videos["h264_mp4"], tmp_path, 0.6)
    assert b"moov" in videos["h264_mp4"].read_bytes()
    assert b"moov" not in path.read_bytes()
    assert refused(path, "undecodable").startswith(f"{path} does not open (InvalidDataError: ")


def test_sound_alone_is_undecodable(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        sound = np.zeros((1, 1024), np.float32)
        frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert "none is video" in refused(path, "undecodable")


def test_an_absent_video_is_missing(tmp_path):
    assert "nowhere.avi is absent" in refused(tmp_path / "nowhere.avi", "missing")
    refused(tmp_path / ("x" * 5000), "missing")
    refused(tmp_path / "a\0b.avi", "missing")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_refused_without_waiting_for_a_writer(tmp_path):
    os.mkfifo(tmp_path / "x.mp4")
    assert "not a plain file" in refused(tmp_path / "x.mp4", "undecodable")


# Hostile files


@pytest.fixture
def canary():
    """A server on this machine that counts requests."""
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802
            requests.append(self.path)
            self.send_error(404)

        def log_message(self, *arguments):
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", requests
    server.shutdown()
    thread.join()
    server.server_close()


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{url}/a.ts\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{url}/a.mp4'\n",
    "concat_of_files": "ffconcat version 1.0\nfile '{video}'\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period>'
    "<BaseURL>{url}/</BaseURL></Period></MPD>",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=video 5004 RTP/AVP 96\n",
    "asf_reference": "[Reference]\nRef1={url}/a.asf\n",
}


@pytest.mark.parametrize("head_check", [True, False], ids=["", "without_the_check_of_heads"])
@pytest.mark.parametrize("kind", sorted(PLAYLISTS))
@pytest.mark.parametrize("decoder", ["pyav", pytest.param("decord", marks=needs_decord)])
def test_a_renamed_playlist_is_refused_and_opens_no_address(
    tmp_path, videos, canary, monkeypatch, kind, head_check, decoder
):
    url, requests = canary
    if not head_check:
        monkeypatch.setattr(containers, "refuse_foreign_file", lambda path: None)
    path = tmp_path / "x.mp4"
    path.write_text(PLAYLISTS[kind].format(url=url, video=videos["h264_mp4"]))
    refused(path, "undecodable", decoder_name=decoder)
    assert requests == []


def test_the_canary_would_be_seen(tmp_path, canary):
    url, requests = canary
    path = tmp_path / "x.m3u8"
    path.write_text(PLAYLISTS["hls"].format(url=url))
    with pytest.raises(av.FFmpegError):
        av.open(str(path), options={"protocol_whitelist": "file,http,tcp"})
    assert requests == ["/a.ts"]


@pytest.mark.parametrize("decoder", ["pyav", pytest.param("decord", marks=needs_decord)])
def test_frames_beyond_the_pixel_budget_are_refused_by_the_mere_claim(tmp_path, videos, decoder):
    data = bytearray(videos["msmpeg4_avi"].read_bytes())
    struct.pack_into("<II", data, data.index(b"strf") + 8 + 4, 10000, 10000)
    path = tmp_path / "bomb.avi"
    path.write_bytes(data)
    message = refused(path, "too_large", decoder_name=decoder)
    assert "at most 67108864" in message


def test_frames_beyond_a_small_pixel_budget_are_refused_by_their_size(videos):
    message = refused(videos["h264_mp4"], "too_large", max_pixels=128 * 96 - 1)
    assert "frames of 128x96 = 12288 pixels; at most 12287 are allowed" in message
    assert read_clip(videos["h264_mp4"], max_pixels=128 * 96).frames.shape == (8, 96, 128, 3)


def test_the_codec_is_held_to_the_pixel_budget_when_the_header_claims_less(tmp_path, videos):
    data = bytearray(videos["mjpeg_avi"].read_bytes())
    struct.pack_into("<II", data, data.index(b"strf") + 8 + 4, 16, 16)
    path = tmp_path / "lie.avi"
    path.write_bytes(data)
    assert read_clip(path).frames.shape == (8, 96, 128, 3)
    refused(path, "too_large", max_pixels=1000)


# Registry


def test_decoders_are_listed_by_name():
    assert {"pyav", "decord"} <= set(decoder_names())


def test_an_unknown_decoder_is_refused_with_the_known_ones():
    with pytest.raises(BackendError, match="unknown decoder 'opencv'; known: decord, pyav"):
        get_decoder("opencv")


def test_decord_says_what_to_do_when_it_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(BackendError, match="install decord, or pass `--decoder pyav`") as caught:
        get_decoder("decord")
    assert "\n" not in str(caught.value)
    assert get_decoder("pyav").name == "pyav"


def test_an_unknown_frame_rule_is_refused(videos):
    with pytest.raises(ConfigError, match="unknown frame rule 'first'"):
        read_clip(videos["mpeg4_avi"], rule="first")


def test_versions_name_the_libraries_that_decide_the_pixels():
    text = get_decoder("pyav").version()
    assert av.__version__ in text
    assert "libavcodec {}.{}.{}".format(*av.library_versions["libavcodec"]) in text
