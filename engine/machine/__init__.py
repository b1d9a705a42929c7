"""What this machine has: processor, GPUs, energy counters, and whether it suffices."""
