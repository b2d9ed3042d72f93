"""A set larger than memory: every step stays below a stated bound."""

import subprocess
import sys
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pytest

from galaxies.image_set import BLOCK_BYTES

COUNT, SIDE = 7_000, 128  # 344 MB of pixels, which compress to little
BOUND_BYTES = 10 * BLOCK_BYTES
"""What a pass over the pixels may add to the memory of the process: a few blocks, not the set."""


@pytest.fixture(scope="module")
def large_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "large.h5"
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (1, SIDE, SIDE, 1), dtype=np.uint8)
    with h5py.File(path, "w") as file:
        images = file.create_dataset(
            "images", (COUNT, SIDE, SIDE, 3), "u1", chunks=(8, SIDE, SIDE, 3), compression="lzf"
        )
        for start in range(0, COUNT, 500):
            shades = np.arange(start, start + 500, dtype=np.uint16)
            block = np.zeros((500, SIDE, SIDE, 3), np.uint8)
            block[:, :8, :8] = noise[:, :8, :8]
            block[:, 10, 10, 0], block[:, 10, 10, 1] = shades % 256, shades // 256
            images[start : start + 500] = block
        file["ans"] = np.arange(COUNT) % 3
    return path


def peak_growth(code: str, *words: object) -> int:
    """Run ``code`` in a fresh process; bytes by which its largest memory grew during it."""
    program = textwrap.dedent(
        """
        import sys
        import numpy, torch, h5py, PIL.Image, scipy.fft, scipy.ndimage, tqdm
        import galaxies.pack, galaxies.duplicates, galaxies.split
        torch.set_num_threads(1)
        def peak():  # unlike ru_maxrss, not inherited from the process that started this one
            lines = open("/proc/self/status").read().splitlines()
            return int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
        before = peak()
        {code}
        print((peak() - before) * 1024)
        """
    ).format(code=code)
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        "from pathlib import Path; from galaxies.pack import pack; "
        "pack(sys.argv[1], Path(sys.argv[2]) / 'out.h5', size=32, progress=False)",
        "from galaxies.sources import open_image_set; open_image_set(sys.argv[1]).fingerprints()",
        "from galaxies.sources import open_image_set; from galaxies.hdf5 import write_hdf5; "
        "from pathlib import Path; "
        "write_hdf5(open_image_set(sys.argv[1]).select(numpy.arange(6999, -1, -1)), "
        "Path(sys.argv[2]) / 'out.h5')",
        "from pathlib import Path; from galaxies.split import store_split; "
        "store_split(Path(sys.argv[1]), overwrite=True)",
    ],
    ids=["pack", "fingerprints", "write in another order", "split"],
)
def test_a_pass_stays_below_the_bound(large_file, tmp_path, code):
    pixels = COUNT * SIDE * SIDE * 3
    assert pixels > 2 * BOUND_BYTES
    assert peak_growth(code, large_file, tmp_path) < BOUND_BYTES


def test_the_bound_would_notice_a_set_in_memory(large_file, tmp_path):
    code = "from galaxies.sources import open_image_set; open_image_set(sys.argv[1]).pixels"
    assert peak_growth(code, large_file, tmp_path) > BOUND_BYTES


def test_blocks_hold_what_they_say(tiny_set):
    rows = []
    for block_rows, pixels in tiny_set.blocks(block_bytes=50_000):
        assert pixels.numel() <= 50_000
        rows += block_rows.tolist()
    assert rows == list(range(120))
