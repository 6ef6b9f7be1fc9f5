"""From a world to recorded episodes: who plays, and how episodes become a store.

Any Gymnasium environment will do that shows uint8 RGB images and takes discrete actions. Episode i of a recording is
reset with the seed `seed + i`, and its player draws from a generator of the same seed. So an interrupted recording
goes on where its store ends, and comes out the same however many worlds play at once.
"""

import json
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from worldmodel.episodes import Episode, EpisodeStore, Provenance
from worldmodel.errors import UserError

World = gymnasium.Env[NDArray[np.uint8], np.int64]
Player = Callable[[NDArray[np.uint8]], int]  # a frame -> an action in [0, n_actions)
Policy = Callable[[np.random.Generator], Player]  # makes the player of one episode

STICK = 0.75  # probability that the random player repeats its last action
FORWARD = 0.25  # probability that a new action of the random player is "forward", before the uniform choice
DEFAULT_FPS = 30.0  # of worlds that do not tell


class Recording(Provenance):
    """What a store says about its recording: enough to go on with it, or to refuse to."""

    policy: str
    max_steps: int | None


def make_world(env_id: str, env_kwargs: dict[str, Any]) -> World:
    """`gymnasium.make(env_id, **env_kwargs)`, or a `UserError` that says why that world cannot be made or recorded."""
    try:
        world: World = gymnasium.make(env_id, **env_kwargs)
    except (gymnasium.error.Error, ImportError, TypeError, ValueError, AssertionError) as error:
        raise UserError(f"cannot make the environment {env_id}: {error}") from error
    image, action = world.observation_space, world.action_space
    is_image = isinstance(image, spaces.Box) and image.dtype == np.uint8 and image.shape[2:] == (3,)
    if not (is_image and isinstance(action, spaces.Discrete)):
        world.close()
        raise UserError(
            f"{env_id} has observations {image} and actions {action}; "
            "only uint8 RGB images [H, W, 3] and discrete actions can be recorded and played."
        )
    return world


def action_meanings(world: World) -> list[str]:
    """The names a world gives its actions (Atari's `get_action_meanings`), or its own numbers for them.

    Raises `UserError` where it names more or fewer than it takes, or not by text.
    """
    assert isinstance(world.action_space, spaces.Discrete)
    first, n = int(world.action_space.start), int(world.action_space.n)
    named = getattr(world.unwrapped, "get_action_meanings", None)
    meanings = list(named()) if named else list(map(str, range(first, first + n)))
    if len(meanings) != n or not all(isinstance(name, str) for name in meanings):
        raise UserError(f"A world of {n} actions names as many by text, and this one's names are {meanings}.")
    return meanings


def open_recording(
    address: str,
    world: World,
    env_id: str,
    env_kwargs: dict[str, Any],
    *,
    policy: str,
    seed: int = 0,
    max_steps: int | None = None,
) -> EpisodeStore:
    """The store for a recording of `world`: a new one, or the one at `address` to go on with, if it has any episode.

    `world` is `make_world(env_id, env_kwargs)`; `policy` is a note for people on who plays.
    Raises `UserError` when the store there is of another recording.
    """
    recording: Recording = {
        "env_id": env_id,
        "env_kwargs": env_kwargs,
        "action_meanings": action_meanings(world),
        "frame_skip": int(getattr(world.unwrapped, "frame_skip", 1)),
        "fps": float(world.metadata.get("render_fps") or DEFAULT_FPS),
        "policy": policy,
        "seed": seed,
        "max_steps": max_steps,
    }
    store = EpisodeStore.open(address, append=True) if EpisodeStore.exists(address) else None
    if not store:  # there is none, or it has no episode
        assert world.observation_space.shape is not None
        height, width, channels = world.observation_space.shape
        n_actions = len(recording["action_meanings"])
        return EpisodeStore.create(
            address, frame_shape=(height, width, channels), n_actions=n_actions, provenance=recording
        )
    there: dict[str, Any] = {**store.provenance}
    if "source" in there:
        raise UserError(f"{address} was imported from {there['source']}, not recorded: give another store.")
    for key, value in json.loads(json.dumps(recording)).items():
        if there.get(key) != value:
            raise UserError(
                f"{address} was recorded with {key} {there.get(key)!r}, not {value!r}: "
                "give the same settings to go on with it, or another store."
            )
    return store


def record(
    make: Callable[[], World],
    policy: Policy,
    seeds: Iterable[int],
    *,
    worlds: int = 1,
    max_steps: int | None = None,
) -> Generator[Episode, None, None]:
    """Play one episode a seed and yield them in that order; `worlds` of them are played at once.

    An episode that has not ended after `max_steps` steps is truncated there. Each world lives on a thread of its own
    (simulators work outside Python's lock, and some want one thread only). A world does not start its next episode
    before the one it played last has been taken and dealt with, so a crash loses at most one episode a world.
    """
    stop = threading.Event()
    with ExitStack() as stack:
        crew: list[tuple[ThreadPoolExecutor, World]] = []
        for _ in range(worlds):
            thread = stack.enter_context(ThreadPoolExecutor(1))
            world = thread.submit(make).result()
            stack.callback(thread.submit, world.close)
            crew.append((thread, world))
        stack.callback(stop.set)  # the first thing to happen at the end, however it comes

        playing: deque[Future[Episode]] = deque()
        for number, seed in enumerate(seeds):
            if number >= worlds:
                yield playing.popleft().result()
            thread, world = crew[number % worlds]
            playing.append(thread.submit(_play, world, policy, seed, max_steps, stop))
        while playing:
            yield playing.popleft().result()


def _play(world: World, policy: Policy, seed: int, max_steps: int | None, stop: threading.Event) -> Episode:
    assert isinstance(world.action_space, spaces.Discrete)
    # Not default_rng(seed): that is the world's own generator, and the two would draw the same numbers.
    player = policy(np.random.default_rng([seed, 1]))
    frame, _ = world.reset(seed=seed)
    frames, actions, rewards = [np.array(frame)], list[int](), list[float]()
    terminated = truncated = False
    while not (terminated or truncated):
        if stop.is_set():
            raise CancelledError
        action = player(frame)
        frame, reward, terminated, truncated, _ = world.step(world.action_space.start + action)
        frames.append(np.array(frame))
        actions.append(action)
        rewards.append(float(reward))
        truncated = truncated or len(actions) == max_steps
    ends = np.zeros((2, len(actions)), bool)
    ends[:, -1] = terminated, truncated
    return Episode(
        frames=np.stack(frames),
        actions=np.array(actions),
        rewards=np.array(rewards, np.float32),
        terminated=ends[0],
        truncated=ends[1],
        seed=seed,
    )


def sticky_random(meanings: Sequence[str], *, stick: float = STICK, forward: float = FORWARD) -> Policy:
    """Random play that gets somewhere.

    With probability `stick` the player repeats its last action. Otherwise it takes the one called "forward", if there
    is one, with probability `forward`, and else any action, each as likely as another.
    """
    chances = np.full(len(meanings), 1 / len(meanings))
    ahead = [name.lower() == "forward" for name in meanings]
    if any(ahead):
        chances = (1 - forward) * chances + forward * np.array(ahead) / sum(ahead)

    def policy(rng: np.random.Generator) -> Player:
        action: int | None = None

        def play(frame: NDArray[np.uint8]) -> int:
            nonlocal action
            if action is None or rng.random() >= stick:
                action = int(rng.choice(len(chances), p=chances))
            return action

        return play

    return policy
