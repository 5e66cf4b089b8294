"""The commands: ``python -m vlaser_gym.NAME`` runs ``vlaser_gym.commands.NAME``."""
