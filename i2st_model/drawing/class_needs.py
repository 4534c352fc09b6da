"""What an episode needs of its classes, and what is said where they do not have it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from i2st_model.drawing.class_videos import ClassVideos
from pipeline.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassNeeds:
    """Videos, and groups of them, that every class of an episode must have."""

    shot: int
    queries: int
    disjoint_groups: bool
    where: str
    """What messages call the set of classes."""

    def too_small(self, videos: Sequence[ClassVideos]) -> dict[str, str]:
        """Find the classes that do not have them.

        Args:
            videos: of every class.

        Returns:
            Class name -> what it lacks, as a clause.
        """
        return {one.name: lack for one in videos if (lack := self._lack(one)) is not None}

    def refusal(self, small: Mapping[str, str]) -> ConfigError:
        """Error for classes that are too small; names the first one's lack."""
        name, lack = next(iter(small.items()))
        others = f" (also too small: {some([*small][1:])})" if len(small) > 1 else ""
        return ConfigError(
            f"class {name!r} of {self.where} {lack}{others}; lower shot or queries, or leave such "
            "classes out with --drop-small-classes"
        )

    def too_few_classes(
        self, count: int, way: int, dropped: Sequence[str], remedy: str
    ) -> ConfigError:
        """Error for fewer classes than an episode takes.

        Args:
            count: classes left.
            way: classes of an episode.
            dropped: names of those left out as too small.
            remedy: what to do where fewer than two are left, so that no way is low enough.

        Returns:
            The error.
        """
        left = f" with shot={self.shot} + queries={self.queries} videos" if dropped else ""
        left += f" ({some(dropped)} dropped)" if dropped else ""
        if count > 1:
            remedy = "lower way, shot or queries" if dropped else "lower way"
        elif dropped:
            remedy = f"lower shot or queries, or {remedy}"
        return ConfigError(
            f"{self.where} has {count} class{'es' * (count != 1)}{left}, way={way} needs {way}; "
            f"{remedy}"
        )

    def _lack(self, videos: ClassVideos) -> str | None:
        needed = self.shot + self.queries
        arithmetic = f"shot={self.shot} + queries={self.queries}"
        if len(videos.rows) < needed:
            return f"has {len(videos.rows)} videos, {arithmetic} needs {needed}"
        if self.disjoint_groups and not videos.can_part(self.shot, self.queries):
            groups = len(videos.group_sizes)
            return (
                f"has {len(videos.rows)} videos in {groups} group{'s' * (groups != 1)}, which "
                f"cannot be parted into {arithmetic} with disjoint groups"
            )
        return None


def some(names: Sequence[str], most: int = 5) -> str:
    """Quote the first names, and count the others."""
    listed = ", ".join(repr(name) for name in names[:most])
    return listed if len(names) <= most else f"{listed} and {len(names) - most} more"
