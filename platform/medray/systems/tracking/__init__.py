"""Thin structures followed step by step."""
