"""From the flags about columns to the columns of a table."""

from classify.tabular.options import ColumnOptions
from galaxies.tables import TableColumns


def columns_of(options: ColumnOptions, *, colours: bool) -> TableColumns:
    """The parts that the flags give to columns; ``colours`` adds differences of magnitudes."""
    return TableColumns(
        label=options.class_column,
        id=options.id_column,
        group=options.group_column,
        split=options.split_column,
        features=options.columns,
        exclude=options.exclude_column,
        allow=options.allow_column,
        colours=colours,
    )
