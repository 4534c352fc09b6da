"""Whether results can be paired: the same episodes, and training seeds that go together."""

from collections.abc import Sequence

from i2st_model.records.results import Result
from pipeline.errors import ConfigError


def require_pairs(first: int, second: int) -> None:
    """Refuse numbers of training seeds that cannot be paired.

    Args:
        first: results of one side.
        second: of the other.

    Raises:
        ConfigError: both sides have several, and not equally many.
    """
    if first != second and 1 not in (first, second):
        raise ConfigError(
            f"{first} runs beside {second}; as many on both sides, or one on either, were needed; "
            "leave some out"
        )


def require_same_episodes(results: Sequence[Result]) -> None:
    """Refuse results on different episodes, saying how they differ.

    Args:
        results: at least one.

    Raises:
        ConfigError: two of them are on different episodes.
    """
    mine = results[0].episodes
    for other in results[1:]:
        if other.episodes is mine or mine.same_episodes(other.episodes):
            continue
        ours, theirs = _shape_words(results[0]), _shape_words(other)
        how = f"{ours}, and {theirs}" if ours != theirs else f"{ours}, but of other clips"
        raise ConfigError(
            f"the results are on different episodes ({how}); the same were needed for pairs; "
            "evaluate both with the same --episode-file"
        )


def _shape_words(result: Result) -> str:
    episodes = result.episodes
    return (
        f"{episodes.num_episodes} {episodes.way}-way {episodes.shot}-shot of {episodes.dataset} "
        f"{episodes.split} with {episodes.queries} queries per class, seed {episodes.seed}"
    )
