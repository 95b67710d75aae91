"""Many trials of one config, and what they show."""
