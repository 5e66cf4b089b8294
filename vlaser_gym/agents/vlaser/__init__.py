"""The Vlaser policy, its pre- and post-processing, its checkpoints, and the agent made of them."""
