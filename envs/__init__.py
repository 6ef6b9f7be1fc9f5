"""Worlds to step: the imagined one and the real ones it learns from.

Importing this package registers the worlds with Gymnasium. Gymnasium does that import itself when an id names the
package, so these two are the same:

    gymnasium.make("envs:worldmodel/Doom-v0")           # with nothing imported but gymnasium

    import envs; gymnasium.make("worldmodel/Doom-v0")

Nothing heavy is imported here: each world loads its simulator, or its model, when it is made.
"""

from gymnasium.envs.registration import register

register(id="worldmodel/DMLab-v0", entry_point="envs.dmlab:DMLabEnv")
register(id="worldmodel/Doom-v0", entry_point="envs.doom:DoomEnv")
register(
    id="worldmodel/Imagined-v0",
    entry_point="envs.imagined:ImaginedEnv",
    vector_entry_point="envs.imagined_vector:ImaginedVectorEnv",
)
