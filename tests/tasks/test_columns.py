"""Which columns hold images and labels: by type first, then by name, or as the user says."""

import datasets
import pytest

from hf_l3rs.errors import DataError
from hf_l3rs.tasks.images import class_ids, find_columns, read_labels


class TestFindColumns:
    image, number, text = datasets.Image(), datasets.Value("int64"), datasets.Value("string")
    classes = datasets.ClassLabel(names=["a", "b"])

    @pytest.mark.parametrize(
        ("columns", "found"),
        [
            ({"img": image, "fine_label": classes, "id": number}, ("img", "fine_label")),
            ({"photo": image, "labels": number, "source_index": number}, ("photo", "labels")),
            ({"mask": image, "image": image, "label": classes}, ("image", "label")),
            ({"image": image, "fine_label": classes, "coarse_label": classes}, ("image", "fine_label")),
        ],
    )
    def test_by_type_then_name(self, columns, found):
        assert find_columns(datasets.Features(columns)) == found

    def test_given(self):
        features = datasets.Features(a=self.image, b=self.image, c=self.classes, d=self.number)
        assert find_columns(features, image_column="b", label_column="d") == ("b", "d")

    @pytest.mark.parametrize(
        ("columns", "given", "message"),
        [
            ({"label": classes}, {}, "no image column; its columns are label"),
            ({"image": image, "text": text}, {}, "no label column.*name one with label_column"),
            ({"a": image, "b": image, "label": classes}, {}, r"several image columns \(a, b\)"),
            ({"image": image, "a": classes, "b": classes}, {}, r"several label columns \(a, b\)"),
            ({"image": image, "label": classes}, {"image_column": "img"}, "no column 'img'.*it has image, label"),
            ({"image": image, "label": classes}, {"image_column": "label"}, "must hold images"),
            ({"image": image, "label": text}, {"label_column": "label"}, "must hold class labels or integers"),
        ],
    )
    def test_errors(self, columns, given, message):
        with pytest.raises(DataError, match=message):
            find_columns(datasets.Features(columns), **given)


def test_class_ids_prefers_names():
    # Digit data sets name their classes by numbers, which need not be the ids.
    assert class_ids(["9", "8"], ["9", 1]) == [0, 1]


def test_the_list_of_classes_is_not_endless():
    with pytest.raises(DataError, match="no class 'x'") as error:
        class_ids([f"class {number}" for number in range(1000)], ["x"])
    assert len(str(error.value)) < 600


def test_numbers_that_are_no_class_ids_are_refused():
    """Their names would fill the memory."""
    data = datasets.Dataset.from_dict({"label": [0, 2**40]})
    with pytest.raises(DataError, match="numbers up to 1099511627776"):
        read_labels(data, "label")
