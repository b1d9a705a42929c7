"""Everything that measures; nobody imports it."""
