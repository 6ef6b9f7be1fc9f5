"""The report of `worldmodel measure`: world.json holds all that was measured, world.md shows it to people."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from worldmodel.benchmark.report import table
from worldmodel.errors import UserError
from worldmodel.files import write_text
from worldmodel.metrics import Result

HORIZONS = (1, 2, 3, 5, 10, 15, 20)  # of the many in world.json, those that a person would look at
SIDES = ("above", "below")  # of the usual reward


def read_benchmarks(folder: Path) -> dict[str, Result]:
    """What was measured so far, by model. Raises `UserError` when the file there is something else."""
    path = folder / "world.json"
    if not path.exists():
        return {}
    try:
        models: dict[str, Result] = json.loads(path.read_text())
        markdown(models)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is not a report of this command; choose another --out, or remove it.") from error
    return models


def write_benchmarks(folder: Path, models: dict[str, Result]) -> None:
    """Write world.json and world.md in `folder`."""
    models = _plain(models)
    page = markdown(models)
    write_text(folder / "world.json", json.dumps(models, indent=1, allow_nan=False) + "\n")
    write_text(folder / "world.md", page)


def markdown(models: dict[str, Result]) -> str:
    """The page of one model or more, from what world.json holds of them; what was not measured is left out."""
    sections = (_tokenizer, _prior, _orders, _sign, _rollouts, _outcomes, _ends, _long_dream, _speed, _commands)
    parts = ["# World models on held-out episodes", *(part for section in sections for part in section(models))]
    return "\n\n".join(parts) + "\n"


def _tokenizer(models: dict[str, Result]) -> Iterator[str]:
    if not (found := _having(models, "tokenizer")):
        return
    things = sorted({thing for t in found.values() for thing in t["iou"]})
    yield "## Tokenizer"
    yield "Reconstructed frames beside the true ones; IoU is of all pixels of a thing, in all frames together."
    yield table(
        ["model", "frames", "PSNR, dB", "SSIM", "codes in use", "perplexity", *(f"IoU {t}" for t in things)],
        [
            [name, t["frames"], _number(t["psnr"], ".1f"), _number(t["ssim"], ".3f")]
            + [f"{_number(t['codebook_usage'], '.0%')} of {t['codes']}", _number(t["code_perplexity"], ".0f")]
            + [_number(t["iou"].get(thing)) for thing in things]
            for name, t in found.items()
        ],
    )


def _prior(models: dict[str, Result]) -> Iterator[str]:
    if not (found := _having(models, "prior")):
        return
    yield "## Prior: bits per code"
    yield (
        "Whole episodes, streamed from their first frame in float32. Shuffled: the actions of each episode, permuted. "
        "Baselines, fitted on training episodes: how often each code occurs (unigram), the same code as a frame ago "
        "or else the unigram, and how often each code follows the one a frame ago (bigram)."
    )
    header = ["model", "order", "true actions", "shuffled", "no action", "unigram", "same code", "bigram"]
    rows = []
    for name, p in found.items():
        bits = {**p["bits_per_code"], **p["baseline_bits_per_code"]}
        values = (bits[k] for k in ("true", "shuffled", "none", "unigram", "same", "bigram"))
        rows.append([name, p["order"], *map(_number, values)])
    yield table(header, rows)


def _orders(models: dict[str, Result]) -> Iterator[str]:
    if not (found := _having(models, "orders")):
        return
    yield "## The order within a frame"
    yield (
        "The same codes drawn by anti-diagonals or one by one: bits a code of two short priors from scratch, trained "
        "alike, on the episodes above; and milliseconds a frame in the head that draws the codes."
    )
    header = ["model", "steps", "order", "true actions", "shuffled", "no action", "batch 1, ms", "batch 64, ms"]
    rows = []
    for name, o in found.items():
        for order in ("diagonal", "raster"):
            bits, pace = o[order]["bits_per_code"], o[order]["head_ms_a_frame"]
            row = [_number(bits[k], ".3f") for k in ("true", "shuffled", "none")]
            rows.append([name, o["steps"], order, *row, *(_number(pace[b]) for b in ("1", "64"))])
    yield table(header, rows)


def _sign(models: dict[str, Result]) -> Iterator[str]:
    if not (found := _having(models, "sign")):
        return
    yield "## Do the codes keep what earns reward?"
    yield (
        "A probe tells from one frame the sign of the next reward, at most 8 steps ahead. It maps each patch linearly "
        "to 32 numbers, from its code's embedding or from its pixels; then come two 3x3 convolutions and a linear "
        "score. AUC on held-out episodes: mean ± spread over seeds, and in brackets the 95% bootstrap interval over "
        "episodes."
    )
    rows = []
    for name, s in found.items():
        cells = [
            f"{_number(s[k]['auc'], '.3f')} ± {_number(s[k]['spread'], '.3f')} {_interval(s[k])}"
            for k in ("codes", "pixels")
        ]
        rows.append([name, *cells, _interval(s["codes_minus_pixels"]), s["frames"], s["episodes"]])
    yield table(["model", "AUC, codes", "AUC, pixels", "codes - pixels", "frames", "episodes"], rows)


def _rollouts(models: dict[str, Result]) -> Iterator[str]:
    if not (found := _having(models, "rollouts")):
        return
    yield "## Dreams under the true actions, by horizon"
    yield (
        "Each pair is the dream / the last given frame held still. Kept: of the dreams with the thing ahead at the "
        "start (16 pixels or more in the middle half), and whose true frame shows it at that horizon (16 pixels), the "
        "share that show it too; in brackets their number. Made up: the share that show it where the truth has none."
    )
    for name, r in ((name, r) for name, results in found.items() for r in results):
        header = ["horizon", "PSNR, dB", "SSIM"]
        for thing in r["things"]:
            header += [f"IoU {thing}", f"{thing} kept", "made up"]
        rows = []
        for h in (h for h in HORIZONS if h <= len(r["psnr"])):
            row = [h, f"{_number(r['psnr'][h - 1], '.1f')} / {_number(r['psnr_still'][h - 1], '.1f')}"]
            row.append(f"{_number(r['ssim'][h - 1], '.3f')} / {_number(r['ssim_still'][h - 1], '.3f')}")
            for t in r["things"].values():
                at = {measure: values[h - 1] for measure, values in t.items()}
                row.append(f"{_number(at['iou'])} / {_number(at['iou_still'])}")
                row += [f"{_number(at['kept'])} ({at['cases']})", _number(at["made_up"])]
            rows.append(row)
        worse = [h for h, (a, b) in enumerate(zip(r["psnr"], r["psnr_still"], strict=True), 1) if a <= b]
        verdict = f"worse at {', '.join(map(str, worse))}" if worse else "better at every horizon"
        yield (
            f"**{name}**, temperature {r['temperature']:g}: {r['starts']} starts, {r['samples']} dreams each, "
            f"{r['context']} given frames. "
            f"PSNR against holding still, horizons 1 to {len(r['psnr'])}: {verdict}."
        )
        yield table(header, rows)


def _outcomes(models: dict[str, Result]) -> Iterator[str]:
    if not (found := _having(models, "outcomes")):
        return
    yield "## Does it pay in the dream?"
    yield (
        "Rewards above and below the usual one, by how much, each summed over 8 steps under the true actions, true / "
        "imagined: in windows around one above it (more) or below it (less), around the end of an episode, and around "
        "none of these. AUC: how well what is imagined of the kind tells those windows from the usual ones."
    )
    rows = [
        [name, kind, k["starts"], *(f"{k[side]['true']:.2f} / {k[side]['imagined']:.2f}" for side in SIDES)]
        + [_number(k["terminated"], ".0%"), _number(k.get("auc"))]
        for name, o in found.items()
        for kind, k in o["kinds"].items()
    ]
    yield table(["model", "around", "windows", *SIDES, "dream ends", "AUC"], rows)


def _ends(models: dict[str, Result]) -> Iterator[str]:
    """Of the outcomes, too: where an episode terminates."""
    if not (found := _having(_having(models, "outcomes"), "ends")):
        return
    yield (
        "How probable an end is in the next step, given what really happened before it: the share of dreams of that "
        "step that end, where the episode does and elsewhere."
    )
    rows = [
        [name, *(f"{e[k]['terminated']:.3f} ({e[k]['steps']})" for k in ("end", "other"))] for name, e in found.items()
    ]
    yield table(["model", "in a step that ends (steps)", "in any other (steps)"], rows)


def _long_dream(models: dict[str, Result]) -> Iterator[str]:
    if not (found := _having(models, "long-dream")):
        return
    yield "## A long dream"
    yield (
        "Batch 1, float32, sticky random actions, codes only; median time of a step. Perplexity and gradient energy "
        "(mean squared difference of neighbouring pixels): the last tenth of the dream, then all held-out "
        "frames, then single episodes (perplexity) or reconstructions (gradient energy)."
    )
    rows = []
    for name, d in found.items():
        pace, memory = d["milliseconds_a_step"], d["memory_after"].values()
        speed = (_number(pace[k], ".1f") for k in ("first_tenth", "last_tenth"))
        state = (_number(m["state_bytes"] / 2**10, ".0f") for m in memory)
        process = (_number(m["resident_bytes"] / 2**20, ".0f") for m in memory if m["resident_bytes"])
        codes = (_number(d["code_perplexity"][k], ".0f") for k in ("dream_last_tenth", "real", "real_one_episode"))
        energy = (_number(d["gradient_energy"][k], ".4f") for k in ("dream_last_tenth", "real", "reconstructed"))
        rows.append(
            [name, d["steps"], " → ".join(speed), " → ".join(state)]
            + [" → ".join(process), d["not_finite"], " / ".join(codes), " / ".join(energy)]
        )
    header = ["model", "steps", "ms a step, first → last tenth", "state, KiB", "process, MiB", "not finite"]
    yield table([*header, "perplexity", "gradient energy"], rows)


def _speed(models: dict[str, Result]) -> Iterator[str]:
    if not (found := _having(models, "speed")):
        return
    yield "## Speed: imagined steps a second, every frame drawn"
    rows = []
    for name, s in found.items():
        values = [_number(m["steps_per_second"], ".0f") for kind in ("float32", "bfloat16") for m in s[kind]]
        rows.append([name, f"{s['threads']} of {s['cores']}", *values])
    columns = [f"{kind}, batch {batch}" for kind in ("float32", "bfloat16") for batch in (1, 64)]
    yield table(["model", "threads of cores", *columns], rows)


def _commands(models: dict[str, Result]) -> Iterator[str]:
    yield "## Commands"
    commands = dict.fromkeys(command for m in models.values() for command in m["commands"].values())
    yield "```bash\n" + "\n".join(commands) + "\n```"


def _having(models: dict[str, Result], part: str) -> dict[str, Any]:
    return {name: m[part] for name, m in models.items() if m.get(part)}


def _number(value: float | None, form: str = ".2f") -> str:
    """Every number in a cell: what could not be measured is null in world.json, and a dash here."""
    return "–" if value is None else format(value, form)


def _interval(probe: Result) -> str:
    low, high = map(_number, probe["interval"])
    return f"[{low}, {high}]"


def _plain(value: Any) -> Any:
    """JSON has no nan: what could not be measured is null."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
