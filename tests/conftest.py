"""Settings of all tests."""

from hypothesis import settings

# The first example reads the catalog, and CI machines are slow: a time limit an example would prove nothing.
settings.register_profile("omni", deadline=None)
settings.load_profile("omni")
