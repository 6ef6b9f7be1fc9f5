"""Speech to test with: three speakers who say "a" and "s", and when they do."""

import json
from pathlib import Path

import torch

from worldmodel.sounds import write_wav


def write_speech(folder: Path) -> Path:
    """Three utterances of .2 s each by ann, bob and cy, with a manifest; returns the folder."""
    torch.manual_seed(0)
    utterances = []
    for n, speaker in enumerate(("ann", "bob", "cy")):
        said = []
        for i in range(3):
            tone = torch.sin(torch.arange(1_600) * (0.05 + 0.02 * n)) * 0.5
            said += [tone, torch.randn(1_600) * 0.1]
            utterance = {"utt": f"{speaker}{i}", "speaker": speaker, "file": f"{speaker}.wav", "offset": 3_200 * i}
            utterances.append({**utterance, "n": 3_200, "phones": [[0, 1_600, "a"], [1_600, 3_200, "s"]]})
        write_wav(folder / f"{speaker}.wav", torch.cat(said), 16_000)
    (folder / "manifest.json").write_text(json.dumps({"utterances": utterances}))
    return folder
