"""Questions whose answers the scenes know, and the scoring of answers."""
