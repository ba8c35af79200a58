"""Whether a snapshot is what was saved: restored in a fresh process and compared with the live variables."""
