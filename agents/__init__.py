"""Learners in the worlds of `envs`: their policies, how they learn, and what they earn. Needs `[agents]`."""

from worldmodel.errors import require

require("stable_baselines3", "agents")
