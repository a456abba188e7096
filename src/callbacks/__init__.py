"""What watches a run and keeps it: checkpoints, logs, signals, progress, results."""
