"""What placeholder tokens are trained for beside the tasks, and what they stand in for."""
