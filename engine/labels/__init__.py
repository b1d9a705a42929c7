"""Forms of a label: sets of them, spans in a text, and distributions that a teacher gives."""
