"""The simulated world: tasks, robots, engines, and the vector environment over them."""
