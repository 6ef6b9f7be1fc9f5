"""Images: every kind of address gives its own pixels and labels, and whatever is wrong with one is said, by name."""

import os
import tempfile
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st
from made_episodes import make_episode, make_store
from PIL import Image

from worldmodel import image_data
from worldmodel.errors import UserError
from worldmodel.image_data import CIFAR10_CLASSES, Images, load_images

needs_data = pytest.mark.skipif("WORLDMODEL_DATA" not in os.environ, reason="needs WORLDMODEL_DATA")


def random_pixels(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(*shape, 3), dtype=np.uint8)


# CIFAR-10's own files


def write_batch(path: Path, pixels: np.ndarray, labels: np.ndarray) -> None:
    """As https://www.cs.toronto.edu/~kriz/cifar.html has it: label, 1024 of red, of green, of blue, row by row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        for image, label in zip(pixels, labels, strict=True):
            file.write(bytes([label]))
            for channel in range(3):
                file.write(image[:, :, channel].tobytes())


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    """Batches of 2 images; the j-th of the i-th batch has the label i + j."""
    folder = tmp_path / "cifar-10-batches-bin"
    for i in range(1, 6):
        write_batch(folder / f"data_batch_{i}.bin", random_pixels(i, 2, 32, 32), np.array([i, i + 1]))
    write_batch(folder / "test_batch.bin", random_pixels(6, 3, 32, 32), np.array([9, 0, 4]))
    return folder


@pytest.mark.parametrize("inside", [True, False])
def test_cifars_own_files_arrive(cifar: Path, inside: bool) -> None:
    address = str(cifar if inside else cifar.parent)
    train, test = load_images(address), load_images(address, "test", (32, 32))
    assert (train.pixels.dtype, train.labels.dtype) == (torch.uint8, torch.int64)
    assert train.pixels.is_contiguous()
    np.testing.assert_array_equal(train.pixels, np.concatenate([random_pixels(i, 2, 32, 32) for i in range(1, 6)]))
    assert train.labels.tolist() == [1, 2, 2, 3, 3, 4, 4, 5, 5, 6]
    np.testing.assert_array_equal(test.pixels, random_pixels(6, 3, 32, 32))
    assert test.labels.tolist() == [9, 0, 4]
    assert train.classes == test.classes == CIFAR10_CLASSES


def test_cifars_classes_are_named_as_its_file_says(cifar: Path) -> None:
    names = [f"kind {i}" for i in range(10)]
    (cifar / "batches.meta.txt").write_text("\n".join(names) + "\n\n")
    assert load_images(str(cifar)).classes == tuple(names)


# Sheets


def write_sheet(path: Path, pixels: np.ndarray, rows: int) -> None:
    Image.fromarray(rearrange(pixels, "(r c) h w k -> (r h) (c w) k", r=rows)).save(path, lossless=True, method=0)


def write_cifar_sheets(folder: Path, rows: int = 2, columns: int = 3, sheets: int = 2, left_over: int = 4) -> None:
    """Training sheets with labels 0, 1, ..., 9, 0, ... and `left_over` more; one test sheet of nines."""
    n = rows * columns
    for i in range(sheets):
        write_sheet(folder / f"train_{i:02}.webp", random_pixels(i, n, 32, 32), rows)
    write_sheet(folder / "test_00.webp", random_pixels(sheets, n, 32, 32), rows)
    train = np.arange(n * sheets + left_over) % 10
    np.savez(folder / "labels.npz", train=train.astype(np.uint8), test=np.full(n, 9, np.uint8))


@settings(max_examples=12)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 5))
def test_sheets_of_small_tiles_arrive(rows: int, columns: int, sheets: int, left_over: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_cifar_sheets(Path(folder), rows, columns, sheets, left_over)
        train, test = load_images(folder), load_images(folder, "test")
    n = rows * columns
    np.testing.assert_array_equal(train.pixels, np.concatenate([random_pixels(i, n, 32, 32) for i in range(sheets)]))
    assert train.labels.tolist() == [i % 10 for i in range(n * sheets)]
    np.testing.assert_array_equal(test.pixels, random_pixels(sheets, n, 32, 32))
    assert test.labels.tolist() == [9] * n
    assert train.classes == CIFAR10_CLASSES


def write_imagenet_sheets(folder: Path) -> None:
    for i, (name, labels) in enumerate([("train", [1, 0, 1, 1]), ("val", [0, 1, 0, 0])]):
        write_sheet(folder / f"{name}_00.webp", random_pixels(i, 4, 128, 128), rows=2)
        np.savez(folder / f"{name}_labels.npz", label=np.array(labels, np.uint8), wnid=["n01440764", "n02102040"])


def test_sheets_of_large_tiles_arrive(tmp_path: Path) -> None:
    write_imagenet_sheets(tmp_path)
    train, test = load_images(str(tmp_path)), load_images(str(tmp_path), "test", (128, 128))
    np.testing.assert_array_equal(train.pixels, random_pixels(0, 4, 128, 128))
    np.testing.assert_array_equal(test.pixels, random_pixels(1, 4, 128, 128))
    assert (train.labels.tolist(), test.labels.tolist()) == ([1, 0, 1, 1], [0, 1, 0, 0])
    assert train.classes == test.classes == ("n01440764", "n02102040")


# Folders of classes


def write_classes(folder: Path, **images: int) -> None:
    """So many 8x6 images of each class, the i-th of a class in one grey: 10 i."""
    for name, count in images.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.new("L", (6, 8), 10 * i).save(folder / name / f"{i}.png")


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_a_folder_by_class_arrives(tmp_path: Path, held_out: str) -> None:
    write_classes(tmp_path / "train", cat=2, ant=1, bee=3)
    write_classes(tmp_path / held_out, cat=1, bee=2)  # a class may have no held-out images
    (tmp_path / "train" / "cat" / "notes.txt").touch()
    (tmp_path / "train" / "cat" / ".hidden.png").touch()
    (tmp_path / "train" / ".cache").mkdir()
    train, test = (load_images(str(tmp_path), split, (8, 6)) for split in ("train", "test"))
    assert train.classes == test.classes == ("ant", "bee", "cat")
    assert train.labels.tolist() == [0, 1, 1, 1, 2, 2]
    assert test.labels.tolist() == [1, 1, 2]
    assert train.pixels.shape == (6, 8, 6, 3)
    assert train.pixels[:, 0, 0, 0].tolist() == [0, 0, 10, 20, 0, 10]


def test_a_folder_of_classes_alone_is_all_for_training(tmp_path: Path) -> None:
    write_classes(tmp_path, train=2, boat=1)  # a class may be called train
    images = load_images(str(tmp_path), size=(4, 4))
    assert (images.classes, images.labels.tolist()) == (("boat", "train"), [0, 1, 1])
    with pytest.raises(UserError, match="has no test images"):
        load_images(str(tmp_path), "test", (4, 4))


# Episode stores


def test_the_frames_of_a_store_arrive() -> None:
    address = f"memory://{uuid.uuid4()}"
    make_store(address, [5, 9, 1])
    images = load_images(address, "test", (6, 8))  # its splits are stores of their own
    expected = np.concatenate([make_episode(steps, i).frames for i, steps in enumerate([5, 9, 1])])
    np.testing.assert_array_equal(images.pixels, expected)
    assert images.labels is None and images.classes == ()


@settings(max_examples=15)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.integers(1, 60))
def test_of_many_frames_so_many_are_taken_evenly(lengths: list[int], most: int) -> None:
    address = f"memory://{uuid.uuid4()}"
    make_store(address, lengths)
    frames = np.concatenate([make_episode(steps, i).frames for i, steps in enumerate(lengths)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_data, "MOST_FRAMES", most)
        pixels = load_images(address).pixels
    assert len(pixels) == min(most, len(frames))
    numbers = {frame.tobytes(): i for i, frame in enumerate(frames)}
    taken = [numbers[frame.numpy().tobytes()] for frame in pixels]
    steps = np.diff([*taken, len(frames)])
    assert taken[0] == 0 and steps.max() - steps.min() <= 1


# What is wrong with an address


@pytest.mark.parametrize(
    ("write", "size", "sentence"),
    [
        (lambda p: (p / "data_batch_3.bin").unlink(), None, "There is no .*data_batch_3.bin"),
        (lambda p: (p / "data_batch_3.bin").write_bytes(bytes(3072)), None, "data_batch_3.bin was cut short"),
        (lambda p: (p / "data_batch_3.bin").write_bytes(b""), None, "data_batch_3.bin was cut short"),
        (lambda p: (p / "data_batch_3.bin").unlink() or (p / "data_batch_3.bin").mkdir(), None, "no file .*_3.bin"),
        (lambda p: (p / "data_batch_3.bin").write_bytes(b"\x0a" * 3073), None, "data_batch_3.bin has labels 10 to 10"),
        (lambda p: (p / "batches.meta.txt").write_bytes(b"\xff\xfe"), None, "batches.meta.txt cannot be read"),
        (lambda p: None, (64, 64), "are 32x32, not 64x64"),
        (lambda p: None, (0, 32), "1x1 at least"),
    ],
)
def test_what_is_wrong_with_cifars_files_is_said(cifar: Path, write, size, sentence: str) -> None:  # type: ignore[no-untyped-def]
    write(cifar)
    with pytest.raises(UserError, match=sentence):
        load_images(str(cifar), "train", size)


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def relabel(folder: Path, train: object) -> None:
    np.savez(folder / "labels.npz", train=train)


def lone_array(path: Path) -> None:
    with open(path, "wb") as file:
        np.save(file, np.arange(12))


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (lambda p: halve(p / "train_01.webp"), "train_01.webp is not an image that can be read"),
        (lambda p: (p / "train_00.webp").unlink(), "There is no .*train_00.webp"),
        (lambda p: [sheet.unlink() for sheet in p.glob("train_*")], "no train images: there is no sheet train_00.webp"),
        (lambda p: write_sheet(p / "train_01.webp", random_pixels(0, 3, 32, 32), 1), "train_01.webp is 32x96, but"),
        (lambda p: write_sheet(p / "train_00.webp", random_pixels(0, 6, 30, 32), 2), "train_00.webp is 60x96, but"),
        (lambda p: halve(p / "labels.npz"), "labels.npz cannot be read"),
        (lambda p: lone_array(p / "labels.npz"), "labels.npz cannot be read"),
        (lambda p: np.savez(p / "labels.npz", test=np.arange(6)), "labels.npz has no train"),
        (lambda p: relabel(p, np.arange(11) % 10), "labels.npz has 11 labels for 12 images"),
        (lambda p: relabel(p, np.arange(12)), "labels.npz has labels 0 to 11, but there are 10 classes"),
        (lambda p: relabel(p, np.arange(12) - 3), "labels.npz has labels -3 to 8"),
        (lambda p: relabel(p, np.ones(12)), "labels.npz needs labels that are whole numbers"),
        (lambda p: relabel(p, np.ones((12, 1), int)), "labels.npz needs labels that are whole numbers"),
    ],
)
def test_what_is_wrong_with_sheets_is_said(tmp_path: Path, harm, sentence: str) -> None:  # type: ignore[no-untyped-def]
    write_cifar_sheets(tmp_path)
    harm(tmp_path)
    with pytest.raises(UserError, match=sentence):
        load_images(str(tmp_path))


def test_what_is_wrong_with_sheets_of_large_tiles_is_said(tmp_path: Path) -> None:
    write_imagenet_sheets(tmp_path)
    with pytest.raises(UserError, match="are 128x128, not 32x32"):
        load_images(str(tmp_path), size=(32, 32))
    np.savez(tmp_path / "val_labels.npz", label=np.zeros(4, int))
    with pytest.raises(UserError, match="val_labels.npz has no wnid"):
        load_images(str(tmp_path), "test")
    (tmp_path / "val_labels.npz").unlink()
    with pytest.raises(UserError, match="There is no .*val_labels.npz"):
        load_images(str(tmp_path), "test")


def deep_colours(folder: Path) -> None:
    Image.fromarray(np.full((8, 6), 40_000, np.uint16)).save(folder / "train" / "ant" / "0.png")


@pytest.mark.parametrize(
    ("harm", "split", "sentence"),
    [
        (lambda p: halve(p / "train" / "ant" / "0.png"), "train", "ant.0.png is not an image that can be read"),
        (lambda p: (p / "train" / "ant" / "a.jpg").touch(), "train", "ant.a.jpg is not an image that can be read"),
        (lambda p: (p / "train" / "ant" / "a.jpg").mkdir(), "train", "ant.a.jpg is not an image that can be read"),
        (deep_colours, "train", "ant.0.png has more than 8 bits"),
        (lambda p: (p / "train" / "cow").mkdir(), "train", "train.cow has no images"),
        (lambda p: None, "test", "has no test images: they would be in .*val, by class"),
        (lambda p: write_classes(p / "val", cow=1), "test", "val.cow is no class of .*train"),
        (lambda p: (p / "train").rename(p / "val"), "train", "has no train images"),
    ],
)
def test_what_is_wrong_with_a_folder_by_class_is_said(tmp_path: Path, harm, split, sentence: str) -> None:  # type: ignore[no-untyped-def]
    write_classes(tmp_path / "train", ant=2, bee=1)
    harm(tmp_path)
    with pytest.raises(UserError, match=sentence):
        load_images(str(tmp_path), split, (4, 4))


def test_images_of_any_size_need_one(tmp_path: Path) -> None:
    write_classes(tmp_path, ant=1)
    with pytest.raises(UserError, match="give the size"):
        load_images(str(tmp_path))


def test_what_is_wrong_with_a_store_is_said() -> None:
    address = f"memory://{uuid.uuid4()}"
    store = make_store(address, [])
    with pytest.raises(UserError, match="is empty"):
        load_images(address)
    store.append(make_episode(3))
    with pytest.raises(UserError, match="are 6x8, not 8x6"):
        load_images(address, size=(8, 6))


def test_an_address_without_images_is_said(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for address in ("absent", "file"):
        with pytest.raises(UserError, match=f"no folder and no episode store at .*{address}"):
            load_images(str(tmp_path / address))
    with pytest.raises(UserError, match="no images of a known kind"):
        load_images(str(tmp_path))
    with pytest.raises(UserError, match='splits are train and test, not "val"'):
        load_images(str(tmp_path), "val")  # type: ignore[arg-type]


# The real thing


def blueness(images: Images, *classes: str) -> float:
    """How much bluer than red images of some classes are on average."""
    chosen = torch.isin(images.labels, torch.tensor([images.classes.index(name) for name in classes]))
    mean = images.pixels[chosen].float().mean((0, 1, 2))
    return float(mean[2] - mean[0])


@needs_data
def test_real_images_of_cifar10_arrive() -> None:
    train, test = (load_images(os.path.join(os.environ["WORLDMODEL_DATA"], "cifar10"), s) for s in ("train", "test"))
    assert (train.pixels.shape, test.pixels.shape) == ((16_000, 32, 32, 3), (10_000, 32, 32, 3))
    assert torch.bincount(test.labels).tolist() == [1000] * 10
    assert torch.bincount(train.labels).min() > 1400
    for images in (train, test):  # sky and sea, grass and woods
        assert blueness(images, "airplane", "ship") > blueness(images, "deer", "frog") + 20


@needs_data
def test_real_images_of_imagenet_arrive() -> None:
    train, test = (load_images(os.path.join(os.environ["WORLDMODEL_DATA"], "imagenet10"), s) for s in ("train", "test"))
    assert (train.pixels.shape, test.pixels.shape) == ((2000, 128, 128, 3), (400, 128, 128, 3))
    assert len(train.classes) == 10 and train.classes == test.classes
    assert len(torch.bincount(train.labels)) == len(torch.bincount(test.labels)) == 10
    parachute, tench = "n03888257", "n01440764"
    for images in (train, test):
        assert blueness(images, parachute) > blueness(images, tench) + 20
