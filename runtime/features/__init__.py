"""One module a feature, each with a ``FEATURE``; ``feature`` says what that is, ``pipeline.apply`` has their order."""
