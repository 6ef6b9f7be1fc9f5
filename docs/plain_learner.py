"""An actor-critic in plain PyTorch that learns in dreams and knows nothing but `gymnasium.make_vec`.

python docs/plain_learner.py --model doom-take-cover --steps 300000
"""

import gymnasium
import numpy as np
import torch
import tyro
from gymnasium.vector import VectorEnv
from torch import Tensor, nn

GAMMA, LAMBDA, ENTROPY = 0.99, 0.95, 0.01
STEPS_AN_UPDATE = 16


class ActorCritic(nn.Module):
    def __init__(self, n_codes: int, shape: tuple[int, ...], n_actions: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(n_codes, 8)  # codes are names, not amounts
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(8 * int(np.prod(shape)), 128), nn.ReLU())
        self.actor, self.critic = nn.Linear(128, n_actions), nn.Linear(128, 1)

    def forward(self, codes: Tensor) -> tuple[torch.distributions.Categorical, Tensor]:
        features = self.body(self.embed(codes))
        return torch.distributions.Categorical(logits=self.actor(features)), self.critic(features)[:, 0]


def learn(envs: VectorEnv, steps: int, seed: int = 0) -> list[float]:
    """Learn for `steps` steps over all rows; returns the returns of the episodes that ended, in that order."""
    torch.manual_seed(seed)
    space, n = envs.single_observation_space, envs.num_envs
    net = ActorCritic(int(space.high.max()) + 1, space.shape, int(envs.single_action_space.n))
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    obs = torch.from_numpy(envs.reset(seed=seed)[0])
    done, earned, ended = np.zeros(n, bool), np.zeros(n), list[float]()
    for update in range(max(steps // (STEPS_AN_UPDATE * n), 1)):
        batch = []
        for _ in range(STEPS_AN_UPDATE):
            policy, value = net(obs)
            action = policy.sample()
            real = torch.from_numpy(~done).float()  # the step after an end only resets: nothing to learn from
            observation, reward, terminated, truncated, _ = envs.step(action.numpy())
            obs = torch.from_numpy(observation)  # where a row ended, still what it ended with
            with torch.no_grad():  # which is worth nothing if it was over, and something if it was only cut short
                future = GAMMA * net(obs)[1] * torch.from_numpy(~terminated)
            delta = torch.from_numpy(reward).float() + future - value.detach()
            done = terminated | truncated
            goes_on = torch.from_numpy(~done).float()
            batch.append((policy.log_prob(action), policy.entropy(), value, delta, goes_on, real))
            earned += reward
            ended += earned[done].tolist()
            earned[done] = 0
        log_prob, entropy, value, delta, goes_on, real = map(torch.stack, zip(*batch, strict=True))  # [T, N]
        advantage, ahead = torch.zeros_like(delta), torch.zeros(n)
        for t in reversed(range(STEPS_AN_UPDATE)):
            advantage[t] = ahead = (delta[t] + GAMMA * LAMBDA * goes_on[t] * ahead) * real[t]
        gain = log_prob * (advantage - advantage.mean()) / (advantage.std() + 1e-6) + ENTROPY * entropy
        error = (value - (advantage + value.detach())).square()
        loss = (real * (0.5 * error - gain)).sum() / real.sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        optimizer.step()
        if update % 20 == 0 and ended:
            print(f"{(update + 1) * STEPS_AN_UPDATE * n:8} steps  return {np.mean(ended[-100:]):.2f}", flush=True)
    return ended


def main(model: str = "doom-take-cover", steps: int = 300_000, num_envs: int = 64, horizon: int = 525) -> None:
    """Learn in dreams of `model`, a bundled name or a folder, and print what the last 100 episodes earned."""
    dreams = {"model": model, "obs": "history", "horizon": horizon}
    learn(gymnasium.make_vec("envs:worldmodel/Imagined-v0", num_envs, **dreams), steps)


if __name__ == "__main__":
    tyro.cli(main)
