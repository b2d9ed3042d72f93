"""A table of photometry joined to images by name: each image gets the features of its row."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from galaxies.errors import InputError
from galaxies.image_set import ImageSet
from galaxies.tables import Table, TableColumns, read_table, warn_of_values_of_one_class


@dataclass(frozen=True)
class TableJoin:
    """A table whose rows are found by the ids of images.

    Attributes
    ----------
    table : Table
    allowed : tuple of str
        Columns that are used although they give the class away.
    """

    table: Table
    allowed: tuple[str, ...] = ()

    def rows_of(self, ids: np.ndarray) -> np.ndarray:
        """(N,) int64 row of each image, by its id, or by the name of its file without the ending.

        Raises
        ------
        InputError
            If an image has no row; names the first.
        """
        row_of = {str(name): row for row, name in enumerate(self.table.ids)}
        found = [row_of.get(str(name), row_of.get(PurePosixPath(str(name)).stem)) for name in ids]
        self._refuse_shared_rows(ids, found)
        absent = [str(name) for name, row in zip(ids, found, strict=True) if row is None]
        if absent:
            listed = ", ".join(absent[:5]) + (" ..." if len(absent) > 5 else "")
            raise InputError(
                f"{len(absent)} of {len(ids)} images have no row in "
                f"{self.table.provenance.get('source', 'the table')}: {listed}; its ids look like "
                f"{', '.join(map(str, self.table.ids[:3]))} (--table-id names their column)"
            )
        return np.array(found, dtype=np.int64)

    def _refuse_shared_rows(self, ids: np.ndarray, found: list[int | None]) -> None:
        """`spiral/1.png` and `merger/1.png` are two galaxies, and row 1 is one."""
        first_of: dict[int, str] = {}
        for name, row in zip(ids, found, strict=True):
            if row is not None and (first := first_of.setdefault(row, str(name))) != str(name):
                raise InputError(
                    f"{first} and {name} would both take the row of id {self.table.ids[row]}; "
                    "give the table the whole ids of the images (--table-id names their column)"
                )

    def onto(self, image_set: ImageSet) -> ImageSet:
        """The set with the table's features after its own.

        Raises
        ------
        InputError
            If an image has no row, or a feature name stands in both.
        """
        both = sorted(set(image_set.feature_names) & set(self.table.feature_names))
        if both:
            raise InputError(
                f"the images already have features named {', '.join(both)}; rename them, or leave "
                "them out with --table-exclude"
            )
        features = self.table.features[self.rows_of(image_set.ids)].astype(np.float32)
        source, names = self.table.provenance.get("source", "the table"), self.table.feature_names
        warn_of_values_of_one_class(source, features, names, image_set.labels, "--table-exclude")
        note = {
            "source": self.table.provenance.get("source"),
            "sha256": self.table.provenance.get("sha256"),
            "columns": list(self.table.feature_names),
            "left_out": self.table.provenance.get("left_out", {}),
            "allowed": list(self.allowed),
        }
        return dataclasses.replace(
            image_set,
            features=np.concatenate([image_set.features, features], axis=1),
            feature_names=image_set.feature_names + self.table.feature_names,
            provenance=image_set.provenance | {"joined_table": note},
        )


def read_join(
    path: Path,
    id_column: str | None,
    *,
    exclude: tuple[str, ...] = (),
    allow: tuple[str, ...] = (),
    with_colours: bool = False,
) -> TableJoin:
    """Read a table to join.

    Raises
    ------
    InputError
        If no column of ids is found, or an id stands in two rows.
    """
    columns = TableColumns(id=id_column, exclude=exclude, allow=allow, colours=with_colours)
    table = read_table(path, columns, labelled=False)
    if table.provenance["id_column"] is None:
        raise InputError(
            f"{path} has no column of unique ids by which its rows could be given to images; name "
            "it with --table-id"
        )
    names, counts = np.unique(table.ids, return_counts=True)
    if (counts > 1).any():
        raise InputError(
            f"{path}: these ids stand in more than one row: {', '.join(names[counts > 1][:5])}"
        )
    return TableJoin(table, allow)
