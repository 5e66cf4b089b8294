"""Makes objects of one's own from meshes; see :func:`~vlaser_gym.envs.modelling.making.make_object`."""
