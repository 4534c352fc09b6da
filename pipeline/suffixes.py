"""Which file names hold videos and which hold frames."""

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv"}
    | {".ts", ".webm", ".wmv"}
)
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
