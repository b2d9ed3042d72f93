"""Files that a visitor may send by mistake or on purpose."""

import io
import zipfile
from collections.abc import Iterator

import numpy as np
from PIL import Image


def strange_files(good: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each; ``good`` is an image that can be classified."""
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (64, 64), dtype=np.uint8)
    yield "empty.png", b""
    yield "text.png", b"not an image"
    yield "truncated.png", good[: len(good) // 2]
    yield "noise.jpg", b"\xff\xd8\xff\xe0" + rng.bytes(2000)
    yield "16-bit.png", _saved(Image.fromarray(grey.astype(np.uint16) * 257), "PNG")
    yield "float.tiff", _saved(Image.fromarray(grey.astype(np.float32)), "TIFF")
    yield "cmyk.jpg", _saved(Image.fromarray(grey).convert("CMYK"), "JPEG")
    yield "palette.png", _saved(Image.fromarray(grey).convert("P"), "PNG")
    yield "grey.png", _saved(Image.fromarray(grey), "PNG")
    transparent = Image.fromarray(grey).convert("RGBA")
    transparent.putalpha(128)
    yield "transparent.png", _saved(transparent, "PNG")
    frames = [Image.fromarray(np.roll(grey, shift, 0)) for shift in range(3)]
    yield "animated.gif", _saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    yield "animated.webp", _saved(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    yield "large.png", _saved(Image.new("RGB", (5000, 5000)), "PNG")
    yield "wide.png", _saved(Image.new("RGB", (64, 32)), "PNG")
    yield "one-pixel.png", _saved(Image.new("RGB", (1, 1)), "PNG")
    yield "drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    yield "script.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"
    yield "=cmd|' /C calc'!A0.png", good
    yield "<img src=x onerror=alert(1)>.png", good
    yield "../../etc/passwd", good
    yield from _fits_files(rng)
    inner = _zipped({"deep.png": good})
    yield "nested.zip", _zipped({"inner.zip": inner, "fine.png": good})
    yield "tricks.zip", _zipped({"../../a.png": good, "/b.png": good, "fine.png": good})
    yield "bomb.zip", _zipped({f"{n}.bmp": b"BM" + bytes(9_000_000) for n in range(10)})
    yield "cut.zip", _zipped({"fine.png": good})[:-10]


def _fits_files(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    try:
        from astropy.io import fits
    except ImportError:
        return

    def written(data: np.ndarray) -> bytes:
        file = io.BytesIO()
        fits.PrimaryHDU(data).writeto(file)
        return file.getvalue()

    sky = rng.normal(100, 5, (3, 64, 64)).astype(np.float32)
    some = sky.copy()
    some[:, :8] = np.nan
    yield "some-nan.fits", written(some)
    yield "all-nan.fits", written(np.full_like(sky, np.nan))
    yield "infinite.fits", written(np.full_like(sky, np.inf))
    yield "constant.fits", written(np.zeros_like(sky))
    yield "four-axes.fits", written(sky[None])
    yield "spectrum.fits", written(sky[0, 0])
    yield "cut.fits", written(sky)[:4000]
    yield "lies.fits", written(sky).replace(b"64", b"99", 1)


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)  # type: ignore[arg-type]
    return file.getvalue()


def _zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()
