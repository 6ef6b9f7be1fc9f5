"""Learners in the worlds of `envs`: their policies, how they are trained, and what they earn. Needs the extra `[agents]`."""
