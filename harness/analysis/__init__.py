"""What a finished run learned: its tokens, its attention, and how its tasks got along."""
