"""The life of a vLLM server of ours: launched, watched, brought back, ended."""
