"""What it is worth that the teacher writes while the student learns. `make bench-loop`"""
