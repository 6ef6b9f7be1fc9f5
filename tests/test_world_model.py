"""The world model: dreams repeat, rows are independent, states branch, and a saved model dreams the same."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny_world import FRAME_SHAPE, N_ACTIONS, tiny_world
from worldmodel.errors import UserError
from worldmodel.state import WorldState, generators
from worldmodel.video import video_preset
from worldmodel.world import WorldModel


@pytest.fixture(scope="module")
def world() -> WorldModel:
    return tiny_world()


def given(batch: int, length: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (batch, length, *FRAME_SHAPE), dtype=torch.uint8, generator=generator)
    return frames, torch.randint(N_ACTIONS, (batch, length - 1), generator=generator)


def test_imagining_is_stepping_and_its_frames_are_what_each_state_renders(world: WorldModel) -> None:
    start = world.observe(*given(2))
    actions = torch.randint(N_ACTIONS + 1, (2, 5))
    rollout = world.imagine(start, actions, rngs=generators(0, 2))
    state, rngs = start, generators(0, 2)
    for t in range(5):
        step = world.step(state, actions[:, t], rngs=rngs)
        state = step.state
        assert torch.equal(step.codes, rollout.codes[:, t])
        assert torch.equal(step.reward, rollout.rewards[:, t])
        assert torch.equal(step.terminated, rollout.terminated[:, t])
        assert torch.equal(step.log_prob, rollout.log_probs[:, t])
        assert torch.equal(world.render(state), rollout.frames()[:, t])
    assert torch.equal(rollout.state.codes, state.codes) and torch.equal(rollout.state.actions, state.actions)


def test_what_is_dreamed_after_the_end_pays_nothing(world: WorldModel) -> None:
    rollout = world.imagine(world.observe(*given(3)), torch.zeros(3, 4, dtype=torch.int64))
    rollout.terminated = torch.tensor([[False, True, False, True], [False] * 4, [True, True, False, False]])
    rollout.rewards = torch.tensor([[1.0, 2, 4, 8]] * 3)
    assert rollout.returns().tolist() == [3, 15, 1]


def test_a_batch_of_dreams_is_its_single_dreams(world: WorldModel) -> None:
    frames, before = given(4)
    actions = torch.randint(N_ACTIONS, (4, 12))
    together = world.imagine(world.observe(frames, before), actions, rngs=generators(7, 4))
    for row in range(4):
        one = slice(row, row + 1)
        alone = world.imagine(world.observe(frames[one], before[one]), actions[one], rngs=generators(7 + row, 1))
        assert torch.equal(alone.codes[0], together.codes[row])
        assert torch.equal(alone.terminated[0], together.terminated[row])
        torch.testing.assert_close(alone.log_probs[0], together.log_probs[row])


def test_the_same_seed_gives_the_same_dream_and_another_gives_another(world: WorldModel) -> None:
    start, actions = world.observe(*given(1)), torch.zeros(1, 6, dtype=torch.int64)
    first, again, other = (world.imagine(start, actions, rngs=generators(seed, 1)).codes for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_step_leaves_its_state_as_it_was(world: WorldModel) -> None:
    start = world.observe(*given(2))
    before = start.clone()
    world.step(start, torch.zeros(2, dtype=torch.int64), rngs=generators(0, 2))
    assert torch.equal(start.codes, before.codes) and torch.equal(start.actions, before.actions)


def test_states_index_concatenate_and_branch(world: WorldModel) -> None:
    state = world.observe(*given(3))
    assert len(state) == 3 and len(state[1]) == 1 and len(state[[0, 0, 2]]) == 3
    assert len(state[torch.tensor([True, False, True])]) == 2
    both = WorldState.cat([state[:1], state[1:]])
    assert torch.equal(both.actions, state.actions) and torch.equal(both.codes, state.codes)
    copy = state.clone()
    copy[0] = state[2]
    assert torch.equal(copy.codes[0], state.codes[2]) and not torch.equal(state.codes[0], state.codes[2])
    branches = world.imagine(state[[1] * 8], torch.zeros(8, 3, dtype=torch.int64), rngs=generators(0, 8)).codes
    assert len({tuple(codes.flatten().tolist()) for codes in branches}) == 8


def test_a_state_is_what_was_seen_after_the_first_frame_held(world: WorldModel) -> None:
    frames, actions = given(2, 6)
    state = world.observe(frames, actions)
    codes = world.video.encode(frames)
    assert torch.equal(state.codes[:, -6:], codes) and torch.equal(state.actions[:, -5:], actions)
    assert (state.codes[:, :-6] == codes[:, :1]).all() and (state.actions[:, :-5] == world.no_action).all()
    assert torch.equal(state.codes, world.observe_codes(codes, actions).codes)


def test_a_saved_model_dreams_the_same(world: WorldModel, tmp_path: Path) -> None:
    world = tiny_world().bfloat16().double()  # weights that bfloat16 holds exactly
    world.save_pretrained(tmp_path / "model", card="# A tiny world\n")
    loaded = WorldModel.from_pretrained(tmp_path / "model", dtype=torch.float64)
    assert loaded.config == world.config and loaded.action_meanings == ["left", "right", "stay"]
    assert world.contexts is not None and loaded.contexts is not None
    assert torch.equal(loaded.contexts.codes, world.contexts.codes)
    actions = torch.randint(N_ACTIONS, (2, 8))
    dreams = [
        w.imagine(w.observe_codes(w.contexts.codes[:2], w.contexts.actions[:2]), actions, rngs=generators(0, 2))
        for w in (world, loaded)
        if w.contexts is not None
    ]
    assert torch.equal(dreams[0].codes, dreams[1].codes) and torch.equal(dreams[0].frames(), dreams[1].frames())
    assert not any(path.suffix in (".pt", ".pkl", ".bin") for path in (tmp_path / "model").iterdir())


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "contexts.safetensors"])
def test_a_truncated_file_is_one_sentence(file: str, tmp_path: Path) -> None:
    tiny_world().save_pretrained(tmp_path)
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="damaged") as caught:
        WorldModel.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("video", 3),
        ("video", {"frame_size": [42, 42], "strides": [0]}),
        ("video", {"frame_size": [42, 42], "loss": "msee"}),
        ("video", {"frame_size": [42, 42], "encoder_kernel": 2}),
        ("video", {"frame_size": []}),
        ("video", {"frame_size": {}}),
        ("dynamics", None),
        ("dynamics", {"code_shape": [6, 6], "num_codes": 16, "n_actions": 3, "reward_values": [0], "picks": 0}),
        ("action_meanings", ["left"]),
        ("fps", None),
    ],
)
def test_a_config_that_makes_no_sense_is_one_sentence(part: str, change: object, tmp_path: Path) -> None:
    tiny_world().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, part: change}))
    with pytest.raises(UserError, match="damaged or of another version"):
        WorldModel.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="it holds no settings by name"):
        WorldModel.from_pretrained(tmp_path)


def test_starts_of_another_model_are_refused(tmp_path: Path) -> None:
    world = tiny_world()
    assert world.contexts is not None
    world.contexts.codes += 1000
    world.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="starts"):
        WorldModel.from_pretrained(tmp_path)


def test_saving_replaces_a_model_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    (tmp_path / "note").write_text("a word")
    (tmp_path / "repository" / ".git").mkdir(parents=True)
    tiny_world().save_pretrained(tmp_path / "beside")
    (tmp_path / "beside" / "figure.png").write_text("drawn by hand")
    before = sorted(tmp_path.rglob("*"))
    for name in ("thesis", "note", "repository", "beside"):
        with pytest.raises(UserError, match="holds something else"):
            tiny_world().save_pretrained(tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"
    assert (tmp_path / "note").read_text() == "a word"
    assert (tmp_path / "beside" / "figure.png").read_text() == "drawn by hand"
    for _ in range(2):
        tiny_world().save_pretrained(tmp_path / "model")
        # As killed writers leave them:
        (tmp_path / "model" / ".model.safetensors.partial").touch()
        (tmp_path / ".model.partial-x1_2y3z4" / "new").mkdir(parents=True, exist_ok=True)
    tiny_world().save_pretrained(tmp_path / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["beside", "model", "note", "repository", "thesis"]


@pytest.mark.parametrize("failure", [OSError("the disk is gone"), KeyboardInterrupt("between the renamings")])
def test_a_model_that_cannot_be_replaced_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    tiny_world().save_pretrained(tmp_path / "model", card="first")
    rename = Path.rename

    def fail(path: Path, target: Path) -> Path:
        if path.name == "new" and isinstance(failure, OSError):
            raise failure
        renamed = rename(path, target)
        if target.name == "old" and isinstance(failure, KeyboardInterrupt):
            raise failure
        return renamed

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(type(failure), match=str(failure)):
        tiny_world().save_pretrained(tmp_path / "model", card="second")
    assert (tmp_path / "model" / "README.md").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_states_are_indexed_by_rows_however_these_are_given(world: WorldModel) -> None:
    state = world.observe(*given(3))
    for rows in (1, torch.tensor(1), np.int64(1), np.array(1), [1], (1,), slice(1, 2), np.array([False, True, False])):
        one = state[rows]
        assert torch.equal(one.codes, state.codes[1:2]) and torch.equal(one.actions, state.actions[1:2])
    assert torch.equal(state[(2, 0)].codes, state.codes[[2, 0]])
    assert len(state[[]]) == 0
    other = state.clone()
    other[(2, 0)] = state[(0, 1)]
    assert torch.equal(other.codes, state.codes[[1, 1, 0]]) and torch.equal(other.actions, state.actions[[1, 1, 0]])


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    tiny_world().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["dynamics"]["width"] = 32
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="do not fit"):
        WorldModel.from_pretrained(tmp_path)


def test_mistakes_are_told_in_one_sentence(world: WorldModel, tmp_path: Path) -> None:
    frames, actions = given(1)
    with pytest.raises(UserError, match="no model"):
        WorldModel.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(UserError, match="config.json"):
        WorldModel.from_pretrained(tmp_path)
    with pytest.raises(UserError, match="by its name or its folder, not by 3"):
        WorldModel.from_pretrained(3)  # type: ignore[arg-type]
    for place in ({"device": "nowhere"}, {"dtype": "float32"}, {"dtype": torch.int64}, {"dtype": torch.complex64}):
        with pytest.raises(UserError, match="cannot run on device|real numbers"):
            WorldModel.from_pretrained("dmlab-seekavoid", **place)  # type: ignore[arg-type]
    with pytest.raises(UserError, match='"compact" and "paper", not "papper"'):
        video_preset("papper", (84, 84))
    with pytest.raises(UserError, match="uint8"):
        world.observe(frames.float(), actions)
    with pytest.raises(UserError, match="42, 42, 3"):
        world.observe(frames[:, :, :40], actions)
    with pytest.raises(UserError, match="actions between"):
        world.observe(frames, actions[:, 1:])
    with pytest.raises(UserError, match="from 0 to 2"):
        world.observe(frames, actions + N_ACTIONS + 1)
    with pytest.raises(UserError, match="from 0 to 2"):
        world.step(world.observe(frames, actions), torch.tensor([-1]), rngs=generators(0, 1))
    state = world.observe(frames, actions)
    with pytest.raises(UserError, match="int64"):
        world.step(state, torch.tensor([0.0]))
    with pytest.raises(UserError, match="shape"):
        world.step(state, torch.tensor([[0]]))
    for rngs in (np.random.default_rng(0), [torch.Generator()]):
        with pytest.raises(UserError, match="generators are a list of NumPy's"):
            world.step(state, torch.tensor([0]), rngs=rngs)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no rows"):
        world.step(state[[]], torch.tensor([], dtype=torch.int64))
    for plan in (torch.zeros(1, 0, dtype=torch.int64), torch.tensor([0])):
        with pytest.raises(UserError, match="imagine along"):
            world.imagine(state, plan)
    with pytest.raises(UserError, match="another model's"):
        world.step(WorldState(state.codes[:, 1:], state.actions[:, 1:]), torch.tensor([0]))
    with pytest.raises(UserError, match="from 0 to 15"):
        world.observe_codes(state.codes + 16, state.actions)
    for codes in (state.codes.double(), state.codes[:0]):
        with pytest.raises(UserError, match="Codes are an int64 tensor, with at least one"):
            world.observe_codes(codes, state.actions[: len(codes)])
    with pytest.raises(UserError, match="Codes are an int64 tensor, .* not list"):
        world.observe_codes(state.codes.tolist(), state.actions)
    with pytest.raises(UserError, match=r"these are \[3\]"):
        world.observe_codes(torch.tensor([0, 1, 2]), state.actions)
    with pytest.raises(UserError, match="as tensors, not as ndarray"):
        world.observe(frames.numpy(), actions)
    for between in (actions.tolist(), actions.numpy()):
        with pytest.raises(UserError, match="Actions are int64 tensors, not (list|ndarray)"):
            world.observe(frames, between)
        with pytest.raises(UserError, match="Actions are int64 tensors, not (list|ndarray)"):
            world.imagine(state, between)
    for start in (frames, state.codes, [state]):
        with pytest.raises(UserError, match="goes on from a WorldState"):
            world.step(start, torch.tensor([0]))
        with pytest.raises(UserError, match="goes on from a WorldState"):
            world.imagine(start, torch.tensor([[0]]))
    with pytest.raises(UserError, match="another model's"):
        world.step(WorldState(state.codes, state.actions + N_ACTIONS + 1), torch.tensor([0]))
    for other in (
        WorldState(state.codes, state.actions - N_ACTIONS - 1),
        WorldState(state.codes.float(), state.actions),
        WorldState(state.codes, state.actions.repeat(2, 1)),
    ):
        with pytest.raises(UserError, match="another model's"):
            world.step(other, torch.tensor([0]))
    for temperature in (0.0, -1.0, float("nan"), 1e-40, "hot"):
        with pytest.raises(UserError, match="temperature"):
            world.step(world.observe(frames, actions), torch.tensor([0]), temperature=temperature)


def test_of_a_long_video_only_what_a_state_remembers_is_looked_at(
    world: WorldModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    reach, memory = world.config.dynamics.reach, world.config.video.memory
    frames = torch.randint(256, (2, 3 * reach, *FRAME_SHAPE), dtype=torch.uint8)
    actions = torch.randint(N_ACTIONS, (2, 3 * reach - 1))
    whole = world.observe_codes(world.video.encode(frames), actions)
    seen: list[int] = []
    floats = world.video._floats
    monkeypatch.setattr(world.video, "_floats", lambda clip: seen.append(clip.shape[1]) or floats(clip))
    state = world.observe(frames, actions)
    assert torch.equal(state.codes, whole.codes) and torch.equal(state.actions, whole.actions)
    assert sum(seen) <= reach + memory
    with pytest.raises(UserError, match="actions between them"):
        world.observe(frames, actions[:, 1:])


def test_what_would_mean_something_else_is_refused(world: WorldModel) -> None:
    state = world.observe_codes(*(part[:4] for part in (world.contexts.codes, world.contexts.actions)))
    picked = [3, 1, 0, 2]
    assert torch.equal(state[np.array(picked, np.uint8)].codes, state[picked].codes)  # and not as a mask
    for no_rows in (np.array([0.5]), None, "a"):
        with pytest.raises(UserError, match="whole numbers or bools"):
            state[no_rows]  # type: ignore[index]
    for no_seed in (-1, 1.5):
        with pytest.raises(UserError, match="whole number of 0 or more"):
            generators(no_seed, 2)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="uint8 frames"):
        world.video.encode(torch.rand(1, 2, *FRAME_SHAPE))
    with pytest.raises(UserError, match="uint8 frames"):
        world.video.encode(torch.zeros(1, 2, 84, 84, 3, dtype=torch.uint8))
    with pytest.raises(UserError, match="int64 tensors, not ndarray"):
        world.step(state, np.zeros(4, np.int64))
    with pytest.raises(UserError, match="both 1 or more"):
        world.imagine(state[[]], torch.zeros(0, 5, dtype=torch.int64))
