"""Quirks of library versions and of torch without a GPU, and all that we use of libraries' private parts.

A module a library; each function names the version it is for. ``tests/runtime/test_compat.py`` has one test a function,
which fails when the quirk is gone, so that it can go from here. What changes a library for the whole process returns a
function that puts it back. Importing this loads no library.
"""

from runtime.compat import cache_dit, diffusers, torch

__all__ = ["cache_dit", "diffusers", "torch"]
