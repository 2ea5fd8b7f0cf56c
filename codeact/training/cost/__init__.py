"""What a run will cost and what it cost: time, memory, work, savings."""
