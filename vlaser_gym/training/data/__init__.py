"""What learners read: demonstrations, decisions, pairs."""
