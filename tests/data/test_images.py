import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.data.images import read_image, read_label_png, require_images, walk_images
from harness.errors import HarnessError

RGB = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
GREY = np.arange(35, dtype=np.uint8).reshape(5, 7) * 7


def test_a_color_png_is_read_pixel_for_pixel(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.dtype == np.uint8
    assert (image == RGB).all()
    image[0] = 0  # may be written into


def test_grey_values_are_repeated_over_the_three_channels(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == GREY[:, :, None]).all()


def test_a_palette_is_looked_up_with_and_without_transparency(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    image = Image.fromarray(np.array([[0, 1], [1, 2]], np.uint8), mode="P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.save(tmp_path / "plain.png")
    image.save(tmp_path / "clear.png", transparency=bytes([0, 128, 255]))
    recwarn.clear()
    expected = [[[10, 20, 30], [40, 50, 60]], [[40, 50, 60], [70, 80, 90]]]
    assert read_image(tmp_path / "plain.png").tolist() == expected
    assert read_image(tmp_path / "clear.png").tolist() == expected
    assert not recwarn.list


def test_transparency_is_dropped_and_cmyk_is_converted(tmp_path: Path) -> None:
    alpha = np.dstack([RGB, np.full((5, 7), 3, np.uint8)])
    Image.fromarray(alpha).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == RGB).all()
    Image.new("CMYK", (7, 5), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    assert (abs(read_image(tmp_path / "a.jpg").astype(int) - [255, 0, 0]) <= 6).all()


def test_sixteen_bit_grey_values_keep_their_upper_eight_bits(tmp_path: Path) -> None:
    values = np.array([[0, 255, 256], [32768, 65279, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    Image.fromarray(values).save(tmp_path / "a.tif")
    for name in ("a.png", "a.tif"):
        assert read_image(tmp_path / name)[:, :, 1].tolist() == [[0, 0, 1], [128, 254, 255]]


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
def test_exif_orientation_is_applied_only_where_it_is_asked_for(tmp_path: Path, ending: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    path = tmp_path / f"a.{ending}"
    Image.fromarray(RGB).save(path, exif=exif)
    stored = read_image(path)
    assert stored.shape == (5, 7, 3)
    turned = read_image(path, upright=True)
    assert turned.shape == (7, 5, 3)
    assert np.abs(turned.astype(int) - np.rot90(stored, -1).astype(int)).max() <= 1


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("mode", ["RGB", "L", "progressive"])
def test_jpeg_pixels_are_within_one_level_of_pillows(tmp_path: Path, subsampling: str, mode: str) -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((123, 91), Image.Resampling.BICUBIC)
    options = {"progressive": True} if mode == "progressive" else {}
    image.convert("L" if mode == "L" else "RGB").save(
        tmp_path / "a.jpg", quality=80, subsampling=subsampling, **options
    )
    reference = np.asarray(Image.open(tmp_path / "a.jpg").convert("RGB")).astype(int)
    assert np.abs(read_image(tmp_path / "a.jpg") - reference).max() <= 1


def test_a_jpeg_that_ends_with_the_wrong_marker_is_read_as_pillow_reads_it(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content + b"trailing bytes of a careless tool")
    assert read_image(tmp_path / "a.jpg").shape == (5, 7, 3)


def test_the_first_picture_of_a_stereo_jpeg_is_read(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (7, 5), (200, 0, 0)), Image.new("RGB", (7, 5), (0, 0, 200))
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second])
    assert (abs(read_image(tmp_path / "a.jpg").astype(int) - [200, 0, 0]) <= 6).all()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP"])
def test_truncated_files_of_every_format_are_refused_by_name(tmp_path: Path, form: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8)).save(buffer, form)
    path = tmp_path / "cut.img"
    for part in (0.02, 0.5, 0.9):
        path.write_bytes(buffer.getvalue()[: int(len(buffer.getvalue()) * part)])
        with pytest.raises(HarnessError, match=r"cut\.img: .*fetch the file again"):
            read_image(path)


def test_random_bytes_after_a_valid_signature_never_give_another_exception(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole = io.BytesIO()
    Image.fromarray(RGB).save(whole, "PNG")
    path = tmp_path / "broken.png"
    refusals: list[str] = []
    for _ in range(200):
        data = bytearray(whole.getvalue())
        for place in rng.integers(8, len(data), 4):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        try:
            assert read_image(path).ndim == 3
        except HarnessError as error:
            refusals.append(str(error))
    assert len(refusals) > 100
    assert all("broken.png" in text and "\n" not in text for text in refusals)


def test_a_missing_file_a_text_and_float_pixels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"gone\.png: no such image file"):
        read_image(tmp_path / "gone.png")
    (tmp_path / "text.png").write_text("<html>404</html>")
    with pytest.raises(HarnessError, match=r"text\.png: not an image"):
        read_image(tmp_path / "text.png")
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(HarnessError, match=r"float\.tif: floating-point pixels"):
        read_image(tmp_path / "float.tif")


def test_formats_whose_decoders_start_other_programs_are_refused(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.eps")
    with pytest.raises(HarnessError, match="not an image"):
        read_image(tmp_path / "a.eps")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_100, 60_000])
def test_decompression_bombs_are_refused_before_they_are_decoded(tmp_path: Path, side: int) -> None:
    header = io.BytesIO()
    Image.new("1", (side, 1)).save(header, "PNG")
    data = bytearray(header.getvalue())
    data[20:24] = side.to_bytes(4, "big")  # the height in IHDR
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(HarnessError, match=r"bomb\.png: .*pixels.*scale the image down"):
        read_image(tmp_path / "bomb.png")


def test_a_label_map_keeps_its_ids_whether_grey_or_with_a_palette(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "grey.png")
    palette = Image.fromarray(GREY, mode="P")
    palette.putpalette(list(range(255, -1, -1)) * 3)
    palette.save(tmp_path / "palette.png")
    for name in ("grey.png", "palette.png"):
        labels = read_label_png(tmp_path / name)
        assert labels.dtype == np.uint8
        assert (labels == GREY).all()


@pytest.mark.parametrize("pixels", [RGB, GREY.astype(np.uint16) * 99, GREY > 5], ids=["color", "16 bit", "1 bit"])
def test_a_label_map_of_another_kind_is_refused(tmp_path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with pytest.raises(HarnessError, match=r"a\.png: pixel mode .* is not a label map"):
        read_label_png(tmp_path / "a.png")


def test_a_jpeg_is_no_label_map(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png", "JPEG")
    with pytest.raises(HarnessError, match="not an image in PNG format"):
        read_label_png(tmp_path / "a.png")


def test_missing_images_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.png").touch()
    require_images(tmp_path, ["sub/a.png"], "list.json")
    with pytest.raises(HarnessError, match=r"list\.json: image .*b\.png and 1 more is missing"):
        require_images(tmp_path, ["sub/a.png", "sub/b.png", "sub/c.png"], "list.json")
    with pytest.raises(HarnessError, match=r"other/a\.png is missing"):
        require_images(tmp_path, ["other/a.png"], "list.json")


@pytest.mark.parametrize("name", ["../a.png", "/etc/passwd", "x/../../a.png", "a\0.png", "..\\a.png", ""])
def test_image_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(HarnessError, match="does not stay inside"):
        require_images(tmp_path, [name], "list.json")


def test_walking_finds_images_in_sorted_order_and_skips_hidden_files(tmp_path: Path) -> None:
    for name in ("b/2.JPG", "a.png", "b/1.jpeg", "b/notes.txt", ".hidden/3.png", "b/._4.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert walk_images(tmp_path) == ["a.png", "b/1.jpeg", "b/2.JPG"]
