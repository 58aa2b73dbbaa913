"""What is on this machine, and what it means for a config."""
