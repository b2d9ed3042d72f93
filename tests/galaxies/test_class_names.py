"""Classes that are called by numbers keep the order of the numbers, and are found by them."""

import numpy as np
import pytest

from galaxies.class_names import class_index, class_order
from galaxies.errors import InputError
from galaxies.sources import open_image_set
from galaxies.tables import read_table


def test_numbers_are_in_the_order_of_their_values_and_words_of_their_letters():
    numbers = [str(number) for number in range(12)]
    assert class_order(reversed(numbers)) == tuple(numbers)
    assert class_order(["10.0", "2.0", "-1"]) == ("-1", "2.0", "10.0")
    assert class_order(["class 10", "class 9"]) == ("class 9", "class 10")
    assert class_order(["10", "2", "lens"]) == ("10", "2", "lens")
    assert class_order(["1e999", "2", "10"]) == ("10", "1e999", "2")


def test_a_folder_and_a_table_of_eleven_numbered_classes_keep_the_numbers(tmp_path, make_picture):
    for number in range(11):
        (tmp_path / "in" / str(number)).mkdir(parents=True)
        make_picture(number).save(tmp_path / "in" / str(number) / "a.png")
    image_set = open_image_set(tmp_path / "in")
    assert [image_set.class_names[label] for label in image_set.labels] == [
        name.split("/")[0] for name in image_set.ids
    ]
    assert image_set.class_index("10") == 10
    rows = "\n".join(f"{number},{number / 7}" for number in range(11))
    (tmp_path / "t.csv").write_text(f"class,mag\n{rows}\n")
    assert read_table(tmp_path / "t.csv").known_labels.tolist() == list(range(11))


@pytest.mark.parametrize("ending", ["", ".0"])
def test_where_every_name_is_a_number_text_is_a_name(ending):
    names = tuple(f"{number}{ending}" for number in range(1, 6))
    assert class_index("1", names) == class_index("1.0", names) == class_index(0, names) == 0
    for absent in ("0", "6", "lens"):
        with pytest.raises(InputError, match=f"no class {absent!r}; the classes are: 1"):
            class_index(absent, names)


def test_names_that_are_not_all_numbers_may_be_called_by_index():
    names = ("1", "2", "lens")
    assert class_index("1", names) == 0
    assert class_index("0", names) == 0
    assert class_index(np.int64(2), names) == 2
