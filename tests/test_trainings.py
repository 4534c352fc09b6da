"""Which results on one side of a comparison are training seeds of one configuration."""

import pytest

from i2st_model.comparing.trainings import Trained, require_one_configuration
from pipeline.errors import ConfigError

KNOWN = {"beta": 1.0, "network": {"dim": 64}, "train_classes": ["run", "walk"], "shards": "1"}


def trained(number, **changed):
    known = {"word": f"run{number}", "method": "i2st", "seed": number, "decided": KNOWN}
    return Trained(**{**known, "sha256": f"{number}" * 64, **changed})


def said_of(*side):
    """The line with which a side is refused; None where it is accepted."""
    try:
        require_one_configuration("A", side)
    except ConfigError as error:
        return str(error)
    return None


def test_other_seeds_of_one_configuration_are_accepted():
    assert said_of(trained(0), trained(1), trained(2)) is None
    assert said_of() is None
    assert "run1 and run2 differ in more" in said_of(trained(1), trained(2, decided={"beta": 0.5}))


def test_the_third_is_compared_with_both_before_it():
    same_as_first = trained(2, sha256="0" * 64)
    with pytest.raises(ConfigError, match="A: run0 and run2 are one training; .* leave one out"):
        require_one_configuration("A", [trained(0), trained(1), same_as_first])
    same_as_second = trained(2, seed=1)
    with pytest.raises(ConfigError, match="B: run1 and run2 are both of seed 1"):
        require_one_configuration("B", [trained(0), trained(1), same_as_second])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"beta": 0.5}, "beta 1.0 there and 0.5 here"),
        ({"network": {"dim": 32}}, "network.dim 64 there and 32 here"),
        ({"network": {"heads": 2}}, "network.dim 64 there and absent here"),
        ({"train_classes": ["run", "walk", "sit"]}, "train class 'sit', which one of them lacks"),
        ({"shards": "2"}, "shards '1' there and '2' here"),
    ],
)
def test_the_first_setting_that_differs_is_named_with_both_values(changed, message):
    other = trained(1, decided={**KNOWN, **changed})
    with pytest.raises(ConfigError, match=f"run0 and run1 differ in more .*: {message}"):
        require_one_configuration("A", [trained(0), other])


def test_classes_in_another_order_are_the_same_classes():
    turned = {**KNOWN, "train_classes": KNOWN["train_classes"][::-1]}
    assert said_of(trained(0), trained(1, decided=turned)) is None
    fewer = {**turned, "train_classes": ["walk"]}
    assert "train class 'run'" in said_of(trained(0), trained(1, decided=fewer))


def test_what_an_older_file_does_not_know_is_not_held_against_it():
    old = trained(1, decided={"shards": "1"})
    assert said_of(trained(0), old) is None
    with pytest.raises(ConfigError, match="both of seed 0"):
        require_one_configuration("A", [trained(0), trained(1, seed=0, decided={})])


def test_methods_without_training_have_no_seeds():
    twice = [Trained(word=word, method="otam") for word in ("a", "b")]
    with pytest.raises(ConfigError, match="a and b are one method without training"):
        require_one_configuration("A", twice)
    with pytest.raises(ConfigError, match="method 'otam' there and 'i2st' here"):
        require_one_configuration("A", [twice[0], trained(0)])
