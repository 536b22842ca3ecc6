"""The suite behind scripts/bench: standard library only."""
