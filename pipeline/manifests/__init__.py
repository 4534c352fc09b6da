"""Manifest: a dataset's classes, splits, videos and their source; which videos are on disk.

types      what a manifest is            library    the shipped ones, by name
videos     which of them are on disk     schema     the YAML form, checked
sources    one's own folder or table     lists      published lists of videos
check      what is there and missing     fetch      where such a list comes from
paths, scan, tables, text, values        safe reading of names, folders and files
"""

from pipeline.manifests.library import known_manifests, load_manifest
from pipeline.manifests.schema import read_manifest
from pipeline.manifests.types import (
    SPLITS,
    ClassPrompts,
    ListSource,
    Manifest,
    Video,
    spelling,
)
from pipeline.manifests.videos import class_folders, class_of_folder, find_videos

__all__ = [
    "SPLITS",
    "ClassPrompts",
    "ListSource",
    "Manifest",
    "Video",
    "class_folders",
    "class_of_folder",
    "find_videos",
    "known_manifests",
    "load_manifest",
    "read_manifest",
    "spelling",
]
