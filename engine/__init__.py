"""The engine asks the teacher, and turns its answers into rows in tables. It knows nothing of torch."""
