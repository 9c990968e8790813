"""What the user has: the project, its lock, and the files that the lock pins."""
