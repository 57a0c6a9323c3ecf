"""What the scheduler thinks: a model folded from the log, and plans made of it. No I/O, no clock, no randomness."""
