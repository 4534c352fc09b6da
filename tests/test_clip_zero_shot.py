"""CLIP's zero-shot scores against open_clip's own text encoder."""

import hashlib

import numpy as np
import pytest
import torch
from synthetic_shards import FINGERPRINT, make_shards
from tiny_models import open_clip, tiny_clip_config

from i2st_model.evaluation import EvaluateConfig, evaluate
from i2st_model.features import FeatureStore
from i2st_model.load_method import load_method
from i2st_model.matching import unit
from i2st_model.methods import get_method
from i2st_model.methods.clips import Clips, TrainStatistics
from i2st_model.records.episode_checks import rows_of
from pipeline.encoders.open_clip_text import SENTENCES, build_text_tower
from pipeline.errors import BackendError, ConfigError

E = 32
NAMES = ("brush_hair", "ApplyEyeMakeup", "Pushing [something] so that it falls", "run")
SENTENCE = "a video of a person {}."
WORDS = ("brush hair", "apply eye makeup", "pushing something so that it falls", "run")


@pytest.fixture
def clip(monkeypatch, tmp_path):
    """An official open_clip model of a tiny configuration, and a file of its weights."""
    from open_clip import factory

    apart = {**tiny_clip_config(), "custom_text": True}
    foreign = {**tiny_clip_config(), "text_cfg": {"hf_model_name": "roberta-base"}}
    configs = {"tiny": tiny_clip_config(), "tiny-apart": apart, "tiny-foreign": foreign}
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", {**factory._MODEL_CONFIGS, **configs})
    torch.manual_seed(0)
    return official("tiny", tmp_path)


def official(name, folder):
    model = open_clip.create_model(name, pretrained=None).eval()
    with torch.no_grad():
        model.logit_scale.fill_(np.log(37.0))
    path = folder / f"{name}.pt"
    torch.save(model.state_dict(), path)
    return model, path


def encoder(path, name="tiny"):
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"name": f"open_clip:{name}/{path}", "weights_sha256": digest}


def fitted(facts, **options):
    method = get_method("clip_zero_shot", **options)
    method.fit(TrainStatistics(embedding_dim=E, class_names=NAMES, encoder=facts))
    return method


def official_text(model, sentences):
    with torch.no_grad():
        text = model.encode_text(open_clip.get_tokenizer("tiny")(sentences))
    return (text / text.norm(dim=-1, keepdim=True)).double().numpy()


@pytest.mark.parametrize("name", ["tiny", "tiny-apart"])
def test_text_tower_is_that_of_open_clip(clip, tmp_path, name):
    model, path = official(name, tmp_path)
    tower = build_text_tower(f"{name}/{path}")
    sentences = [f"a photo of {number} dogs" for number in range(SENTENCES + 3)]
    with torch.no_grad():
        expected = model.encode_text(open_clip.get_tokenizer("tiny")(sentences))
    torch.testing.assert_close(tower.encode(sentences), expected, atol=1e-5, rtol=1e-5)
    assert tower.scale == pytest.approx(37.0, rel=1e-6)


def test_scores_are_scaled_cosines_of_the_mean_frame_and_the_class_name(clip):
    model, path = clip
    method = fitted(encoder(path))
    frames = torch.randn(6, 4, E, dtype=torch.float64)
    classes = torch.tensor([0, 1, 2, 3, 1, 2])
    values = method.prepare(Clips(features=frames, classes=classes))
    support, query = torch.tensor([[[0, 0], [1, 4], [2, 5]]]), torch.tensor([[3, 4]])
    found = method.score(
        {name: value[support] for name, value in values.items()},
        {name: value[query] for name, value in values.items()},
    )[0].numpy()
    text = official_text(model, [SENTENCE.format(words) for words in WORDS])
    for q, row in enumerate((3, 4)):
        mean = sum(frame / np.linalg.norm(frame) for frame in frames[row].numpy()) / 4
        mean /= np.linalg.norm(mean)
        expected = [37.0 * mean @ text[number] for number in (0, 1, 2)]
        np.testing.assert_allclose(found[q], expected, atol=1e-4)


def test_half_precision_frames_are_widened(clip):
    method = fitted(encoder(clip[1]))
    features = torch.randn(2, 3, E).half()
    prepared = method.prepare(Clips(features=features, classes=torch.arange(2)))
    assert {value.dtype for value in prepared.values()} == {torch.float32}


def test_query_classes_are_not_looked_at(clip):
    method = fitted(encoder(clip[1]))
    frames = torch.randn(2, 4, E)
    made = [
        method.prepare(Clips(features=frames, classes=torch.tensor(c))) for c in ([0, 1], [0, 3])
    ]
    support = {name: value[:1].view(1, 1, 1, -1) for name, value in made[0].items()}
    scores = [
        method.score(support, {name: value[1:].unsqueeze(0) for name, value in one.items()})
        for one in made
    ]
    assert torch.equal(*scores)


def test_template_is_an_option(clip):
    model, path = clip
    method = fitted(encoder(path), template="{class}!")
    expected = official_text(model, [f"{words}!" for words in WORDS])
    np.testing.assert_allclose(method.texts.numpy(), expected, atol=1e-5)
    with pytest.raises(ConfigError, match=r"template='a video'; a sentence with {class}"):
        get_method("clip_zero_shot", template="a video")


def test_evaluation_gives_the_method_its_classes(clip, tmp_path):
    _, path = clip
    fingerprint = {**FINGERPRINT, "encoder": encoder(path)}
    store = FeatureStore(make_shards(tmp_path / "s", channels=E, fingerprint=fingerprint))
    method, _ = load_method("clip_zero_shot", store, shards=tmp_path, device="cpu")
    found = evaluate(method, store, EvaluateConfig(episodes=40, device="cpu"))
    again = evaluate(method, store, EvaluateConfig(episodes=40, shot=5, device="cpu"))
    assert method.uses_class_names
    assert method.classes_apart
    clips = unit(unit(store.frame_embedding(np.arange(len(store.reader.video_ids)))).mean(dim=1))
    for one in (found.result, again.result):
        rows, names = rows_of(one.episodes, store), np.array(one.episodes.class_names)
        for episode in range(40):
            numbers = store.class_numbers(names[one.episodes.classes[episode]].tolist())
            logits = clips[rows[one.episodes.query[episode, :, 0]]] @ method.texts[numbers].T
            assert one.predicted[episode, :, 0].tolist() == logits.argmax(dim=1).tolist()
    # Random weights recognise nothing, but what they say of a video does not depend on the shots.
    assert found.accuracy.mean < 60
    assert len(np.unique(again.result.predicted)) > 1


# --- refusals ---


def test_encoders_without_text_are_refused():
    with pytest.raises(BackendError, match="encoder efficientnet-lite0, which has no text tower"):
        fitted({"name": "efficientnet-lite0", "weights_sha256": "0"})


def test_other_weights_than_the_shards_are_refused(clip, tmp_path):
    _, path = clip
    facts = {**encoder(path), "weights_sha256": "ab" * 32}
    with pytest.raises(BackendError, match="made with abababababab; the same are needed; pass --m"):
        fitted(facts)
    other = tmp_path / "moved.pt"
    path.rename(other)
    facts = {**encoder(other), "name": "open_clip:tiny/gone.pt"}
    hint = "pass --method clip_zero_shot:weights=FILE, or leave"
    with pytest.raises(BackendError, match=f"'gone.pt' is neither weights.*; {hint}"):
        fitted(facts)
    method = get_method(f"clip_zero_shot:weights={other}")  # the hint works
    method.fit(TrainStatistics(embedding_dim=E, class_names=NAMES, encoder=facts))


def test_text_towers_of_other_packages_are_refused(clip, tmp_path):
    with pytest.raises(BackendError, match="text tower of open_clip:tiny-foreign is roberta-base"):
        fitted(encoder(clip[1], "tiny-foreign"))


def test_classes_have_to_be_given(clip):
    method = fitted(encoder(clip[1]))
    with pytest.raises(ValueError, match=r"clips\.classes is None"):
        method.prepare(Clips(features=torch.randn(1, 4, E)))
