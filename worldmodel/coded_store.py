"""The codes that a tokenizer gives all frames of a store, kept beside the training that learns from them."""

from contextlib import suppress
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from worldmodel.digest import digest
from worldmodel.episodes import EpisodeStore
from worldmodel.errors import UserError
from worldmodel.evaluation import CodedEpisode
from worldmodel.files import read_tensors_and_metadata, write_tensors
from worldmodel.progress import track
from worldmodel.salience import PixelWeight
from worldmodel.video import VideoVQVAE

MARKED = 100  # episodes of which a frame is looked at


def coded_store(video: VideoVQVAE, store: EpisodeStore, folder: Path) -> tuple[Tensor, Tensor]:
    """What `encode_store` gives; kept in `folder`, so that a training that goes on encodes nothing again."""
    path = folder / "codes.safetensors"
    about = {"of": digest([*video.state_dict().values(), *_marks(store)])}
    with suppress(UserError):  # missing or damaged, they are made
        kept, of = read_tensors_and_metadata(path)
        if of == about:
            return kept["codes"], kept["salience"]
    codes, salience = encode_store(video, store)
    with suppress(OSError):  # it goes on without
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(path, {"codes": codes, "salience": salience}, about)
    return codes, salience


def _marks(store: EpisodeStore) -> list[Tensor]:
    """What tells one recording from another: its steps, and the first frame of some of its episodes."""
    steps = [store.lengths, *(store.flat(name) for name in ("actions", "rewards"))]
    first = [store.frames(i, 0, 1) for i in range(0, len(store), 1 + len(store) // MARKED)]
    return [torch.from_numpy(array) for array in (*steps, *first)]


@torch.no_grad()
def encode_store(video: VideoVQVAE, store: EpisodeStore) -> tuple[Tensor, Tensor]:
    """All frames as codes, int16 [F, h, w], each episode one clip; and each code's salience, float [K].

    The salience of a code is the mean `PixelWeight` of the pixels it stands for, and one where it never occurs.
    """
    pixel_weight = PixelWeight(store).to(video.device)
    encoded, total, count = [], torch.zeros(video.config.num_codes), torch.zeros(video.config.num_codes)
    for i in track(range(len(store)), "Encoding episodes"):
        episode = CodedEpisode.read(store, i, video)
        codes = episode.codes.cpu()
        encoded.append(codes.to(torch.int16))
        weight = F.adaptive_avg_pool2d(pixel_weight(episode.frames).cpu(), video.config.code_shape)
        total.index_add_(0, codes.flatten(), weight.flatten())
        count += torch.bincount(codes.flatten(), minlength=len(count))
    return torch.cat(encoded), torch.where(count > 0, total / count.clamp_min(1), 1.0)
