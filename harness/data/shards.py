"""Images in tar shards, as WebDataset has them: few large files, which network and object storage serve well."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from webdataset import ShardWriter
from webdataset.cache import FileCache
from webdataset.shardlists import expand_urls

from harness.atomic import make_folder
from harness.cards import DatasetCard, cache_directory
from harness.data.columns import Columns, Texts, columns
from harness.data.images import EXTENSIONS, MAX_BYTES
from harness.data.stores import ImageStore, image_files, open_images
from harness.errors import HarnessError, suggestion
from harness.progress import Reporter

REMOTE = ("https://", "http://", "gs://")  # not "pipe:", which would run what a card says


class ImageShards(ImageStore):
    """The images of a split in tar files, read at random through an index of the tar headers.

    Args:
        card: The data set; ``splits.<split>.images`` is ``train-{000000..000146}.tar`` or ``train-*.tar``, in the
            card's root or at a URL. Shards at a URL are fetched once into the cache folder.
        split: Name of the split.
        upright: Whether to turn images as their EXIF data say.

    Raises:
        HarnessError: A shard is missing, cannot be fetched, is no tar file, or two images have the same name.
    """

    def __init__(self, card: DatasetCard, split: str, upright: bool) -> None:
        super().__init__(card.splits[split].images, upright)  # type: ignore[index]
        self._shards = shard_files(card, split)
        key = hashlib.sha256(b"shards")
        for path in self._shards:
            status = path.stat()
            key.update(f"{path.name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        self._columns: Columns = columns(key.hexdigest(), lambda: _index(self._shards))

    def path(self, name: str) -> str:
        """How an error calls an image: the shard and the name inside."""
        row = self._row(name)
        return f"{self._shards[self._columns['shard'][row]]}:{name}" if row is not None else super().path(name)

    def content(self, name: str) -> bytes:
        """The bytes of an image file. Raises HarnessError if it is not there."""
        row = self._row(name)
        if row is None:
            raise HarnessError(f"{self.place}: no shard holds {name}; complete the data set")
        with self._shards[self._columns["shard"][row]].open("rb") as file:
            file.seek(int(self._columns["offset"][row]))
            return file.read(int(self._columns["size"][row]))

    def names(self) -> list[str]:
        """All images, sorted."""
        return sorted(self._columns.texts("names"))

    def folders(self) -> list[str]:
        """First parts of the images' names."""
        return sorted({name.split("/", 1)[0] for name in self._columns.texts("names") if "/" in name})

    def require(self, names: Iterable[str], source: str) -> None:
        """Check that every image is in a shard."""
        missing = [name for name in names if self._row(name) is None]
        if missing:
            more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
            raise HarnessError(f"{source}: image {missing[0]}{more} is in none of the shards {self.place}")

    def _row(self, name: str) -> int | None:
        hashes = self._columns["hash"]
        wanted = _hash(name)
        row = int(np.searchsorted(hashes, wanted))
        while row < len(hashes) and hashes[row] == wanted:
            if self._columns.texts("names")[row] == name:
                return row
            row += 1
        return None


def shard_files(card: DatasetCard, split: str) -> list[Path]:
    """The shards of a split as local files, in order; shards at a URL are fetched first.

    Raises:
        HarnessError: A shard is missing or cannot be fetched.
    """
    pattern = card.splits[split].images  # type: ignore[index]
    if pattern.startswith(REMOTE):
        folder = cache_directory() / "shards" / card.name
        fetch = FileCache(cache_dir=str(folder), validator=tarfile.is_tarfile)
        return [_fetched(fetch, url) for url in expand_urls(pattern)]
    if "://" in pattern or pattern.startswith("pipe:"):
        raise HarnessError(
            f"card {card.name}: splits.{split}.images: {pattern!r} must begin with {' or '.join(REMOTE)}"
        )
    return image_files(card, split)


def write_shards(card: DatasetCard, split: str, folder: Path, per_shard: int, reporter: Reporter) -> str:
    """Pack the images of a split into tar shards.

    Args:
        card: The data set.
        split: Name of the split.
        folder: Where ``<split>-000000.tar`` and so on go.
        per_shard: Images per shard.
        reporter: Shows progress.

    Returns:
        The pattern of the shards' names, for ``splits.<split>.images`` of a card.

    Raises:
        HarnessError: An image is missing, or `folder` holds shards already or cannot be written.
    """
    if split not in card.splits:
        raise HarnessError(f"card {card.name}: splits: there is no split {split!r}{suggestion(split, card.splits)}")
    store = open_images(card, split)
    names = store.names()
    make_folder(folder)
    if any(folder.glob(f"{split}-*.tar")):
        raise HarnessError(f"{folder}: holds shards of {split} already; remove them or choose another folder")
    with (
        reporter.bar(f"packing {card.name} {split}", len(names)) as bar,
        ShardWriter(str(folder / f"{split}-%06d.tar"), maxcount=per_shard, verbose=0, mtime=0) as writer,
    ):
        for name in names:
            parent, slash, base = name.rpartition("/")
            stem, _, ending = base.partition(".")  # WebDataset's rule: a key ends at the first dot
            writer.write({"__key__": f"{parent}{slash}{stem}", ending: store.content(name)})
            bar.advance()
    last = -(-len(names) // per_shard) - 1
    return f"{split}-{{000000..{last:06d}}}.tar"


def _fetched(fetch: Any, url: str) -> Path:
    try:
        return Path(fetch.get_file(url))
    except Exception as error:  # the library's downloaders raise nearly anything
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise HarnessError(f"{url}: cannot be fetched ({problem}); check the address and the network") from None


def _index(shards: list[Path]) -> dict[str, NDArray[Any] | Texts]:
    """Where each image lies, sorted by the hash of its name."""
    names: list[str] = []
    places: list[tuple[int, int, int]] = []
    for number, path in enumerate(shards):
        try:
            with tarfile.open(path, "r:") as archive:
                for member in archive:
                    hidden = member.name.rpartition("/")[2].startswith(".")
                    if not member.isreg() or hidden or not member.name.lower().endswith(EXTENSIONS):
                        continue
                    if member.size > MAX_BYTES:
                        raise HarnessError(f"{path}:{member.name}: {member.size:,} bytes are no image; remove it")
                    names.append(member.name.removeprefix("./"))
                    places.append((number, member.offset_data, member.size))
        except (tarfile.TarError, OSError) as error:
            raise HarnessError(f"{path}: not a whole tar file ({error}); fetch it again") from None
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise HarnessError(f"{shards[0].parent}: two shards hold {twice}; names must be unique")
    hashes = np.array([_hash(name) for name in names], dtype=np.int64)
    order = np.argsort(hashes, kind="stable")
    table = np.array(places, dtype=np.int64).reshape(-1, 3)[order]
    return {
        "hash": hashes[order],
        "names": Texts.of(names[row] for row in order),
        "shard": table[:, 0],
        "offset": table[:, 1],
        "size": table[:, 2],
    }


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little", signed=True)
