"""What a run is about: the task, and the real rows that people bring in files."""
