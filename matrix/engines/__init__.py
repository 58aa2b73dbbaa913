"""The engines themselves, run with small models: what they do with a config, and whether our verdict says so."""
