from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.errors import HarnessError
from harness.evaluation.label_maps import LabelMaps, write_segmentation

FRAMES = ["bonn_000000_000019", "bonn_000001_000019"]
MAP = np.arange(12, dtype=np.uint8).reshape(3, 4)


def png(array: Any = MAP) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


def make_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def test_a_written_map_is_read_back(tmp_path: Path) -> None:
    for frame in FRAMES:
        write_segmentation(tmp_path, frame, MAP)
    maps = LabelMaps(tmp_path, FRAMES, FRAMES)
    assert np.array_equal(maps.read(FRAMES[1], (3, 4)), MAP)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{frame}.png" for frame in FRAMES]


@pytest.mark.parametrize("name", ["", "../up", "a/b", "a\\b", ".hidden", "nul\0"])
def test_a_name_that_leaves_the_folder_is_not_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(HarnessError, match="cannot be a file name"):
        write_segmentation(tmp_path / "inside", name, MAP)
    assert list(tmp_path.iterdir()) == []


def test_only_8_bit_maps_are_written(tmp_path: Path) -> None:
    for array in (MAP.astype(np.int64), MAP[None]):
        with pytest.raises(HarnessError, match="uint8 \\[H, W\\] is required"):
            write_segmentation(tmp_path, "a", array)


def test_a_frame_does_not_claim_the_file_of_one_whose_name_goes_on_with_a_digit(tmp_path: Path) -> None:
    for name in ("a_1.png", "a_10.png", "a_1_x.png"):
        (tmp_path / name).write_bytes(png())
    maps = LabelMaps(tmp_path, ["a_1", "a_10", "a_1_x"], [])
    assert maps.path("a_1").endswith("a_1.png")
    assert maps.path("a_10").endswith("a_10.png")
    assert maps.path("a_1_x").endswith("a_1_x.png")


def test_missing_double_and_unknown_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / f"{FRAMES[0]}.png").write_bytes(png())
    with pytest.raises(HarnessError, match=f"1 of 2 frames have no label map; the first is '{FRAMES[1]}'"):
        LabelMaps(tmp_path, FRAMES, FRAMES)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / f"{FRAMES[0]}_again.png").write_bytes(png())
    with pytest.raises(HarnessError, match=f"a second label map of '{FRAMES[0]}'"):
        LabelMaps(tmp_path, FRAMES[:1], FRAMES)
    (tmp_path / "sub" / f"{FRAMES[0]}_again.png").rename(tmp_path / "sub" / "berlin_000000_000019.png")
    with pytest.raises(HarnessError, match=r"berlin.* does not start with the name of a frame"):
        LabelMaps(tmp_path, FRAMES[:1], FRAMES)
    with pytest.raises(HarnessError, match="no such folder or ZIP"):
        LabelMaps(tmp_path / "none", FRAMES, FRAMES)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"hello", "is not a PNG"),
        (b"", "is not a PNG"),
        (png()[:45], "cannot be decoded"),
        (png(np.zeros((3, 4, 3), np.uint8)), "PNG of mode RGB"),
        (png(np.zeros((3, 4), np.uint16)), "PNG of mode I;16"),
        (png(np.zeros((3, 4), bool)), "PNG of mode 1 where L or P is required"),
        (png(np.zeros((4, 3), np.uint8)), "3 x 4 pixels where the ground truth has 4 x 3"),
    ],
)
def test_a_file_that_is_no_label_map_of_the_right_size_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / f"{FRAMES[0]}.png").write_bytes(data)
    for source in (tmp_path, make_zip(tmp_path / "maps.zip", {f"{FRAMES[0]}.png": data})):
        with pytest.raises(HarnessError, match=words) as error:
            LabelMaps(source, FRAMES[:1], []).read(FRAMES[0], (3, 4))
        assert FRAMES[0] in str(error.value)


def test_a_jpeg_named_png_is_refused(tmp_path: Path) -> None:
    Image.fromarray(MAP).save(tmp_path / f"{FRAMES[0]}.png", format="JPEG")
    with pytest.raises(HarnessError, match="is not a PNG"):
        LabelMaps(tmp_path, FRAMES[:1], []).read(FRAMES[0])


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks:
        data += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    (tmp_path / f"{FRAMES[0]}.png").write_bytes(data)
    with pytest.raises(HarnessError, match="refused"):
        LabelMaps(tmp_path, FRAMES[:1], []).read(FRAMES[0])


@pytest.mark.parametrize("name", ["../{}.png", "/tmp/{}.png", "a/../../{}.png", "a\\{}.png", "C:/{}.png"])
def test_a_zip_with_a_path_that_leaves_it_is_refused(tmp_path: Path, name: str) -> None:
    path = make_zip(tmp_path / "maps.zip", {name.format(FRAMES[0]): png()})
    with pytest.raises(HarnessError, match="a path that leaves the ZIP"):
        LabelMaps(path, FRAMES[:1], [])


def test_a_zip_bomb_is_refused_by_its_stated_and_by_its_real_size(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("harness.evaluation.label_maps._MAX_FILE_BYTES", 1 << 20)
    path = make_zip(tmp_path / "maps.zip", {f"{FRAMES[0]}.png": b"\0" * (3 << 20)})
    with pytest.raises(HarnessError, match="unpacks to 3 MiB; refused"):
        LabelMaps(path, FRAMES[:1], [])
    # A header that lies about the size: the central directory says 10 bytes.
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<I", 3 << 20), struct.pack("<I", 10)))
    with pytest.raises(HarnessError, match=r"cannot be unpacked|is not a PNG"):
        LabelMaps(path, FRAMES[:1], []).read(FRAMES[0])


@pytest.mark.parametrize("name", [".", "./", "./."])
def test_a_zip_that_names_its_own_folder_is_read(tmp_path: Path, name: str) -> None:
    path = make_zip(tmp_path / "maps.zip", {name: b"", f"{FRAMES[0]}.png": png()})
    assert LabelMaps(path, FRAMES[:1], FRAMES).read(FRAMES[0]).ndim == 2


def test_a_damaged_zip_of_another_packing_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "maps.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr(f"{FRAMES[0]}.png", png() * 3)
    raw = bytearray((tmp_path / "maps.zip").read_bytes())
    raw[80] ^= 0xFF
    (tmp_path / "maps.zip").write_bytes(raw)
    with pytest.raises(HarnessError, match="cannot be unpacked"):
        LabelMaps(tmp_path / "maps.zip", FRAMES[:1], FRAMES).read(FRAMES[0])


def test_a_png_with_an_empty_colour_profile_is_refused_in_one_sentence(tmp_path: Path) -> None:
    data = png()
    broken = data[:-12] + bytes(4) + b"iCCP" + zlib.crc32(b"iCCP").to_bytes(4, "big") + data[-12:]
    (tmp_path / f"{FRAMES[0]}.png").write_bytes(broken)
    with pytest.raises(HarnessError, match="cannot be decoded"):
        LabelMaps(tmp_path, FRAMES[:1], FRAMES).read(FRAMES[0])


def test_a_damaged_zip_is_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "maps.zip", {f"{FRAMES[0]}.png": png()})
    data = bytearray(path.read_bytes())
    data[60:70] = b"\xff" * 10
    path.write_bytes(bytes(data))
    with pytest.raises(HarnessError, match="cannot be unpacked"):
        LabelMaps(path, FRAMES[:1], []).read(FRAMES[0])
    path.write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(HarnessError, match="not a valid ZIP file"):
        LabelMaps(path, FRAMES[:1], [])
