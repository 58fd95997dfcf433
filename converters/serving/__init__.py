"""Folders for serving engines: ``ggq convert MODEL OUT_DIR --type W4A16``."""

from ggq.converters.serving.folder import FolderConversion
from ggq.converters.serving.prepare import prepare_folder, refuse_options

__all__ = ["FolderConversion", "prepare_folder", "refuse_options"]
