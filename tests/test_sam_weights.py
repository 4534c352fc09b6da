import hashlib
import http.server
import threading

import pytest
import torch
from tiny_models import open_clip, segment_anything, tiny_clip, tiny_clip_config, tiny_sam

from pipeline.errors import BackendError, ConfigError, ResourceError
from pipeline.segmenters import get_segmenter
from pipeline.segmenters.sam import checkpoints, published_weights
from pipeline.segmenters.sam.checkpoints import find_checkpoint
from pipeline.segmenters.sam.loading import load_sam, resize_input
from pipeline.segmenters.sam.published_weights import PublishedFile, fetch
from pipeline.segmenters.sam_clip.weights import load_clip

CONTENT = b"weights " * 300_000


class Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):  # noqa: N802
        self.answer(b"")

    def do_GET(self):  # noqa: N802
        self.answer(self.server.content)

    def answer(self, content):
        self.server.requests.append(f"{self.command} {self.path}")
        self.send_response(200 if self.path.endswith(".pth") else 404)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests, server.content = [], CONTENT
        server.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def own_world(tmp_path, monkeypatch):
    """No weights but those a test makes; no network but the test's own server."""
    for name in ("I2ST_SAM_CHECKPOINT", "I2ST_CLIP_CHECKPOINT", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("I2ST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(checkpoints, "ADDRESS", "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)


def published(server, content=CONTENT, name="sam.pth"):
    digest = hashlib.sha256(content).hexdigest()
    return PublishedFile("SAM weights", name, server.address, digest, "give `--sam FILE`")


def files_in(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_a_file_is_downloaded_once(server, tmp_path, caplog):
    path = fetch(published(server))
    assert path == tmp_path / "cache" / "sam.pth"
    assert path.read_bytes() == CONTENT
    assert fetch(published(server)) == path
    assert server.requests == ["HEAD /sam.pth", "GET /sam.pth"]
    assert files_in(path.parent) == ["sam.pth"]
    assert f"downloading {server.address}/sam.pth, 2 MB, once" in caplog.text


def test_a_file_is_downloaded_once_by_those_who_ask_at_once(server):
    paths = []
    threads = [
        threading.Thread(target=lambda: paths.append(fetch(published(server)))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(paths)) == 1
    assert server.requests.count("GET /sam.pth") == 1


@pytest.mark.parametrize("content", [CONTENT[:-1], b"", CONTENT + b"x"])
def test_a_file_with_another_checksum_is_refused_and_removed(server, tmp_path, content):
    server.content = content
    digest = hashlib.sha256(content).hexdigest()
    with pytest.raises(BackendError, match=f"sha256 {digest} and was removed; needed: "):
        fetch(published(server))
    assert files_in(tmp_path / "cache") == []


def test_a_download_that_breaks_off_leaves_nothing(server, tmp_path, monkeypatch):
    monkeypatch.setattr(published_weights, "READ_SECONDS", 0.2)
    monkeypatch.setattr(Handler, "answer", half_an_answer)
    with pytest.raises(BackendError, match="cannot be downloaded"):
        fetch(published(server))
    assert files_in(tmp_path / "cache") == []


def half_an_answer(self, content):
    self.send_response(200)
    self.send_header("Content-Length", str(len(CONTENT)))
    self.end_headers()
    self.wfile.write(content[:1000])
    self.wfile.flush()
    if content:
        threading.Event().wait(0.5)


def test_a_file_that_is_not_there_is_told_in_one_line(server):
    with pytest.raises(BackendError, match=r"SAM weights sam.pt .*\(Not Found\).*or give `--sam"):
        fetch(published(server, name="sam.pt"))


@pytest.mark.parametrize("offline", [None, "1"])
def test_without_a_network_the_file_is_told_in_one_line(tmp_path, monkeypatch, offline):
    reason = "Connection refused"
    if offline:
        monkeypatch.setenv("HF_HUB_OFFLINE", offline)
        reason = "HF_HUB_OFFLINE is set"
    with pytest.raises(BackendError, match=f"sam_vit_b_01ec64.pth .*{reason}") as caught:
        get_segmenter("sam_clip")
    message = str(caught.value)
    assert "\n" not in message
    hints = ("--sam FILE", "--segmenter precomputed --mask-files DIR", "--segmenter none")
    for hint in (f"put it into {tmp_path / 'cache'}", *hints):
        assert hint in message


def test_a_cache_folder_that_cannot_be_made_is_a_lack_of_room(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("I2ST_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ResourceError, match="cannot write .*set I2ST_CACHE"):
        fetch(published(server))


def test_weights_are_looked_for_in_order(server, tmp_path, monkeypatch):
    name, _ = checkpoints.PUBLISHED["vit_h"]
    digest = hashlib.sha256(CONTENT).hexdigest()
    monkeypatch.setitem(checkpoints.PUBLISHED, "vit_h", (name, digest))
    monkeypatch.setattr(checkpoints, "ADDRESS", server.address)
    downloaded = find_checkpoint("vit_h")
    assert downloaded == (tmp_path / "cache" / name, "vit_h")
    usual = tmp_path / "weights" / name
    usual.parent.mkdir()
    usual.write_bytes(b"usual")
    assert find_checkpoint("vit_h")[0].resolve() == usual
    named, argument = tmp_path / "named.pth", tmp_path / "argument.pth"
    named.write_bytes(b"named")
    argument.write_bytes(b"argument")
    monkeypatch.setenv("I2ST_SAM_CHECKPOINT", str(named))
    assert find_checkpoint("vit_h") == (named, "vit_h")
    assert find_checkpoint("") == (named, None)
    assert find_checkpoint(str(argument)) == (argument, None)
    assert server.requests.count(f"GET /{name}") == 1


@pytest.mark.parametrize("source", ["the setting", "I2ST_SAM_CHECKPOINT"])
def test_a_named_file_that_is_absent_is_told(tmp_path, monkeypatch, source):
    path = tmp_path / "none.pth"
    if source == "I2ST_SAM_CHECKPOINT":
        monkeypatch.setenv(source, str(path))
    spec = "sam_clip" if source != "the setting" else f"sam_clip:{path}"
    with pytest.raises(BackendError, match=f"SAM weights {path}, which {source} names") as caught:
        get_segmenter(spec)
    assert "--sam FILE" in str(caught.value)


@pytest.fixture
def small_vit_b(tmp_path, monkeypatch):
    """File of a small SAM that calls itself vit_b."""
    registry = {"vit_b": lambda checkpoint: tiny_sam(side=1024, width=768)}
    monkeypatch.setattr(segment_anything, "sam_model_registry", registry)
    torch.save(tiny_sam(side=1024, width=768).state_dict(), tmp_path / "sam.pth")
    return tmp_path / "sam.pth"


def test_a_checkpoint_says_which_sam_it_is(small_vit_b):
    decoder, facts = load_sam(small_vit_b, "cpu")
    digest = hashlib.sha256(small_vit_b.read_bytes()).hexdigest()
    assert facts == {"sam": "vit_b", "sam_sha256": digest, "sam_side": 1024}
    assert decoder.side == 1024
    assert load_sam(small_vit_b, "cpu", compile=True)[1] == {**facts, "sam_compiled": True}


def test_a_checkpoint_of_another_type_than_asked_for_is_refused(small_vit_b, monkeypatch):
    monkeypatch.setenv("I2ST_SAM_CHECKPOINT", str(small_vit_b))
    with pytest.raises(BackendError, match="holds SAM vit_b; needed: vit_h; give `--sam vit_b`"):
        load_sam("vit_h", "cpu")
    assert load_sam("vit_b", "cpu")[1]["sam"] == "vit_b"


def test_a_file_that_is_no_sam_checkpoint_is_refused(tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(BackendError, match=r"other.pth is no SAM checkpoint"):
        load_sam(tmp_path / "other.pth", "cpu")
    torch.save(tiny_sam(width=48).state_dict(), tmp_path / "tiny.pth")
    with pytest.raises(BackendError, match=r"width 48; needed: one of vit_b, vit_l, vit_h"):
        load_sam(tmp_path / "tiny.pth", "cpu")


@pytest.mark.parametrize("side", [768, 512])
def test_a_smaller_input_gives_smaller_masks_of_the_same_frame(small_vit_b, side):
    decoder, facts = load_sam(small_vit_b, "cpu", side=side)
    assert facts["sam_side"] == side
    embedded = decoder.embed(torch.zeros(1, 30, 40, 3, dtype=torch.uint8))
    assert embedded.embeddings.shape[2:] == (side // 16, side // 16)
    assert embedded.extent == (side / 4 * 0.75, side / 4)
    boxes = torch.tensor([[0.1, 0.1, 0.5, 0.5]])
    ours = decoder.decode_boxes(embedded, torch.tensor([0]), boxes)
    assert ours.logits.shape == (1, 1, side // 4, side // 4)


def test_places_of_a_smaller_input_are_interpolated():
    sam = tiny_sam(side=128)
    ramp = torch.arange(8.0).view(1, 8, 1, 1).expand(1, 8, 8, 48)
    sam.image_encoder.pos_embed = torch.nn.Parameter(ramp.clone(), requires_grad=False)
    resize_input(sam, 64)
    places = sam.image_encoder.pos_embed
    assert places.shape == (1, 4, 4, 48)
    # Cells twice as large have their centres between those of two small ones.
    torch.testing.assert_close(places[0, 1:3, 0, 0], torch.tensor([2.5, 4.5]), atol=0.05, rtol=0)
    unchanged = tiny_sam(side=128)
    before = unchanged.image_encoder.pos_embed.clone()
    resize_input(unchanged, 128)
    assert torch.equal(unchanged.image_encoder.pos_embed, before)


def test_an_input_of_another_size_is_refused(small_vit_b):
    with pytest.raises(ConfigError, match="SAM input side 640; needed: one of 1024, 768, 512"):
        load_sam(small_vit_b, "cpu", side=640)


def test_the_clip_file_of_the_environment_is_the_default_models(tmp_path, monkeypatch):
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-16-quickgelu", tiny_clip_config())
    file = tmp_path / "clip.pt"
    torch.save(tiny_clip().state_dict(), file)
    monkeypatch.setenv("I2ST_CLIP_CHECKPOINT", str(file))
    _, facts = load_clip(None, "cpu", mode="clearclip", short_side=64)
    assert facts["clip"] == "ViT-B-16-quickgelu/openai"
    assert facts["clip_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    file.unlink()
    with pytest.raises(BackendError, match="which I2ST_CLIP_CHECKPOINT names, are absent"):
        load_clip("", "cpu", mode="clearclip", short_side=64)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("ViT-B-16/openai", "ViT-B-16-quickgelu/openai"),
        ("ViT-B-16/metaclip_400m", "ViT-B-16-quickgelu/metaclip_400m"),
        ("ViT-B-16-quickgelu/laion2b_s34b_b88k", "ViT-B-16/laion2b_s34b_b88k"),
    ],
)
def test_clip_weights_of_another_activation_are_refused_with_the_right_model(wrong, right):
    with pytest.raises(BackendError, match=f"QuickGELU mismatch.*give `--clip {right}`"):
        load_clip(wrong, "cpu", mode="clearclip", short_side=64)


def test_a_clip_of_other_parts_is_refused(tmp_path):
    (tmp_path / "clip.pt").touch()
    for name in ("coca_ViT-B-32", "ViT-B-16-SigLIP"):
        with pytest.raises(BackendError, match=f"{name} is no pair of plain.*give `--clip ViT-B"):
            load_clip(f"{name}/{tmp_path / 'clip.pt'}", "cpu", mode="clearclip", short_side=64)
