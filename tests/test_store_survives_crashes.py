"""A process that appends and is killed at any moment loses the episode it was writing at most."""

import random
import subprocess
import sys
import time
from pathlib import Path

from made_episodes import assert_same, make_episode, make_store

from worldmodel.episodes import EpisodeStore

KILLS = 10
STEPS = 150
WRITER = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from made_episodes import make_episode
from worldmodel.episodes import EpisodeStore

store = EpisodeStore.open(sys.argv[1], append=True)
while True:
    print(len(store), flush=True)
    store.append(make_episode({STEPS}, seed=len(store)))
"""


def test_a_killed_writer_loses_the_last_episode_at_most(tmp_path: Path) -> None:
    address = str(tmp_path / "store")
    make_store(address, [])
    rng = random.Random(0)
    for _ in range(KILLS):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, address], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        said = [writer.stdout.readline()]
        begun = time.monotonic()
        said.append(writer.stdout.readline())  # it has taken this long to append one episode
        time.sleep(rng.uniform(0, 2) * (time.monotonic() - begun))
        writer.kill()
        said += writer.stdout.readlines()
        writer.wait()
        stored = int(said[-1])  # committed before it was killed; the next one may have been as well
        store = EpisodeStore.open(address)
        assert stored <= len(store) <= stored + 1
    assert len(store) >= KILLS
    for seed, episode in enumerate(store):
        assert_same(episode, make_episode(STEPS, seed))


def test_the_next_writer_takes_away_what_a_killed_one_has_left(tmp_path: Path) -> None:
    make_store(tmp_path / "store", [STEPS])
    left = tmp_path / "store" / "frames" / "c" / "0" / "0" / "0" / f"0.{'ab' * 16}.partial"  # as zarr names them
    left.write_bytes(b"half a shard")
    EpisodeStore.open(str(tmp_path / "store"))
    assert left.exists()  # it may be being written
    EpisodeStore.open(str(tmp_path / "store"), append=True)
    assert not left.exists()
    assert_same(EpisodeStore.open(str(tmp_path / "store"))[0], make_episode(STEPS, 0))
