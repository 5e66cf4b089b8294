"""The original's meshes, textures and photographs on this engine: what ``look=original`` shows.

Only what is seen differs from the built-in look. The physics is the same model, contact shape by contact shape.
"""
