"""Moved to :mod:`.main_input`."""

from .main_input import main_input_of

__all__ = ["main_input_of"]
