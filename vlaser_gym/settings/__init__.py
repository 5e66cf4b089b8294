"""Typed settings, with their defaults and ranges."""
