"""Learners in real and imagined worlds."""
