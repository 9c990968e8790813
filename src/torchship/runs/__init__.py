"""What a run was and gave: run directories, records, verdicts."""
