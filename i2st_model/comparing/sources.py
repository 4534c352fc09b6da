"""What each source of videos adds to a paired difference of two methods.

Shape letters: E episodes, N way, K shot, q queries per class, C classes, V videos, S sources.

Clips of one source (a film, a person's recordings) are alike, so it is sources that are drawn
independently, not clips. A video is a query, and it is a support clip; a source adds what its
videos add, in whatever classes they are. Where each video is a source of its own, these are the
first-order terms of videos, see `i2st_model.comparing.clusters`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from i2st_model.comparing.clusters import Floats, Gains, class_means, sums
from i2st_model.records.episode_sets import EpisodeSet

LEAST = 1e-9
"""What is smaller is rounding of 0."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Spreads:
    """How the draws of an episode part the sources of a class; all (C,)."""

    apart: Floats
    """Chance that two videos, drawn with replacement, are of two sources."""
    alike: Floats
    """Minus the covariance of two queries, or of two support clips, being of a source; summed over
    sources."""
    across: Floats
    """The same of a query and a support clip."""
    of_query: Floats
    """What a query's gain counts, so that scores show the whole effect of a source."""
    of_support: Floats
    """The same for the gain of a support clip's own class."""
    of_drawn: Floats
    """The same for the queries of other classes that the class of a support clip draws."""
    scale: Floats
    """What makes squares of scores the variance over other sources; 0 where nothing shows it."""


def source_variance(gains: Gains) -> float | None:
    """Variance of the mean over other sources of videos of the same classes.

    A source's score sums what is gained beyond its class's mean where its videos are queries and
    where they are support clips. What single episodes bring to the squares of the scores by chance
    is taken off, and the variance over episodes put in its place.

    Args:
        gains: of one method on another.

    Returns:
        Variance of ``gains.mean``; None where an episode takes clips of so many of a class's
        sources that they cannot be told apart.
    """
    episodes, classes = gains.episodes, gains.episodes.classes
    spreads = spreads_of(episodes, gains.sources)
    if len(_untold(episodes, spreads)):
        return None
    own = gains.own - class_means(classes, gains.own.mean(axis=2))[:, :, None]
    drawn_EN = gains.drawn - class_means(classes, gains.drawn)
    asked = own * spreads.of_query[classes][:, :, None]
    shown_EN = own.sum(axis=2) * spreads.of_support[classes] + drawn_EN * spreads.of_drawn[classes]
    total = len(episodes.video_ids)
    of_videos = sums(episodes.query, asked, total)
    of_videos += sums(episodes.support, shown_EN[:, :, None], total)
    scores = sums(gains.sources, of_videos * spreads.scale[episodes.video_class] ** 0.5, total)
    by_chance = spreads.scale[classes] * chance_squares(episodes, asked, shown_EN, spreads)
    of_sources = float((scores**2).sum() - by_chance.sum())
    of_episodes = float((own.sum(axis=(1, 2)) ** 2).sum())
    return (max(of_sources, 0.0) + of_episodes) / gains.own.size**2


def classes_untold(gains: Gains) -> NDArray[np.int64]:
    """Find the classes for which there is no `source_variance`.

    Args:
        gains: of one method on another.

    Returns:
        Numbers of the classes, among those drawn, whose sources cannot be told apart.
    """
    return _untold(gains.episodes, spreads_of(gains.episodes, gains.sources))


def _untold(episodes: EpisodeSet, spreads: Spreads) -> NDArray[np.int64]:
    drawn = np.unique(episodes.classes)
    found: NDArray[np.int64] = drawn[spreads.scale[drawn] == 0]
    return found


def degrees_of_freedom(gains: Gains) -> int:
    """How many sources differ freely about the means of their classes.

    Args:
        gains: of one method on another.

    Returns:
        Sources less one for each set of classes that share some, directly or through others.
    """
    classes, sources = gains.episodes.video_class, gains.sources
    least = np.arange(len(gains.episodes.class_names))
    before = least + 1
    while not np.array_equal(least, before):
        before, of_source = least.copy(), np.full(len(sources), len(least))
        np.minimum.at(of_source, sources, least[classes])
        np.minimum.at(least, classes, of_source[sources])
    return max(len(np.unique(sources)) - len(np.unique(least[classes])), 1)


def spreads_of(episodes: EpisodeSet, sources: NDArray[np.int64]) -> Spreads:
    """Find how the draws of an episode part the sources of each class.

    A clip's companions in an episode are of other sources more often than a clip drawn afresh, and
    most of all where query and support must not share one. So a score as a query lacks some of what
    the source does as support, and the other way round; the weights solve for both.

    Args:
        episodes: whose classes, and how their clips are drawn.
        sources: (V,) source number of each video.

    Returns:
        Of each class.
    """
    squares, cubes, sizes = _shares(episodes, sources)
    apart = 1 - squares
    alike = apart / np.maximum(sizes - 1, 1)
    across = squares if episodes.disjoint_groups else alike
    several = np.where(apart > LEAST, apart, np.inf)
    hidden, kept = across / several, 1 - (episodes.shot - 1) * alike / several
    told = kept - episodes.shot * hidden**2
    # Mean square of a source about the mean of its class, where all vary alike.
    centred = squares - 2 * cubes + squares**2
    known = (told > LEAST) & (kept > LEAST) & (centred > LEAST)
    divisor = np.where(known, told, 1)
    return Spreads(
        apart=apart,
        alike=alike,
        across=across,
        of_query=(kept + episodes.shot * hidden) / divisor,
        of_support=(1 + hidden) / divisor,
        of_drawn=1 / np.where(known, kept, 1),
        scale=np.where(known, squares / np.where(known, centred, 1), 0.0),
    )


def _shares(episodes: EpisodeSet, sources: NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
    """Sums of squares and of cubes of the sources' shares in each class, and its videos."""
    count, total = len(episodes.class_names), len(episodes.video_ids)
    pairs, clips = np.unique(episodes.video_class * total + sources, return_counts=True)
    of_class = pairs // total
    sizes = sums(of_class, clips, count)
    shares = clips / sizes[of_class]
    return sums(of_class, shares**2, count), sums(of_class, shares**3, count), sizes


def chance_squares(
    episodes: EpisodeSet, asked: Floats, shown_EN: Floats, spreads: Spreads
) -> Floats:
    """Expected squares of scores where sources make no difference: a clip is any of its class.

    Args:
        episodes: of E episodes.
        asked: (E, N, q) what each query adds; sums to 0 over the queries of a class.
        shown_EN: (E, N) what each support clip adds; sums to 0 over a class.
        spreads: of the classes.

    Returns:
        (E, N) what each class of each episode brings to the sum over sources.
    """
    apart, alike, across = (
        values[episodes.classes] for values in (spreads.apart, spreads.alike, spreads.across)
    )
    shot, asked_EN, squares_EN = episodes.shot, asked.sum(axis=2), (asked**2).sum(axis=2)
    alone = apart * (squares_EN + shot * shown_EN**2)
    pairs = alike * (asked_EN**2 - squares_EN + shot * (shot - 1) * shown_EN**2)
    return alone - pairs - 2 * shot * across * asked_EN * shown_EN
