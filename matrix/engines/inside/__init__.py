"""What runs in an engine's own environment: it knows the standard library, torch and the engine, and nothing of ours."""
