"""Images of one side, read in batches by a thread while the network works on the last batch."""

import contextlib
import hashlib
import queue
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from galaxies.device import cores
from galaxies.errors import UNREADABLE, InputError
from galaxies.image_files import BadImageError, Decoding, decode_image
from galaxies.image_set import ImageSet
from galaxies.pixels import Stretch, to_network, to_storage

Item = TypeVar("Item")

_BATCHES_AHEAD = 2


@dataclass(frozen=True)
class Batch:
    """Some images; those of one shape stand in one tensor.

    Attributes
    ----------
    rows : list of (n_i,) int64
        Positions in the source of the images of each tensor.
    images : list of (n_i, C, H, W) uint8
    """

    rows: list[np.ndarray]
    images: list[torch.Tensor]

    def __len__(self) -> int:
        return sum(len(part) for part in self.rows)


class ImageSource(Protocol):
    """One side of the comparison that holds images."""

    name: str

    def __len__(self) -> int: ...

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield all images, ``size`` at a time, in order."""
        ...

    def digest(self) -> str:
        """Hash of everything that decides the pixels: equal digests, equal images."""
        ...

    def read(self, rows: np.ndarray) -> torch.Tensor:
        """(n, C, H, W) uint8 pixels of ``rows``, all of one shape."""
        ...

    def names_of(self, rows: np.ndarray) -> list[str]:
        """What the user calls these images."""
        ...

    def notes(self) -> list[str]:
        """What a reader of the number should know, complete after the images were read."""
        ...


@dataclass
class SetImages:
    """An image set; float32 flux is seen through its stretch as 8 bits, as a network sees it.

    Attributes
    ----------
    name : str
        What the user typed.
    image_set : ImageSet
    left_out : tuple of str
        What is wrong with each file that is no longer in the set.
    """

    name: str
    image_set: ImageSet
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.image_set)

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield all images in the order of the disk."""
        for rows, block in self.image_set.blocks():
            pixels = as_uint8(block, self.image_set.stretch)
            for start in range(0, len(rows), size):
                yield Batch([rows[start : start + size]], [pixels[start : start + size]])

    def digest(self) -> str:
        """Hash of the pixels and of how they are seen."""
        digest = hashlib.blake2b(digest_size=32)
        digest.update(f"{self.image_set.shape} {self.image_set.stretch}".encode())
        for _, block in self.image_set.blocks():
            digest.update(np.ascontiguousarray(block.numpy()).data)
        return digest.hexdigest()

    def read(self, rows: np.ndarray) -> torch.Tensor:
        """Read some images."""
        return as_uint8(self.image_set.read(rows), self.image_set.stretch)

    def names_of(self, rows: np.ndarray) -> list[str]:
        """Ids of the set."""
        return [str(name) for name in self.image_set.ids[rows]]

    def notes(self) -> list[str]:
        """Say which files were left out, and where flux was turned into 8 bits."""
        notes = [_left_out(self.name, self.left_out)] if self.left_out else []
        if self.image_set.store.dtype != torch.uint8:
            notes.append(
                f"{self.name}: float32 flux was seen through its stretch as 8 bits "
                f"({self.image_set.stretch})"
            )
        return notes


@dataclass
class LooseImages:
    """Image files of a folder or a zip; sizes and colours may be mixed.

    Attributes
    ----------
    name : str
        What the user typed.
    files : tuple of Path or str
        Files, or names inside ``archive``.
    decoding : Decoding
    skip_bad : bool
        Count unusable files instead of refusing all.
    archive : Path or None
        Zip file.
    bad : dict
        Row -> what is wrong with it, known after reading.
    shapes : dict
        (C, H, W) -> number of images, known after reading.
    looked : bool
        Whether every file was tried.
    """

    name: str
    files: tuple[Path | str, ...]
    decoding: Decoding
    skip_bad: bool = False
    archive: Path | None = None
    bad: dict[int, str] = field(default_factory=dict)
    shapes: dict[tuple[int, int, int], int] = field(default_factory=dict)
    looked: bool = False

    def __len__(self) -> int:
        return len(self.files)

    def batches(self, size: int) -> Iterator[Batch]:
        """Decode by threads.

        Raises
        ------
        InputError
            If files are bad and may not be skipped: names every one of the whole source.
        """
        self.shapes = {}
        with self._reader() as read, ThreadPoolExecutor(cores()) as pool:
            for start in range(0, len(self.files), size):
                rows = range(start, min(start + size, len(self.files)))
                decoded = dict(zip(rows, pool.map(self._attempt(read), rows), strict=True))
                batch = self._batch(decoded)
                if self.bad and not self.skip_bad:
                    self._refuse(pool, read, start + size)
                yield batch
        self.looked = True

    def digest(self) -> str:
        """Hash of the bytes of the files and of the rules that decode them."""
        total = hashlib.blake2b(digest_size=32)
        total.update(f"{self.decoding} {self.skip_bad}".encode())

        def of(row: int) -> bytes:
            try:
                content = self._bytes(read, row)
            except UNREADABLE as error:  # who decodes it says what is wrong, by name
                content = f"unreadable: {type(error).__name__}".encode()
            return hashlib.blake2b(content, digest_size=32).digest()

        with self._reader() as read, ThreadPoolExecutor(cores()) as pool:
            for part in pool.map(of, range(len(self.files))):
                total.update(part)
        return total.hexdigest()

    def bad_rows(self) -> np.ndarray:
        """Rows that cannot be used, after one look at all files."""
        if not self.looked:
            with self._reader() as read, ThreadPoolExecutor(cores()) as pool:
                for row, image in enumerate(pool.map(self._attempt(read), range(len(self)))):
                    if isinstance(image, str):
                        self.bad[row] = image
            self.looked = True
        return np.array(sorted(self.bad), dtype=np.int64)

    def read(self, rows: np.ndarray) -> torch.Tensor:
        """Decode some images.

        Raises
        ------
        InputError
            If their shapes differ.
        """
        with self._reader() as read, ThreadPoolExecutor(cores()) as pool:
            decoded = dict(enumerate(pool.map(self._attempt(read), (int(r) for r in rows))))
        wrong = [image for image in decoded.values() if isinstance(image, str)]
        if wrong:
            raise InputError("; ".join(wrong))
        images = list(decoded.values())
        colours = {image.shape[2] for image in images}  # type: ignore[union-attr]
        if colours == {1, 3}:  # grey among colour
            images = [np.repeat(i, 3, axis=2) if i.shape[2] == 1 else i for i in images]  # type: ignore
        if len({image.shape for image in images}) > 1:  # type: ignore[union-attr]
            raise InputError(
                f"{self.name} holds images of several sizes; pixel by pixel they cannot be compared"
            )
        return _stack(images)  # type: ignore[arg-type]

    def names_of(self, rows: np.ndarray) -> list[str]:
        """Names of the files as seen from the folder or inside the archive."""
        if self.archive is not None:
            return [str(self.files[row]) for row in rows]
        return [Path(self.files[row]).relative_to(self.name).as_posix() for row in rows]

    def notes(self) -> list[str]:
        """Count bad files, and say where sizes or colours are mixed."""
        notes = []
        if self.bad:
            notes.append(_left_out(self.name, [self.bad[row] for row in sorted(self.bad)]))
        sizes = {shape[1:]: 0 for shape in self.shapes}
        for (_, *size), count in self.shapes.items():
            sizes[tuple(size)] += count  # type: ignore[index]
        if len(sizes) > 1:
            listed = ", ".join(f"{w}x{h} ({count})" for (h, w), count in sorted(sizes.items())[:5])
            notes.append(
                f"{self.name}: images of {len(sizes)} sizes, each resized on its own: {listed}"
            )
        grey = sum(count for (channels, *_), count in self.shapes.items() if channels == 1)
        total = sum(self.shapes.values())
        if 0 < grey < total:
            notes.append(f"{self.name}: {grey} of {total} images are grey, the others colour")
        return notes

    def learnt(self) -> dict[str, Any]:
        """What a reading of all files has told, for `recall`."""
        return {
            "bad": sorted(self.bad),
            "shapes": [[*shape, count] for shape, count in self.shapes.items()],
        }

    def recall(self, learnt: dict[str, Any]) -> bool:
        """Know again what equal files told, also under other names, without decoding them.

        Only the bad ones are tried, to say today's names and reasons.

        Returns
        -------
        bool
            False where one of them can be used now, so that what was measured is out of date.
        """
        with self._reader() as read:
            tried = {row: self._attempt(read)(row) for row in learnt["bad"]}
        bad = {row: image for row, image in tried.items() if isinstance(image, str)}
        if len(bad) < len(tried):
            return False
        self.bad, self.looked = bad, True
        self.shapes = {(c, h, w): count for c, h, w, count in learnt["shapes"]}
        return True

    def _attempt(self, read: Callable[[str], bytes] | None) -> Callable[[int], np.ndarray | str]:
        def attempt(row: int) -> np.ndarray | str:
            name = self._label(row)
            try:
                return decode_image(self._bytes(read, row), name, self.decoding)
            except FileNotFoundError:
                return f"{name} does not exist"
            except (BadImageError, zipfile.BadZipFile) as error:
                return str(error)
            except UNREADABLE as error:
                return f"{name} cannot be read ({error})"

        return attempt

    def _batch(self, decoded: dict[int, np.ndarray | str]) -> Batch:
        groups: dict[tuple[int, int, int], list[int]] = {}
        for row, image in decoded.items():
            if isinstance(image, str):
                self.bad[row] = image
                continue
            height, width, channels = image.shape
            shape = (channels, height, width)
            groups.setdefault(shape, []).append(row)
            self.shapes[shape] = self.shapes.get(shape, 0) + 1
        return Batch(
            [np.array(rows) for rows in groups.values()],
            [_stack([decoded[row] for row in rows]) for rows in groups.values()],  # type: ignore[misc]
        )

    def _refuse(
        self, pool: ThreadPoolExecutor, read: Callable[[str], bytes] | None, start: int
    ) -> None:
        """Decode the rest, so that every bad file is named at once."""
        rest = range(start, len(self.files))
        for row, image in zip(rest, pool.map(self._attempt(read), rest), strict=True):
            if isinstance(image, str):
                self.bad[row] = image
        raise InputError(
            f"{len(self.bad)} of {len(self.files)} images cannot be used "
            "(--skip-bad leaves them out): " + "; ".join(self.bad[row] for row in sorted(self.bad))
        )

    def _label(self, row: int) -> str:
        name = str(self.files[row])
        return name if self.archive is None else f"{self.archive}:{name}"

    def _bytes(self, read: Callable[[str], bytes] | None, row: int) -> bytes:
        file = self.files[row]
        if read is not None:
            return read(str(file))
        return Path(file).read_bytes()

    @contextlib.contextmanager
    def _reader(self) -> Iterator[Callable[[str], bytes] | None]:
        if self.archive is None:
            yield None
        else:
            with zipfile.ZipFile(self.archive) as archive:
                yield archive.read


def _left_out(name: str, complaints: Sequence[str]) -> str:
    return f"{name}: {len(complaints)} unusable files left out: " + "; ".join(complaints)


def as_uint8(images: torch.Tensor, stretch: Stretch | None) -> torch.Tensor:
    """The 8-bit view that networks get: flux through its stretch, 8 bits as they are."""
    if images.dtype == torch.uint8:
        return images
    return to_storage(to_network(images, stretch))


def ahead(items: Iterator[Item], depth: int = _BATCHES_AHEAD) -> Iterator[Item]:
    """Run an iterator in a thread that stays ``depth`` items ahead; its errors come through."""
    waiting: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(depth)
    stop = threading.Event()

    def offer(entry: tuple[Item | None, BaseException | None]) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put(entry, timeout=0.1)
                return

    def work() -> None:
        try:
            for item in items:
                offer((item, None))
                if stop.is_set():
                    return
            offer((None, None))
        except BaseException as error:
            offer((None, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
    finally:
        stop.set()
        thread.join()


def _stack(images: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
