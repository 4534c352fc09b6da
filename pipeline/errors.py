"""What can go wrong in the user's world, and the exit code of each.

    I2STError                 1
      ConfigError             2   flags or settings that contradict each other or the data
      ManifestError           2   a dataset's classes, splits or video list
      BackendError            2   an unknown decoder, encoder, segmenter or method, or no weights
      VideoError              3   one video; recorded with its reason, the run goes on
      ShardError              4   shards that are damaged, foreign or unsafe
      CheckpointError         4   likewise for checkpoints
      RecordError             4   likewise for files of episodes and of results
      ResourceError           5   disk or memory

Messages say <what, with its value>; <what was needed>; <what to do>, in one line.
A caller's bug is a ValueError or TypeError; ours is an assert.
"""


class I2STError(Exception):
    """Base of every fault that a user can mend."""

    exit_code = 1


class ConfigError(I2STError):
    """Settings that contradict each other or the data."""

    exit_code = 2


class ManifestError(I2STError):
    """A dataset's classes, splits or video list are wrong or absent."""

    exit_code = 2


class BackendError(I2STError):
    """A decoder, encoder, segmenter or method is unknown, or lacks a package or weights."""

    exit_code = 2


class VideoError(I2STError):
    """One video cannot be used; ``reason`` is a short slug that the shard index keeps."""

    exit_code = 3

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class ShardError(I2STError):
    """Shards are damaged, unsafe, or not what was asked for."""

    exit_code = 4


class CheckpointError(I2STError):
    """A checkpoint is damaged, unsafe, or not what was asked for."""

    exit_code = 4


class RecordError(I2STError):
    """A file of episodes or of results is damaged, unsafe, or not what was asked for."""

    exit_code = 4


class ResourceError(I2STError):
    """Disk or memory ran out."""

    exit_code = 5
