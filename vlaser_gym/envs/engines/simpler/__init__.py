"""The original SimplerEnv as an engine: worker processes in an interpreter of the user's, one per environment."""
