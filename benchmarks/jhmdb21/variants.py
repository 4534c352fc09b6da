"""The rows of the table: what is evaluated, how it is trained, and on which shards."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

TRAIN_EPISODES = 9600  # 150 steps
REFERENCES = ("bi_mhm", "linear_probe")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row."""

    title: str
    rank: int
    """Lower ones run first."""
    method: str = "i2st"
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of `TrainConfig`."""
    candidates: tuple[Mapping[str, Any], ...] = ()
    """More settings, of which each split chooses inside its train classes."""
    shards: str = "base"
    trained: bool = True
    """False: used as it is, at step 0."""
    trained_as: str = ""
    """Another variant, whose runs this one reads in another way."""

    @property
    def seeded(self) -> bool:
        """Whether training seeds matter."""
        return self.method in ("i2st", *TRAINED_RIVALS) or bool(self.trained_as)

    def with_candidate(self, number: int) -> "Variant":
        """Return this variant with one of its candidates settled."""
        settings = merged(self.settings, self.candidates[number])
        return replace(self, settings=settings, candidates=())


def merged(settings: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Put settings on top of others; mappings are merged."""
    result = dict(settings)
    for name, value in more.items():
        old = result.get(name, {})
        result[name] = merged(old, value) if isinstance(value, Mapping) else value
    return result


TRAINED_RIVALS = ("trx", "hyrsm")
FROZEN = ("random", "protonet", "simpleshot", "otam", "bi_mhm", "linear_probe")


def _frozen(name: str) -> Variant:
    return Variant(title=name, rank=0, method=name, trained=False)


def _rival(name: str, *candidates: Mapping[str, Any], **settings: Any) -> Variant:
    """A trained method; of candidates every split chooses for itself."""
    # The field has 16 episodes per step, too.
    basis = {"episodes_per_step": 16, "episodes": 16 * 150, **settings}
    return Variant(title=name, rank=2, method=name, settings=basis, candidates=candidates)


SHORT = {"episodes": 16 * 20}


def _i2st(title: str, rank: int = 3, *, shards: str = "base", **settings: Any) -> Variant:
    return Variant(title=f"I2ST, {title}", rank=rank, shards=shards, settings=settings)


def _other_head(name: str, title: str, *, of: str = "i2st", shards: str = "base") -> Variant:
    return Variant(title=title, rank=1, method=name, trained_as=of, shards=shards)


VARIANTS: dict[str, Variant] = {
    **{name: _frozen(name) for name in FROZEN},
    "frozen_both": replace(
        _frozen("frozen_both"), title="bi_mhm + linear_probe, mean of log-probabilities"
    ),
    "i2st": replace(_i2st("true masks", 1), title="**I2ST**, true masks"),
    "i2st_probe": _other_head("probe", "linear probe on I2ST's descriptors"),
    "i2st_both": _other_head("both", "I2ST + that probe, mean of log-probabilities"),
    "i2st_beside": _other_head("beside", "I2ST + linear_probe, mean of log-probabilities"),
    "i2st_off": _i2st("no mask supervision (beta = 0)", 1, masks="off"),
    "i2st_shuffled": _i2st("shuffled masks", 1, masks="shuffled"),
    "step0": replace(_i2st("step 0", 1), trained=False),
    "linear": Variant(title="plain projection", rank=1, settings={"preset": "linear"}),
    "hyrsm": _rival(
        "hyrsm",
        {"fast_rate": 1e-6},
        {"fast_rate": 1e-4, **SHORT},
        {"fast_rate": 1e-5},
        {"fast_rate": 1e-5, **SHORT},
    ),
    # At temperature 1, the paper's, logits of frozen features begin near +-50. Measured inside the
    # train and val classes: from 1e-4 on TRX loses on new classes with every step.
    "trx": _rival("trx", fast_rate=1e-5, options={"temperature": 50.0}),
    "i2st_deeplab": _i2st("DeepLabV3 masks", shards="deeplab"),
    "pool_linear": _i2st("no spatial or temporal attention", preset="pool_linear"),
    "i2st_centre": _i2st("centre prior for masks", shards="centre"),
    "i2st_attention": _i2st("masked_attention", network={"instances": "masked_attention"}),
    "i2st_otam": _i2st("global term by OTAM", network={"global_matching": "otam"}),
    # From zero, attention cannot begin to see order (benchmarks.motion).
    **{
        name: _i2st(
            f"attention from random, slow_rate {rate:g}",
            network={"attention_start": "random"},
            slow_rate=rate,
        )
        for name, rate in {"i2st_start5": 1e-5, "i2st_start4": 1e-4, "i2st_start3": 1e-3}.items()
    },
    "i2st_chosen": replace(
        _i2st("settings chosen inside the train classes", 5),
        candidates=(
            {},
            {"episodes": TRAIN_EPISODES // 2},
            {"network": {"global_matching": "otam"}},
            {"network": {"instance_init": 1.0}},
            {"network": {"image_token": "embedding"}},
        ),
    ),
    "bi_mhm_frames16": replace(
        _frozen("bi_mhm"), title="bi_mhm, 16 frames", shards="frames16", rank=4
    ),
    "i2st_frames16": _i2st("16 frames", 4, shards="frames16"),
    "i2st_views": _i2st("stored views", 4, shards="views"),
    **{
        f"{name}_lite2": replace(_frozen(name), title=f"{name}, Lite2", shards="lite2", rank=4)
        for name in ("simpleshot", "otam", "bi_mhm", "linear_probe")
    },
    "hyrsm_lite2": replace(
        _rival("hyrsm", fast_rate=1e-5), title="hyrsm, Lite2", shards="lite2", rank=4
    ),
    "trx_lite2": replace(
        _rival("trx", fast_rate=1e-5, options={"temperature": 50.0}),
        title="trx, Lite2",
        shards="lite2",
        rank=4,
    ),
    "i2st_lite2_off": _i2st("Lite2, no mask supervision", 4, shards="lite2", masks="off"),
    "i2st_lite2_shuffled": _i2st("Lite2, shuffled masks", 4, shards="lite2", masks="shuffled"),
    "i2st_lite2": _i2st("Lite2 (9 x 9)", 4, shards="lite2"),
    "i2st_lite2_probe": _other_head(
        "probe", "linear probe on I2ST's descriptors, Lite2", of="i2st_lite2", shards="lite2"
    ),
    **{
        f"{name}_grid14": replace(
            _frozen(name), title=f"{name}, 448 pixels", shards="grid14", rank=4
        )
        for name in ("simpleshot", "otam", "bi_mhm", "linear_probe")
    },
    "hyrsm_grid14": replace(
        _rival("hyrsm", fast_rate=1e-5), title="hyrsm, 448 pixels", shards="grid14", rank=4
    ),
    "i2st_grid14": _i2st("448 pixels (14 x 14)", 4, shards="grid14"),
    "i2st_grid14_probe": _other_head(
        "probe", "linear probe on I2ST's descriptors, 448 pixels", of="i2st_grid14", shards="grid14"
    ),
    "i2st_grid14_off": _i2st("448 pixels, no mask supervision", 4, shards="grid14", masks="off"),
    "i2st_grid14_shuffled": _i2st(
        "448 pixels, shuffled masks", 4, shards="grid14", masks="shuffled"
    ),
    "linear_grid14": Variant(
        title="plain projection, 448 pixels",
        rank=4,
        settings={"preset": "linear"},
        shards="grid14",
    ),
}

COMPARISONS = {
    "I2ST against bi_mhm": ("i2st", "bi_mhm"),
    "I2ST against linear_probe": ("i2st", "linear_probe"),
    "I2ST beside linear_probe against bi_mhm beside it": ("i2st_beside", "frozen_both"),
    "mask supervision: true masks against none": ("i2st", "i2st_off"),
    "right masks: true against shuffled": ("i2st", "i2st_shuffled"),
    "masks: true against a centre prior": ("i2st", "i2st_centre"),
    "noisy masks: DeepLabV3 against none": ("i2st_deeplab", "i2st_off"),
    "I2ST against a plain projection": ("i2st", "linear"),
    "training: I2ST against its step 0": ("i2st", "step0"),
    "spatial and temporal attention: with against without": ("i2st", "pool_linear"),
    "attention that begins at random against from zero": ("i2st_start4", "i2st"),
    "masked_attention against masked_pool": ("i2st_attention", "i2st"),
    "probe on I2ST's descriptors against probe on the encoder's": ("i2st_probe", "linear_probe"),
    "16 frames: I2ST against bi_mhm": ("i2st_frames16", "bi_mhm_frames16"),
    **{
        f"Lite2: I2ST against {name}": ("i2st_lite2", f"{name}_lite2")
        for name in ("simpleshot", "otam", "bi_mhm", "linear_probe", "hyrsm", "trx")
    },
    "Lite2: true masks against none": ("i2st_lite2", "i2st_lite2_off"),
    "Lite2: true masks against shuffled": ("i2st_lite2", "i2st_lite2_shuffled"),
    "Lite2: probe on I2ST's descriptors against probe on the encoder's": (
        "i2st_lite2_probe",
        "linear_probe_lite2",
    ),
    **{
        f"448 pixels: I2ST against {name}": ("i2st_grid14", f"{name}_grid14")
        for name in ("simpleshot", "otam", "bi_mhm", "linear_probe", "hyrsm")
    },
    "448 pixels: probe on I2ST's descriptors against probe on the encoder's": (
        "i2st_grid14_probe",
        "linear_probe_grid14",
    ),
    "448 pixels: I2ST against a plain projection": ("i2st_grid14", "linear_grid14"),
    "448 pixels: true masks against none": ("i2st_grid14", "i2st_grid14_off"),
    "448 pixels: true masks against shuffled": ("i2st_grid14", "i2st_grid14_shuffled"),
    "I2ST at 448 pixels against bi_mhm at 224": ("i2st_grid14", "bi_mhm"),
    "I2ST at 448 pixels against linear_probe at 224": ("i2st_grid14", "linear_probe"),
}
