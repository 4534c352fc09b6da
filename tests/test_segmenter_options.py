from dataclasses import dataclass

import pytest

from pipeline.errors import ConfigError
from pipeline.segmenters import get_segmenter
from pipeline.segmenters.options import settings_from


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    share: float = 0.5
    count: int = 3
    mode: str = "a"


def test_options_fill_settings_from_values_or_their_text():
    filled = settings_from(Settings, {"share": "0.25", "count": 4, "mode": "b"}, segmenter="x")
    assert filled == Settings(share=0.25, count=4, mode="b")
    assert settings_from(Settings, {}, segmenter="x") == Settings()


def test_an_option_that_is_no_number_or_unknown_is_refused():
    needed = "needed: a whole number of 0 or more; pass --segmenter-option count=3"
    for value in ("2.5", 2.5, -1, "many", [3], None, float("inf")):
        with pytest.raises(ConfigError, match=rf"option count=.* of segmenter 'x'; {needed}"):
            settings_from(Settings, {"count": value}, segmenter="x")
    for value in ("nan", float("nan"), -0.5, "inf"):
        with pytest.raises(ConfigError, match=r"share=.*; needed: a number of 0 or more; .*=0\.5"):
            settings_from(Settings, {"share": value}, segmenter="x")
    with pytest.raises(ConfigError, match="needed: a word"):
        settings_from(Settings, {"mode": ["a"]}, segmenter="x")
    with pytest.raises(
        ConfigError, match=r"no option 'shares' \(did you mean 'share'\?\); known: count, mode, sh"
    ):
        settings_from(Settings, {"shares": 1}, segmenter="x")


@pytest.mark.parametrize("spec", ["none", "center_prior", "precomputed", "sam3"])
def test_a_segmenter_refuses_options_that_it_does_not_have(spec):
    with pytest.raises(ConfigError, match=rf"segmenter '{spec}' has no option 'clip'.*drop it"):
        get_segmenter(spec, clip="ViT-B-16/openai")
