"""Whether a row of a teacher may enter the samples."""
