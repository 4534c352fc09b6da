"""CLIP's zero-shot classifier: class names instead of support clips.

Shape letters: B clips, E episodes, Q query clips, N way, K shot, T frames, D embedding channels.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from i2st_model.matching import unit
from i2st_model.methods.base import FewShotMethod
from i2st_model.methods.clips import Clips, TrainStatistics
from pipeline.encoders.open_clip_text import TextTower, build_text_tower, require_own_words
from pipeline.errors import BackendError, ConfigError
from pipeline.prompt_words import label_words

PREFIX = "open_clip:"


class ClipZeroShot(FewShotMethod):
    """Cosine of the clip's mean frame and a sentence with the class name.

    Radford et al., "Learning transferable visual models from natural language supervision", ICML
    2021, arXiv:2103.00020, by the text tower of the encoder that made the shards. Frames are
    normalised, averaged over time (as the mean pooling of CLIP4Clip, arXiv:2104.08860) and
    normalised again; logits are the cosine times the model's own scale. Support clips are not
    looked at: only their class counts, whose *name* is read, which no other method may do.

    Args:
        template: sentence with ``{class}``.
        weights: file with the encoder's weights, where the shards' encoder came from a file.

    Raises:
        ConfigError: the template lacks ``{class}``.
    """

    name = "clip_zero_shot"
    uses_class_names = True
    classes_apart = True
    shots_apart = True
    texts: Tensor

    def __init__(
        self,
        *,
        template: str = "a video of a person {class}.",
        weights: str | None = None,
    ) -> None:
        super().__init__()
        if "{class}" not in template:
            raise ConfigError(
                f"template={template!r}; a sentence with {{class}} is needed; put it where the "
                "class name belongs"
            )
        self.template = template
        self.weights = None if weights is None else Path(weights)

    def fit(self, train: TrainStatistics) -> None:
        """Encode every class name once.

        Args:
            train: class names and encoder of the shards.

        Raises:
            BackendError: the encoder has no text tower, or its weights are absent or others.
        """
        encoder = str(train.encoder.get("name", "unknown"))
        if not encoder.startswith(PREFIX):
            raise BackendError(
                f"clip_zero_shot on shards of encoder {encoder}, which has no text tower; shards "
                "of an open_clip encoder are needed; extract with --encoder "
                "open_clip:ViT-B-16-quickgelu/openai, or leave this method out"
            )
        tower = self._tower(encoder)
        made_with = train.encoder.get("weights_sha256")
        if made_with != tower.weights_sha256:
            raise BackendError(
                f"the weights of {encoder} found here have sha256 {tower.weights_sha256[:12]}, the "
                f"shards were made with {str(made_with)[:12]}; the same are needed; pass "
                "--method clip_zero_shot:weights=FILE"
            )
        texts = tower.encode([self._sentence(name) for name in train.class_names])
        self.scale = tower.scale
        self.register_buffer("texts", unit(texts))

    def prepare(self, clips: Clips) -> dict[str, Tensor]:
        """Map (B, T, D) frame embeddings to ``clip`` and the class name's ``text``, both (B, D).

        Args:
            clips: B clips with ``classes``.

        Returns:
            Vectors of length one.

        Raises:
            ValueError: the clips do not say their classes.
        """
        if clips.classes is None:
            raise ValueError("clips.classes is None; class numbers are needed; pass classes")
        features = clips.features
        wide = features if features.dtype.itemsize > 2 else features.float()
        clip_BD = unit(unit(wide).mean(dim=1))
        return {"clip": clip_BD, "text": self.texts[clips.classes].to(clip_BD)}

    def score(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Tensor:
        """Score queries' ``clip`` (E, Q, D) against ``text`` (E, N, K, D): (E, Q, N) float."""
        # All shots of a class have its one text.
        return self.scale * query["clip"] @ support["text"][:, :, 0].transpose(1, 2)

    def _tower(self, encoder: str) -> TextTower:
        model = encoder.removeprefix(PREFIX)
        require_own_words(model)
        try:
            return build_text_tower(model, weights=self.weights)
        except BackendError as error:
            reason = str(error).split("; ")[0]
            raise BackendError(
                f"{reason}; clip_zero_shot needs the text tower of the shards' encoder; pass "
                "--method clip_zero_shot:weights=FILE, or leave this method out"
            ) from error

    def _sentence(self, label: str) -> str:
        # Something-Something puts its gaps in brackets, which label_words would drop with the word.
        words = label_words(label.translate({ord("["): None, ord("]"): None}))
        return self.template.replace("{class}", words)
