"""Facts of an engine, compiled from its wheel by ``zipfile`` and ``ast``. Nothing of a wheel is ever imported."""
