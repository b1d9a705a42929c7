"""What each method makes of the same teacher tokens, and why: `python -m benchmarks.methods`, or `make methods`."""
