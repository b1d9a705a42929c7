"""What a run costs: GPUs by time, kWh, money, and what predictions cost afterwards."""
