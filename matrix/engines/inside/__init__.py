"""What runs in an engine's own environment: it knows Python, torch and the engine, and nothing of ours."""
