"""Images of parts, written a cell at a time."""

import numpy as np
import pytest
from safetensors.numpy import save

from bench.store.arrays import CellImages, read_images, write_arrays
from bench.store.parts import ADVERSARIAL


def test_images_are_written_as_safetensors_does_and_one_cell_at_a_time(tmp_path):
    rng, alive = np.random.default_rng(0), []
    images = {key: rng.random((n, 3, 5, 4), np.float32) for key, n in (("b", 1), ("c" * 20, 12), ("a", 3), ("d", 0))}

    def read(key):
        alive.append(key)
        return images[key]

    write_arrays(tmp_path, {}, {key: CellImages(x.shape, lambda key=key: read(key)) for key, x in images.items()})
    assert (tmp_path / ADVERSARIAL).read_bytes() == save(images)
    assert sorted(alive) == sorted(images)
    for key, x in images.items():
        assert np.array_equal(read_images(tmp_path, key), x)


def test_an_error_of_the_disk_passes(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        write_arrays(tmp_path / "none", {}, {"a": CellImages.of(np.zeros((1, 1, 2, 2), np.float32))})
